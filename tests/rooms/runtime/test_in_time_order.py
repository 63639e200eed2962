"""Several partitions in the order in which the broker took their records in: after an outage, and without one."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from pipeline.runtime.adapters import Listener, Partition
from pipeline.runtime.in_time_order import ASLEEP_MS, HELD_RECORDS, LATE_MS, OWES_MS, SILENT_MS, WARY_MS, InTimeOrder
from pipeline.runtime.ports import Record

NOW = 1_740_830_400_000
MINUTE = 60_000


class Fetching:
    """A consumer whose client has fetched what the test lets it: `logs` are the stamps of each partition's records,
    every `stride`th of its offsets."""

    def __init__(self, *logs: Sequence[int], size: int = 1, stride: int = 1) -> None:
        self.stride = stride
        self.logs = {("raw", number): list(log) for number, log in enumerate(logs)}
        self.fetched: dict[Partition, int] = {}
        self.queue: list[Record] = []
        self.listener: Listener | None = None
        self.size = size
        self.was_held: list[Partition] = []

    def fetch(self, number: int, count: int) -> None:
        """The answer of the broker has so many records of a partition."""
        at, log = self.fetched.get(("raw", number)), self.logs["raw", number]
        if at is None:
            return
        until = min(len(log), at + count)
        for offset in range(at, until):
            stamp = log[offset]
            value = b"x" * self.size
            place = offset * self.stride
            self.queue.append(Record("raw", number, place, None, value, abs(stamp), (), max(0, stamp)))
        self.fetched["raw", number] = until

    def subscribe(self, topics: Sequence[str], listener: Listener) -> None:
        self.listener = listener

    def consume(self, limit: int, timeout_s: float) -> list[Record]:
        given, self.queue = self.queue[:limit], self.queue[limit:]
        return given

    def start(self, positions: Mapping[Partition, int]) -> None:
        self._purge(positions)
        self.fetched.update(positions)

    def hold(self, partitions: Iterable[Partition]) -> None:
        partitions = list(partitions)
        self.was_held += partitions
        self._purge(partitions)
        for partition in partitions:
            del self.fetched[partition]

    def _purge(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions)
        self.queue = [one for one in self.queue if (one.topic, one.partition) not in gone]

    def end(self, partition: Partition) -> int | None:
        return len(self.logs[partition]) * self.stride

    def lag(self, partition: Partition) -> int | None:
        return 0


class World:
    """What was fetched, in order, at a time that the test tells."""

    def __init__(self, *logs: Sequence[int], size: int = 1, stride: int = 1) -> None:
        self.fetching = Fetching(*logs, size=size, stride=stride)
        self.now = NOW
        self.ordered = InTimeOrder(self.fetching, lambda: self.now)  # type: ignore[arg-type]
        self.ordered.start(dict.fromkeys(self.fetching.logs, 0))

    def consume(self, *fetches: tuple[int, int], limit: int = 1_000, later: int = 0) -> list[tuple[int, int]]:
        """(partition, time after NOW) of what is given once these (partition, records) are fetched."""
        self.now += later
        for number, count in fetches:
            self.fetching.fetch(number, count)
        return [(one.partition, one.timestamp_ms - NOW) for one in self.ordered.consume(limit, 0)]


def past(*minutes: float) -> list[int]:
    return [NOW - int(each * MINUTE) for each in minutes]


def test_a_backlog_comes_in_the_order_of_its_times() -> None:
    world = World(past(10, 8, 6), past(9, 7, 5))
    assert [at // -MINUTE for _, at in world.consume((0, 3), (1, 3))] == [10, 9, 8, 7, 6]
    assert world.consume() == [], "of partition 0 something from before five minutes ago may be on its way"
    assert world.consume(later=SILENT_MS) == [(1, -5 * MINUTE)]


def test_a_partition_that_is_still_to_be_fetched_is_waited_for() -> None:
    world = World(past(10, 8), past(9, 7))
    assert world.consume((0, 2)) == []
    assert world.consume((1, 2)) == [(0, -10 * MINUTE), (1, -9 * MINUTE), (0, -8 * MINUTE)]


def test_what_is_late_for_nobody_passes_at_once_and_in_order() -> None:
    fresh = [NOW - 30, NOW - 10]
    world = World(fresh, [NOW - 20], [])
    assert world.consume((0, 2), (1, 1)) == [(0, -30), (1, -20), (0, -10)]
    world.fetching.logs["raw", 0] += [NOW + 40]
    assert world.consume((0, 1), later=50) == [(0, 40)]


def test_a_silent_partition_holds_nobody_up_for_long() -> None:
    world = World(past(10, 9), past(*[5] * 3))
    assert len(world.consume((0, 2), (1, 3))) == 2
    assert world.consume(later=SILENT_MS - 1) == []
    assert len(world.consume(later=1)) == 3


def test_a_partition_that_surely_has_something_is_waited_for_longer_and_not_for_ever() -> None:
    world = World(past(10, 9), past(*[5] * 3))
    world.fetching.logs["raw", 0] += past(6)  # which nobody serves: its leader is away
    assert len(world.consume((0, 2), (1, 3))) == 2
    for _ in range(3):
        assert world.consume(later=SILENT_MS) == []
    assert len(world.consume(later=OWES_MS - 3 * SILENT_MS)) == 3
    assert world.consume((0, 1)) == [(0, -6 * MINUTE)], "and once it is served it passes"


def test_what_transactions_leave_at_the_end_of_a_partition_is_not_taken_for_something() -> None:
    world = World(past(10, 9), past(*[5] * 3), stride=2)
    assert len(world.consume((0, 2), (1, 3))) == 2
    assert len(world.consume(later=SILENT_MS)) == 3


def test_at_the_start_an_empty_partition_is_not_waited_for() -> None:
    world = World(past(10, 9), [])
    assert len(world.consume((0, 2))) == 2


def test_a_partition_is_not_silent_while_others_fill_what_is_asked_for() -> None:
    world = World(past(10, 1), past(*[9 - n / 1_000 for n in range(4_000)]))
    assert len(world.consume((0, 1), (1, 4_000), limit=1_000)) == 1
    for _ in range(2):
        assert world.consume(limit=1_000, later=SILENT_MS) == [], "it is behind those in the queue"
    assert len(world.consume((0, 1), limit=4_000, later=SILENT_MS)) == 4_000


def test_after_a_sleep_nothing_is_known_of_any_partition() -> None:
    world = World([NOW - 30], [NOW - 20])
    assert len(world.consume((0, 1), (1, 1))) == 2
    assert world.consume(later=SILENT_MS) == world.consume(later=SILENT_MS) == []
    # The process is stopped for a minute. What comes first of all is new, and the other partition has the minute yet.
    for number, stamps in enumerate(([NOW + MINUTE], [NOW + 5_000, NOW + 50_000])):
        world.fetching.logs["raw", number] += stamps
    assert world.consume((0, 1), later=MINUTE) == []
    assert [at for _, at in world.consume((1, 2), later=10)] == [5_000, 50_000]
    assert world.consume(later=SILENT_MS) == [], "whoever has just woken up is wary"
    assert world.consume(later=WARY_MS) == [(0, MINUTE)]


def test_after_nothing_came_for_long_what_is_late_waits_for_the_others() -> None:
    world = World([NOW - 30], [NOW - 20])
    assert len(world.consume((0, 1), (1, 1))) == 2
    for _ in range(30):
        assert world.consume(later=ASLEEP_MS // 10) == []
    world.fetching.logs["raw", 0] += [NOW + 2_000]
    world.fetching.logs["raw", 1] += [NOW + 1_000]
    assert world.consume((0, 1), later=10) == []
    assert [at for _, at in world.consume((1, 1), later=5)] == [1_000]


def test_what_producers_stamped_passes_as_it_comes_and_nobody_waits_for_it() -> None:
    stamped_by_producers = [-(NOW - MINUTE), -(NOW - 20 * MINUTE)]
    world = World(stamped_by_producers, past(9, 8))
    given = world.consume((0, 2), (1, 2))
    assert [one for one in given if one[0] == 0] == [(0, -MINUTE), (0, -20 * MINUTE)]
    assert [one for one in given if one[0] == 1] == [(1, -9 * MINUTE), (1, -8 * MINUTE)]


HOUR = 60 * MINUTE


def live(world: World, turns: int, stamps: Callable[[int], Sequence[int]]) -> list[tuple[int, int]]:
    """What is given while every partition gives a record every 50 ms, stamped as `stamps` has it of the time."""
    given: list[tuple[int, int]] = []
    for _ in range(turns):
        for number, stamp in enumerate(stamps(world.now)):
            world.fetching.logs["raw", number].append(stamp)
        given += world.consume(*((number, 1) for number in range(len(world.fetching.logs))))
        world.now += 50
    return given


def test_a_topic_whose_producers_stamp_from_now_on_holds_nobody_up() -> None:
    world = World([NOW - 30], [NOW - 20])
    assert len(world.consume((0, 1), (1, 1))) == 2
    given = live(world, 200, lambda now: (-(now - 5), -(now - 5)))
    assert [number for number, _ in given].count(0) == [number for number, _ in given].count(1) == 200


@pytest.mark.parametrize("behind", [3_000, HOUR])
def test_a_broker_whose_clock_is_behind_holds_nobody_up(behind: int) -> None:
    world = World([NOW - behind], [NOW - 20])

    def stamps(now: int) -> Sequence[int]:
        return now - behind, now - 5

    live(world, 40, stamps)
    assert len(live(world, 100, stamps)) == 200


def test_brokers_whose_clocks_are_set_back_hold_nobody_up() -> None:
    world = World([NOW - 30], [NOW - 20])
    live(world, 100, lambda now: (now - 10, now - 5))
    live(world, 100, lambda now: (now - HOUR, now - HOUR))
    assert len(live(world, 100, lambda now: (now - HOUR, now - HOUR))) == 200


def test_a_partition_that_still_has_much_of_before_is_waited_for_though_it_gives_all_the_time() -> None:
    many = 4_000
    world = World(past(*[60 - n * 59 / many for n in range(many)]), [NOW - MINUTE // 2])
    for _ in range(many // 50):
        given = world.consume((0, 50), (1, 1), later=100)
        assert [number for number, _ in given] == [0] * 50
    assert world.consume(later=SILENT_MS) == [(1, -MINUTE // 2)]


def test_who_was_held_for_long_is_waited_for_until_it_is_read_again() -> None:
    # Both have the same twelve minutes. Of the first one much comes at once, of the other little, for long.
    minutes = [20 - n * 12 / 40_000 for n in range(40_000)]
    world = World(past(*minutes), past(*minutes))
    given = world.consume((0, HELD_RECORDS + 1_000), limit=40_000)
    assert world.fetching.was_held == [("raw", 0)]
    for _ in range(10):
        given += world.consume((1, 10), limit=40_000, later=SILENT_MS)
    given += world.consume((1, HELD_RECORDS + 5_000), limit=50_000, later=50)
    given += world.consume(limit=50_000, later=300)
    given += world.consume((0, 40_000), (1, 40_000), limit=50_000, later=50)
    given += world.consume(limit=50_000, later=OWES_MS)
    assert len(given) == 80_000
    assert given == sorted(given, key=lambda one: one[1])


def test_stamps_that_go_back_leave_a_partition_in_its_order() -> None:
    world = World(past(10, 4, 6, 3), past(9, 7, 5, 2))
    given = world.consume((0, 4), (1, 4))
    assert [at // -MINUTE for number, at in given if number == 0] == [10, 4, 6, 3]
    assert [at // -MINUTE for _, at in given] == [10, 9, 7, 5, 4, 6, 3]


@pytest.mark.parametrize("size", [1, 10_000])
def test_who_is_far_ahead_is_held_and_nothing_of_it_is_lost(size: int) -> None:
    many = HELD_RECORDS * 5 // 2
    world = World(past(*[9 - n * 8 / many for n in range(many)]), past(10), size=size)
    given: list[tuple[int, int]] = []
    for _ in range(1_000):
        given += world.consume((0, 1_000), limit=1_000)
        if world.fetching.was_held:
            break
    assert given == [] and world.fetching.was_held == [("raw", 0)]
    assert len(world.fetching.queue) < 2_000
    given += world.consume((1, 1))
    while len(given) <= many:
        given += world.consume((0, 1_000), limit=5_000, later=100)
    assert [number for number, _ in given].count(0) == many
    assert given == sorted(given, key=lambda one: one[1])


def test_what_is_read_again_is_not_given_twice() -> None:
    world = World(past(10, 8, 6), past(9, 7, 5))
    assert len(world.consume((0, 3), (1, 3))) == 5
    world.ordered.start({("raw", 1): 1})
    assert world.consume() == []
    assert [at // -MINUTE for _, at in world.consume((1, 2))] == [7]
    assert [at // -MINUTE for _, at in world.consume(later=SILENT_MS)] == [5]


def test_a_rebalance_leaves_nothing_of_what_was_at_hand() -> None:
    class Told:
        def __init__(self) -> None:
            self.told: list[object] = []

        def assigned(self, partitions: object) -> None:
            self.told.append(partitions)

        revoked = lost = assigned

    world, told = World(past(10, 8), past(9, 7)), Told()
    world.ordered.subscribe(["raw"], told)
    assert world.consume((0, 2)) == []
    assert world.ordered.lag(("raw", 0)) == 2
    assert world.fetching.listener is not None
    world.fetching.listener.revoked([("raw", 0), ("raw", 1)])
    world.fetching.listener.assigned([("raw", 1)])
    assert told.told == [[("raw", 0), ("raw", 1)], [("raw", 1)]]
    world.ordered.start({("raw", 1): 0})
    assert [number for number, _ in world.consume((1, 2), (0, 2))] == [1, 1]


@pytest.mark.parametrize("seed", range(40))
def test_however_it_is_fetched_everything_comes_once_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    logs = []
    for _ in range(rng.randint(2, 6)):
        at = NOW - rng.randint(2, 60) * MINUTE
        log = [at := at + rng.randint(0, 3) * rng.randint(0, 700) for _ in range(rng.randint(1, 400))]
        logs.append([stamp for stamp in log if stamp < NOW - LATE_MS])
    world = World(*logs)
    given: list[tuple[int, int]] = []
    while len(given) < sum(map(len, logs)):
        fetches = [(rng.randrange(len(logs)), rng.randint(1, 90)) for _ in range(rng.randint(0, 3))]
        # Whoever is being waited for is fetched before the others have waited for long.
        fetches += [(number, 1) for number in range(len(logs))]
        given += world.consume(*fetches, limit=rng.randint(1, 200), later=rng.randint(0, 40))
    assert given == sorted(given, key=lambda one: one[1])
    for number, log in enumerate(logs):
        assert [at + NOW for each, at in given if each == number] == log
