"""Long work that nobody waits for: it is done after what else has come, in a batch of its own."""

import pytest

from pipeline.runtime.errors import Abortable
from pipeline.runtime.ports import Record
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import COUNTING, CountingStage, World, run_idle

ROLE = COUNTING._replace(patient="echoes")


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


def test_what_can_wait_is_done_after_all_else_and_holds_up_its_partition() -> None:
    world, worker = settled()
    world.say(("before", "w"), ("long", "long"), ("behind", "w"), topic="echoes")
    world.say(("live", "w"))
    assert worker.run_once() == 2
    assert sorted(world.counts()) == ["before 1", "live 1"]
    assert worker.tasks[0].positions == {("words", 0): 1, ("echoes", 0): 1}
    world.say(("later", "w"))
    assert worker.run_once() == 2, "what came meanwhile waits: else the long work could wait for ever"
    assert world.counts()[2:] == ["long 1", "behind 1"]
    assert worker.run_once() == 1
    run_idle(worker)
    assert world.stored() == world.changelog()


def test_other_partitions_are_not_held_up() -> None:
    world, worker = settled(partitions=2)
    for partition, value in ((0, b"long"), (0, b"w"), (1, b"w")):
        world.broker.produce("echoes", b"k%d" % partition, value, partition)
    assert worker.run_once() == 1
    assert world.counts() == ["k1 1"]
    assert worker.run_once() == 2


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
