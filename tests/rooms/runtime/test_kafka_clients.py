"""How the clients of the engine are set up, and what their errors mean."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from pipeline.runtime.errors import Abortable, Fatal, Retriable, RuntimeFault
from pipeline.runtime.kafka import consumer as consuming
from pipeline.runtime.kafka import producer as producing
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaConsumer
from pipeline.runtime.kafka.errors import fault_of, passing_or_fatal
from pipeline.runtime.kafka.producer import KafkaProducer

CONFIG = KafkaConfig({"bootstrap.servers": "somewhere:9092"}, "shop.", "b")
MEASURED_CONSUMER = {
    "group.id": "shop.unify",
    "group.instance.id": "shop.unify-b",
    "group.protocol": "classic",
    "partition.assignment.strategy": "range",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "session.timeout.ms": 15_000,
    "metadata.recovery.strategy": "none",
}
MEASURED_PRODUCER = {
    "transaction.timeout.ms": 10_000,
    "partitioner": "murmur2_random",
    "linger.ms": 4,
    "retry.backoff.ms": 5,
    "topic.metadata.refresh.interval.ms": 1_000,
    "metadata.recovery.strategy": "none",
}


def test_the_consumer_is_set_up_as_it_was_measured() -> None:
    assert MEASURED_CONSUMER.items() <= CONFIG.consumer("unify").items()


def test_with_another_subscription_it_is_another_member_of_the_same_slot() -> None:
    config = replace(CONFIG, subscription="5e0f")
    assert config.consumer("ingest")["group.instance.id"] == "shop.ingest-b.5e0f"
    assert config.transactional_ids("ingest") == CONFIG.transactional_ids("ingest"), "and fences the slot's former self"


def test_the_producer_is_set_up_as_it_was_measured() -> None:
    ids = replace(CONFIG, turns=2).transactional_ids("unify")
    assert ids[:1] == CONFIG.transactional_ids("unify") == ("shop.unify-b",)
    assert [CONFIG.producer(each)["transactional.id"] for each in ids] == list(ids)
    assert all(MEASURED_PRODUCER.items() <= CONFIG.producer(each).items() for each in ids)
    assert KafkaConfig({}, "shop.", "b", turns=2).transactional_ids("unify") == ids, "the same of a slot, always"
    assert KafkaConfig({}, "shop.", "c", turns=2).transactional_ids("unify") == ("shop.unify-c", "shop.unify-c.1")


def test_the_readers_of_a_changelog() -> None:
    replay, ends = CONFIG.reader("unify", committed=True), CONFIG.reader("unify", committed=False)
    assert (replay["isolation.level"], ends["isolation.level"]) == ("read_committed", "read_uncommitted")
    assert replay["enable.partition.eof"] and replay["auto.offset.reset"] == ends["auto.offset.reset"] == "error"
    assert "group.instance.id" not in replay, "it is no member of any group"


def test_what_a_user_sets_reaches_every_client_but_for_what_the_engine_needs() -> None:
    own = {"security.protocol": "SSL", "metadata.recovery.strategy": "rebootstrap", "auto.offset.reset": "latest"}
    config = KafkaConfig(own, "shop.")
    for made in (config.consumer("unify"), config.producer("unify"), config.reader("unify", True)):
        assert made["security.protocol"] == "SSL" and made["metadata.recovery.strategy"] == "rebootstrap"
    assert config.consumer("unify")["auto.offset.reset"] == "error"


ERRORS: list[tuple[KafkaError, type[RuntimeFault]]] = [
    (KafkaError(KafkaError._FENCED, "", fatal=True), Fatal),
    (KafkaError(KafkaError._FENCED, "", fatal=True, retriable=True, txn_requires_abort=True), Fatal),
    (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "", txn_requires_abort=True), Abortable),
    (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "", retriable=True, txn_requires_abort=True), Abortable),
    (KafkaError(KafkaError._TIMED_OUT, "", retriable=True), Retriable),
    (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, ""), Fatal),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda each: getattr(each, "__name__", ""))
def test_an_error_is_what_the_client_says_it_is(error: KafkaError, kind: type[RuntimeFault]) -> None:
    fault = fault_of(KafkaException(error), "committing")
    assert type(fault) is kind and "committing" in str(fault) and error.name() in str(fault)


def test_a_request_outside_of_a_transaction_passes_or_is_fatal() -> None:
    assert type(passing_or_fatal(KafkaError(KafkaError._TRANSPORT, ""), "asking")) is Retriable
    assert type(passing_or_fatal(KafkaError(KafkaError._DESTROY_BROKER, ""), "asking")) is Retriable
    assert type(passing_or_fatal(KafkaError(KafkaError._TRANSPORT, "", fatal=True), "asking")) is Fatal
    assert type(passing_or_fatal(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, ""), "asking")) is Fatal


IN_ONE = KafkaError(KafkaError._STATE, "Operation not valid in state InTransaction")
REFUSED = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "", txn_requires_abort=True)
SILENT = KafkaError(KafkaError._TRANSPORT, "", retriable=True)


class Client:
    """Of librdkafka's transactional producer: a record never comes into the log."""

    begun = IN_ONE

    def __init__(self, properties: object) -> None: ...

    def begin_transaction(self) -> NoReturn:
        raise KafkaException(self.begun)

    def flush(self, timeout_s: float) -> int:
        return 1

    def produce(self, *record: object) -> NoReturn:
        raise AssertionError(record)

    def commit_transaction(self, timeout_s: float) -> NoReturn:
        raise SystemError("returned a result with an exception set")

    abort_transaction = commit_transaction

    def init_transactions(self, timeout_s: float) -> NoReturn:
        raise KafkaException(SILENT)

    def list_topics(self, topic: str = "", timeout: float = 0.0) -> NoReturn:
        raise KafkaException(SILENT)


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    client: Any = Client
    monkeypatch.setattr(producing, "Producer", client)
    monkeypatch.setattr(producing, "AdminClient", client)
    return KafkaProducer(CONFIG, "unify")


