"""The topics of a workspace: what they must be, what they are, and making those that are missing.

Nothing that exists is ever changed here. Partition counts decide where a person's state is, and a cleanup policy
whether it survives: a difference is told, with what to do about it.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from pipeline.errors import BrokerError, SettingsError, TopicsError
from pipeline.privacy.stores import is_hastened
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.secret_check import keep_check
from pipeline.settings import DEFAULT_FILE, ENV_PREFIX, Settings
from pipeline.topology import DAY_MS, DELIVERIES, TOPICS, Topic
from pipeline.wire import values_of
from pipeline.workspaces import TOPIC

# The largest record of ours: a fragment on its way, a dead letter with the original of one megabyte in it. The
# producers' message.max.bytes must be the same.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
# A worker may be away for this long and still find every tombstone of its changelog; older stores are wiped.
DELETE_RETENTION_MS = 7 * DAY_MS
STAMPS = "message.timestamp.type"
_TIMEOUT_S = 30.0
_REFUSED_WITHIN_S = 5.0
# A role that starts while Kafka is away has its own patience.
_ANSWERS_WITHIN_S = 10.0
# A topic that was made just now is unknown to a broker until it has heard of it from the controller.
_HEARD_OF_WITHIN_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """A topic as the pipeline needs it, under its real name."""

    name: str
    partitions: int
    config: Mapping[str, str]
    ours: bool = True
    output: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """A topic that is not as it must be (`fatal`), or not as it would be made today."""

    topic: str
    what: str
    what_to_do: str
    fatal: bool


def alike(differences: Iterable[Difference]) -> dict[tuple[str, str, bool], list[str]]:
    """The topics that differ in the same way: (what, what_to_do, fatal) → names."""
    found: dict[tuple[str, str, bool], list[str]] = {}
    for each in differences:
        found.setdefault((each.what, each.what_to_do, each.fatal), []).append(each.topic)
    return found


def admin_client(settings: Settings) -> AdminClient:
    """An admin client of the workspace's Kafka. It connects when it is used."""
    return AdminClient({**quiet_properties(settings), "client.id": "headwater-admin"})


def wanted_topics(settings: Settings, destinations: Iterable[str] = ()) -> list[WantedTopic]:
    """The topics the workspace needs, with the delivery topic of each destination."""
    topics = [topic for topic in TOPICS if topic.name != "raw"]
    topics += [DELIVERIES._replace(name=DELIVERIES.name + name) for name in destinations]
    raw = next(topic for topic in TOPICS if topic.name == "raw")
    # A source outside of the workspace belongs to somebody else: it must be there, and nothing more.
    foreign = settings.sources_elsewhere
    wanted = [
        _source(_wanted(settings, raw._replace(name=source), ours=not (source.startswith("/") or source in foreign)))
        for source in settings.sources
    ]
    return wanted + [_wanted(settings, topic) for topic in topics]


def _source(topic: WantedTopic) -> WantedTopic:
    """The broker says when it took a record in: an event was received then, however long nobody reads it."""
    return replace(topic, config={**topic.config, STAMPS: "LogAppendTime"})


