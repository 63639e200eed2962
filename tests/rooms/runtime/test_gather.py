"""What comes just after the first records of a transaction were handed over goes along with them."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.runtime import worker as worker_module
from pipeline.runtime.errors import Abortable
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import (
    CountingStage,
    World,
    all_are_counted_once,
    is_undone_and_done_again,
    refuse_next_consume,
    run_idle,
)

GATHERING = WorkerSettings(gather_s=0.5)
VALUES = (*["w"] * 12, "poison", "late poison")


class Meanwhile:
    """Happens instead of each wait for more, once each; how long each was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *happens: Any) -> None:
        self.left = list(happens)
        self.slept: list[float] = []
        monkeypatch.setattr(worker_module, "time", SimpleNamespace(perf_counter=lambda: 0.0, sleep=self))

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.left:
            self.left.pop(0)()


def settled(partitions: int = 1, settings: WorkerSettings = GATHERING) -> tuple[World, Worker]:
    world = World(partitions)
    worker = world.worker(settings=settings)
    run_idle(worker)
    return world, worker


def test_what_comes_after_the_first_were_handed_over_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    handed_over: list[int] = []
    original = worker._producer.send
    worker._producer.send = lambda records: original(said := list(records)) or handed_over.append(len(said))  # type: ignore[func-returns-value, method-assign]

    def come() -> None:
        assert sum(handed_over) == 2, "the client is at work"
        world.say(("later", "w"), ("k", "w"))

    meanwhile = Meanwhile(monkeypatch, come)
    world.say(("k", "w"), ("j", "w"))
    assert worker.run_once() == 4
    assert meanwhile.slept == [0.5]
    assert world.counts() == ["k 1", "j 1", "later 1", "k 2"]
    assert worker.tasks[0].positions == {("words", 0): 4, ("echoes", 0): 0}
    committed = world.broker.committed("counting", [("words", 0)])["words", 0]
    assert committed is not None and committed.position == 4
    assert world.stored() == world.changelog()


def test_without_the_setting_nobody_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled(settings=WorkerSettings())
    meanwhile = Meanwhile(monkeypatch)
    world.say(("k", "w"))
    assert worker.run_once() == 1
    assert not meanwhile.slept


def test_who_has_said_nothing_yet_waits_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    monkeypatch.setattr(CountingStage, "step", lambda *given: None)
    meanwhile = Meanwhile(monkeypatch)
    world.say(("k", "w"))
    assert worker.run_once() == 1
    assert not meanwhile.slept


def test_a_backlog_waits_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled(settings=WorkerSettings(gather_s=0.5, batch_records_at_once=3))
    meanwhile = Meanwhile(monkeypatch)
    world.say(*[("k", "w")] * 3)
    assert worker.run_once() == 3
    assert not meanwhile.slept


@pytest.mark.parametrize("also", [0, 1])
def test_a_rebalance_meanwhile_undoes_the_batch(monkeypatch: pytest.MonkeyPatch, also: int) -> None:
    world, worker = settled(partitions=2)

    def come() -> None:
        world.say(*[("live", "w")] * also)
        world.broker.rebalance("counting")

    Meanwhile(monkeypatch, come)
    world.say(("k0", "w"), ("k1", "w"), ("k2", "w"))
    is_undone_and_done_again(world, worker, ["k0 1", "k1 1", "k2 1", *["live 1"] * also])


def test_a_broker_that_does_not_answer_meanwhile_has_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    Meanwhile(monkeypatch, lambda: refuse_next_consume(worker))
    world.say(("k", "w"))
    assert worker.run_once() == 1
    assert world.counts() == ["k 1"]


@pytest.mark.parametrize("value", ["poison", "late poison"])
@pytest.mark.parametrize("first", [True, False])
def test_poison_first_or_meanwhile_is_put_aside(monkeypatch: pytest.MonkeyPatch, value: str, first: bool) -> None:
    world, worker = settled()
    Meanwhile(monkeypatch, lambda: world.say(("k", "w"), *[("k", value)] * (not first), ("k", "w")))
    world.say(("k", "w"), *[("k", value)] * first, ("k", "w"))
    run_idle(worker)
    assert world.counts() == ["k 1", "k 2", *(["k 3", "k 4"] if not first or value == "late poison" else [])]
    assert [record.value for record in world.broker.read("dead-letters")] != []
    assert not world.broker.open_transactions()
    assert world.stored() == world.changelog()


@pytest.mark.parametrize("seed", range(30))
def test_rebalances_faults_and_poison_meanwhile(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    world = World(2)
    workers = [world.worker(str(slot), settings=GATHERING) for slot in range(2)]
    said = poison = 0

    def come() -> None:
        nonlocal said, poison
        for _ in range(chance.randint(0, 4)):
            value = chance.choice(VALUES)
            world.say((f"k{chance.randrange(6)}", value))
            said, poison = said + 1, poison + ("poison" in value)
        if chance.random() < 0.2:
            world.broker.rebalance("counting")
        if chance.random() < 0.1:
            world.broker.fail_next(chance.choice(("begin", "flush", "send_offsets", "commit")), Abortable("try again"))

    meanwhile = Meanwhile(monkeypatch, *[come] * 40)
    for _ in range(60):
        come()
        for worker in workers:
            worker.run_once()
    run_idle(*workers)
    assert len(meanwhile.slept) > 10
    all_are_counted_once(world, workers, said, poison)
