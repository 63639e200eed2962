"""Long work that nobody waits for: what comes while it is stepped goes with it, in one transaction."""

import random
from collections.abc import Callable

import pytest

from pipeline.runtime.errors import Abortable, WorkerStopped
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import (
    COUNTING,
    CountingStage,
    World,
    all_are_counted_once,
    is_undone_and_done_again,
    refuse_next_consume,
    run_idle,
)

ROLE = COUNTING._replace(patient="echoes")
NEVER_S = 1e12
KINDS = (
    ("words", "w"),
    ("words", "w"),
    ("words", "poison"),
    ("words", "late poison"),
    ("echoes", "w"),
    ("echoes", "long"),
    ("echoes", "long"),
)


class PatientStage(CountingStage):
    """What is called long can wait."""

    def can_wait(self, record: Record) -> bool:
        assert record.topic == "echoes"
        return record.value == b"long"


def settled(partitions: int = 1) -> tuple[World, Worker]:
    world = World(partitions, ROLE)
    worker = world.worker(make_stage=PatientStage)
    run_idle(worker)
    return world, worker


def come_while_stepping(world: World, monkeypatch: pytest.MonkeyPatch, *batches: Callable[[], None]) -> None:
    """Each of these happens while a piece of long work is stepped."""
    left, original = list(batches), PatientStage.step

    def step(stage: PatientStage, record: Record, state: State, out: Outputs) -> None:
        original(stage, record, state, out)
        if record.value == b"long" and left:
            left.pop(0)()

    monkeypatch.setattr(PatientStage, "step", step)


def test_what_comes_while_long_work_is_stepped_goes_into_its_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    come_while_stepping(world, monkeypatch, lambda: world.say(("live", "w"), ("live", "w")))
    world.say(("before", "w"), ("long", "long"), ("behind", "w"), topic="echoes")
    assert worker.run_once() == 5
    assert world.counts() == ["before 1", "long 1", "behind 1", "live 1", "live 2"]
    assert worker.tasks[0].positions == {("words", 0): 2, ("echoes", 0): 3}
    assert world.stored() == world.changelog()


def test_nothing_is_consumed_in_the_midst_of_what_is_short() -> None:
    world, worker = settled()
    consumed, original = [], worker._consumer.consume
    worker._consumer.consume = lambda limit, wait: consumed.append(wait) or original(limit, wait)  # type: ignore[func-returns-value, method-assign]
    world.say(("live", "w"))
    assert worker.run_once() == 1
    assert len(consumed) == 1


def test_one_batch_has_one_turn_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled(partitions=2)

    def come() -> None:
        for partition, value in ((0, b"long"), (1, b"w"), (1, b"long"), (1, b"w")):
            world.broker.produce("echoes", b"k%d" % partition, value, partition)

    come_while_stepping(world, monkeypatch, come)
    world.broker.produce("echoes", b"k0", b"long", 0)
    assert worker.run_once() == 2
    assert sorted(world.counts()) == ["k0 1", "k1 1"], "what stands before it in its partition is done"
    assert worker.run_once() == 3, "it, and what stands behind it"
    assert sorted(world.counts()) == ["k0 1", "k0 2", "k1 1", "k1 2", "k1 3"]
    run_idle(worker)
    assert world.stored() == world.changelog()


def test_what_a_task_has_said_is_on_its_way_while_the_next_one_is_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled(partitions=2)
    for partition in (0, 1):
        world.broker.produce("echoes", b"k%d" % partition, b"long", partition)
    on_their_way: list[int] = []
    original = worker._producer.send
    worker._producer.send = lambda records: original(said := list(records)) or on_their_way.append(len(said))  # type: ignore[func-returns-value, method-assign]

    def look() -> None:
        on_their_way.append(-1)
        assert not world.counts(), "not before it is committed"

    come_while_stepping(world, monkeypatch, look, look)
    assert worker.run_once() == 2
    assert on_their_way == [-1, 1, 0, -1, 1, 0, 0, 2], "counts as they come; upserts when the stages end the batch"
    assert sorted(world.counts()) == ["k0 1", "k1 1"]
    on_their_way.clear()
    world.say(("a", "w"), ("b", "w"))
    assert worker.run_once() == 2
    assert on_their_way == [2, 2], "what is short is handed over when all is stepped"
    assert world.stored() == world.changelog()


@pytest.mark.parametrize("operation", ["begin", "send", "flush"])
def test_a_transaction_that_fails_while_long_work_is_stepped_is_done_again(operation: str) -> None:
    world, worker = settled(partitions=2)
    for partition in (0, 1):
        world.broker.produce("echoes", b"k%d" % partition, b"long", partition)
    world.broker.fail_next(operation, Abortable("fenced"))
    assert worker.run_once() == 0
    assert not world.broker.open_transactions()
    run_idle(worker)
    assert sorted(world.counts()) == ["k0 1", "k1 1"]
    assert world.stored() == world.changelog()


