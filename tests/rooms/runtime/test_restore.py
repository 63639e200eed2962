"""Restores: what a zombie may do in the meantime, what must be loud, and when a store is too old."""

import copy
import time
from collections.abc import Sequence

import pytest

from pipeline.runtime import restore
from pipeline.runtime.adapters import Committed, Membership, Partition
from pipeline.runtime.errors import Retriable, WorkerStopped
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.memory.log import Log
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.topology import DAY_MS, Role
from tests.rooms.runtime.counting import Crash, StatelessStage, World, crash_at, run_idle

WORDS = [(f"k{n % 5}", "w") for n in range(40)]
UNDISTURBED = sorted(f"k{n % 5} {n // 5 + 1}" for n in range(40))


def counted(partitions: int = 1) -> World:
    """A world whose words are counted, its worker gone in good order, its session over."""
    world = World(partitions)
    world.say(*WORDS)
    worker = world.worker()
    run_idle(worker)
    worker.close()
    world.broker.expire_member("counting", "counting-0")
    return world


def test_case_49_a_zombie_that_commits_late_is_waited_for() -> None:
    """It stopped after its offsets were sent: its commit succeeds, and the new owner must see all of it."""
    world = World(partitions=1)
    world.say(*WORDS[:20])
    zombie = world.worker("0")
    run_idle(zombie)
    world.say(*WORDS[20:])

    class Paused(BaseException):
        pass

    def pause(name: str) -> None:
        if name == "after_offsets":
            raise Paused

    zombie._reach = pause
    with pytest.raises(Paused):
        run_idle(zombie)
    world.broker.expire_member("counting", "counting-0")
    heir = world.worker("1")
    for _ in range(20):
        assert heir.run_once() == 0
    assert heir.restoring() == {0: (0, None)}, "no target before the committed positions have answered"
    zombie._producer.commit(1.0)
    run_idle(heir)
    assert sorted(world.counts()) == UNDISTURBED
    assert world.disks["1"].stores[0].values == world.changelog()


def test_a_zombie_that_was_fenced_before_its_offsets_is_refused() -> None:
    world = World(partitions=1)
    world.say(*WORDS)
    zombie = world.worker("0")
    run_idle(zombie)
    world.say(("k0", "w"))

    class Paused(BaseException):
        pass

    def pause(name: str) -> None:
        if name == "before_offsets":
            raise Paused

    membership = zombie._consumer.membership()
    zombie._reach = pause
    with pytest.raises(Paused):
        run_idle(zombie)
    world.broker.expire_member("counting", "counting-0")
    heir = world.worker("1")
    for _ in range(3):
        heir.run_once()
    with pytest.raises(Exception, match="does not know"):
        zombie._producer.send_offsets({("words", 0): 99}, membership, 1.0)
    zombie._producer.abort(1.0)
    run_idle(heir)
    assert sorted(world.counts()) == sorted([*UNDISTURBED, "k0 9"])


def test_case_51_a_foreign_open_transaction_on_the_changelog_is_loud_in_the_end() -> None:
    world = counted()
    epoch = world.broker.init_transactions("stranger")
    transaction = world.broker.begin("stranger", epoch)
    world.broker.produce("counting-changelog", b"ck0", bytes(8) + b"99", 0, transaction)
    worker = world.worker("1")
    for _ in range(10):
        worker.run_once()
    assert worker.restoring()
    world.now_ms += 61_000
    with pytest.raises(WorkerStopped, match="transaction is open"):
        worker.run_once()


def restores_after_a_touch(world: World) -> None:
    """A worker waits behind what hangs, touches it after a while, and goes on."""
    worker = world.worker()
    for _ in range(10):
        worker.run_once()
    assert worker.restoring()
    world.now_ms += 16_000
    world.say(("k0", "w"))
    run_idle(worker)
    assert "k0 9" in world.counts()


