"""The ten steps, each with a crash in it: what readers see is the fold of the input, whatever dies."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.adapters import Membership
from pipeline.runtime.errors import Abortable, Fatal, Retriable, RuntimeFault, WorkerStopped
from pipeline.runtime.failpoints import POINTS
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import CountingStage, Crash, World, crash_at, run_idle

WORDS = [(f"k{n % 7}", "w") for n in range(60)]
UNDISTURBED = sorted(f"k{n % 7} {n // 7 + 1}" for n in range(60))


def crash(world: World, slot: str = "0", lose: int = 0) -> None:
    world.disks[slot].crash(lose)


def check_consistent(world: World) -> None:
    assert world.stored() == world.changelog()
    assert not world.broker.open_transactions()
    for partition in range(world.partitions):
        by_key: dict[str, list[int]] = {}
        for record in world.broker.read("counts", partition):
            key, _, count = (record.value or b"").decode().partition(" ")
            by_key.setdefault(key, []).append(int(count))
        assert all(counts == list(range(1, len(counts) + 1)) for counts in by_key.values())


def test_counts_every_record_once() -> None:
    world = World()
    world.say(*WORDS)
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED
    check_consistent(world)


@pytest.mark.parametrize("lose", [0, 1, 100])
@pytest.mark.parametrize("hit", [1, 2, 3])
@pytest.mark.parametrize("point", [point for point in POINTS if point != "mid_restore"])
def test_a_crash_at_every_step_loses_and_doubles_nothing(point: str, hit: int, lose: int) -> None:
    world = World()
    world.say(*WORDS[:20])
    worker = world.worker(failpoints=crash_at(point, hit))
    with pytest.raises(Crash):
        for part in ([], WORDS[20:30], WORDS[30:50], []):
            world.say(*part)
            for _ in range(4):
                worker.run_once()
    crash(world, lose=lose)
    produced = sum(len(world.broker.read("words", p)) for p in range(2))
    world.say(*WORDS[produced:])
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED
    check_consistent(world)


def test_case_47_killed_between_commit_and_the_local_write() -> None:
    world = World()
    world.say(*WORDS)
    worker = world.worker(failpoints=crash_at("after_commit"))
    with pytest.raises(Crash):
        run_idle(worker)
    crash(world)
    assert world.stored() == {} and len(world.changelog()) == 7
    run_idle(world.worker())
    assert sorted(world.counts()) == UNDISTURBED
    check_consistent(world)


def test_a_crash_in_mid_restore_leaves_a_store_that_can_go_on() -> None:
    world = World(partitions=1)
    world.say(*WORDS)
    run_idle(world.worker())
    crash(world)
    world.disks["0"].wipe(0)
    settings = WorkerSettings(restore_records=2)
    with pytest.raises(Crash):
        run_idle(world.worker(failpoints=crash_at("mid_restore", 2), settings=settings))
    crash(world)
    world.say(("k0", "w"))
    run_idle(world.worker(settings=settings))
    assert sorted(world.counts()) == sorted([*UNDISTURBED, "k0 10"])
    check_consistent(world)


@pytest.mark.parametrize("operation", ["flush", "send_offsets", "commit"])
@pytest.mark.parametrize("applied", [False, True])
def test_case_48_a_call_whose_answer_never_came_is_repeated(operation: str, applied: bool) -> None:
    world = World()
    world.say(*WORDS)
    worker = world.worker()
    for _ in range(3):
        world.broker.fail_next(operation, Retriable("timed out"), applied)
    run_idle(worker)
    assert sorted(world.counts()) == UNDISTURBED
    check_consistent(world)


@pytest.mark.parametrize("operation", ["flush", "send_offsets", "commit"])
def test_an_abortable_error_aborts_drops_and_rewinds(operation: str) -> None:
    world = World()
    world.say(*WORDS[:30])
    worker = world.worker()
    run_idle(worker)
    world.broker.fail_next(operation, Abortable("try again"))
    world.say(*WORDS[30:])
    run_idle(worker)
    assert sorted(world.counts()) == UNDISTURBED
    check_consistent(world)


@pytest.mark.parametrize("error", [Abortable("a rebalance"), Retriable("timed out")])
def test_after_the_call_that_is_known_to_hang_a_turn_may_take_as_long_as_ever(error: RuntimeFault) -> None:
    world = World()
    worker = world.worker(settings=WorkerSettings(stuck_s=20.0, offsets_stuck_s=7.0))
    world.say(*WORDS)
    world.broker.fail_next("send_offsets", error)
    while world.broker.faults["send_offsets"]:
        worker.run_once()
        assert worker._stuck_s == 20.0, "also where the next turn is a rebalance"


@pytest.mark.parametrize("operation", ["flush", "send_offsets", "commit"])
def test_what_is_undone_again_and_again_stops_the_worker_after_a_minute(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that is missing makes every transaction abortable: nobody would see that the worker gets nowhere."""
    world = World()
    world.say(*WORDS)
    worker = world.worker()
    for _ in range(100):
        world.broker.fail_next(operation, Abortable("not authorized"))
    with pytest.raises(WorkerStopped, match="nothing could be committed for 60000 ms: not authorized"):
        for _ in range(100):
            worker.run_once()
            world.now_ms += 1_000
    assert 1_000_000 + 60_000 <= world.now_ms <= 1_000_000 + 65_000
    assert "is undone, and its records are done again: not authorized" in caplog.text


