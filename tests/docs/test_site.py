"""The docs site: it is built, strictly, with every page of the repository and a reference from the code."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import command_names
from pipeline.settings import Settings
from pipeline.topology import TOPICS

ROOT = Path(__file__).parents[2]
MAKE = ROOT / "docs" / "site" / "pages.py"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    command = [sys.executable, str(MAKE), str(folder)]
    subprocess.run(command, check=True, env={**environment, "PYTHONPATH": str(ROOT)})
    return folder


def built(folder: Path) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("zensical")
    return subprocess.run(
        [str(program), "build", "--strict", "--clean"], cwd=folder, capture_output=True, text=True, check=False
    )


def in_the_menu(entries: list[Any]) -> set[str]:
    found: set[str] = set()
    for entry in entries:
        [(_, place)] = entry.items()
        found |= {place} if isinstance(place, str) else in_the_menu(place)
    return found


def test_the_site_is_built_and_a_link_to_nowhere_is_not(source: Path) -> None:
    done = built(source)
    assert done.returncode == 0, done.stdout + done.stderr
    tutorial = (source / "html" / "docs" / "tutorial" / "index.html").read_text()
    assert "Ten minutes with Headwater" in tutorial and "not run:" not in tutorial.split("<article")[0]
    page = source / "pages" / "docs" / "tutorial.md"
    text = page.read_text()
    page.write_text(text + "\n[nowhere](nowhere.md)\n")
    assert built(source).returncode != 0
    page.write_text(text)


def test_every_page_is_in_the_menu(source: Path) -> None:
    menu = in_the_menu(tomllib.loads((source / "zensical.toml").read_text())["project"]["nav"])
    pages = {str(page.relative_to(source / "pages")) for page in (source / "pages").rglob("*.md")}
    assert menu - pages == set()
    # The decisions are found by the pages that lead to them.
    assert {page for page in pages - menu if "/decisions/" not in page} == set()


def test_the_reference_has_everything(source: Path) -> None:
    reference = source / "pages" / "docs" / "reference"
    commands, settings, topics = ((reference / f"{name}.md").read_text() for name in ("commands", "settings", "topics"))
    assert [name for name in command_names() if f"## headwater {name}\n" not in commands] == []
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in settings] == []
    assert "HEADWATER_COLLECTOR__PORT" in settings
    assert [topic.name for topic in TOPICS if f"| `{topic.name}` |" not in topics] == []
