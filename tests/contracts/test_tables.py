"""What every store of a read model's tables does, in memory and on RocksDB."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.tables import Tables
from pipeline.errors import StateError
from pipeline.runtime.memory import MemoryTables
from pipeline.runtime.rocksdb import RocksTables

NAMES = ("one", "other")


@pytest.fixture(params=["memory", "rocksdb"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Tables]:
    """Opens the same tables, as a new process would see them."""
    if request.param == "rocksdb":
        return lambda: RocksTables(tmp_path, NAMES)
    kept: dict[str, Any] = {}
    return lambda: MemoryTables(kept, NAMES)


def test_rows_of_a_table_are_its_own_and_come_back_after_closing(opened: Callable[[], Tables]) -> None:
    tables = opened()
    tables.write([("one", b"k", b"1"), ("other", b"k", b"2"), ("one", b"gone", b"x"), ("one", b"gone", None)])
    tables.close()
    tables = opened()
    assert (tables.get("one", b"k"), tables.get("other", b"k"), tables.get("one", b"gone")) == (b"1", b"2", None)
    tables.close()


def test_the_later_row_of_a_batch_counts(opened: Callable[[], Tables]) -> None:
    tables = opened()
    tables.write([("one", b"k", None), ("one", b"k", b"1"), ("one", b"k", b"2")])
    assert tables.get("one", b"k") == b"2"
    tables.close()


def test_rows_are_in_byte_order_from_any_start_and_a_prefix_ends(opened: Callable[[], Tables]) -> None:
    tables = opened()
    keys = [b"a", b"a/\x00", b"a/b", b"a/\xff", b"a0", b"b/a"]
    tables.write([("one", key, key) for key in reversed(keys)])
    assert [key for key, _ in tables.scan("one", b"")] == keys
    assert [key for key, _ in tables.scan("one", b"a/")] == keys[1:4]
    assert [key for key, _ in tables.scan("one", b"a/", b"a/b\x00")] == keys[3:4]
    assert list(tables.scan("one", b"c")) == []
    tables.close()


def test_tables_are_open_only_once(opened: Callable[[], Tables]) -> None:
    tables = opened()
    with pytest.raises(StateError):
        opened()
    tables.close()
    opened().close()
