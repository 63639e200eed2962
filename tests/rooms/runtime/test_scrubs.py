"""Files of a store that was away while others had its partition: what was erased meanwhile is gone from them too."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime import task
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.rocksdb import RocksStores
from pipeline.runtime.rocksdb.scrub import write_anew
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import CountingStage, World, run_idle

SECRET = "nobody-is-to-know-this"
SETTINGS = WorkerSettings(scrub_interval_ms=1_000)


class KeepingStage(CountingStage):
    """Keeps the last word of each key. `forget` deletes it, from the files too; so does `replace`, with another."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        key, value = b"c" + (record.key or b""), record.value or b""
        if value in (b"forget", b"replace"):
            state.scrub(key)
        if value == b"forget":
            state.delete(key)
        else:
            state.put(key, value)

    def encode(self, key: bytes, value: Any) -> bytes:
        return bytes(value)

    def decode(self, key: bytes, data: bytes) -> Any:
        return data


class Machines:
    """Machines that take the one partition in turn, each with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.world = World(partitions=1)
        self.folder = folder

    def take(self, name: str) -> Worker:
        self.world.disks[name] = RocksStores(self.folder / name, compressed=False)  # type: ignore[assignment]
        worker = self.world.worker(name, make_stage=KeepingStage, settings=SETTINGS)
        run_idle(worker)
        return worker

    def say(self, worker: Worker, *words: tuple[str, str]) -> None:
        self.world.say(*words)
        run_idle(worker)

    def leave(self, name: str, worker: Worker) -> None:
        worker.close()
        self.world.broker.expire_member("counting", f"counting-{name}")

    def visit(self, name: str, *words: tuple[str, str], scrubs: bool = False) -> None:
        """Take the partition, say what is to be said, scrub what is to be scrubbed, and leave."""
        worker = self.take(name)
        if words:
            self.say(worker, *words)
        if scrubs:
            self.scrub(worker)
        self.leave(name, worker)

    def scrub(self, worker: Worker) -> None:
        """Let the time for it pass, and what is due be done and noted."""
        for n in range(3):
            self.world.now_ms += SETTINGS.scrub_interval_ms
            self.say(worker, ("z", f"word {n}"))
            store: Any = worker.tasks[0].store
            for _ in range(1_000):
                if not store.is_scrubbing():
                    break
                time.sleep(0.005)

    def knows(self, name: str) -> bool:
        """Whether the secret stands in a file of a machine's closed store."""
        return any(SECRET.encode() in file.read_bytes() for file in (self.folder / name).rglob("*.sst"))


@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize("how", ["forget", "replace"])
def test_what_was_erased_while_a_store_was_away_is_gone_from_its_files(
    how: str, is_compacted: bool, tmp_path: Path
) -> None:
    machines = Machines(tmp_path)
    machines.visit("0", ("a", SECRET), ("b", "w"))
    assert machines.knows("0")
    machines.visit("1", ("a", how), scrubs=True)
    assert not machines.knows("1")
    if is_compacted:
        machines.world.broker.compact("counting-changelog")
    first = machines.take("0")
    machines.scrub(first)
    assert not first.tasks[0].to_scrub, "once is enough"
    machines.leave("0", first)
    assert not machines.knows("0")


def test_a_store_that_went_before_it_was_scrubbed_is_when_it_comes_back(tmp_path: Path) -> None:
    """Another has done so meanwhile, with its own files, and noted that it is done."""
    machines = Machines(tmp_path)
    machines.visit("0", ("a", SECRET))
    machines.visit("0", ("a", "forget"))
    assert machines.knows("0")
    machines.visit("1", scrubs=True)
    # It catches up, and goes once more before the time for it has come.
    for _ in range(2):
        machines.visit("0")
    assert machines.knows("0")
    machines.visit("0", scrubs=True)
    assert not machines.knows("0")


def test_more_than_is_told_one_by_one_has_all_files_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "_MOST_TOLD", 3)
    machines = Machines(tmp_path)
    machines.visit("0", ("a", SECRET))
    second = machines.take("1")
    machines.say(second, ("a", "forget"))
    for key in "bcde":
        machines.say(second, (key, "forget"))
    machines.scrub(second)
    machines.leave("1", second)
    first = machines.take("0")
    assert first.tasks[0].to_scrub == {b""}
    machines.scrub(first)
    machines.leave("0", first)
    assert not machines.knows("0")


def test_a_store_made_anew_of_the_whole_changelog_does_not_keep_what_it_passed(tmp_path: Path) -> None:
    """The former value stands in the changelog until the cleaner comes: slices that are restored one by one keep it."""
    machines = Machines(tmp_path)
    first = machines.take("0")
    machines.say(first, ("a", SECRET))
    machines.say(first, ("a", "forget"))
    machines.scrub(first)
    machines.leave("0", first)
    second = machines.take("1")
    assert second.tasks[0].to_scrub == {b"ca"}
    machines.scrub(second)
    assert not second.tasks[0].to_scrub
    machines.leave("1", second)
    assert not machines.knows("1")


def test_a_store_that_was_never_away_scrubs_once(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    machines.visit("0", ("a", SECRET), ("a", "forget"), scrubs=True)
    again = machines.take("0")
    assert not again.tasks[0].to_scrub
    machines.leave("0", again)


def test_what_is_erased_again_while_its_files_are_rewritten_is_scrubbed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewriting may have passed its place already, and takes minutes in a large store."""
    passed, may_end = threading.Event(), threading.Event()

    def rewrites(store: Any, prefix: bytes) -> None:
        write_anew(store, prefix)
        passed.set()
        assert may_end.wait(60)

    monkeypatch.setattr("pipeline.runtime.rocksdb.store.write_anew", rewrites)
    machines = Machines(tmp_path)
    worker = machines.take("0")
    machines.say(worker, ("a", "w"))
    machines.say(worker, ("a", "forget"))
    machines.world.now_ms += SETTINGS.scrub_interval_ms
    machines.say(worker, ("z", "w"))
    assert passed.wait(60)
    machines.say(worker, ("a", SECRET))
    store: Any = worker.tasks[0].store
    store._values.flush()
    machines.say(worker, ("a", "forget"))
    may_end.set()
    for _ in range(2):  # the first ends, and the other begins
        machines.scrub(worker)
    assert not worker.tasks[0].to_scrub, "once more is enough"
    machines.leave("0", worker)
    assert not machines.knows("0")
