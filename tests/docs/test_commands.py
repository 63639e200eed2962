"""What README and docs tell people to type exists, and every command helps itself."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from pipeline import errors
from pipeline.api.settings import ApiSettings
from pipeline.cli import build, command_names
from pipeline.collector.metrics import CollectorMetrics
from pipeline.collector.settings import CollectorSettings
from pipeline.deliver.metrics import DeliverMetrics
from pipeline.errors import HeadwaterError
from pipeline.runtime.metrics import Metrics, StageCounters
from pipeline.settings import Settings
from pipeline.topology import TOPICS
from pipeline.ui.settings import UiSettings

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
APP = build()
COMMANDS: Any = typer.main.get_command(APP)
# A word of the sentence that a command stands in, or a place for the reader's own: no part of the command.
_ENDS = re.compile(r"\s{2,}|\s#|\s*[|>;&)]|…|\.\.\.|[,:]$")


def written(text: str) -> Iterator[str]:
    """The commands in a page: in code blocks and between backticks."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        for found in re.finditer(r"(?:^|[$(;&|]\s*)headwater (?=[-a-z])(.*)", line.strip()):
            yield _ENDS.split(found[1])[0].strip().strip("`'\"")


def resolve(words: list[str]) -> list[Any]:
    """The commands that words lead to, outermost first; the last one takes the rest. KeyError for an unknown one."""
    found, group = [COMMANDS], COMMANDS
    for word in words:
        if not hasattr(group, "commands"):
            break
        if word.startswith("-"):
            continue
        group = group.commands[word]
        found.append(group)
    return found


CASES = sorted({(str(page.relative_to(ROOT)), command) for page in PAGES for command in written(page.read_text())})


def test_commands_are_found_at_all() -> None:
    assert {"README.md", "docs/definitions.md"} <= {page for page, _ in CASES}
    assert len(CASES) > 15


@pytest.mark.parametrize(("page", "command"), CASES)
def test_a_written_command_exists_with_its_options(page: str, command: str) -> None:
    words = shlex.split(command)
    try:
        chain = resolve(words)
    except KeyError as unknown:
        raise AssertionError(f"{page}: `headwater {command}`: there is no {unknown}") from None
    options = {option for each in chain for parameter in each.params for option in parameter.opts}
    options |= {option for each in chain for parameter in each.params for option in parameter.secondary_opts}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in options | {"--help", "-h"}, f"{page}: `headwater {command}`: {word}"


def all_commands() -> Iterator[tuple[str, ...]]:
    for name, command in COMMANDS.commands.items():
        yield (name,)
        for inner in getattr(command, "commands", {}):
            yield (name, inner)


@pytest.mark.parametrize("words", sorted(all_commands()), ids=" ".join)
def test_every_command_helps_itself(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(APP, [*words, "--help"])
    assert said.exit_code == 0, said.output
    command = resolve(list(words))[-1]
    if hasattr(command, "commands"):
        assert command.help, "a group says what it is for"
    else:
        assert f"Example: headwater {words[0]}" in command.help or "Example: export" in command.help, words


def test_every_command_is_named_in_the_docs() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in command_names() if f"headwater {name}" not in text] == []


def test_every_topic_has_its_writer_and_reader_told() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Who writes what")[2].partition("\n## ")[0]
    assert [topic.name for topic in TOPICS if f"`{topic.name}`" not in table] == []


def test_every_setting_is_described() -> None:
    text = (ROOT / "docs" / "operations" / "running.md").read_text()
    missing = [name for name in Settings.model_fields if f"`{name}`" not in text]
    assert missing == []
    assert "`HEADWATER_CONFIG`" in text.partition("## Settings")[2].partition("\n## ")[0]


def test_every_setting_is_read_somewhere() -> None:
    read = {
        node.attr
        for path in (ROOT / "pipeline").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    groups = [Settings, ApiSettings, CollectorSettings, UiSettings]
    assert [name for group in groups for name in group.model_fields if name not in read] == []


def test_every_metric_is_described() -> None:
    text = (ROOT / "docs" / "operations" / "running.md").read_text()
    registry = CollectorRegistry()
    Metrics(registry).for_role("unify")
    DeliverMetrics(registry)
    CollectorMetrics(registry)
    StageCounters(registry, "unify", list)
    missing = [family.name for family in registry.collect() if not re.search(rf"`{family.name}(_total)?[`{{]", text)]
    assert missing == []


def test_every_error_is_described() -> None:
    text = (ROOT / "docs" / "operations" / "running.md").read_text()
    # Each module of the pipeline may have its own; the commands load them all.
    known = [kind for kind in HeadwaterError.__subclasses__() if kind.__module__.startswith("pipeline")]
    assert [kind.__name__ for kind in known if f"`{kind.__name__}`" not in text] == []


def test_every_error_of_the_catalogue_is_raised_somewhere() -> None:
    named = {
        node.id
        for path in (ROOT / "pipeline").rglob("*.py")
        for raised in ast.walk(ast.parse(path.read_text()))
        if isinstance(raised, ast.Raise) and raised.exc is not None
        for node in ast.walk(raised.exc)
        if isinstance(node, ast.Name)
    }
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert known - named == set()


def test_what_a_worker_says_is_quoted_as_it_says_it() -> None:
    text = (ROOT / "docs" / "operations" / "running.md").read_text()
    rows = text.partition("| a worker says |")[2].splitlines()[2:]
    quoted = {part.strip(" ,") for row in rows for part in re.split("[;…]", row.split("|")[1]) if part.strip(" ,")}
    sources = "".join(path.read_text() for path in (ROOT / "pipeline" / "runtime").rglob("*.py"))
    said = re.sub(r'"\s+f?"', "", sources)
    said = said.replace("{where}:", "at TOPIC/PARTITION@OFFSET:")
    assert len(quoted) > 8
    assert {part for part in quoted if part not in said} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    places = [place for place in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in place]
    assert [place for place in places if not (page.parent / place).exists()] == []