@pytest.mark.parametrize(("begun", "kind"), [(IN_ONE, Retriable), (REFUSED, Abortable)])
def test_what_waits_behind_a_refused_record_is_not_waited_for(
    producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch, begun: KafkaError, kind: type[RuntimeFault]
) -> None:
    monkeypatch.setattr(Client, "begun", begun, raising=False)
    with pytest.raises(kind):
        producer.flush(0.0)


def test_partitions_that_a_silent_broker_does_not_tell_undo_a_transaction_and_no_more(producer: KafkaProducer) -> None:
    with pytest.raises(Abortable, match="asking for the partitions of profiles"):
        producer.send([("profiles", b"{}", b"key", b"key")])


@pytest.mark.parametrize("call", [KafkaProducer.commit, KafkaProducer.abort])
def test_a_fence_that_shows_while_a_transaction_is_ended_is_told_in_words(
    producer: KafkaProducer, call: Callable[[KafkaProducer, float], None]
) -> None:
    with pytest.raises(Fatal, match="an exception set"):
        call(producer, 1.0)


QUEUED = KafkaError(KafkaError._TIMED_OUT, "2 message(s) remaining", retriable=True)


class Queueing(Client):
    """What was refused after a call has begun stands in the queue again, until another call lets go of it."""

    calls: tuple[float, ...] = ()
    refused_within = 1

    def abort_transaction(self, timeout_s: float) -> None:
        Queueing.calls += (timeout_s,)
        if len(self.calls) <= self.refused_within:
            raise KafkaException(QUEUED)


