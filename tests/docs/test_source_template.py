"""The template of a source passes the suite it comes with, is found as a kind, and the suite notices what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "examples" / "source"
MODULE = (TEMPLATE / "headwater_rows.py").read_text()


def suite(folder: Path, module: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(exist_ok=True)
    (folder / "headwater_rows.py").write_text(module)
    (folder / "test_headwater_rows.py").write_text((TEMPLATE / "test_headwater_rows.py").read_text())
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


def test_the_template_passes_its_suite(tmp_path: Path) -> None:
    done = suite(tmp_path / "mine", MODULE)
    assert done.returncode == 0 and "10 passed" in done.stdout, done.stdout


MISTAKES = {
    "one is left out behind a position": ("rowid > ?", "rowid > 1 + ?"),
    "the last comes again": ("rowid > ?", "rowid >= ?"),
    "in no order": ("ORDER BY rowid", "ORDER BY total DESC"),
    "more than asked for": ("LIMIT ?", "LIMIT 1 + ?"),
    "a failure says that there is nothing": (
        "        rows = self._database.execute(",
        "        try:\n            self._database.execute(self._select, (0, 1))\n"
        "        except sqlite3.Error:\n            return []\n        rows = self._database.execute(",
    ),
}


@pytest.mark.parametrize(("right", "wrong"), MISTAKES.values(), ids=list(MISTAKES))
def test_the_suite_notices(right: str, wrong: str, tmp_path: Path) -> None:
    assert right in MODULE
    done = suite(tmp_path / "mine", MODULE.replace(right, wrong))
    assert done.returncode == 1 and "failed" in done.stdout, done.stdout


def test_it_is_under_sixty_lines() -> None:
    assert len(MODULE.splitlines()) < 60


def test_its_entry_point_makes_it_a_kind(tmp_path: Path) -> None:
    """As an installed package has it: the kind is found, a definition of it valid, and a wrong one told."""
    declared = (TEMPLATE / "pyproject.toml").read_text()
    assert '[project.entry-points."headwater.sources"]\nsqlite_rows = "headwater_rows:RowsSource"' in declared
    installed(tmp_path)
    code = (
        "from pipeline.definitions.loader import load_text\n"
        "text = 'source: a\\ntopic: raw\\npull: {kind: sqlite_rows, path: x.db, table: t, every: 1m'\n"
        "print(load_text(text + '}')[0].name)\n"
        "for more in (', speed: 3}', ', batch: 0}'):\n"
        "    try: load_text(text + more)\n"
        "    except Exception as error: print(str(error).splitlines()[0])\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{TEMPLATE}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[0] == "a" and len(done.stdout.splitlines()) > 2, done


def installed(folder: Path) -> None:
    """What an installed package leaves behind, so that its entry point is found."""
    info = folder / "headwater_rows-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headwater-rows\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[headwater.sources]\nsqlite_rows = headwater_rows:RowsSource\n")
