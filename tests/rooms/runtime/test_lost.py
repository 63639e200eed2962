"""A broker that drops the markers of a transaction: whatever part of it is committed, and whatever hangs, each input
comes out once."""

from collections.abc import Sequence
from itertools import combinations

import pytest

from pipeline.runtime.adapters import Partition
from pipeline.runtime.errors import Abortable, WorkerStopped
from pipeline.runtime.lost import Source, Told
from pipeline.runtime.memory import MemoryStores, memory_adapters
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.worker import Worker
from pipeline.topology import Role
from tests.rooms.runtime.counting import Crash, StatelessStage, World, crash_at, run_idle

PASSING = Role("passing", ("words",), None, tolerant=("words",), outputs=("counts", "dead-letters"))
FILLER = b"nothing"
POSITIONS = ("positions", 0)
PARTS: tuple[Partition, ...] = (POSITIONS, ("counts", 0), ("counts", 1))


class PassingStage(StatelessStage):
    """Sends each word on, with where it came from."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        out.log("counts", record.key, b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset))


def source(record: Record) -> Source | None:
    if record.value in (None, FILLER):
        return None
    topic, partition, offset = (record.value or b"").decode().split("/")
    return topic, int(partition), int(offset)


def run_until_settled(world: World, worker: Worker) -> None:
    """What hangs is ended within a while."""
    for _ in range(12):
        worker.run_once()
        worker.run_once()
        world.now_ms += 2_500
    run_idle(worker)


class Passing(World):
    """Words that are passed on by a role without state."""

    def __init__(self) -> None:
        super().__init__(2, PASSING)
        self.broker.now_ms = self.now_ms

    def passing(self, slot: str = "0", point: str = "", told: bool = True) -> Worker:
        adapters = memory_adapters(self.broker, PASSING.name, slot, lambda: self.now_ms)
        failpoints = crash_at(point) if point else (lambda _: None)
        fillers = Told(source, {"counts": FILLER}) if told else None
        worker = Worker(PASSING, lambda _: PassingStage(), adapters, None, failpoints, None, fillers)
        worker.start()
        return worker

    def speak(self, count: int = 12) -> None:
        self.say(*((f"k{n}", "w") for n in range(count)))

    def lose(self, committed: Sequence[Partition] = ()) -> None:
        """The worker has died in mid-commit, and the broker drops the markers of all but these parts."""
        self.broker.lose_transaction(
            "passing-0", [at for at in committed if at != POSITIONS], positions_are=POSITIONS in committed
        )

    def start_again(self) -> Worker:
        """A new process in the same slot; whatever hangs, it is through after a while."""
        worker = self.passing()
        run_until_settled(self, worker)
        return worker

    def came_out(self) -> list[str]:
        return sorted(value for value in self.counts() if value != FILLER.decode())

    def all_of_them(self) -> list[str]:
        return sorted(f"words/{r.partition}/{r.offset}" for r in self.broker.read("words"))


def died_in_mid_commit(point: str = "commit_in_flight") -> Passing:
    world = Passing()
    world.speak()
    before = world.passing()
    run_idle(before)
    world.speak()
    worker = world.passing(point=point)
    with pytest.raises(Crash):
        run_idle(worker)
    return world


@pytest.mark.parametrize(
    "committed", [some for count in range(4) for some in combinations(PARTS, count)], ids=lambda some: str(list(some))
)
def test_each_input_comes_out_once_whatever_part_of_the_transaction_got_its_marker(
    committed: tuple[Partition, ...],
) -> None:
    world = died_in_mid_commit()
    world.lose(committed)
    worker = world.start_again()
    assert world.came_out() == world.all_of_them()
    world.speak()
    run_idle(worker)
    assert world.came_out() == world.all_of_them()
    assert not world.broker._hanging


def test_what_was_never_complete_is_aborted() -> None:
    """It died before its offsets: the coordinator aborts it, and drops those markers."""
    world = died_in_mid_commit("before_offsets")
    world.lose()
    world.start_again()
    assert world.came_out() == world.all_of_them()


def test_somebody_elses_open_transaction_is_left_alone_and_waited_for_briefly() -> None:
    world = Passing()
    world.speak()
    epoch = world.broker.init_transactions("stranger")
    transaction = world.broker.begin("stranger", epoch)
    world.broker.produce("counts", b"k", b"words/0/99", 0, transaction)
    world.start_again()
    world.broker.end(transaction, epoch, commit=True)
    assert world.came_out() == sorted([*world.all_of_them(), "words/0/99"])


def test_a_transaction_of_ours_is_judged_by_itself_when_another_slots_is_open_before_it() -> None:
    """The other slot's is not covered by positions, ours is: it is not to be aborted."""
    world = Passing()
    doomed = world.passing(point="commit_in_flight")
    run_idle(doomed)
    epoch = world.broker.init_transactions("passing-1")
    transaction = world.broker.begin("passing-1", epoch)
    world.broker.produce("counts", b"k", b"words/7/3", 0, transaction)
    world.speak()
    with pytest.raises(Crash):
        run_idle(doomed)
    world.lose([POSITIONS, ("counts", 1)])
    world.start_again()
    world.broker.end(transaction, epoch, commit=True)
    assert world.came_out() == sorted([*world.all_of_them(), "words/7/3"])