def test_what_cannot_be_handed_over_is_no_fault_of_a_record() -> None:
    world, worker = settled()
    world.say(("long", "long"), topic="echoes")
    world.say(("live", "w"))

    def refused(_: object) -> None:
        raise ValueError("the registry does not answer")

    worker._producer.send = refused  # type: ignore[method-assign]
    with pytest.raises(WorkerStopped, match="handed over: the registry does not answer"):
        worker.run_once()
    assert not world.broker.read("dead-letters")


def test_poison_behind_what_was_handed_over_is_put_aside() -> None:
    world, worker = settled(partitions=2)
    world.broker.produce("echoes", b"long", b"long", 0)
    world.broker.produce("words", b"live", b"poison", 1)
    world.broker.produce("words", b"live", b"w", 1)
    assert worker.run_once() == 3
    assert sorted(world.counts()) == ["live 1", "long 1"]
    assert len(world.broker.read("dead-letters")) == 1
    assert world.stored() == world.changelog()


@pytest.mark.parametrize("also", [0, 1])
def test_a_rebalance_while_long_work_is_stepped_undoes_the_batch(monkeypatch: pytest.MonkeyPatch, also: int) -> None:
    world, worker = settled(partitions=2)

    def come() -> None:
        world.say(*[("live", "w")] * also)
        world.broker.rebalance("counting")

    come_while_stepping(world, monkeypatch, come)
    world.say(("k0", "w"), ("k1", "w"), ("k2", "w"))
    world.say(("long", "long"), ("behind", "w"), topic="echoes")
    is_undone_and_done_again(world, worker, ["behind 1", "k0 1", "k1 1", "k2 1", "long 1", *["live 1"] * also])


def test_the_broker_does_not_answer_in_the_midst_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    come_while_stepping(world, monkeypatch, lambda: refuse_next_consume(worker))
    world.say(("long", "long"), topic="echoes")
    assert worker.run_once() == 1
    assert world.counts() == ["long 1"]


@pytest.mark.parametrize("seed", range(30))
def test_rebalances_faults_and_poison_in_the_midst_of_long_work(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    world = World(2, ROLE)
    workers = [world.worker(str(slot), make_stage=PatientStage) for slot in range(2)]
    said = poison = 0

    def come() -> None:
        nonlocal said, poison
        for _ in range(chance.randint(0, 4)):
            key = f"k{chance.randrange(6)}"
            topic, value = chance.choice(KINDS)
            world.say((key, value), topic=topic)
            said, poison = said + 1, poison + ("poison" in value)
        if chance.random() < 0.2:
            world.broker.rebalance("counting")
        if chance.random() < 0.1:
            world.broker.fail_next(chance.choice(("flush", "send_offsets", "commit")), Abortable("try again"))

    come_while_stepping(world, monkeypatch, *[come] * 40)
    for _ in range(60):
        come()
        for worker in workers:
            if seed % 2:
                # Long work is left alone now and then, and at last it is not.
                worker._rest._until_s = chance.choice((0.0, NEVER_S))
            worker.run_once()
    for worker in workers:
        worker._rest._until_s = 0.0
    run_idle(*workers)
    all_are_counted_once(world, workers, said, poison)


def test_where_nothing_else_has_come_nothing_waits() -> None:
    world, worker = settled()
    world.say(("long", "long"), ("behind", "w"), topic="echoes")
    assert worker.run_once() == 2


@pytest.mark.parametrize("commit", [1, 2])
def test_a_transaction_that_is_aborted_is_done_again_with_all_that_waited(commit: int) -> None:
    world, worker = settled()
    world.say(("long", "long"), ("behind", "w"), topic="echoes")
    world.say(("live", "w"))
    commits, original = 0, worker._producer.send_offsets

    def refused(*arguments: object) -> None:
        nonlocal commits
        commits += 1
        if commits == commit:
            raise Abortable("fenced")
        original(*arguments)  # type: ignore[arg-type]

    worker._producer.send_offsets = refused  # type: ignore[method-assign]
    run_idle(worker)
    assert sorted(world.counts()) == ["behind 1", "live 1", "long 1"]
    assert world.stored() == world.changelog()


def test_poison_beside_what_waits_is_put_aside() -> None:
    world, worker = settled()
    world.say(("long", "long"), topic="echoes")
    world.say(*[("live", "late poison" if n == 3 else "w") for n in range(8)])
    run_idle(worker)
    assert sorted(world.counts()) == sorted([*(f"live {n}" for n in range(1, 8)), "long 1"])
    assert len(world.broker.read("dead-letters")) == 1
