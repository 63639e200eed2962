"""Case 55: a record that makes the stage raise. What others wrote is put aside, what we wrote stops the worker."""

import msgspec
import pytest

from pipeline.records import DeadLetter
from pipeline.runtime.errors import WorkerStopped
from tests.rooms.runtime.counting import World, run_idle

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
