"""Case 55: a record that makes the stage raise. What others wrote is put aside, what we wrote stops the worker."""

import msgspec
import pytest

from pipeline.errors import BrokerError, DefinitionsNotThere, HeadwaterError
from pipeline.records import DeadLetter
from pipeline.runtime.errors import Abortable, WorkerStopped
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from tests.rooms.runtime.counting import CountingStage, World, run_idle

WORDS = [(f"k{n % 3}", "w") for n in range(12)]
UNDISTURBED = sorted(f"k{n % 3} {n // 3 + 1}" for n in range(12))


def letters(world: World) -> list[DeadLetter]:
    return [msgspec.json.decode(record.value or b"", type=DeadLetter) for record in world.broker.read("dead-letters")]


def test_case_55_poison_in_the_middle_is_put_aside_and_leaves_no_trace() -> None:
    world = World()
    world.say(*WORDS[:6], ("k0", "poison"), ("k1", "poison"), *WORDS[6:])
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED
    assert world.stored() == world.changelog()
    found = letters(world)
    assert sorted((letter.key, letter.value) for letter in found) == [(b"k0", b"poison"), (b"k1", b"poison")]
    assert all("ValueError: a poisoned word" in letter.detail and letter.topic == "words" for letter in found)
    assert all(letter.stage == "counting" for letter in found)


def test_poison_that_shows_at_the_end_of_a_batch_is_found_one_by_one() -> None:
    world = World()
    world.say(*WORDS[:6], ("k2", "late poison"), *WORDS[6:])
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED
    assert [letter.value for letter in letters(world)] == [b"late poison"]
    assert world.stored() == world.changelog()


def test_nothing_but_poison() -> None:
    world = World()
    world.say(*[("k0", "poison")] * 20)
    worker = world.worker()
    run_idle(worker)
    assert len(letters(world)) == 20 and world.counts() == [] and world.stored() == {}
    world.say(("k0", "w"))
    run_idle(worker)
    assert world.counts() == ["k0 1"]


@pytest.mark.parametrize("value", ["poison", "late poison"])
def test_poison_that_we_wrote_stops_the_worker(value: str) -> None:
    world = World()
    world.say(*WORDS)
    world.say(("k0", value), topic="echoes")
    with pytest.raises(WorkerStopped, match="poison"):
        run_idle(world.worker())
    assert letters(world) == []


@pytest.mark.parametrize("where", ["step", "finish"])
@pytest.mark.parametrize("kind", [BrokerError, DefinitionsNotThere])
def test_a_broker_that_does_not_answer_is_nobodys_poison(kind: type[HeadwaterError], where: str) -> None:
    """A stage reads definitions and keys from the broker: while that is away, or they do not come, events would be dead
    letters, and the marker of a rule change too."""
    world = World()
    world.say(*WORDS)

    class Asking(CountingStage):
        def step(self, record: Record, state: State, out: Outputs) -> None:
            if where == "step" and record.offset == 1:
                raise kind("The Kafka does not answer.")
            super().step(record, state, out)

        def finish(self, state: State, out: Outputs) -> None:
            if where == "finish":
                raise kind("The Kafka does not answer.")

    with pytest.raises(WorkerStopped, match="does not answer"):
        run_idle(world.worker(make_stage=Asking))
    assert letters(world) == []
    world.disks["0"].crash()
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED


class Counted:
    """Counts a worker's transactions, and the records its stages step."""

    def __init__(self, world: World) -> None:
        self.commits = self.steps = 0
        counted = self

        class Stage(CountingStage):
            def step(self, record: Record, state: State, out: Outputs) -> None:
                counted.steps += 1
                super().step(record, state, out)

        self.worker = world.worker(make_stage=Stage, settings=WorkerSettings(batch_records=500))
        commit = self.worker._producer.commit

        def committed(timeout_s: float) -> None:
            self.commits += 1
            commit(timeout_s)

        self.worker._producer.commit = committed  # type: ignore[method-assign]


def good(world: World, words: list[tuple[str, str]]) -> list[str]:
    """What is counted if all that is poison is left out."""
    undisturbed = World(world.partitions)
    undisturbed.say(*[word for word in words if "poison" not in word[1]])
    run_idle(undisturbed.worker())
    return sorted(undisturbed.counts())


@pytest.mark.parametrize("share", [2, 10, 1])
def test_a_flood_of_poison_is_not_stepped_over_and_over(share: int) -> None:
    """Every second record, every tenth, each of them: a batch is cut before it is done again for the hundredth time."""
    world = World()
    words = [(f"k{n % 7}", "poison" if n % share == 0 else "w") for n in range(2_000)]
    world.say(*words)
    counted = Counted(world)
    run_idle(counted.worker)
    assert sorted(world.counts()) == good(world, words)
    assert len(letters(world)) == 2_000 // share and world.stored() == world.changelog()
    assert counted.steps < 15 * len(words), "stepped over and over"
    assert counted.commits < 2_000 // 20, "a transaction for every record"


def test_a_flood_of_poison_that_shows_at_the_end_of_each_batch_is_halved() -> None:
    world = World()
    words = [(f"k{n % 7}", "late poison" if n % 400 == 399 else "w") for n in range(4_000)]
    world.say(*words)
    counted = Counted(world)
    run_idle(counted.worker)
    assert sorted(world.counts()) == good(world, words)
    assert len(letters(world)) == 10 and world.stored() == world.changelog()
    # Ten of them, in halves of five hundred: about nine transactions each, where one by one would have been 4,000.
    assert counted.commits < 10 * 14


def test_an_abort_between_the_halves_reads_all_of_it_again() -> None:
    world = World()
    words = [(f"k{n % 7}", "late poison" if n == 70 else "w") for n in range(100)]
    world.say(*words)
    counted = Counted(world)
    for _ in range(4):
        counted.worker.run_once()
    assert counted.worker._rest, "it is in the middle of it"
    world.broker.fail_next("commit", Abortable("try again"))
    run_idle(counted.worker)
    assert sorted(world.counts()) == good(world, words)
    assert len(letters(world)) == 1 and world.stored() == world.changelog()


def test_what_is_left_of_a_batch_goes_with_its_partitions() -> None:
    world = World()
    words = [(f"k{n % 7}", "late poison" if n == 70 else "w") for n in range(100)]
    world.say(*words)
    counted = Counted(world)
    for _ in range(4):
        counted.worker.run_once()
    assert counted.worker._rest
    counted.worker.lost([])
    assert not counted.worker._rest
    world.broker.expire_member("counting", "counting-0")
    run_idle(world.worker("1"))
    assert sorted(world.counts()) == good(world, words)
    assert len(letters(world)) == 1
