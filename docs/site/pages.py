"""The pages of the docs site, put together: README and docs as they are in the repository, a reference from the code.

    python docs/site/pages.py build/site      the folder that zensical makes a site of (make site)

What is linked to in the repository, and is no page, is named without a link: a site has no repository beside it.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from pipeline.admin import wanted_topics
from pipeline.cli import build
from pipeline.settings import ENV_PREFIX, Settings
from pipeline.topology import TOPICS

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def sources() -> list[Path]:
    """Every page of the repository that the site has."""
    outside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*outside, *sorted((ROOT / "docs").rglob("*.md"))]


def place(page: Path) -> Path:
    """Where a page of the repository stands on the site."""
    relative = page.relative_to(ROOT)
    return relative.with_name("index.md") if relative.name == "README.md" else relative


def rewritten(page: Path, known: dict[Path, Path]) -> str:
    """A page whose links lead to pages of the site; the others are their words. Code is left alone."""

    def link(found: re.Match[str]) -> str:
        image, words, target, fragment = found[1], found[2], found[3], found[4] or ""
        if not target or "://" in target:
            return found[0]
        meant = (page.parent / target).resolve()
        if meant / "README.md" in known:
            meant = meant / "README.md"
        if meant in known:
            up = "../" * (len(place(page).parts) - 1)
            return f"{image}[{words}]({up}{known[meant].as_posix()}{fragment})"
        return words

    parts = re.split(r"(^```.*?^```$)", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def commands() -> Iterator[str]:
    """Every command with its help."""
    root: Any = typer.main.get_command(build())
    yield "# Commands\n\nFrom the code; `headwater COMMAND --help` says the same.\n"
    for name, command in sorted(root.commands.items()):
        for words, each in (
            (name, command),
            *((f"{name} {n}", c) for n, c in getattr(command, "commands", {}).items()),
        ):
            yield f"\n## headwater {words}\n\n{_help(each)}\n"
            rows = [_option(option) for option in each.params if "--help" not in option.opts]
            if rows:
                yield "\n| | |\n| --- | --- |\n" + "".join(rows)


def _help(command: Any) -> str:
    text = (command.help or "").strip()
    return re.sub(r"\s*Example: (.*)", r"\n\n    \1", text)


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return f"| {names} | {(getattr(option, 'help', None) or '').replace('|', '/')} |\n"


def settings() -> Iterator[str]:
    """Every setting, the groups' members too."""
    yield "# Settings\n\nFrom the code: names in headwater.yaml, and environment variables.\n\n"
    yield "| setting | variable | default | |\n| --- | --- | --- | --- |\n"
    for name, field in Settings.model_fields.items():
        yield _setting(name, name, field)
        for inner, member in getattr(field.annotation, "model_fields", {}).items():
            yield _setting(f"{name}.{inner}", f"{name}__{inner}", member)


def _setting(name: str, variable: str, field: Any) -> str:
    default = "" if field.is_required() or field.default_factory else repr(field.default)
    shown = "" if default in ("None", "PydanticUndefined") else f"`{default}`"
    description = (field.description or "").replace("|", "/")
    return f"| `{name}` | `{ENV_PREFIX}{variable.upper()}` | {shown} | {description} |\n"


def topics() -> Iterator[str]:
    """Every topic with what it is made with."""
    yield "# Topics\n\nFrom the code: what `headwater topics --create` makes with the usual settings.\n\n"
    yield "| topic | partitioned by | partitions | settings |\n| --- | --- | --- | --- |\n"
    own = Settings()
    made = {topic.name.removeprefix(own.prefix): topic for topic in wanted_topics(own)}
    for topic in TOPICS:
        wanted = made[topic.name]
        config = ", ".join(f"`{name}={value}`" for name, value in wanted.config.items())
        yield f"| `{topic.name}` | {topic.key} | {wanted.partitions} | {config} |\n"


def write(folder: Path) -> None:
    """Make the folder that the site is built from."""
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "pages"
    out.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("zensical.toml"), folder)
    images = sorted((ROOT / "docs" / "images").glob("*"))
    known = {page.resolve(): place(page) for page in (*sources(), *images)}
    for page in sources():
        target = out / place(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(rewritten(page, known))
    for image in images:
        (out / place(image)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, out / place(image))
    reference = out / "docs" / "reference"
    reference.mkdir(parents=True)
    for name, text in (("commands", commands()), ("settings", settings()), ("topics", topics())):
        (reference / f"{name}.md").write_text("".join(text))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