@pytest.fixture
def queueing(monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    client: Any = Queueing
    monkeypatch.setattr(producing, "Producer", client)
    monkeypatch.setattr(Queueing, "calls", ())
    return KafkaProducer(CONFIG, "unify")


def test_what_is_queued_again_while_a_transaction_is_undone_is_let_go_of_by_another_call(
    queueing: KafkaProducer,
) -> None:
    queueing.abort(10.0)
    assert len(Queueing.calls) == 2 and max(Queueing.calls) < 1.0, "and its own time-out is not waited for"


def test_an_abort_is_over_when_its_time_is(queueing: KafkaProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queueing, "refused_within", 1_000)
    monkeypatch.setattr(Client, "list_topics", Heard.list_topics)
    clock = iter(range(10))
    monkeypatch.setattr(producing.time, "monotonic", lambda: 0.4 * next(clock))
    with pytest.raises(Retriable, match="remaining"):
        queueing.abort(1.0)
    assert Queueing.calls == pytest.approx((0.5, 0.2))


class Reporting(Client):
    """All is written, or taken for written; `asked` are the records whose report was wanted."""

    offset: int | None = 7
    asked: tuple[tuple[str, int], ...] = ()

    def __init__(self, properties: object) -> None:
        self._waiting: list[Callable[[], None]] = []

    def begin_transaction(self) -> None: ...  # type: ignore[override]
    def commit_transaction(self, timeout_s: float) -> None: ...  # type: ignore[override]
    def abort_transaction(self, timeout_s: float) -> None: ...  # type: ignore[override]

    def produce(  # type: ignore[override]
        self, topic: str, value: bytes, key: bytes, partition: int, on_delivery: Any = None
    ) -> None:
        if on_delivery is None:
            return
        Reporting.asked += ((topic, partition),)
        message = Message(topic=topic, partition=partition, offset=-1001 if self.offset is None else self.offset)
        self._waiting.append(lambda: on_delivery(None, message))

    def flush(self, timeout_s: float) -> int:
        while self._waiting:
            self._waiting.pop()()
        return 0


@pytest.fixture
def reporting(monkeypatch: pytest.MonkeyPatch) -> KafkaProducer:
    client: Any = Reporting
    monkeypatch.setattr(producing, "Producer", client)
    monkeypatch.setattr(Reporting, "asked", ())
    return KafkaProducer(replace(CONFIG, turns=2), "unify")


def in_a_transaction(producer: KafkaProducer, *records: tuple[str, bytes, bytes, int]) -> None:
    producer.begin()
    producer.send(records)
    producer.flush(1.0)
    producer.commit(1.0)


OUTPUTS = (("a", b"", b"k", 0), ("a", b"", b"k", 0), ("a", b"", b"k", 1), ("b", b"", b"k", 0), ("a", b"", b"k", 1))


def test_the_first_record_of_each_client_in_a_partition_is_asked_after_and_no_other(reporting: KafkaProducer) -> None:
    first = (("shop.a", 0), ("shop.a", 1), ("shop.b", 0))
    for seen in (first, first * 2, first * 2, first * 2):
        in_a_transaction(reporting, *OUTPUTS)
        assert Reporting.asked == seen
    reporting.begin()
    reporting.abort(1.0)
    in_a_transaction(reporting, *OUTPUTS)
    assert Reporting.asked == first * 3, "nobody knows what became of what was undone"


def test_brokers_forget_who_has_not_written_for_a_day(
    reporting: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(producing.time, "monotonic", lambda: now)
    for _ in range(3):
        in_a_transaction(reporting, OUTPUTS[0])
    assert len(Reporting.asked) == 2
    now += 20 * 3_600
    in_a_transaction(reporting, OUTPUTS[0])
    assert len(Reporting.asked) == 3


@pytest.mark.parametrize("changelog", [False, True], ids=["an output", "a changelog"])
def test_what_is_only_taken_for_written_undoes_the_transaction(
    reporting: KafkaProducer, monkeypatch: pytest.MonkeyPatch, changelog: bool
) -> None:
    monkeypatch.setattr(Reporting, "offset", None)
    reporting.begin()
    if changelog:
        reporting.send_changelog("c", 0, [(b"k", b"v")])
    else:
        reporting.send(OUTPUTS)
    with pytest.raises(Abortable, match="not known whether a record was written to shop"):
        reporting.flush(1.0)
    reporting.abort(1.0)
    monkeypatch.setattr(Reporting, "offset", 7)
    in_a_transaction(reporting, *OUTPUTS)


class Heard:
    def __init__(self, properties: object) -> None: ...

    def list_topics(self, topic: str = "", timeout: float = 0.0) -> None:
        return


@pytest.mark.parametrize(("other", "kind"), [(Client, Retriable), (Heard, Fatal)])
@pytest.mark.parametrize("call", [KafkaProducer.init, KafkaProducer.flush], ids=["a call", "a flush"])
def test_a_producer_that_hears_of_no_broker_while_others_do_has_lost_them(
    producer: KafkaProducer,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[KafkaProducer, float], object],
    other: type,
    kind: type[RuntimeFault],
) -> None:
    monkeypatch.setattr(producing, "AdminClient", other)
    with pytest.raises(kind):
        call(producer, 1.0)


def test_a_producer_that_is_heard_goes_on_whatever_is_not_answered(
    producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producing, "AdminClient", Heard)
    monkeypatch.setattr(Client, "list_topics", Heard.list_topics)
    with pytest.raises(Retriable):
        producer.init(1.0)


def test_a_broker_that_comes_back_between_two_questions_is_not_lost(
    producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [KafkaException(SILENT), None]

    def list_topics(_: object, topic: str = "", timeout: float = 0.0) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(producing, "AdminClient", Heard)
    monkeypatch.setattr(Client, "list_topics", list_topics)
    with pytest.raises(Retriable):
        producer.init(1.0)
    assert not answers


# ---------------------------------------------------------------------------------------------------------- consumer


class Member:
    """The client of a consumer that has been away: what it has seen of the only partition is from before."""

    cached, asked = (0, 3), (0, 20)

    def __init__(self, properties: object) -> None:
        self.assign = self.pause = lambda partitions: None

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:" + (-1).to_bytes(4, "little", signed=True)

    def subscribe(self, topics: object, on_assign: Callable[[Any, Any], None], **_: object) -> None:
        on_assign(self, [TopicPartition("shop.raw", 0)])

    def get_watermark_offsets(self, partition: object, timeout: float = 0, cached: bool = True) -> tuple[int, int]:
        return self.cached if cached else self.asked


class Listening:
    def assigned(self, partitions: object) -> None:
        """Nothing is to be done."""

    revoked = lost = assigned


def test_an_end_is_at_least_what_it_was_when_the_partition_was_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "Consumer", Member)
    consumer = KafkaConsumer(CONFIG, "ingest")
    consumer.subscribe(["raw"], Listening())
    assert consumer.end(("raw", 0)) == 20
    monkeypatch.setattr(Member, "cached", (0, 31))
    assert consumer.end(("raw", 0)) == 31