def _wanted(settings: Settings, topic: Topic, ours: bool = True) -> WantedTopic:
    config = {"cleanup.policy": topic.cleanup, "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    if topic.cleanup == "delete":
        config["retention.ms"] = str(topic.retention_ms)
        config["retention.bytes"] = "-1"
    else:
        config["delete.retention.ms"] = str(DELETE_RETENTION_MS)
        # A changelog is read whole when a store is lost: small segments, so that the cleaner reaches most of it.
        config["segment.bytes"] = str(64 * 1024 * 1024)
        config["min.cleanable.dirty.ratio"] = "0.3"
        if topic.name == "keys":
            # A seed that was replaced can derive destroyed keys: it goes at once, and the topic is small.
            config["max.compaction.lag.ms"] = config["delete.retention.ms"] = "60000"
    partitions = topic.partitions or (_output_partitions(settings) if topic.output else settings.partitions)
    return WantedTopic(settings.topic(topic.name), partitions, config, ours, topic.output)


def _output_partitions(settings: Settings) -> int:
    """A transaction takes longer with each partition it touches, and of outputs there are six topics."""
    return settings.output_partitions or max(1, settings.partitions // 4)


def create_topics(settings: Settings, destinations: Iterable[str] = ()) -> list[str]:
    """Create what is missing of the workspace's topics; the names created. What exists is left as it is. Where the
    format is Avro, the schemas of all are registered.

    Several processes may do this at once. BrokerError if Kafka, or the schema registry, does not answer or refuses a
    schema; TopicsError if Kafka refuses a topic.
    """
    destinations = list(destinations)
    # First: there is no topic of ours that nobody can write to.
    values_of(settings).register([topic.name for topic in TOPICS] + [DELIVERIES.name + name for name in destinations])
    client = admin_client(settings)
    wanted = wanted_topics(settings, destinations)
    foreign = {topic.name for topic in wanted if not topic.ours}
    brokers, existing = _metadata(client, settings)
    deadline = time.monotonic() + _HEARD_OF_WITHIN_S
    while not foreign <= existing.keys() and time.monotonic() < deadline:
        time.sleep(0.05)
        brokers, existing = _metadata(client, settings)
    missing = [topic for topic in wanted if topic.name not in existing]
    unknown = sorted(foreign - existing.keys())
    if unknown:
        raise TopicsError(
            f"These source topics do not exist: {', '.join(unknown)}.",
            "sources",
            "create them, or correct `sources`; topics outside of the workspace are not created for you",
        )
    if not missing:
        return []
    copies = settings.replication_factor or min(3, brokers)
    futures = client.create_topics(
        [_new_topic(topic, copies) for topic in missing], operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S
    )
    created = [name for name, future in futures.items() if _was_created(name, future)]
    _wait_until_known(client, settings, {topic.name for topic in missing})
    # Not of a workspace that is there already, and only lacks a topic: who makes it may be wrong about its secret.
    if {settings.topic(TOPIC), settings.topic("events")} <= set(created):
        keep_check(settings)
    return sorted(created)


def _wait_until_known(client: AdminClient, settings: Settings, names: set[str]) -> None:
    """Wait until a broker has heard of what the controller has made."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not names <= set(_metadata(client, settings)[1]):
        if time.monotonic() > deadline:
            raise TopicsError(
                "Topics were created but do not appear.", ", ".join(sorted(names)), "see that all brokers are up"
            )
        time.sleep(0.05)


def topic_configs(settings: Settings, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The settings in force of those of these topics (real names) that exist."""
    client = admin_client(settings)
    existing = _metadata(client, settings)[1]
    return configs_of(client, [name for name in names if name in existing])


def tombstones_kept_ms(settings: Settings, topics: Iterable[str]) -> int:
    """How long the tombstones of all of these compacted topics (logical names) are kept: no longer than ours, and less
    where somebody made them otherwise. While an erasure is under way it may be less for a moment; that counts for who
    knows of erasures otherwise, and is passed over here. Who may not see it goes by ours."""
    try:
        found = topic_configs(settings, [settings.topic(name) for name in topics]).values()
    except (BrokerError, TopicsError, TimeoutError):
        return DELETE_RETENTION_MS
    told = [int(one["delete.retention.ms"]) for one in found if "delete.retention.ms" in one and not is_hastened(one)]
    return min([DELETE_RETENTION_MS, *told])


def topic_partitions(settings: Settings) -> dict[str, int]:
    """The partition count of every topic, by real name."""
    return _metadata(admin_client(settings), settings)[1]


def alter_topics(settings: Settings, changes: Mapping[str, Mapping[str, str | None]]) -> None:
    """Set (None: back to the broker's) settings of topics, by real name. TopicsError if it is refused."""
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry

    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(
                    key,
                    value or "",
                    incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
                )
                for key, value in config.items()
            ],
        )
        for name, config in changes.items()
    ]
    client = admin_client(settings)
    futures: dict[Any, Future[Any]] = client.incremental_alter_configs(resources)
    for resource, future in futures.items():
        try:
            future.result(_TIMEOUT_S)
        except KafkaException as error:
            raise TopicsError(
                f"The settings of the topic could not be changed: {error.args[0].str()}.",
                resource.name,
                "give the user of the privacy role the right to alter topics",
            ) from None


