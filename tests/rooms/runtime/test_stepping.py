"""A stage that takes several records at once, in an order of its own: the log has them in theirs."""

from collections.abc import Sequence

import pytest

from pipeline.runtime.overlay import Outbox
from pipeline.runtime.ports import PlacedOutputs, Record, State
from tests.rooms.runtime.counting import CountingStage, World, run_idle
from tests.rooms.runtime.test_poison import letters

WORDS = [(f"k{n * 7 % 5}", "w") for n in range(40)]


class AtOnce(CountingStage):
    """Takes the records of the greatest key first."""

    def step_many(self, records: list[Record], places: Sequence[int], state: State, out: PlacedOutputs) -> None:
        for place in sorted(places, key=lambda place: records[place].key or b"", reverse=True):
            out.at(place)
            self.step(records[place], state, out)


def said(world: World) -> list[bytes | None]:
    return [record.value for record in world.broker.read("counts")]


@pytest.mark.parametrize("poison", [(), (3,), (0, 17, 18, 39)])
def test_what_is_said_stands_in_the_order_of_the_records(poison: tuple[int, ...]) -> None:
    one_by_one, at_once = World(), World()
    words = [(key, "poison" if place in poison else word) for place, (key, word) in enumerate(WORDS)]
    for world, stage in ((one_by_one, CountingStage), (at_once, AtOnce)):
        world.say(*words)
        run_idle(world.worker(make_stage=stage))
    assert said(at_once) == said(one_by_one) and len(said(at_once)) == 40 - len(poison)
    assert at_once.stored() == one_by_one.stored() == at_once.changelog()
    assert [letter.value for letter in letters(at_once)] == [b"poison"] * len(poison)


def test_what_was_said_before_and_after_the_records_stays_there() -> None:
    out = Outbox()
    out.log("t", None, b"woken")
    for place, said in ((2, b"two"), (0, b"zero"), (2, b"two again"), (1, b""), (9, b"end")):
        out.at(place)
        if said:
            out.log("t", None, said)
            out.log("t", None, said)
    values = [value for _, value, _, _ in out.take_logged()]
    assert values == [b"woken", *[one for one in (b"zero", b"two", b"two again", b"end") for _ in range(2)]]
    assert len(out) == 9
    out.clear()
    assert (list(out.take_logged()), out.place, len(out)) == ([], -1, 0)
