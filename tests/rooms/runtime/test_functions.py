"""Functions of others: what they return, and what is said when they raise, hang, end, or cannot be loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.functions import MOST_FAILURES, FunctionFailed, Functions

CODE = """
import os, time

def twice(event):
    print("what it prints is not what it answers")
    return {"n": event["n"] * 2}

def raises(event):
    raise ValueError("no such city")

def hangs(event):
    time.sleep(60)

def spins(event):
    while True:
        pass

def ends(event):
    os._exit(3)

def fills(event):
    return len(bytearray(4 << 30))

def strange(event):
    return object()

def large(event):
    return "x" * 2_000_000
"""
NAMES = "twice raises hangs spins ends fills strange large".split()


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Functions]:
    """A package with functions, as if it were installed."""
    (tmp_path / "others_functions.py").write_text(CODE)
    info = tmp_path / "others_functions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others-functions\nVersion: 1.0\n")
    lines = [f"{name} = others_functions:{name}" for name in NAMES] + ["missing = others_functions:nothing"]
    (info / "entry_points.txt").write_text("[headwater.cleaning]\n" + "\n".join(lines) + "\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    made = Functions("headwater.cleaning", clock)
    yield made
    made.close()


NOW = [0.0]


def clock() -> float:
    return NOW[0]


def test_a_function_is_called_again_and_again(functions: Functions) -> None:
    assert [functions.call("twice", {"n": number}, 5_000) for number in range(50)] == [{"n": 2 * n} for n in range(50)]


FAILING: list[tuple[str, str]] = [
    ("raises", "raised ValueError: no such city"),
    ("hangs", "did not return within 300 ms"),
    ("spins", "did not return within 300 ms"),
    ("ends", "ended its process"),
    ("fills", "MemoryError"),
    ("strange", "not JSON"),
    ("large", "ended its process"),
    ("missing", "could not be loaded: AttributeError"),
    ("unknown", "no installed package has unknown"),
]


@pytest.mark.parametrize(("name", "what"), FAILING)
def test_a_failure_is_told_within_its_time_and_the_next_call_is_a_new_one(
    functions: Functions, name: str, what: str
) -> None:
    for _ in range(2):
        with pytest.raises(FunctionFailed, match=what):
            functions.call(name, {"n": 1}, 300)
    assert functions.call("twice", {"n": 1}, 5_000) == {"n": 2}


def test_one_that_always_fails_rests_for_a_while(functions: Functions) -> None:
    for _ in range(MOST_FAILURES):
        with pytest.raises(FunctionFailed, match="raised"):
            functions.call("raises", {}, 1_000)
    for _ in range(1_000):
        with pytest.raises(FunctionFailed, match="not called for a while"):
            functions.call("raises", {}, 1_000)
    NOW[0] += 11
    with pytest.raises(FunctionFailed, match="raised"):
        functions.call("raises", {}, 1_000)


def test_an_argument_larger_than_a_pipe_arrives(functions: Functions) -> None:
    argument: dict[str, Any] = {"n": 1, "text": "x" * 300_000}
    assert functions.call("twice", argument, 5_000) == {"n": 2}
