"""What the clients of a broker do, in memory and on a real Kafka."""

from collections.abc import Iterator

import pytest

from pipeline.identifiers import partition_of
from pipeline.runtime.adapters import CHOOSE_BY_KEY, Change, Committed
from pipeline.runtime.errors import Abortable, Fatal, Retriable
from tests.contracts.clients import (
    PARTITIONS,
    Assignments,
    KafkaSide,
    MemorySide,
    Side,
    bring_in,
    joined,
    replay,
    take,
    until,
)

ALL = {("left", 0): 0, ("left", 1): 0, ("right", 0): 0, ("right", 1): 0}
TIMEOUT_S = 10.0


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    made: Side
    made = MemorySide() if request.param == "memory" else KafkaSide(request.getfixturevalue("kafka").bootstrap_servers)
    yield made
    made.close()


def test_records_come_whole_and_in_order_once_started(side: Side) -> None:
    for n in range(5):
        side.say("left", b"k", b"%d" % n, 1)
    side.say("right", b"k", b"r", 0)
    consumer, listener = joined(side, ["left", "right"])
    assert sorted(listener.now or []) == sorted(ALL)
    assert consumer.consume(10, 0.2) == [], "everything is held at first"
    consumer.start({("left", 1): 2, ("right", 0): 0})
    records = take(consumer, 4)
    assert [(r.offset, r.key, r.value) for r in records if r.topic == "left"] == [
        (2, b"k", b"2"),
        (3, b"k", b"3"),
        (4, b"k", b"4"),
    ]
    assert all(r.partition == 1 for r in records if r.topic == "left") and len(records) == 4
    assert all(r.timestamp_ms > 0 and r.headers == () for r in records)


def test_start_rewinds_and_hold_silences(side: Side) -> None:
    for n in range(3):
        side.say("left", b"k", b"%d" % n, 0)
    consumer, _ = joined(side, ["left"])
    consumer.start({("left", 0): 0})
    assert len(take(consumer, 3)) == 3
    consumer.start({("left", 0): 1})
    assert [r.offset for r in take(consumer, 2)] == [1, 2]
    consumer.hold([("left", 0)])
    side.say("left", b"k", b"held", 0)
    assert consumer.consume(10, 0.3) == []
    consumer.start({("left", 0): 3})
    assert [r.value for r in take(consumer, 1)] == [b"held"]
    until(lambda: consumer.lag(("left", 0)) == 0)


def test_only_committed_records_are_seen_up_to_the_first_open_transaction(side: Side) -> None:
    consumer, _ = joined(side, ["left"])
    consumer.start({("left", 0): 0})
    first, second = side.producer("1"), side.producer("2")
    first.init(TIMEOUT_S)
    second.init(TIMEOUT_S)
    first.begin()
    first.send([("left", b"open", None, 0)])
    first.flush(TIMEOUT_S)
    second.begin()
    second.send([("left", b"committed", None, 0)])
    second.flush(TIMEOUT_S)
    second.commit(TIMEOUT_S)
    assert consumer.consume(10, 0.3) == []
    first.abort(TIMEOUT_S)
    assert [r.value for r in take(consumer, 1)] == [b"committed"]


def test_the_key_chooses_the_partition_as_java_does(side: Side) -> None:
    consumer, _ = joined(side, ["left"])
    consumer.start({("left", 0): 0, ("left", 1): 0})
    producer = side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    keys = [b"%d" % n for n in range(20)]
    producer.send([("left", b"v", key, CHOOSE_BY_KEY) for key in keys])
    producer.flush(TIMEOUT_S)
    producer.commit(TIMEOUT_S)
    records = take(consumer, 20)
    assert {r.key: r.partition for r in records} == {key: partition_of(key, PARTITIONS) for key in keys}


def test_the_end_of_a_partition_is_known_as_of_when_it_was_assigned(side: Side) -> None:
    for n in range(3):
        side.say("left", b"k", b"%d" % n, 0)
    consumer, _ = joined(side, ["left"])
    assert (consumer.end(("left", 0)), consumer.end(("left", 1))) == (3, 0)
    consumer.start({("left", 0): 0})
    side.say("left", b"k", b"3", 0)
    assert len(take(consumer, 4)) == 4
    assert consumer.end(("left", 0)) == 4


def test_another_key_than_the_records_may_choose_the_partition(side: Side) -> None:
    consumer, _ = joined(side, ["left"])
    consumer.start({("left", 0): 0, ("left", 1): 0})
    producer = side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    keys = [b"%d" % n for n in range(20)]
    producer.send([("left", b"v", b"segment/" + key, key) for key in keys])
    producer.flush(TIMEOUT_S)
    producer.commit(TIMEOUT_S)
    records = take(consumer, 20)
    assert {r.key: r.partition for r in records} == {b"segment/" + key: partition_of(key, PARTITIONS) for key in keys}


