"""Tables of others by a field of their rows: what a tombstone takes, and what a row leaves that gets another name."""

from typing import Any

import msgspec

from pipeline.runtime.kafka.references import Table
from pipeline.runtime.ports import Record


class Reader:
    """Gives what a topic has, in parts."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []

    def put(self, key: bytes | None, row: Any) -> None:
        value = msgspec.json.encode(row) if row is not None else None
        self.waiting.append(Record("/partners", 0, len(self.waiting), key, value, 0))

    def read_to_end(self) -> list[Record]:
        found, self.waiting = self.waiting, []
        return found

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        return self.read_to_end()

    def close(self) -> None: ...


def table(*records: tuple[bytes | None, Any]) -> Table:
    reader = Reader()
    for record in records:
        reader.put(*record)
    return Table(reader, "partners", ("contact", "email"), (), 100)  # type: ignore[arg-type]


def row(email: str, grade: int) -> dict[str, Any]:
    return {"contact": {"email": email}, "grade": grade}


def test_a_tombstone_takes_the_row_of_its_key_whatever_the_row_is_called() -> None:
    """Of somebody who was deleted at the partner nothing is joined any more."""
    found = table((b"\xff7", row("ada@x.io", 1)), (b"8", row("bob@x.io", 2)), (b"\xff7", None), (b"9", None))
    assert found.row("ada@x.io") is None
    assert found.row("bob@x.io") == row("bob@x.io", 2)


def test_a_row_that_gets_another_name_leaves_the_old_one() -> None:
    found = table((b"7", row("ada@x.io", 1)), (b"7", row("ada@y.io", 1)))
    assert (found.row("ada@x.io"), found.row("ada@y.io")) == (None, row("ada@y.io", 1))


def test_two_rows_may_change_names() -> None:
    found = table(
        (b"7", row("a", 1)), (b"8", row("b", 2)), (b"7", row("b", 1)), (b"8", row("a", 2)), (b"9", row("a", 3))
    )
    assert found.row("b") == row("b", 1)
    assert found.row("a") == row("a", 3)
    swapped = table((b"7", row("a", 1)), (b"8", row("a", 2)), (b"7", None))
    assert swapped.row("a") == row("a", 2), "another record has the name by now"


def test_rows_without_a_key_of_their_own_and_rows_that_are_none() -> None:
    found = table((None, row("a", 1)), (b"7", [1]), (b"7", {"contact": 1}), (None, None))
    assert found.row("a") == row("a", 1)