def test_case_51_a_transaction_of_its_own_that_its_coordinator_has_lost_is_ended() -> None:
    world = counted()
    id = next(iter(world.broker._epochs))
    transaction = world.broker.begin(id, world.broker._epochs[id])
    world.broker.produce("counting-changelog", b"ck0", bytes(8) + b"99", 0, transaction)
    world.broker.lose_transaction(id)
    restores_after_a_touch(world)


def test_case_51_positions_in_a_transaction_that_its_coordinator_has_lost_are_set_free() -> None:
    world = counted()
    id = next(iter(world.broker._epochs))
    transaction = world.broker.begin(id, world.broker._epochs[id])
    (group,) = world.broker.groups
    topic = world.broker.groups[group].topics[0]
    world.broker.send_offsets(transaction, group, {(topic, 0): 10**6}, Membership(None, -1))
    world.broker.lose_transaction(id)
    restores_after_a_touch(world)


def test_case_51_it_goes_on_when_that_transaction_ends_in_time() -> None:
    world = counted()
    epoch = world.broker.init_transactions("stranger")
    transaction = world.broker.begin("stranger", epoch)
    world.broker.produce("counting-changelog", b"ck0", bytes(8) + b"99", 0, transaction)
    worker = world.worker("1")
    for _ in range(10):
        worker.run_once()
    world.now_ms += 12_000
    world.broker.end(transaction, epoch, commit=False)
    world.say(("k0", "w"))
    run_idle(worker)
    assert "k0 9" in world.counts()


def test_case_52_a_changelog_with_holes_that_ends_in_control_records() -> None:
    world = counted()
    world.broker.compact("counting-changelog")
    worker = world.worker("1")
    world.say(("k0", "w"))
    run_idle(worker)
    assert "k0 9" in world.counts()
    assert world.disks["1"].stores[0].values == world.changelog()


def test_case_50_a_rebalance_during_restore() -> None:
    world = counted(partitions=2)
    settings = WorkerSettings(restore_records=1)
    first = world.worker("1", settings=settings)
    for _ in range(5):
        first.run_once()
    assert first.restoring()
    second = world.worker("2", settings=settings)
    world.say(("k0", "w"), ("k1", "w"))
    run_idle(first, second)
    assert {"k0 9", "k1 9"} <= set(world.counts())
    assert len(first.tasks) == 1 and len(second.tasks) == 1