def test_positions_are_committed_with_the_transaction_or_not_at_all(side: Side) -> None:
    consumer, _ = joined(side, ["left"])
    partitions = [("left", 0), ("left", 1)]
    assert consumer.committed(partitions, TIMEOUT_S) == {("left", 0): None, ("left", 1): None}
    producer = side.producer()
    producer.init(TIMEOUT_S)
    for commit in (False, True):
        producer.begin()
        producer.send([("out", b"v", None, 0)])
        producer.flush(TIMEOUT_S)
        producer.send_offsets(
            {("left", 0): 5}, consumer.membership(), TIMEOUT_S, {("left", 0): "a note", ("right", 0): "other"}
        )
        with pytest.raises(Retriable):
            consumer.committed(partitions, 0.3)
        (producer.commit if commit else producer.abort)(TIMEOUT_S)
        position = Committed(5, "a note") if commit else None
        until(lambda position=position: consumer.committed(partitions, 1.0)[("left", 0)] == position)  # type: ignore[misc]


def test_positions_without_a_note(side: Side) -> None:
    consumer, _ = joined(side, ["left"])
    producer = side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.send_offsets({("left", 0): 5}, consumer.membership(), TIMEOUT_S)
    producer.commit(TIMEOUT_S)
    until(lambda: consumer.committed([("left", 0)], 1.0)[("left", 0)] == Committed(5, ""))


def test_a_topic_made_again_has_another_id_and_nobody_else_notices(side: Side) -> None:
    """Why the worker asks for ids: the consumer goes on behind its old position, past what stands before it."""
    consumer, _ = joined(side, ["left"])
    for n in range(3):
        side.say("left", b"k", b"%d" % n, 0)
    consumer.start({("left", 0): 0, ("left", 1): 0})
    take(consumer, 3)
    producer = side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.send_offsets({("left", 0): 3}, consumer.membership(), TIMEOUT_S)
    producer.commit(TIMEOUT_S)
    admin = side.admin()
    before = admin.topic_ids(["left", "right", "nowhere"], TIMEOUT_S)
    assert set(before) == {"left", "right"}
    side.recreate("left")
    for n in range(5):
        side.say("left", b"k", b"new %d" % n, 0)
    after = admin.topic_ids(["left", "right", "nowhere"], TIMEOUT_S)
    assert after["left"] != before["left"] and after["right"] == before["right"]
    until(lambda: admin.topic_ids_lately(["left", "right"]) == after)
    assert [record.value for record in take(consumer, 2)] == [b"new 3", b"new 4"]
    assert consumer.committed([("left", 0)], TIMEOUT_S) == {("left", 0): None}, "its positions went with it"


def test_membership_has_a_generation_once_joined_and_an_old_one_is_refused(side: Side) -> None:
    outside = side.consumer("9")
    assert outside.membership().generation == -1
    consumer, _ = joined(side, ["left"])
    membership = consumer.membership()
    assert membership.generation >= 0
    bring_in(side, consumer)
    producer = side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.send([("out", b"v", None, 0)])
    producer.flush(TIMEOUT_S)
    with pytest.raises(Abortable):
        producer.send_offsets({("left", 0): 1}, membership, TIMEOUT_S)
    producer.abort(TIMEOUT_S)
    producer.begin()
    producer.send_offsets({("left", 0): 1}, consumer.membership(), TIMEOUT_S)
    producer.commit(TIMEOUT_S)


def test_two_members_share_by_number(side: Side) -> None:
    members = [(side.consumer(slot), Assignments()) for slot in ("0", "1")]
    for consumer, listener in members:
        consumer.subscribe(["left", "right"], listener)

    def shared() -> bool:
        for consumer, _ in members:
            consumer.consume(10, 0.05)
        return all(len(listener.now or []) == 2 for _, listener in members)

    until(shared)
    numbers = [{number for _, number in listener.now or []} for _, listener in members]
    assert sorted(map(sorted, numbers)) == [[0], [1]]


def test_a_slot_that_comes_back_takes_its_partitions_and_fences_its_former_self(side: Side) -> None:
    old, _ = joined(side, ["left"])
    _new, listener = joined(side, ["left"])
    assert sorted(listener.now or []) == [("left", 0), ("left", 1)]

    def fenced() -> bool:
        try:
            old.consume(10, 0.1)
        except Fatal:
            return True
        return False

    until(fenced)


