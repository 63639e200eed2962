"""What a Kafka says of itself, as plain data: so that every check of it can be tried without one."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from pipeline.admin import admin_client, configs_of, unreachable
from pipeline.contracts import ContractsPlan
from pipeline.definitions.log import KafkaPlans
from pipeline.plans import GenerationPlan
from pipeline.runtime.kafka.doors import GroupPositions
from pipeline.runtime.kafka.positions import CommittedPositions
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.secret_check import kept_check
from pipeline.settings import Settings

_TIMEOUT_S = 10.0
# The client connects to the address it was given, and to the broker's own: before the first answer or the second.
_ASKED = 3
_MANY = 2_000
_COMING_UP = frozenset(
    {
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Partition:
    """Ids of brokers: who leads (negative: nobody), who has a copy, whose copy is up to date."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers' ids, the partitions of every topic that may be seen, and how long they took to say so: with
    connecting, and again."""

    brokers: tuple[int, ...]
    topics: Mapping[str, tuple[Partition, ...]]
    first_ms: float = 0.0
    again_ms: float = 0.0

    def counts(self) -> dict[str, int]:
        """How many partitions each topic has."""
        return {name: len(partitions) for name, partitions in self.topics.items()}


@dataclass(frozen=True, slots=True)
class Member:
    """Who works in a group. `instance` is the static member's name: None for one that has none."""

    client: str
    host: str
    instance: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """A group as its coordinator describes it; of one that nobody was ever in, all is empty."""

    members: tuple[Member, ...] = ()
    assignor: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the user of the settings may do, by name. None: not so much as see it; a name that is not there does not
    exist yet."""

    topics: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    groups: Mapping[str, frozenset[str] | None] = field(default_factory=dict)


class Facts(Protocol):
    """Topics and groups have their real names, but for `positions` and `waiting`.
    Raises HeadwaterError, KafkaException."""

    def cluster(self) -> Cluster: ...
    def configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]: ...
    def broker_config(self) -> dict[str, str]: ...
    def groups(self, names: Sequence[str]) -> dict[str, Group]: ...
    def positions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]: ...
    def waiting(self, groups: Mapping[str, Sequence[str]]) -> dict[str, int | None]: ...
    def latest_ms(self, topic: str) -> int: ...
    def held_back(self, topics: Sequence[str]) -> dict[tuple[str, int], int]: ...
    def allowed(self, topics: Sequence[str], groups: Sequence[str]) -> Allowed: ...
    def contracts(self) -> ContractsPlan: ...
    def mapped(self) -> dict[str, str]: ...
    def secret_check(self) -> str | None: ...


class KafkaFacts:
    """Asks a real one. What was said of the cluster is kept: one run looks at one moment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: AdminClient = admin_client(settings)
        self._cluster: Cluster | None = None
        self._positions: GroupPositions | None = None
        self._plan: GenerationPlan | None = None

    def cluster(self) -> Cluster:
        if self._cluster is None:
            took_ms = []
            for _ in range(_ASKED):
                begun = time.monotonic()
                try:
                    metadata = self._client.list_topics(timeout=_TIMEOUT_S)
                except KafkaException as error:
                    raise unreachable(self._settings, error.args[0]) from None
                took_ms.append((time.monotonic() - begun) * 1000)
            topics = {
                name: tuple(
                    Partition(each.leader, tuple(each.replicas), tuple(each.isrs))
                    for _, each in sorted(topic.partitions.items())
                )
                for name, topic in metadata.topics.items()
            }
            self._cluster = Cluster(tuple(sorted(metadata.brokers)), topics, max(took_ms), min(took_ms))
        return self._cluster

    def configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        return configs_of(self._client, list(topics))

    def secret_check(self) -> str | None:
        """By what the secret of the workspace is known, if that was kept."""
        return kept_check(self._settings)

    def broker_config(self) -> dict[str, str]:
        """The settings of one broker, empty where this user may not see them."""
        brokers = [number for number in self.cluster().brokers if number >= 0]
        if not brokers:
            return {}
        futures = self._client.describe_configs(
            [ConfigResource(ResourceType.BROKER, str(brokers[0]))], request_timeout=_TIMEOUT_S
        )
        try:
            entries = next(iter(futures.values())).result()
        except KafkaException:
            return {}  # a right of administrators, which nobody needs to work here
        return {name: entry.value for name, entry in entries.items() if entry.value is not None}

    def groups(self, names: Sequence[str]) -> dict[str, Group]:
        def ask() -> dict[str, Group]:
            found = {}
            futures = self._client.describe_consumer_groups(list(names), request_timeout=_TIMEOUT_S)
            for name, future in futures.items():
                try:
                    told = future.result()
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                        raise
                    found[name] = Group()
                    continue
                members = tuple(Member(each.client_id, each.host, each.group_instance_id) for each in told.members)
                found[name] = Group(members, told.partition_assignor)
            return found

        return _retried(ask)

    def positions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
        """(committed, end) of each group, by the name of the role, in records."""
        if self._positions is None:
            self._positions = GroupPositions(self._settings)
        asked = self._positions
        return _retried(lambda: asked(groups))

    def waiting(self, groups: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
        """How many records each group, by the name of the role, is still to be given: counted, for what stands between
        its positions and the end may be ends of transactions, and what was taken back. None: they may not be read."""
        committed = CommittedPositions({**quiet_properties(self._settings), "client.id": "headwater-positions"})
        counts = self.cluster().counts()
        found: dict[str, int | None] = {}
        for group, topics in groups.items():
            names = [name for name in map(self._settings.topic, topics) if name in counts]
            partitions = [TopicPartition(name, number) for name in names for number in range(counts[name])]
            ask = partial(committed, self._settings.prefix + group, partitions, _TIMEOUT_S)
            found[group] = self._count(_retried(ask))
        return found

    def _count(self, positions: Mapping[tuple[str, int], int]) -> int | None:
        consumer = Consumer(
            {
                **quiet_properties(self._settings),
                "group.id": f"{self._settings.prefix}reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        count, unread = 0, set(positions)
        try:
            consumer.assign([TopicPartition(*where, max(0, at)) for where, at in positions.items()])
            until = time.monotonic() + _TIMEOUT_S
            while unread and count < _MANY and time.monotonic() < until:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    count += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard((message.topic(), message.partition()))
                elif error.code() in _REFUSED:
                    return None
        finally:
            consumer.close()
        return None if unread and count < _MANY else count

    def notes(self) -> dict[str, list[str]]:
        """What each group kept beside its positions, as of when these were last asked for."""
        return self._positions.notes() if self._positions is not None else {}

    def latest_ms(self, topic: str) -> int:
        """The latest time that a record of the topic has; -1 if there is none."""
        spec: Any = OffsetSpec  # it ships no types
        numbers = range(len(self.cluster().topics.get(topic, ())))
        wanted = {TopicPartition(topic, number): spec.max_timestamp() for number in numbers}
        futures = self._client.list_offsets(wanted, request_timeout=_TIMEOUT_S) if wanted else {}
        return max((future.result().timestamp for future in futures.values()), default=-1)

    def held_back(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """Where readers of committed records cannot go on: (topic, partition) → the first position of an open
        transaction."""
        known = self.cluster().topics
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(len(known.get(topic, ())))]
        spec: Any = OffsetSpec
        wanted: dict[TopicPartition, Any] = dict.fromkeys(partitions, spec.latest())
        if not wanted:
            return {}

        def ask(level: IsolationLevel) -> dict[tuple[str, int], int]:
            futures = self._client.list_offsets(wanted, isolation_level=level, request_timeout=_TIMEOUT_S)
            return {(at.topic, at.partition): future.result().offset for at, future in futures.items()}

        stable = _retried(lambda: ask(IsolationLevel.READ_COMMITTED))
        ends = _retried(lambda: ask(IsolationLevel.READ_UNCOMMITTED))
        return {where: at for where, at in stable.items() if at < ends[where]}

    def allowed(self, topics: Sequence[str], groups: Sequence[str]) -> Allowed:
        described: Any = self._client.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=_TIMEOUT_S
        )
        of_groups: Any = (
            self._client.describe_consumer_groups(
                list(groups), include_authorized_operations=True, request_timeout=_TIMEOUT_S
            )
            if groups
            else {}
        )
        return Allowed(_operations(described), _operations(of_groups))

    def contracts(self) -> ContractsPlan:
        """Those in force."""
        return self._latest().contracts

    def mapped(self) -> dict[str, str]:
        """The topic of each source in force, as the setting `sources` has it."""
        return {mapping.source: mapping.topic for mapping in self._latest().sources.mappings}

    def _latest(self) -> GenerationPlan:
        if self._plan is None:
            plans = KafkaPlans(self._settings)
            try:
                self._plan = plans.latest()
            finally:
                plans.close()
        return self._plan


def _operations(futures: Mapping[str, Any]) -> dict[str, frozenset[str] | None]:
    found: dict[str, frozenset[str] | None] = {}
    for name, future in futures.items():
        try:
            told = future.result()
        except KafkaException as error:
            if error.args[0].code() in _REFUSED:
                found[name] = None
            elif error.args[0].code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND):
                raise
            continue
        found[name] = frozenset(each.name for each in told.authorized_operations or ())
    return found


def _retried(ask: Callable[[], _Answer]) -> _Answer:
    """Ask again while a coordinator, or the leader of a new partition, is only just coming up."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _COMING_UP or time.monotonic() > deadline:
                raise
        time.sleep(0.2)