def test_a_broker_that_does_not_answer_holds_no_turn_up_for_as_many_partitions_as_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is asked for in vain for half a second: of forty, a turn would take as long as a worker may be silent."""
    monkeypatch.setattr(restore, "_PREPARE_S", 0.02)
    world = World(partitions=8)
    worker = world.worker()
    beats_at: list[tuple[int, Partition]] = []
    answer = worker._consumer.committed

    def late(partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, Committed | None]:
        beats_at.append((worker.beats, partitions[0]))
        time.sleep(0.01)
        raise Retriable("timed out")

    monkeypatch.setattr(worker._consumer, "committed", late)
    worker.run_once()
    assert worker.restoring() and not beats_at
    worker.run_once()
    assert 1 <= len(beats_at) < 8, "the turn ends before all were asked"
    for _ in range(20):
        worker.run_once()
    assert {partition[1] for _, partition in beats_at} == set(range(8)), "nobody is passed over"
    assert len({beats for beats, _ in beats_at}) == len(beats_at), "each question is a sign of life"
    monkeypatch.setattr(worker._consumer, "committed", answer)
    world.say(*WORDS)
    run_idle(worker)
    assert len(world.counts()) == len(WORDS)


def test_a_ready_partition_does_not_wait_for_one_that_is_restoring() -> None:
    world = counted(partitions=2)
    world.disks["0"].wipe(1)
    worker = world.worker(settings=WorkerSettings(restore_records=1))
    words = [(f"n{n}", "w") for n in range(20)]
    world.say(*words)
    done_while_restoring = 0
    for _ in range(8):
        done = worker.run_once()
        done_while_restoring += done if worker.restoring() else 0
    assert done_while_restoring > 0
    run_idle(worker)
    assert len(world.counts()) == len(WORDS) + 20


def test_case_61_a_store_older_than_the_tombstones_is_wiped() -> None:
    world = World(partitions=1)
    world.say(("gone", "w"), ("stays", "w"))
    worker = world.worker("0")
    run_idle(worker)
    worker.close()
    other = world.worker("1")
    world.broker.expire_member("counting", "counting-0")
    world.say(("gone", "forget"), ("stays", "w"))
    run_idle(other)
    other.close()
    world.broker.expire_member("counting", "counting-1")
    world.broker.compact("counting-changelog", drop_tombstones=True)
    world.now_ms += DAY_MS
    worker = world.worker("0")
    run_idle(worker)
    assert set(world.disks["0"].stores[0].values) == {b"cstays"}


def test_a_young_store_is_kept() -> None:
    world = counted()
    before = world.disks["0"].stores[0]
    world.now_ms += DAY_MS // 4
    run_idle(world.worker())
    assert world.disks["0"].stores[0] is before


def test_a_partial_restore_does_not_make_a_store_younger() -> None:
    world = counted()
    store = world.disks["0"].stores[0]
    assert store.stored_meta is not None
    written = store.stored_meta.written_ms
    other = world.worker("1")
    world.say(*WORDS)
    run_idle(other)
    other.close()
    world.broker.expire_member("counting", "counting-1")
    world.now_ms += DAY_MS // 4
    with pytest.raises(Crash):
        run_idle(world.worker("0", crash_at("mid_restore"), settings=WorkerSettings(restore_records=1)))
    assert store.stored_meta.written_ms == written
    world.disks["0"].crash()
    run_idle(world.worker("0"))
    assert store.stored_meta.written_ms == world.now_ms


@pytest.mark.parametrize("lost", ["end", "beginning", "all"])
def test_a_truncated_or_recreated_changelog_is_loud(lost: str) -> None:
    world = counted()
    log = world.broker.topics["counting-changelog"][0]
    if lost == "end":
        del log.entries[-3:]
        log.end -= 3
    elif lost == "all":
        world.broker.topics["counting-changelog"] = [Log()]
    else:
        log.delete_below(3)
        world.disks["0"] = MemoryStores()
    with pytest.raises(WorkerStopped, match="restore"):
        run_idle(world.worker())


def test_a_state_lost_on_both_sides_is_loud() -> None:
    """The store and the changelog are empty, the group says it was further: counting again would double."""
    world = counted()
    world.disks["0"] = MemoryStores()
    world.broker.topics["counting-changelog"] = [Log()]
    with pytest.raises(WorkerStopped, match="position"):
        run_idle(world.worker())


def test_expired_group_offsets_are_taken_from_the_state() -> None:
    world = counted()
    world.broker.forget_offsets("counting")
    world.say(("k0", "w"))
    run_idle(world.worker())
    assert sorted(world.counts()) == sorted([*UNDISTURBED, "k0 9"])


def test_case_59_a_source_recreated_with_offsets_from_zero_is_loud() -> None:
    world = counted()
    world.broker.topics["words"] = [Log()]
    world.say(("k0", "w"))
    with pytest.raises(WorkerStopped, match="outside the log"):
        run_idle(world.worker())


def grown(world: World, count: int) -> None:
    """Make the source again, and let it grow past where it was."""
    world.broker.recreate_topic("words")
    world.say(*[("new", "w")] * count)


def test_case_59_a_source_made_again_and_grown_past_the_old_position_is_loud() -> None:
    world = counted()
    grown(world, 2 * len(WORDS))
    with pytest.raises(WorkerStopped, match="words was deleted and made again"):
        run_idle(world.worker())


def test_case_59_also_if_the_store_is_lost() -> None:
    world = counted()
    world.disks["0"] = MemoryStores()
    grown(world, 2 * len(WORDS))
    with pytest.raises(WorkerStopped, match="words was deleted and made again"):
        run_idle(world.worker())


def test_case_59_a_changelog_made_again_and_grown_past_the_old_position_is_loud() -> None:
    world = counted()
    end = world.broker.topics["counting-changelog"][0].end
    world.broker.recreate_topic("counting-changelog")
    for _ in range(2 * end):
        world.broker.produce("counting-changelog", b"cother", bytes(8) + b"1", 0)
    with pytest.raises(WorkerStopped, match="counting-changelog was deleted and made again"):
        run_idle(world.worker())


def test_a_store_that_was_copied_from_another_partition_is_loud() -> None:
    world = counted(partitions=2)
    disk = world.disks["0"]
    disk.stores[0] = copy.deepcopy(disk.stores[1])
    worker = world.worker()
    with pytest.raises(WorkerStopped, match="the store of counting-changelog/0 is one of counting-changelog/1"):
        run_idle(worker)
    worker.close()
    disk.wipe(0)
    world.say(*WORDS)
    run_idle(world.worker())
    assert world.stored() == world.changelog()


def test_a_store_of_a_release_that_did_not_note_whose_it_is_is_taken() -> None:
    world = counted()
    before = world.disks["0"].stores[0].stored_meta
    assert before is not None
    before.of = ""
    world.say(*WORDS)
    run_idle(world.worker())
    after = world.disks["0"].stores[0].stored_meta
    assert after is not None and after.of == "counting-changelog/0"


def test_case_59_it_is_noticed_under_a_running_worker() -> None:
    world = World(partitions=1)
    world.say(*WORDS)
    worker = world.worker()
    run_idle(worker)
    grown(world, 2 * len(WORDS))
    world.now_ms += 1_000
    with pytest.raises(WorkerStopped, match="words was deleted and made again"):
        worker.run_once()


STATELESS = Role("passing", ("words",), None, tolerant=("words",))


class PassingStage(StatelessStage):
    """Sends on what it is given; keeps no state."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        out.log("counts", record.key, record.value or b"")


