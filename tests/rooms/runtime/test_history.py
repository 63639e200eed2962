"""Reading an input again beside the live stream: every record of it once, whatever happens in between."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.runtime.errors import Abortable
from pipeline.runtime.failpoints import Failpoints, no_failpoints
from pipeline.runtime.history import Pace
from pipeline.runtime.memory import MemoryBroker, MemoryStores, memory_adapters
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from pipeline.topology import Role
from tests.rooms.runtime.counting import Crash

READING = Role("reading", ("words",), "reading-changelog", tolerant=("words",), history="words")
KEY = b"all"


class ReadingStage:
    """Keeps [live words, words of history, next position, end]; `again` asks for everything before it."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        words = self._words(state)
        if record.value == b"again":
            words[2:] = [0, record.offset]
        words[0].append(record.value.decode())  # type: ignore[union-attr]
        if record.value == b"bad now":
            raise ValueError("a bad word")
        state.put(KEY, words)

    def _words(self, state: State) -> list[Any]:
        return state.get(KEY) or [[], [], 0, 0]

    def history(self, state: State) -> tuple[int, int] | None:
        _, _, start, end = self._words(state)
        return (start, end) if start < end else None

    def fold_history(self, records: Sequence[Record], reached: int, state: State, out: Outputs) -> None:
        words = self._words(state)
        for record in records:
            assert record.offset >= words[2], "a record came twice"
            words[1].append((record.value or b"").decode())
            if record.value == b"bad later":
                raise ValueError("a word that is bad in history")
        words[2] = reached
        state.put(KEY, words)

    def put_aside(self, record: Record, state: State, out: Outputs) -> None:
        words = self._words(state)
        words[0].append("put aside")
        state.put(KEY, words)

    def finish(self, state: State, out: Outputs) -> None:
        return

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        return

    def forget(self) -> None:
        return

    def encode(self, key: bytes, value: Any) -> bytes:

        return json.dumps(value).encode()

    def decode(self, key: bytes, data: bytes) -> Any:

        return json.loads(data)


class Reading:
    """One worker at a time on a broker with two partitions; every word goes into both."""

    def __init__(self, *words: str) -> None:
        self.broker = MemoryBroker()
        for topic in ("words", "reading-changelog", "dead-letters"):
            self.broker.create_topic(topic, 2)
        self.stores = MemoryStores()
        self.say(*words)

    def say(self, *words: str) -> None:
        for word in words:
            for partition in (0, 1):
                self.broker.produce("words", None, word.encode(), partition)

    def worker(self, failpoints: Failpoints = no_failpoints) -> Worker:
        make_stage: Any = lambda _: ReadingStage()  # noqa: E731
        worker = Worker(
            READING,
            make_stage,
            memory_adapters(self.broker, "reading", 0, lambda: 0, self.stores),
            WorkerSettings(batch_records=4, history_records=4, history_records_beside=2, history_records_alone=4),
            failpoints,
        )
        worker.start()
        return worker

    def end(self, worker: Worker) -> list[tuple[list[str], list[str]]]:
        """Run until nothing is left: (live, history) of each partition."""
        for _ in range(200):
            worker.run_once()
        assert worker.history_left() == {}
        found = [task.state.get(KEY) for _, task in sorted(worker.tasks.items())]
        return [(words[0], words[1]) for words in found]


WORDS = [f"w{number}" for number in range(11)]


def test_everything_before_is_read_once_and_live_goes_on() -> None:
    world = Reading(*WORDS, "again", "after")
    worker = world.worker()
    for _ in range(6):
        worker.run_once()
    world.say("later")
    assert world.end(worker) == [([*WORDS, "again", "after", "later"], WORDS)] * 2


@pytest.mark.parametrize("hit", range(1, 6))
@pytest.mark.parametrize("point", ["mid_history", "before_offsets", "after_commit", "after_write"])
def test_a_crash_resumes_where_the_last_commit_was(point: str, hit: int) -> None:
    world = Reading(*WORDS, "again")
    left = [hit]

    def crash(reached: str) -> None:
        left[0] -= reached == point
        if reached == point and left[0] == 0:
            raise Crash(point)

    worker = world.worker(crash)
    with pytest.raises(Crash):
        world.end(worker)
    world.stores.crash(0)
    assert world.end(world.worker()) == [([*WORDS, "again"], WORDS)] * 2


@pytest.mark.parametrize("turns", range(3, 9))
def test_an_abort_reads_the_slice_again(turns: int) -> None:
    world = Reading(*WORDS, "again")
    worker = world.worker()
    for _ in range(turns):
        worker.run_once()
    world.broker.fail_next("flush", Abortable("the broker says no"))
    assert world.end(worker) == [([*WORDS, "again"], WORDS)] * 2


def test_a_rebalance_in_the_middle() -> None:
    world = Reading(*WORDS, "again")
    worker = world.worker()
    for turn in range(12):
        worker.run_once()
        if turn % 3 == 0:
            world.broker.rebalance("reading")
    assert world.end(worker) == [([*WORDS, "again"], WORDS)] * 2


def test_what_cannot_be_folded_is_a_dead_letter_and_the_rest_is_folded() -> None:
    world = Reading(*WORDS[:5], "bad later", *WORDS[5:], "again")
    assert [read for _, read in world.end(world.worker())] == [WORDS] * 2
    assert len(world.broker.read("dead-letters")) == 2


def test_the_stage_is_told_what_was_put_aside_when_it_was_new() -> None:
    world = Reading("a", "bad now", "b")
    assert world.end(world.worker()) == [(["a", "put aside", "b"], [])] * 2


def test_records_that_are_gone_are_passed_over() -> None:
    world = Reading(*WORDS, "again")
    worker = world.worker()
    for _ in range(20):
        if worker.tasks and worker.input_lag() == 0:
            break
        worker.run_once()
    world.broker.delete_records({("words", 0): 9, ("words", 1): 9})
    for _, (_, read) in enumerate(world.end(worker)):
        assert read[-2:] == WORDS[-2:]


def test_large_slices_are_for_when_next_to_nothing_comes() -> None:
    pace = Pace()
    pace.note(50, 1_000)
    assert not pace.is_quiet(8, 1_500)
    assert not pace.is_quiet(8, 2_900), "the second before counts"
    assert pace.is_quiet(8, 3_000)
    pace.note(4, 3_100)
    pace.note(4, 4_100)
    assert pace.is_quiet(8, 4_200), "ingest saying that it is caught up is no traffic"
    pace.note(100, 4_300)
    assert not pace.is_quiet(8, 4_300)
