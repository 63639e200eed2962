"""The rooms read no clock and draw no random number: their time is in the records, their names are hashes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PIPELINE = Path(__file__).parents[2] / "pipeline"
ROOMS = ("ingest", "identity", "profile", "segments", "activation", "cleaning", "contracts", "accounts", "unify")
SHARED = ("identifiers", "plans", "records", "topology")

# (module, name): calls that give something else each time.
IMPURE = {
    ("time", "*"),
    ("random", "*"),
    ("secrets", "*"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
    ("os", "urandom"),
    ("os", "getpid"),
    ("os", "environ"),
    ("os", "getenv"),
}
BUILTINS = {
    "hash": "differs from process to process for texts: use a hash of hashlib",
    "id": "differs from run to run",
    "open": "rooms do no I/O",
    "input": "rooms do no I/O",
    "print": "rooms do no I/O",
}


def impurities(source: str) -> Iterator[str]:
    """What a module uses that is not a function of its arguments, as "line: what"."""
    tree = ast.parse(source)
    hashing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__hash__"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = node.module.rpartition(".")[2]
            for name in node.names:
                if (module, name.name) in IMPURE or (module, "*") in IMPURE:
                    yield f"{node.lineno}: from {node.module} import {name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                if (name.name, "*") in IMPURE:
                    yield f"{node.lineno}: import {name.name}"
        elif isinstance(node, ast.Attribute):
            owner = node.value
            base = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if (base, node.attr) in IMPURE:
                yield f"{node.lineno}: {base}.{node.attr}"
        elif isinstance(node, ast.Call) and node not in hashing:
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            if called in BUILTINS:
                yield f"{node.lineno}: {called}(): {BUILTINS[called]}"


def files() -> list[Path]:
    found = [file for room in ROOMS for file in (PIPELINE / room).rglob("*.py")]
    found += [PIPELINE / f"{name}.py" for name in (*ROOMS, *SHARED) if (PIPELINE / f"{name}.py").exists()]
    return sorted(found)


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PIPELINE)))
def test_a_room_is_a_function_of_its_records(file: Path) -> None:
    assert list(impurities(file.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import random as r",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.utcnow()",
        "import datetime\ndatetime.date.today()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4",
        "import os\nos.urandom(8)",
        "import os\nos.environ['HOME']",
        "partition = hash('text') % 4",
        "open('file')",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert list(impurities(source))


def test_the_check_lets_pass_what_is_the_same_each_time() -> None:
    assert not list(
        impurities(
            "import uuid\nuuid.uuid5(space, name)\nfrom datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)"
        )
    )
    assert not list(impurities("class A:\n    def __hash__(self): return hash(self.name)"))