@pytest.mark.parametrize("lately", [True, False], ids=["under a running worker", "while nobody ran"])
@pytest.mark.parametrize("count", [5, 100], ids=["shorter", "longer"])
def test_case_59_a_role_without_state_reads_a_source_made_again_from_its_beginning(lately: bool, count: int) -> None:
    """What was taken behind the old position before it was noticed comes a second time, under the same names."""
    world = World(partitions=1, role=STATELESS)
    world.say(*WORDS)
    worker = world.worker(make_stage=lambda _: PassingStage())
    run_idle(worker)
    world.broker.recreate_topic("words")
    new = [("new", f"new {n}") for n in range(count)]
    world.say(*new)
    if lately and count > len(WORDS):
        worker.run_once()
    world.now_ms += 1_000
    with pytest.raises(WorkerStopped):
        worker.run_once()
    # Its last positions were of the former topic, and came to stand there after the broker had forgotten them.
    told = world.broker.groups["passing"].offsets
    told.setdefault(("words", 0), Committed(len(WORDS), "words #1"))
    run_idle(world.worker(make_stage=lambda _: PassingStage()))
    values = [value for value in world.counts() if value.startswith("new")]
    assert set(values) == {word for _, word in new}
    assert values[-count:] == [word for _, word in new], "all of it, in order, from the beginning"
    world.say(("k0", "on"))
    run_idle(world.worker(make_stage=lambda _: PassingStage()))
    assert world.counts()[-1] == "on" and world.broker.groups["passing"].offsets["words", 0].note == "words #2"


def test_a_topic_whose_id_is_not_told_is_read_on() -> None:
    """An old broker, or a user who may not describe topics."""
    world = counted()
    world.broker.topic_ids.clear()
    world.say(("k0", "w"))
    run_idle(world.worker())
    assert "k0 9" in world.counts()


def test_a_source_that_lost_unread_records_is_loud() -> None:
    world = counted()
    world.say(*WORDS)
    world.broker.delete_records({("words", 0): len(WORDS) + 5})
    with pytest.raises(WorkerStopped, match="outside the log"):
        run_idle(world.worker())
