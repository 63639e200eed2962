"""What every store does, in memory and on RocksDB."""

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runtime.adapters import StoreMeta, Stores
from pipeline.runtime.errors import Fatal, RuntimeFault
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.rocksdb import RocksStores
from pipeline.runtime.rocksdb import store as rocksdb_store


@pytest.fixture(params=["memory", "rocksdb"])
def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Stores]:
    """Gives the same stores again, as a new process would see them."""
    if request.param == "rocksdb":
        return lambda: RocksStores(tmp_path)
    stores = MemoryStores()
    return lambda: stores


META = StoreMeta(changelog=7, inputs={"events": 3, "links": 4}, written_ms=5)


def test_a_new_store_is_empty(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    assert store.meta() is None
    assert store.get(b"k") is None
    assert list(store.scan(b"")) == []
    assert list(store.timers()) == []
    store.close()


def test_values_rows_and_position_come_back_after_closing(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(3)
    store.write([(b"a1", b"x"), (b"a2", b"y"), (b"b", b"")], [], [(9, b"a1"), (5, b"b")], META)
    store.close()
    store = reopened().open(3)
    assert store.meta() == META
    assert list(store.scan(b"a")) == [(b"a1", b"x"), (b"a2", b"y")]
    assert store.get(b"b") == b""
    assert list(store.timers()) == [(5, b"b"), (9, b"a1")]
    store.close()
    other = reopened().open(4)
    assert other.meta() is None
    other.close()


def test_a_batch_is_applied_in_order_and_rows_go_before_they_come(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    store.write([(b"k", b"1"), (b"k", b"2"), (b"d", b"x"), (b"d", None)], [(1, b"k")], [(1, b"k")], META)
    assert store.get(b"k") == b"2" and store.get(b"d") is None
    assert list(store.timers()) == [(1, b"k")]
    store.write([(b"k", None), (b"never", None)], [(1, b"k"), (8, b"never")], [], META)
    assert list(store.scan(b"")) == [] and list(store.timers()) == []
    store.close()


def test_rows_are_in_order_of_time_then_key_from_any_start(reopened: Callable[[], Stores]) -> None:
    rows = [(255, b"b"), (256, b"a"), (256, b"b"), (1 << 40, b"")]
    store = reopened().open(0)
    store.write([], [], reversed(rows), META)
    assert list(store.timers()) == rows
    assert list(store.timers((256, b"aa"))) == rows[2:]
    store.close()


def test_keys_are_in_byte_order_and_a_prefix_ends(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    keys = [b"", b"\x00", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"\xff"]
    store.write([(key, b"v") for key in reversed(keys)], [], [], META)
    assert [key for key, _ in store.scan(b"")] == keys
    assert [key for key, _ in store.scan(b"a\xff")] == [b"a\xff", b"a\xff\xff"]
    assert [key for key, _ in store.scan(b"\xff")] == [b"\xff"]
    store.close()


def test_many_values_are_read_beside_what_goes_on(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    there = {b"a%d" % n: b"%d" % n for n in range(500)}
    store.write(there.items(), [], [], META)
    keys = [*there, b"never", b"a7"]
    values = store.reading(keys)
    assert values() == [*there.values(), None, b"7"]
    store.reading(keys)
    # Nobody waits for those; closing does.
    store.close()
    store = reopened().open(0)
    assert store.reading(keys)() == [*there.values(), None, b"7"]
    store.close()


def test_a_restored_slice_brings_the_rows_that_its_values_begin_with(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    store.write([(b"gone", bytes(8) + b"x")], [], [], META)
    store.restore({b"a": (9).to_bytes(8, "big") + b"x", b"b": bytes(8) + b"y", b"gone": None}, META)
    assert [key for key, _ in store.scan(b"")] == [b"a", b"b"]
    assert list(store.timers()) == [(9, b"a")] and store.meta() == META
    store.restore({b"a": (5).to_bytes(8, "big") + b"x"}, META)
    assert next(iter(store.timers())) == (5, b"a")
    store.close()


def test_a_store_is_open_only_once(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    with pytest.raises(RuntimeFault):
        reopened().open(0)
    store.close()
    reopened().open(0).close()


def test_a_wiped_store_is_a_new_one(reopened: Callable[[], Stores]) -> None:
    stores = reopened()
    store = stores.open(0)
    store.write([(b"k", b"v")], [], [(1, b"k")], META)
    store.close()
    stores.wipe(0)
    store = reopened().open(0)
    assert store.meta() is None and list(store.scan(b"")) == [] and list(store.timers()) == []
    store.close()


def test_an_iterator_that_was_not_ended_does_not_keep_the_store_open(reopened: Callable[[], Stores]) -> None:
    store = reopened().open(0)
    store.write([(b"a", b"v"), (b"b", b"v")], [], [(1, b"a"), (2, b"b")], META)
    assert next(store.timers()) == (1, b"a")
    assert next(iter(store.scan(b""))) == (b"a", b"v")
    store.close()
    reopened().open(0).close()


_WRITER = """
import tests.rules.taken_out
import sys
from pathlib import Path
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.rocksdb.store import RocksStores
options_of = RocksStores._options
def small(self):
    options = options_of(self)
    options.set_write_buffer_size(24 * 1024)
    return options
RocksStores._options = small
store = RocksStores(Path(sys.argv[1])).open(0)
before = []
for number in range(1, 1_000_000):
    rows = [(number, b"%09d" % (number * 10 + n)) for n in range(10)]
    values = [(key, b"%08d" % number + b"x" * 200) for _, key in rows]
    gone, before = before, rows
    store.write(values, gone, rows, StoreMeta(changelog=number))
    if number % 50 == 0:
        print(number, flush=True)
"""


@pytest.mark.parametrize("least", [200, 700, 1_500])
def test_killed_it_is_at_one_position_in_all_of_its_parts(least: int, tmp_path: Path) -> None:
    """SIGKILL while it is written to and flushed: what is there is what some write left, and nothing of a later one."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < least:
            continue
        writer.kill()
    store = RocksStores(tmp_path).open(0)
    meta = store.meta()
    keys = [key for key, _ in store.scan(b"")]
    rows = list(store.timers())
    store.close()
    assert meta is not None, "nothing was ever flushed"
    assert keys == [b"%09d" % (number * 10 + n) for number in range(1, meta.changelog + 1) for n in range(10)]
    assert rows == [(meta.changelog, b"%09d" % (meta.changelog * 10 + n)) for n in range(10)]


_HOLDER = """
import tests.rules.taken_out
import sys
from pathlib import Path
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.rocksdb.store import RocksStores
store = RocksStores(Path(sys.argv[1])).open(0)
store.write([(b"k", b"held")], [], [], StoreMeta(changelog=1))
print("open", flush=True)
sys.stdin.read()
store.close()
"""


def holder(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that has a store open until nothing more comes from its standard input."""
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"open\n"
    return process


def test_a_store_that_a_stopped_process_has_open_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its partition is another's by now: that one has a store of its own until the first is free again."""
    monkeypatch.setattr(rocksdb_store, "_PATIENCE_S", 0.2)
    stores = RocksStores(tmp_path)
    with holder(tmp_path) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        store = stores.open(0)
        assert store.meta() is None
        store.write([(b"k", b"meanwhile")], [], [], META)
        store.close()
        again = RocksStores(tmp_path).open(0)
        assert again.get(b"k") == b"meanwhile"
        again.close()
        stores.wipe(0)
        stopped.send_signal(signal.SIGCONT)
        stopped.communicate(b"")
        assert stopped.returncode == 0
    store = stores.open(0)
    assert store.get(b"k") == b"held"
    store.close()
    assert [each.name for each in tmp_path.iterdir()] == ["0"]


def test_what_was_used_meanwhile_goes_when_the_first_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocksdb_store, "_PATIENCE_S", 0.2)
    with holder(tmp_path) as stopped:
        RocksStores(tmp_path).open(0).close()
        assert (tmp_path / "0-2").exists()
        stopped.communicate(b"")
    store = RocksStores(tmp_path).open(0)
    assert store.get(b"k") == b"held" and not (tmp_path / "0-2").exists()
    store.close()


def test_who_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path) as ending:
        threading.Timer(0.5, ending.kill).start()
        RocksStores(tmp_path).open(0).close()
    assert [each.name for each in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize("family", ["values", "timers"])
def test_a_damaged_file_is_told_as_the_stores_failure_by_every_read(family: str, tmp_path: Path) -> None:
    """Raised as whatever RocksDB raises it would pass for an event that the stage cannot use: a dead letter."""
    stores = RocksStores(tmp_path, compressed=False)
    store = stores.open(0)
    keys = [b"a%06d" % n for n in range(2_000)]
    values = [(key, b"of the family of values" * 9) for key in keys]
    store.write(values, [], [(n, b"of the family of timers" * 9 + key) for n, key in enumerate(keys, 1)], META)
    store.close()
    [file] = [file for file in tmp_path.glob("0/*.sst") if b"of the family of " + family.encode() in file.read_bytes()]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    store = stores.open(0)
    readings: dict[str, list[Callable[[], object]]] = {
        "values": [lambda: [store.get(key) for key in keys], store.reading(keys), lambda: list(store.scan(b"a"))],
        "timers": [lambda: list(store.timers())],
    }
    for other, readers in readings.items():
        for read in readers:
            if other == family:
                with pytest.raises(Fatal, match=r"reading the store in .* failed.* delete the folder"):
                    read()
            else:
                read()
    store.close()


def test_what_was_read_ahead_is_not_kept_once_it_was_given(tmp_path: Path) -> None:
    store = RocksStores(tmp_path).open(0)
    store.write([(b"k", b"a value")], [], [], META)
    [value] = store.reading([b"k"])()
    assert [one for one in gc.get_referrers(value) if type(one) is list] == []
    store.close()