def test_what_is_undone_in_a_row_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("pipeline.runtime.worker.time.sleep", waited.append)
    world = World()
    world.say(*WORDS)
    worker = world.worker(settings=WorkerSettings(undone_pause_s=0.1))
    for _ in range(3):
        world.broker.fail_next("commit", Abortable("not authorized"))
    run_idle(worker)
    assert waited == [0.0, 0.1, 0.2]
    assert sorted(world.counts()) == UNDISTURBED


@pytest.mark.parametrize("apart_ms", [61_000, 1_000])
def test_what_is_undone_now_and_then_stops_nobody(apart_ms: int) -> None:
    """Each long after the one before; or with commits in between."""
    world = World()
    worker = world.worker()
    for n, word in enumerate([*WORDS] * 3):
        world.say(word)
        world.broker.fail_next("commit", Abortable("try again"))
        worker.run_once()
        world.now_ms += apart_ms
        if apart_ms == 1_000 and n % 2:
            run_idle(worker)
    run_idle(worker)
    assert len(world.counts()) == len(WORDS) * 3


@pytest.mark.parametrize("operation", ["begin", "flush", "send_offsets", "commit"])
def test_any_other_error_stops_the_worker_for_good(operation: str) -> None:
    world = World()
    world.say(*WORDS)
    worker = world.worker()
    world.broker.fail_next(operation, Fatal("fenced"))
    with pytest.raises(WorkerStopped):
        run_idle(worker)
    with pytest.raises(WorkerStopped):
        worker.run_once()
    assert world.stored() == {}


def test_a_membership_without_a_generation_is_refused() -> None:
    """A broker would take such offsets: the rule is the worker's."""
    world = World()
    world.say(*WORDS)
    worker = world.worker()
    run_idle(worker)
    consumer = worker._consumer
    genuine = consumer.membership
    consumer.membership = lambda: Membership(None, -1)  # type: ignore[method-assign]
    world.say(("k0", "w"))
    for _ in range(5):
        assert worker.run_once() == 0
    assert sorted(world.counts()) == UNDISTURBED
    consumer.membership = genuine  # type: ignore[method-assign]
    run_idle(worker)
    assert "k0 10" in world.counts()


def test_echoes_come_back_and_committed_ones_are_deleted() -> None:
    world = World()
    world.say(*WORDS)
    worker = world.worker(make_stage=lambda partition: CountingStage(partition, echo=True))
    run_idle(worker)
    assert len(world.counts()) == 2 * len(WORDS)
    world.now_ms += 60_000
    world.say(("k0", "w"))
    run_idle(worker)
    world.now_ms += 60_000
    world.say(("k0", "w"))
    run_idle(worker)
    assert all(log.start > 0 for log in world.broker.topics["echoes"])
    check_consistent(world)


def test_deadlines_wake_an_idle_stage_and_survive_a_crash() -> None:
    world = World(partitions=1)
    world.say(("a", f"wake {world.now_ms + 500}"), ("b", f"wake {world.now_ms + 900}"))
    run_idle(world.worker())
    crash(world)
    world.disks["0"] = MemoryStores()
    worker = world.worker()
    run_idle(worker)
    assert not any("woken" in line for line in world.counts())
    world.now_ms += 500
    for _ in range(3):
        worker.run_once()
    assert [line for line in world.counts() if "woken" in line] == [f"a woken at {world.now_ms}"]
    world.now_ms += 400
    for _ in range(3):
        worker.run_once()
    assert [line for line in world.counts() if "woken" in line][1:] == [f"b woken at {world.now_ms}"]


@given(st.integers(0, 10_000))
def test_random_crashes_rebalances_and_faults(seed: int) -> None:
    chance = random.Random(seed)
    world = World(partitions=3)
    world.broker.interleave = random.Random(seed + 1)
    workers: dict[str, Worker] = {}
    said = 0

    def random_crash(name: str) -> None:
        if chance.random() < 0.02:
            raise Crash(name)

    for _ in range(150):
        if said < len(WORDS) and chance.random() < 0.5:
            world.say(WORDS[said])
            said += 1
        slot = chance.choice(["0", "1"])
        try:
            if slot not in workers:
                workers[slot] = world.worker(slot, random_crash)
            else:
                for operation in ("flush", "commit", "send_offsets"):
                    if chance.random() < 0.03:
                        error = chance.choice([Retriable("r"), Abortable("a")])
                        world.broker.fail_next(operation, error, isinstance(error, Retriable) and chance.random() < 0.5)
                workers[slot].run_once()
        except (Crash, WorkerStopped):
            del workers[slot]
            crash(world, slot, chance.randint(0, 5))
            if chance.random() < 0.5:
                world.broker.expire_member("counting", f"counting-{slot}")
                world.broker.expire_transaction(f"counting-{slot}")
        if chance.random() < 0.1:
            world.broker.compact("counting-changelog", drop_tombstones=False)
        if chance.random() < 0.02:
            world.broker.rebalance("counting")
    world.broker.faults.clear()
    for slot in list(workers):
        crash(world, slot)
        world.broker.expire_member("counting", f"counting-{slot}")
        world.broker.expire_transaction(f"counting-{slot}")
    for slot in ("0", "1"):
        world.broker.expire_transaction(f"counting-{slot}")
        world.broker.expire_member("counting", f"counting-{slot}")
    world.say(*WORDS[said:])
    last = world.worker("9")
    run_idle(last)
    assert sorted(world.counts()) == UNDISTURBED
    assert {k: v for s in world.disks["9"].stores.values() for k, v in s.values.items()} == world.changelog()
