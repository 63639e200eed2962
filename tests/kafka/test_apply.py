"""Definitions on a real broker: what an apply writes, all or nothing, and how workers come to know of it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition

from pipeline.admin import create_topics
from pipeline.cli.apply import consequences
from pipeline.definitions.export import export
from pipeline.definitions.loader import Written, load_text
from pipeline.definitions.log import KafkaPlans, apply, read_catalog
from pipeline.errors import BrokerError, DefinitionError, DefinitionsNotThere, TopicsError
from pipeline.records import Marker, RulesChanged, decode_edges_record, decode_events_record
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.runtime.kafka.doors import TopicReader, current_values
from pipeline.settings import Settings

BUYERS = """
segment: buyers
when: {performed: {event: Order Completed}}
---
destination: out
kind: file
path: out.jsonl
"""
LAPSED = """
segment: lapsed
when: {all: [{in_segment: buyers}, {not: {performed: {event: Order Completed, within: 30d}}}]}
"""
IDENTITY = "identity: {quarantine_after: 5}\n"


@pytest.fixture
def ready(workspace: Settings) -> Settings:
    create_topics(workspace)
    return workspace


def markers(settings: Settings) -> dict[int, list[int]]:
    """The generations marked in each partition of events, in order."""
    found: dict[int, list[int]] = {}
    with TopicReader(settings, ["events"]) as reader:
        for record in reader.read_to_end():
            assert record.value is not None
            marker = decode_events_record(record.value)
            assert isinstance(marker, Marker)
            found.setdefault(record.partition, []).append(marker.generation)
    return found


def rule_changes(settings: Settings) -> list[int]:
    with TopicReader(settings, ["identity-edges"]) as reader:
        changes = [decode_edges_record(record.value or b"") for record in reader.read_to_end()]
    assert all(isinstance(change, RulesChanged) for change in changes)
    return [change.generation for change in changes if isinstance(change, RulesChanged)]


def test_an_apply_marks_every_partition_and_workers_get_the_plan(ready: Settings) -> None:
    plans = KafkaPlans(ready, timeout_s=10)
    assert plans(0).segments.segments == {} and plans.latest().generation == 0
    planned = apply(ready, load_text(BUYERS), applied_by="ada")
    assert [(change.what, change.key) for change in planned.changes] == [
        ("added", "segment/buyers"),
        ("added", "destination/out"),
    ]
    assert markers(ready) == {0: [1], 1: [1]}
    assert rule_changes(ready) == []
    plan = plans(1)
    assert set(plan.segments.segments) == {"buyers"}
    assert [destination.name for destination in plan.activation.destinations] == ["out"]
    # The topic of the destination is there before anything can be decided for it.
    with TopicReader(ready, ["deliveries.out"]) as reader:
        assert list(reader.read_to_end()) == []
    deadline = time.monotonic() + 10
    while plans.latest().generation != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    plans.close()


class _BoundsAsBefore:
    """A reader to whom the end of each partition stays where it was, a number of times."""

    def __init__(self, times: int) -> None:
        self.times, self.asked = times, 0

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        self.asked += 1
        return (0, 0) if self.asked <= self.times else (0, 1_000_000)


def test_what_was_applied_is_read_at_once(ready: Settings) -> None:
    """A commit is answered before a reader of committed records sees anything of it."""
    transaction = ApplyTransaction(ready)
    try:
        markers_come_late = _BoundsAsBefore(3)
        transaction._reader, told = markers_come_late, transaction._reader  # type: ignore[assignment]
        transaction.write([("definitions", 0, b"segment/late/1", b"{}")])
        assert markers_come_late.asked == 4, "as long as nobody can read it, it has not returned"
        transaction._reader = told
        for number in range(10):
            key = f"segment/s{number}/1".encode()
            transaction.write([("definitions", 0, key, b"{}"), *(("events", n, None, b"{}") for n in range(2))])
            assert key in current_values(ready, "definitions"), f"the {number + 1}th"
    finally:
        transaction.close()


def test_the_same_again_writes_nothing_and_a_dry_run_neither(ready: Settings) -> None:
    apply(ready, load_text(BUYERS))
    assert apply(ready, load_text(BUYERS)).is_empty
    dry = apply(ready, load_text(LAPSED), dry_run=True)
    assert [change.key for change in dry.changes] == ["segment/lapsed"]
    assert any("positions of history are read again" in line for line in consequences(ready, dry))
    gone = apply(ready, remove=["segment/buyers"], dry_run=True)
    assert list(consequences(ready, gone)) == [
        "Nothing new has to be counted: it is in force at once.",
        "0 members of buyers leave.",
    ]
    assert markers(ready) == {0: [1], 1: [1]}
    assert read_catalog(ready).latest.number == 1


def test_identity_rules_are_told_to_the_identity_stage(ready: Settings) -> None:
    apply(ready, load_text(IDENTITY))
    apply(ready, load_text(BUYERS))
    apply(ready, load_text(IDENTITY.replace("5", "6")))
    assert rule_changes(ready) == [1, 3]
    assert markers(ready) == {0: [1, 2, 3], 1: [1, 2, 3]}
    plans = KafkaPlans(ready)
    assert [plans(number).identity.quarantine_after for number in (0, 1, 2, 3)] == [10, 5, 5, 6]
    plans.close()


def test_what_does_not_fit_together_changes_nothing(ready: Settings) -> None:
    with pytest.raises(DefinitionError, match="buyers"):
        apply(ready, load_text(LAPSED))
    apply(ready, load_text(BUYERS + "---" + LAPSED))
    with pytest.raises(DefinitionError):
        apply(ready, remove=["segment/buyers"])
    assert read_catalog(ready).latest.number == 1


def test_case_40_edited_and_edited_back_on_the_log(ready: Settings) -> None:
    edited = BUYERS.replace("Order Completed", "Order Paid")
    for text in (BUYERS, edited, BUYERS):
        apply(ready, load_text(text))
    catalog = read_catalog(ready)
    assert catalog.latest.members["segment/buyers"] == 3
    first, third = catalog.generation(1), catalog.generation(3)
    assert first is not None and third is not None
    [(leaf, birth)] = first.leaves.items()
    assert birth == 1 and third.leaves == {leaf: 3}


def test_export_can_be_applied_again(ready: Settings, new_workspace: Callable[..., Settings]) -> None:
    apply(ready, load_text(BUYERS + "---" + LAPSED + "---\n" + IDENTITY))
    catalog = read_catalog(ready)
    every = [found for key in catalog.latest.members if (found := catalog.in_force(catalog.latest, key))]
    text = export(every)
    assert apply(ready, load_text(text)).is_empty
    other = new_workspace()
    create_topics(other)
    apply(other, load_text(text))
    assert read_catalog(other).latest.members == catalog.latest.members


def test_a_worker_waits_for_a_generation_and_in_the_end_says_so(ready: Settings) -> None:
    plans = KafkaPlans(ready, timeout_s=30)
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(plans(1)))
    waiting.start()
    time.sleep(0.5)
    assert not got
    apply(ready, load_text(BUYERS))
    waiting.join(15)
    assert got and got[0].generation == 1
    plans.close()
    impatient = KafkaPlans(ready, timeout_s=0.5)
    with pytest.raises(DefinitionsNotThere, match="Generation 7"):
        impatient(7)
    impatient.close()


def test_a_later_apply_fences_an_earlier_one(ready: Settings) -> None:
    slow = ApplyTransaction(ready)
    apply(ready, load_text(BUYERS))
    with pytest.raises(BrokerError):
        slow.write([("events", 0, None, msgspec.json.encode({"kind": "marker", "generation": 9, "received": 1}))])
    slow.close()
    assert markers(ready) == {0: [1], 1: [1]}


def test_an_apply_fenced_as_it_commits_says_so_and_closes(ready: Settings) -> None:
    """The client raises what it was told late from whatever it is asked next, and that is to close."""
    slow = ApplyTransaction(ready)

    def records() -> Iterator[tuple[str, int, bytes | None, bytes]]:
        yield ("events", 0, None, msgspec.json.encode({"kind": "marker", "generation": 9, "received": 1}))
        apply(ready, load_text(BUYERS))

    with pytest.raises(BrokerError, match="apply again"):
        slow.write(records())
    slow.close()
    assert markers(ready) == {0: [1], 1: [1]}


def test_an_apply_that_died_in_the_middle_left_nothing(ready: Settings) -> None:
    """Its records are in the log, uncommitted; the next apply ends its transaction and starts from what was before."""
    died = Producer(
        {**ready.client_properties(), "transactional.id": f"{ready.prefix}apply", "transaction.timeout.ms": 30_000}
    )
    died.init_transactions(10)
    died.begin_transaction()
    died.produce(ready.topic("definitions"), key=b"generation/1", value=b'{"number":1,"members":{"segment/x":1}}')
    died.produce(ready.topic("events"), value=b'{"kind":"marker","generation":1,"received":1}', partition=0)
    died.flush(10)
    planned = apply(ready, load_text(BUYERS))
    assert planned.generation is not None and planned.generation.number == 1
    assert markers(ready) == {0: [1], 1: [1]}
    assert set(read_catalog(ready).latest.members) == {"segment/buyers", "destination/out"}


def test_applies_at_the_same_time_are_serial(ready: Settings) -> None:
    """Each of several applies at once is either whole or refused, and generations stand in order everywhere."""
    outcomes: list[str] = []

    def one(number: int) -> None:
        for _ in range(20):
            try:
                apply(ready, [Written("segment", f"s{number}", segment(number))])
                outcomes.append("done")
                return
            except BrokerError:
                time.sleep(0.05 * number)
        outcomes.append("gave up")

    threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["done"] * 3
    latest = read_catalog(ready).latest
    assert set(latest.members) == {"segment/s1", "segment/s2", "segment/s3"}
    assert markers(ready) == {0: [1, 2, 3], 1: [1, 2, 3]}


def segment(number: int) -> dict[str, Any]:
    return {"segment": f"s{number}", "when": {"performed": {"event": f"E{number}"}}}


def test_without_topics_an_apply_says_what_to_do(workspace: Settings) -> None:
    with pytest.raises((TopicsError, BrokerError), match=r"does not exist|cannot be read"):
        apply(workspace, load_text(BUYERS))