def _new_topic(topic: WantedTopic, copies: int) -> NewTopic:
    config = dict(topic.config)
    if copies >= 3:
        # An acknowledged record is on two machines; one may fail without losing it, or stopping the writers.
        config["min.insync.replicas"] = "2"
    return NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=copies, config=config)


def _was_created(name: str, future: "Future[None]") -> bool:
    try:
        future.result()
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False  # another process was quicker
        advice = "see what the broker says; HEADWATER_REPLICATION_FACTOR sets the copies of each partition"
        if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            advice = "give this user the right to create topics, or have somebody create them: `headwater topics`"
        raise TopicsError(f"The topic could not be created: {reason.str()}.", name, advice) from None
    return True


def check_topics(settings: Settings, destinations: Iterable[str] = ()) -> list[Difference]:
    """How the workspace's topics differ from what the pipeline needs; an empty list if they do not."""
    client = admin_client(settings)
    _, existing = _metadata(client, settings)
    return compare_topics(settings, destinations, existing, lambda names: configs_of(client, list(names)))


def compare_topics(
    settings: Settings,
    destinations: Iterable[str],
    existing: Mapping[str, int],
    configs: Callable[[Sequence[str]], Mapping[str, Mapping[str, str]]],
) -> list[Difference]:
    """The same of topics as somebody else has seen them: their partition counts, and who tells their settings."""
    wanted = wanted_topics(settings, destinations)
    found = configs([topic.name for topic in wanted if topic.name in existing and topic.ours])
    differences: list[Difference] = []
    for topic in wanted:
        if topic.name not in existing:
            advice = "run `headwater topics --create`" if topic.ours else "create it, or correct `sources`"
            advice += "; where it is there, this user may not see it: `headwater topics acls`"
            differences.append(Difference(topic.name, "does not exist", advice, True))
        elif topic.ours:
            differences += _compared(settings, topic, existing[topic.name], found[topic.name])
    return differences


def _compared(settings: Settings, topic: WantedTopic, partitions: int, config: Mapping[str, str]) -> list[Difference]:
    found = []
    is_source = topic.name in {settings.topic(source) for source in settings.sources}
    # Of an output any count will do, as long as it stays: whoever writes to it asks how many there are.
    if partitions != topic.partitions and not is_source and not topic.output:
        found.append(
            Difference(
                topic.name,
                f"has {partitions} partitions, not {topic.partitions}",
                f"set HEADWATER_PARTITIONS={partitions} if all topics agree on it; else a person's events and state"
                " would part: changing the count is a replay into a new workspace",
                True,
            )
        )
    for name, wanted in topic.config.items():
        actual = config.get(name)
        if name == "delete.retention.ms" and is_hastened(config):
            continue  # the privacy role's own doing, and undoing, while an erasure is under way
        if name == "retention.ms" and topic.name == settings.topic("events") and settings.archive:
            continue  # history goes on in the archive
        if actual is None or actual == wanted or (is_source and name not in ("cleanup.policy", STAMPS)):
            continue
        change = (
            f"kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} --add-config {name}={wanted}"
        )
        if name == "cleanup.policy":
            harm = "people's state would be deleted with age" if wanted == "compact" else "events would be lost by key"
            found.append(Difference(topic.name, f"has {name}={actual}: {harm}", change, not is_source))
        elif name == STAMPS:
            what = (
                f"has {name}={actual}: events that wait in it while ingest is away count as received when they are read"
            )
            found.append(Difference(topic.name, what, change, False))
        elif name == "max.message.bytes" and int(actual) < int(wanted):
            found.append(Difference(topic.name, f"takes records of {actual} bytes only", change, True))
        elif name in ("retention.ms", "retention.bytes", "delete.retention.ms"):
            harm, fatal = _kept_otherwise(settings, topic, name, actual)
            what = f"has {name}={actual}, would be made with {wanted}{harm}"
            found.append(Difference(topic.name, what, change, fatal))
    return found