@pytest.mark.parametrize("committed", [PARTS[1:], PARTS[1:2]], ids=["all but positions", "a part"])
def test_a_rebalance_before_the_first_commit_forgets_nothing(committed: tuple[Partition, ...]) -> None:
    world = died_in_mid_commit()
    world.lose(committed)
    worker = world.passing()
    for turn in range(24):
        world.broker.faults["send_offsets"].clear()
        if turn < 20:
            world.broker.fail_next("send_offsets", Abortable("a rebalance"))
        are_free = any(one.freed for one in worker._restorer.waiting.values())
        if turn == 15 or are_free:
            assigned = worker.tasks[0].partitions
            worker.revoked(assigned)
            worker.assigned(assigned)
        worker.run_once()
        world.now_ms += 2_500
    run_idle(worker)
    assert world.came_out() == world.all_of_them()


def test_nothing_hangs_and_nothing_is_waited_for() -> None:
    world = Passing()
    world.speak()
    run_idle(world.passing())
    assert world.came_out() == world.all_of_them()


# ------------------------------------------------------------------------------------------------ a role with state


def counting_died(point: str) -> World:
    world = World(partitions=1)
    role = world.role._replace(outputs=("counts", "latest", "echoes"))
    world.role = role
    world.broker.now_ms = world.now_ms
    world.say(*((f"k{n % 3}", "w") for n in range(9)))
    run_idle(world.worker())
    world.broker.now_ms += 5
    world.say(*((f"k{n % 3}", "w") for n in range(9)))
    world.disks["0"].crash()
    with pytest.raises(Crash):
        run_idle(world.worker(failpoints=crash_at(point)))
    world.disks["0"].crash()
    return world


def counted_again(world: World) -> list[str]:
    worker = world.worker()
    run_until_settled(world, worker)
    world.say(("k0", "w"))
    run_idle(worker)
    return sorted(world.counts())


EACH_ONCE = sorted([*(f"k{n % 3} {n // 3 + 1}" for n in range(18)), "k0 7"])


def test_what_a_lost_transaction_wrote_is_aborted_with_its_positions() -> None:
    world = counting_died("commit_in_flight")
    world.broker.lose_transaction("counting-0")
    assert counted_again(world) == EACH_ONCE
    assert world.disks["0"].stores[0].values == world.changelog()


def test_what_a_transaction_wrote_that_was_never_complete_is_aborted() -> None:
    """It died before its offsets, and half of it was in the log: the coordinator aborts it, and drops those markers."""
    world = counting_died("after_begin")
    transaction = world.broker._open["counting-0"]
    world.broker.produce("counts", b"k0", b"k0 4", 0, transaction)
    world.broker.lose_transaction("counting-0")
    assert counted_again(world) == EACH_ONCE


def test_outputs_that_hang_and_are_covered_by_the_changelog_are_not_aborted() -> None:
    world = counting_died("commit_in_flight")
    world.broker.lose_transaction("counting-0", [("counting-changelog", 0), ("latest", 0)], positions_are=True)
    assert counted_again(world) == EACH_ONCE


def test_a_store_that_has_a_lost_transaction_is_restored_anew() -> None:
    """The commit was answered, the store written; then the broker dropped the markers."""
    world = counting_died("commit_in_flight")
    ahead = world.broker._open["counting-0"]
    store = world.disks["0"].open(0)
    meta = store.meta()
    assert meta is not None
    high = world.broker.log(("counting-changelog", 0)).end
    meta.changelog, meta.inputs = high, {at[0]: told.position for at, told in ahead.offsets["counting"].items()}
    store.write([(b"ck0", bytes(8) + b"6")], [], [], meta)
    world.disks["0"].crash()
    world.broker.lose_transaction("counting-0")
    assert counted_again(world) == EACH_ONCE
    assert world.disks["0"].stores[0].values == world.changelog()


def test_positions_that_hung_are_those_of_a_changelog_that_got_its_marker() -> None:
    """The broker had written the changelog's marker when it died, and dropped the others."""
    world = counting_died("commit_in_flight")
    world.broker.lose_transaction("counting-0", [("counting-changelog", 0)])
    assert counted_again(world) == EACH_ONCE
    assert world.disks["0"].stores[0].values == world.changelog()


def test_what_hangs_in_the_changelog_and_is_covered_by_the_positions_is_committed() -> None:
    world = counting_died("commit_in_flight")
    world.broker.lose_transaction("counting-0", [("counts", 0), ("latest", 0)], positions_are=True)
    world.disks["0"] = MemoryStores()
    assert counted_again(world) == EACH_ONCE
    assert world.disks["0"].stores[0].values == world.changelog()


@pytest.mark.parametrize("refused", ["send_offsets", "commit"])
def test_an_abort_that_ends_a_lost_transaction_too_is_noticed(refused: str) -> None:
    """The worker lives, and was told that its transaction is committed; the next one is aborted, and so both are."""
    world = World(partitions=1)
    world.role = world.role._replace(outputs=("counts", "latest", "echoes"))
    world.broker.now_ms = world.now_ms
    world.say(*((f"k{n % 3}", "w") for n in range(9)))
    worker = world.worker()
    run_idle(worker)

    def answered(timeout_s: float) -> None:
        world.broker.lose_transaction("counting-0")

    world.say(*((f"k{n % 3}", "w") for n in range(6)))
    world.broker.now_ms += 5
    worker._producer.commit, commit = answered, worker._producer.commit  # type: ignore[method-assign]
    worker.run_once()
    worker._producer.commit = commit  # type: ignore[method-assign]
    world.say(*((f"k{n % 3}", "w") for n in range(3)))
    world.broker.fail_next(refused, Abortable("refused"))
    with pytest.raises(WorkerStopped, match=r"lost that transaction|positions after abort was not answered"):
        worker.run_once()
    world.disks["0"].crash()
    assert counted_again(world) == EACH_ONCE
    assert world.disks["0"].stores[0].values == world.changelog()
