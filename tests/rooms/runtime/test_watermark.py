"""The watermark of a role: it is asked for by who waits for it; what tasks keep for it goes with their positions."""

from collections.abc import Callable

from pipeline.runtime.errors import Abortable
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.watermark import LOOK_AGAIN_MS, Watermark
from tests.rooms.runtime.counting import CountingStage, World, run_idle


class Asked:
    """Answers one after the other, at a time that is set."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = list(answers)
        self.now_ms = 1_000_000
        self.watermark = Watermark(lambda: self.answers.pop(0), lambda: self.now_ms)


def test_what_is_known_to_have_passed_is_not_asked_for() -> None:
    asked = Asked(500)
    assert [asked.watermark(wanted) for wanted in (500, 400, 500, 1)] == [500] * 4


def test_who_wants_a_later_one_waits_and_the_broker_is_not_asked_all_the_time() -> None:
    asked = Asked(None, 500, 650)
    assert asked.watermark(600) == -1, "nothing is known"
    assert [asked.watermark(600) for _ in range(10)] == [500] * 10
    asked.now_ms += LOOK_AGAIN_MS
    assert asked.watermark(600) == 650


def test_a_clock_that_was_put_back_does_not_end_the_questions() -> None:
    asked = Asked(500, 650)
    asked.watermark(600)
    asked.now_ms -= 3_600_000
    assert asked.watermark(600) == 650


def test_a_broker_that_does_not_say_takes_back_nothing() -> None:
    asked = Asked(500, -1)
    asked.watermark(500)
    assert asked.watermark(600) == 500


class Timed(CountingStage):
    """Its clock is the largest number that it has met, of this batch too."""

    clock = 0

    def step(self, record: Record, state: State, out: Outputs) -> None:
        self.clock = max(self.clock, int(record.value or b"0"))
        super().step(record, state, out)

    def in_time(self) -> tuple[int, int]:
        return self.clock, self.clock - 1


def clocks(world: World) -> Callable[[], dict[int, str]]:
    kept = world.broker.groups["counting"].offsets
    return lambda: {number: one.note for (topic, number), one in kept.items() if topic == "counting-changelog"}


def test_a_task_keeps_its_clock_with_the_positions_of_the_same_transaction() -> None:
    world = World(partitions=2)
    worker = world.worker(make_stage=Timed)
    run_idle(worker)
    told = clocks(world)
    world.broker.produce("words", b"k", b"7", 0)
    run_idle(worker)
    assert told() == {0: "7 6"}, "the other has consumed nothing"
    world.broker.produce("words", b"k", b"9", 0)
    world.broker.produce("words", b"k", b"8", 1)
    world.broker.fail_next("commit", Abortable("try again"))
    worker.run_once()
    assert told() == {0: "7 6"}, "it was undone"
    run_idle(worker)
    assert told() == {0: "9 8", 1: "8 7"}
    (position,) = (one.position for at, one in world.broker.groups["counting"].offsets.items() if at == ("words", 1))
    assert position == 1, "the positions are what they were"


def test_a_task_without_a_clock_keeps_none() -> None:
    world = World()
    worker = world.worker()
    run_idle(worker)
    world.say(("k", "w"))
    run_idle(worker)
    assert clocks(world)() == {}


def test_it_keeps_its_clock_also_where_the_broker_does_not_tell_an_offset() -> None:
    """Else a task to which nothing comes any more would hold up all the others, at the clock of the time before."""
    world = World(partitions=1)
    worker = world.worker(make_stage=Timed)
    run_idle(worker)
    told = clocks(world)
    world.broker.produce("words", b"k", b"7", 0)
    run_idle(worker)
    flush = worker._producer.flush
    worker._producer.flush = lambda timeout_s: (flush(timeout_s), {})[1]  # type: ignore[method-assign]
    world.broker.produce("words", b"k", b"9", 0)
    run_idle(worker)
    assert told() == {0: "9 8"}