def _kept_otherwise(settings: Settings, topic: WantedTopic, name: str, actual: str) -> tuple[str, bool]:
    """What becomes of a topic that is kept for another time than ours, and whether nobody could want that."""
    if name == "delete.retention.ms":
        if int(actual) >= DELETE_RETENTION_MS:
            return "", False
        return ": a store that was away for half of that is made anew", False
    if topic.name in (settings.topic("links"), settings.topic("identity-edges")):
        return ": what a role has not read by then is lost, and people with it", True
    if topic.name == settings.topic("events") and int(actual) >= 0:
        return ": what is older is missing to new rules and to replays", False
    return "", False


def refuse_other_partitions(settings: Settings) -> None:
    """Raises SettingsError: the workspace has another number of partitions than is set here.

    Whoever counts on fewer takes a history for complete that is not, and leaves the clocks of the others standing.
    """
    try:
        _, counts = _metadata(admin_client(settings), settings, _ANSWERS_WITHIN_S)
    except BrokerError as error:
        # A Kafka that is away is told by whatever needs it.
        _log.warning("whether the workspace has %d partitions could not be seen: %s", settings.partitions, error.what)
        return
    there = counts.get(settings.topic("events"))
    if there and there != settings.partitions:
        raise SettingsError(
            f"The workspace {settings.prefix} was made with {there} partitions, and {settings.partitions} are set.",
            "partitions",
            f"give every process the number that is there ({ENV_PREFIX}PARTITIONS={there}, or `partitions: {there}` in"
            f" {DEFAULT_FILE}); another number is a new workspace: headwater replay begin",
        )


def _metadata(client: AdminClient, settings: Settings, timeout_s: float = _TIMEOUT_S) -> tuple[int, dict[str, int]]:
    """The number of brokers, and the partitions of each topic."""
    try:
        metadata = client.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise unreachable(settings, error.args[0]) from None
    return len(metadata.brokers), {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def unreachable(settings: Settings, reason: KafkaError) -> BrokerError:
    """The error of a Kafka that does not answer, or does not let us in."""
    refusal = _refusal(settings)
    if refusal is not None:
        return BrokerError(
            f"Kafka does not let us in: {refusal.str()}.",
            settings.bootstrap_servers or "",
            "see the user, the password and the certificates under `kafka:`, or HEADWATER_KAFKA__…",
        )
    return BrokerError(
        f"Kafka does not answer: {reason.str()}.",
        settings.bootstrap_servers or "",
        "see that it runs and that the address is right as seen from here; security settings go under `kafka:`",
    )


def _refusal(settings: Settings) -> KafkaError | None:
    """What a Kafka says to whom it does not let in; the answer to a question is only that there was none."""
    told: list[KafkaError] = []
    properties: dict[str, Any] = {**quiet_properties(settings), "client.id": "headwater-admin", "error_cb": told.append}
    client = AdminClient(properties)
    with contextlib.suppress(KafkaException):
        client.list_topics(timeout=_REFUSED_WITHIN_S)
    client.poll(0)
    return next((each for each in told if each.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)), None)


def configs_of(client: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """The settings in force of topics that exist, by real name. TopicsError if this user may not see them."""
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    futures: dict[Any, Future[Any]] = client.describe_configs(resources, request_timeout=_TIMEOUT_S)
    by_future = {future: resource.name for resource, future in futures.items()}
    found: dict[str, dict[str, str]] = {}
    for future in as_completed(by_future, timeout=_TIMEOUT_S):
        try:
            entries = future.result()
        except KafkaException as error:
            raise TopicsError(
                f"The topic's settings could not be read: {error.args[0].str()}.",
                by_future[future],
                "give this user the right to describe topics",
            ) from None
        found[by_future[future]] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return found


def delete_topics(settings: Settings, names: Iterable[str]) -> None:
    """Delete topics by their real names, and wait until they are gone. For tests and replays into a new workspace."""
    client = admin_client(settings)
    for name, future in client.delete_topics(list(names), operation_timeout=_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicsError(
                    f"The topic could not be deleted: {reason.str()}.", name, "see what it says"
                ) from None
