"""The template of a connector passes the suite it comes with, is as short as its page says, and is found."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "examples" / "connector"


def test_the_template_passes_its_suite(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{TEMPLATE}:{ROOT}"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(TEMPLATE),
    ]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout or "10 passed" in done.stdout, done.stdout


def test_it_is_under_sixty_lines() -> None:
    assert len((TEMPLATE / "headwater_sqlite.py").read_text().splitlines()) < 60


def test_its_entry_point_makes_it_a_kind(tmp_path: Path) -> None:
    """As an installed package has it: the kind is found, a definition of it valid."""
    info = tmp_path / "headwater_sqlite-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headwater-sqlite\nVersion: 0.1.0\n")
    declared = (TEMPLATE / "pyproject.toml").read_text()
    assert '[project.entry-points."headwater.destinations"]\nsqlite = "headwater_sqlite:SqliteConnector"' in declared
    (info / "entry_points.txt").write_text("[headwater.destinations]\nsqlite = headwater_sqlite:SqliteConnector\n")
    code = (
        "from pipeline.definitions.destinations import DestinationDefinition as D\n"
        "found = D.model_validate({'destination': 'mine', 'kind': 'sqlite', 'path': 'x.db'})\n"
        "print(found.connector.__name__, found.compiled().mode)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{TEMPLATE}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "SqliteConnector audience", done.stderr
