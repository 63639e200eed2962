"""What is published: an sdist, the wheel built from it, and that wheel in an environment where nothing else of ours is.

Its dependencies are those installed here, so that no network is needed; `make dist-check` installs them anew.
"""

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from pipeline.cli import command_names

ROOT = Path(__file__).parents[2]
_IMPORT_ALL = """
import importlib, pkgutil, pipeline, connectors
for package in (pipeline, connectors):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(pipeline.__file__)
"""
_ALL_TEMPLATES = """
from pipeline.ui.web import templates
found = templates()
for name in found.list_templates():
    found.get_template(name)
print(len(found.list_templates()))
"""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it: from what is tracked only."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(built[1])], check=True)
    # A path in such a file is searched, but what makes our own folder visible there is not carried out.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def run(program: Path, *words: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADWATER"))}
    done = subprocess.run(
        [str(program), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_has_every_file_of_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(built[1]).namelist()
    ours = {name for name in tracked() if name.startswith(("pipeline/", "connectors/"))}
    assert ours - set(names) == set(), "files of the packages that an installation would not have"
    assert {name for name in names if ".dist-info/" not in name} == ours


def test_an_sdist_has_what_is_needed_to_read_build_and_test(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        name for name in tracked() if name.startswith(("pipeline/", "connectors/", "schemas/", "tests/", "docs/"))
    }
    assert wanted - names == set()
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py", "Makefile"} <= names


def test_what_a_wheel_says_of_itself(built: tuple[Path, Path]) -> None:
    archive = zipfile.ZipFile(built[1])
    [place] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(archive.read(place))
    assert (said["Name"], said["License-Expression"]) == ("headwater", "Apache-2.0")
    assert {"api", "avro", "collector", "ui", "postgres", "redis"} <= set(said.get_all("Provides-Extra") or [])
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert not [line for line in said.get_all("Requires-Dist") or [] if "@" in line], "every dependency has a version"


def test_it_works_where_nothing_else_of_ours_is(installed: Path, tmp_path: Path) -> None:
    headwater, python = installed / "headwater", installed / "python"
    where = run(
        python, "-c", "import pipeline, connectors; print(pipeline.__file__, connectors.__file__)", folder=tmp_path
    )
    assert str(installed.parent) in where and str(ROOT) not in where
    said = run(headwater, "--help", folder=tmp_path)
    assert [name for name in command_names() if name not in said] == []
    (tmp_path / "curious.yaml").write_text("segment: curious\nwhen: {performed: {event: Page Viewed}}\n")
    (tmp_path / "events.jsonl").write_text('{"type": "page", "userId": "ada", "timestamp": "2026-03-01T09:00:00Z"}\n')
    words = "test curious.yaml --events events.jsonl --at 2026-03-01T09:30:00Z --expect user_id:ada".split()
    assert "as expected" in run(headwater, *words, folder=tmp_path)
    (tmp_path / "contract.yaml").write_text("contract: shop\nevents: {Page Viewed: {}}\n")
    assert "are valid" in run(headwater, "contracts", "check", "contract.yaml", folder=tmp_path)
    assert str(installed.parent) in run(python, "-c", _IMPORT_ALL, folder=tmp_path)
    assert int(run(python, "-c", _ALL_TEMPLATES, folder=tmp_path)) > 10