@pytest.mark.parametrize("transactions_before", [0, 1, 2])
def test_a_new_producer_of_the_slot_fences_the_old_one_and_ends_its_transaction(
    side: Side, transactions_before: int
) -> None:
    reader = side.reader()
    old = side.producer()
    old.init(TIMEOUT_S)
    # Transactions may take turns between several ids: whichever one is at, it is fenced.
    for number in range(transactions_before):
        old.begin()
        old.send_changelog("changelog", 0, [(b"k", b"%d" % number)])
        old.flush(TIMEOUT_S)
        old.commit(TIMEOUT_S)
    old.begin()
    old.send_changelog("changelog", 0, [(b"k", b"old")])
    old.flush(TIMEOUT_S)
    new = side.producer()

    def initialised() -> bool:
        new.init(TIMEOUT_S)
        return True

    until(initialised)
    with pytest.raises(Fatal):
        old.commit(TIMEOUT_S)
    new.begin()
    new.send_changelog("changelog", 0, [(b"k", b"new")])
    new.flush(TIMEOUT_S)
    new.commit(TIMEOUT_S)
    _, high = reader.bounds(("changelog", 0), TIMEOUT_S)
    before = [b"%d" % number for number in range(transactions_before)]
    assert [r.value for r in replay(reader, ("changelog", 0), 0, high)] == [*before, b"new"]


@pytest.mark.parametrize("transactions_before", [0, 1])
def test_a_former_self_cannot_begin_again_whichever_turn_it_is(side: Side, transactions_before: int) -> None:
    old = side.producer()
    old.init(TIMEOUT_S)
    for number in range(transactions_before):
        old.begin()
        old.send_changelog("changelog", 0, [(b"k", b"%d" % number)])
        old.flush(TIMEOUT_S)
        old.commit(TIMEOUT_S)
    new = side.producer()

    def initialised() -> bool:
        new.init(TIMEOUT_S)
        return True

    until(initialised)

    def one_more() -> None:
        old.begin()
        old.send_changelog("changelog", 0, [(b"k", b"zombie")])
        old.flush(TIMEOUT_S)
        old.commit(TIMEOUT_S)

    with pytest.raises(Fatal):
        one_more()


def test_flush_tells_the_highest_offset_and_a_replay_passes_control_records(side: Side) -> None:
    reader, producer = side.reader(), side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.send_changelog("changelog", 1, [(b"a", b"1"), (b"b", None), (b"c", b"")])
    assert producer.flush(TIMEOUT_S) == {("changelog", 1): 2}
    producer.commit(TIMEOUT_S)
    producer.begin()
    producer.send_changelog("changelog", 1, [(b"d", b"aborted")])
    assert producer.flush(TIMEOUT_S) == {("changelog", 1): 4}
    assert reader.bounds(("changelog", 1), TIMEOUT_S) == (0, 5), "an uncommitted view sees the open transaction"
    producer.abort(TIMEOUT_S)
    until(lambda: reader.bounds(("changelog", 1), TIMEOUT_S) == (0, 6))
    found = replay(reader, ("changelog", 1), 0, 6)
    assert [(r.offset, r.key, r.value) for r in found] == [(0, b"a", b"1"), (1, b"b", None), (2, b"c", b"")]
    assert replay(reader, ("changelog", 1), 3, 6) == []


def test_changes_are_the_keys_and_values_of_the_records_by_partition(side: Side) -> None:
    reader, producer = side.reader(), side.producer()
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.send_changelog("changelog", 0, [(b"a", b"1"), (b"b", None)])
    producer.send_changelog("changelog", 1, [(b"c", b"")])
    producer.flush(TIMEOUT_S)
    producer.commit(TIMEOUT_S)
    for number in range(PARTITIONS):
        reader.open(("changelog", number), 0)
    found: dict[int, list[Change]] = {0: [], 1: []}

    def all_read() -> bool:
        for number, changes in reader.read_changes(2, 0.1).items():
            found[number] += changes
        # The control record that ends the transaction is passed as well.
        return reader.position(("changelog", 0)) == 3 and reader.position(("changelog", 1)) == 2

    until(all_read)
    assert found == {0: [(b"a", b"1"), (b"b", None)], 1: [(b"c", b"")]}
    reader.close_partition(("changelog", 1))
    assert reader.read_changes(10, 0.1) == {0: []}


def test_deleted_records_raise_the_beginning_and_a_position_below_it_is_loud(side: Side) -> None:
    for n in range(4):
        side.say("left", b"k", b"%d" % n, 0)
    consumer, _ = joined(side, ["left"])
    admin = side.admin()
    admin.delete_records({("left", 0): 3})
    until(lambda: consumer.bounds(("left", 0), TIMEOUT_S) == (3, 4))
    consumer.start({("left", 0): 3})
    assert [r.offset for r in take(consumer, 1)] == [3]
    consumer.start({("left", 0): 1})

    def loud() -> bool:
        try:
            consumer.consume(10, 0.1)
        except Fatal:
            return True
        return False

    until(loud)


def test_the_admin_counts_partitions_of_topics_that_exist(side: Side) -> None:
    assert side.admin().partition_counts(["left", "nowhere"], TIMEOUT_S) == {"left": PARTITIONS}
