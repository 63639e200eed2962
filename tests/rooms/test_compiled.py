"""The compiled rooms: a source that is newer than its compiled form is refused, and the bytes are those of Python."""

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from pipeline.compiled import compiled_modules, refuse_what_is_stale
from pipeline.errors import HeadwaterError
from setup import HOT

HERE = Path(__file__).parents[2]
SUFFIX = EXTENSION_SUFFIXES[0]
# Python's own finder, told to know nothing of our compiled modules.
ONLY_SOURCES = """
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

class OnlySources:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("pipeline.") and path:
            return FileFinder(path[0], (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)

if {pure}:
    sys.meta_path.insert(0, OnlySources)
from tests.rooms.compiled_digest import main
main()
"""


def test_every_hot_room_is_there() -> None:
    assert [name for name in HOT if not (HERE / name).exists()] == []


def test_a_source_that_is_newer_than_its_compiled_form_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "pipeline"
    package.mkdir()
    (tmp_path / "pyproject.toml").touch()
    source, other = package / "plan.py", package / "other.py"
    for file in (source, other, package / f"plan{SUFFIX}", package / f"hot__mypyc{SUFFIX}"):
        file.touch()
        os.utime(file, (1_000, 1_000))
    assert compiled_modules(package) == [source]
    os.utime(other, (2_000, 2_000))
    refuse_what_is_stale(package)
    os.utime(source, (2_000, 2_000))
    with pytest.raises(HeadwaterError, match=r"plan\.py was changed after it was compiled"):
        refuse_what_is_stale(package)


def digest(pure: bool) -> list[str]:
    """What a life of events leads to, told by a process of its own: the kind of module, and a digest of all bytes."""
    done = subprocess.run(
        [sys.executable, "-c", ONLY_SOURCES.format(pure=pure)], cwd=HERE, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not compiled_modules(), reason="nothing is compiled; make compile")
def test_the_command_runs_compiled_in_whatever_folder(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("headwater")), "run", "unify", "--help"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stderr == b""


@pytest.mark.skipif(not compiled_modules(), reason="nothing is compiled; make compile")
def test_compiled_rooms_say_and_keep_the_same_bytes() -> None:
    compiled, pure = digest(pure=False), digest(pure=True)
    assert (compiled[0], pure[0]) == ("compiled", "pure")
    assert compiled[1] == pure[1]
