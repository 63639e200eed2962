"""Whether a group has read its topics to their ends."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.runtime.kafka.doors import list_offsets
from pipeline.runtime.kafka.positions import CommittedPositions
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

Offsets = dict[tuple[str, int], int]
_TIMEOUT_S = 5.0
_LOOK_AGAIN_S = 0.05
_TAIL_WITHIN_S = 0.25
_NO_ANSWER = (KafkaException, TimeoutError)
_Answer = TypeVar("_Answer")


class Beside(Generic[_Answer]):
    """Asks a question that takes the broker a few requests on a thread of its own: the loop that asks waits for none.

    A call begins to ask; it and the next ones give None until the answer is there, then one gives it, and the one after
    that asks anew. What the question raises is raised by the call that would have had the answer.
    """

    def __init__(self, question: Callable[[], _Answer]) -> None:
        self._question = question
        self._asked: Future[_Answer] | None = None
        self._is_of_before = False

    def anew(self) -> "Beside[_Answer]":
        """For somebody else, who does not know when the question that is open was asked: the answer is not given."""
        self._is_of_before = self._asked is not None
        return self

    def __call__(self) -> _Answer | None:
        """The answer; None while it is not known."""
        asked = self._asked
        if self._is_of_before and asked is not None and asked.done():
            asked, self._is_of_before = None, False
        if asked is None:
            asked = self._asked = Future()
            # Not a daemon: the process would end under an open request of the admin client, whose own thread then calls
            # into an interpreter that is gone. As it is, the end waits for the answer, at worst for its timeout.
            threading.Thread(target=_answer, args=(asked, self._question), name="sources").start()
        if not asked.done():
            return None
        self._asked = None
        return asked.result()


def _answer(asked: Future[Any], question: Callable[[], Any]) -> None:
    try:
        asked.set_result(question())
    except Exception as error:  # noqa: BLE001 — whatever it was, the one who asked is told
        asked.set_exception(error)


class SourcesAtEnd:
    """Tells whether a group's committed positions have reached the ends that its topics had when it was *last asked*:
    in a steady stream nobody is ever at the end of this very moment. The first answer is no.

    A source written in transactions ends in a control record, which no consumer is given and no position passes. So
    where a position stays behind, what lies between is read: if it holds no record, the end was reached.
    """

    def __init__(self, settings: Settings, group: str, topics: Sequence[str]) -> None:
        self._settings = settings
        self._group = settings.prefix + group
        self._topics = [settings.topic(topic) for topic in topics]
        self._connect()
        self._reader: Consumer | None = None
        self._partitions: list[TopicPartition] = []
        self._ends: Offsets | None = None
        self._known_empty: set[tuple[str, int, int, int]] = set()

    def _connect(self) -> None:
        self._admin = AdminClient({**quiet_properties(self._settings), "client.id": "headwater-sources"})
        self._committed = CommittedPositions(quiet_properties(self._settings))

    def __call__(self) -> bool:
        """Whether the ends of the last question are reached; False also when the broker does not say."""
        try:
            ends, self._ends = self._ends, self._ask_ends()
            return ends is not None and self._are_reached(ends, self._ask_starts())
        except _NO_ANSWER:
            self._begin_anew()
            return False

    def within(self, seconds: float) -> bool:
        """Whether the ends of this moment are reached, or come to be in this time; False also when the broker does not
        say."""
        until = time.monotonic() + seconds
        try:
            ends = self._ends = self._ask_ends()
            if ends is None:
                return False
            starts = self._ask_starts()
            while not self._are_reached(ends, starts):
                if time.monotonic() >= until:
                    return False
                time.sleep(_LOOK_AGAIN_S)
            return True
        except _NO_ANSWER:
            self._begin_anew()
            return False

    def _begin_anew(self) -> None:
        # An admin client goes on asking with the leader epochs it once learned, and is refused for ever after a
        # broker's restart: only a new one, or a new look at the topics, learns them again.
        self._ends, self._partitions = None, []
        self._connect()

    @property
    def ends(self) -> Offsets | None:
        """The ends of the topics when they were last asked for."""
        return self._ends

    def _ask_ends(self) -> Offsets | None:
        """None if a topic is missing."""
        # Each time anew: a topic may get more partitions while it is read.
        described = self._admin.describe_topics(TopicCollection(self._topics), request_timeout=_TIMEOUT_S)
        topics = []
        for future in described.values():
            try:
                topics.append(future.result(_TIMEOUT_S))
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return None
                raise
        self._partitions = [TopicPartition(topic.name, each.id) for topic in topics for each in topic.partitions]
        return list_offsets(self._admin, self._partitions, latest=True)

    def _ask_starts(self) -> Offsets:
        return list_offsets(self._admin, self._partitions, latest=False)

    def _are_reached(self, ends: Offsets, starts: Offsets) -> bool:
        committed = self._committed(self._group, self._partitions, _TIMEOUT_S)
        return all(self._reached(partition, max(at, starts[partition]), ends) for partition, at in committed.items())

    def _reached(self, partition: tuple[str, int], position: int, ends: Offsets) -> bool:
        if position >= ends[partition]:
            return True
        gap = (*partition, position, ends[partition])
        if gap not in self._known_empty and self._holds_a_record(*partition, position, ends[partition]):
            return False
        if len(self._known_empty) > 10 * len(self._partitions):
            self._known_empty.clear()
        self._known_empty.add(gap)
        return True

    def _holds_a_record(self, topic: str, partition: int, position: int, end: int) -> bool:
        if self._reader is None:
            self._reader = Consumer(
                {
                    **quiet_properties(self._settings),
                    "group.id": f"{self._group}-tail",
                    "isolation.level": "read_uncommitted",  # an open transaction counts: it may still commit
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 10,
                }
            )
        self._reader.assign([TopicPartition(topic, partition, position)])
        message: Any = self._reader.poll(_TAIL_WITHIN_S)
        self._reader.unassign()
        # Without an answer nothing is known: say no, and ask again in a moment, by a new client (lifeline.py).
        if message is None:
            self._reader.close()
            self._reader = None
            return True
        if message.error() is None:
            return bool(message.offset() < end)
        return bool(message.error().code() != KafkaError._PARTITION_EOF)
