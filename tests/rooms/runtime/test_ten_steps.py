"""The order of the ten steps, call by call, and what each of them is given."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runtime import worker as worker_module
from pipeline.runtime.adapters import Membership
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.task import POSITIONS_KEY, TOPICS_KEY, Task
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import CountingStage, World, run_idle

WORDS = [(f"k{n % 3}", "w") for n in range(12)]


class Called:
    """Notes the calls that a worker makes of its consumer, producer and stores, in their order."""

    def __init__(self, worker: Worker) -> None:
        self.calls: list[str] = []
        self.given: dict[str, Any] = {}
        producer, consumer = worker._producer, worker._consumer
        for name in ("begin", "send", "send_changelog", "flush", "send_offsets", "commit", "abort"):
            self._note(producer, name)
        self._note(consumer, "membership")
        for task in worker.tasks.values():
            self._note(task.store, "write")

    def _note(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            self.given[name] = arguments
            return original(*arguments, **named)

        setattr(owner, name, noted)


class SteppingStage(CountingStage):
    """Tells when it is at work."""

    calls: list[str]

    def step(self, record: Record, state: State, out: Outputs) -> None:
        self.calls.append("step")
        super().step(record, state, out)

    def finish(self, state: State, out: Outputs) -> None:
        self.calls.append("finish")
        super().finish(state, out)


def stepping(world: World, settings: WorkerSettings | None = None) -> tuple[Worker, Called]:
    """A worker whose task is open, from here on observed."""

    def make(partition: int) -> SteppingStage:
        stage = SteppingStage(partition)
        stage.calls = []
        return stage

    worker = world.worker(make_stage=make, settings=settings)
    run_idle(worker)
    called = Called(worker)
    for task in worker.tasks.values():
        task.stage.calls = called.calls  # type: ignore[attr-defined]
    return worker, called


def test_the_ten_steps_in_their_order() -> None:
    world = World(partitions=1)
    worker, called = stepping(world)
    world.say(*WORDS)
    assert worker.run_once() == len(WORDS)
    assert called.calls == [
        "membership",
        *["step"] * len(WORDS),
        "finish",
        "begin",
        "send",
        "send",
        "send_changelog",
        "flush",
        "send_offsets",
        "commit",
        "write",
    ]


def test_the_membership_is_that_of_before_the_first_step() -> None:
    """A generation that begins while the batch is at work must not vouch for it."""
    world = World(partitions=1)
    worker, called = stepping(world)
    world.say(*WORDS)
    worker.run_once()
    assert called.calls.index("membership") < called.calls.index("step")
    assert called.calls.count("membership") == 1
    told: list[Membership] = [Membership("before", 1), Membership("after", 2)]
    worker._consumer.membership = lambda: told.pop(0)  # type: ignore[method-assign]
    worker._producer.send_offsets = lambda *given: called.given.update(send_offsets=given)  # type: ignore[method-assign]
    world.say(*WORDS)
    worker.run_once()
    assert called.given["send_offsets"][1] == Membership("before", 1)


def test_a_key_is_in_the_changelog_once_a_transaction() -> None:
    world = World(partitions=1)
    worker, called = stepping(world)
    world.say(*WORDS)
    worker.run_once()
    keys = [key for key, _ in called.given["send_changelog"][2]]
    assert sorted(keys) == sorted([b"ck0", b"ck1", b"ck2", POSITIONS_KEY, TOPICS_KEY])
    assert keys[-1] == POSITIONS_KEY
    world.say(*WORDS)
    worker.run_once()
    keys = [key for key, _ in called.given["send_changelog"][2]]
    assert sorted(keys) == sorted([b"ck0", b"ck1", b"ck2", POSITIONS_KEY]), "ids are said once"


def test_records_of_partitions_that_are_not_open_are_dropped() -> None:
    world = World(partitions=2)
    worker, called = stepping(world)
    task = worker.tasks.pop(1)
    for partition in task.partitions:
        del worker._owners[partition]
    world.say(*[(f"k{n}", "w") for n in range(40)])
    for _ in range(3):
        worker.run_once()
    own = world.broker.read("words", 0)
    assert 0 < len(own) < 40
    assert called.calls.count("step") == len(own)
    assert {partition for partition, _ in called.given["send_offsets"][0].items()} <= {("words", 0), ("echoes", 0)}
    worker.tasks[1] = task


def test_a_start_fences_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(partitions=1)
    order: list[str] = []
    worker = world.worker()
    for owner, name in ((worker._producer, "init"), (worker._consumer, "subscribe")):
        original = getattr(owner, name)

        def noted(*given: Any, name: str = name, original: Any = original) -> Any:
            order.append(name)
            return original(*given)

        monkeypatch.setattr(owner, name, noted)
    worker.start()
    assert order == ["init", "subscribe"]


def test_a_pause_between_a_transaction_and_what_the_next_one_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(partitions=1)
    worker, called = stepping(world, WorkerSettings(pause_s=0.25))
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        called.calls.append("pause")
        now += seconds

    monkeypatch.setattr(worker_module, "time", SimpleNamespace(perf_counter=lambda: now, sleep=sleep))
    world.say(*WORDS)
    assert worker.run_once() == len(WORDS), "nobody waits who comes after long"
    assert slept == []
    now += 0.125
    world.say(*WORDS)
    called.calls.clear()
    assert worker.run_once() == len(WORDS)
    assert slept == [0.125], "the rest of it"
    assert called.calls.index("finish") < called.calls.index("pause") < called.calls.index("begin"), "stepped meanwhile"
    worker.run_once()
    assert slept == [0.125], "who has nothing to hand over need not wait"
    world.say(*WORDS)
    assert worker.run_once() == len(WORDS)
    assert slept == [0.125, 0.25]
    original = Task.write

    def slow(*given: Any) -> None:
        nonlocal now
        now += 0.0625
        original(*given)

    monkeypatch.setattr(Task, "write", slow)
    for _ in range(2):
        world.say(*WORDS)
        assert worker.run_once() == len(WORDS)
    assert slept == [0.125, 0.25, 0.25, 0.1875], "the broker ends the transaction while the store is written"
