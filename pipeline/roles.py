"""The roles, put together: which stage, plugged into what. This is where a real clock and a real Kafka come in."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from hashlib import blake2b
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from pipeline.admin import DELETE_RETENTION_MS, MAX_MESSAGE_BYTES, tombstones_kept_ms
from pipeline.archive.reading import with_archive
from pipeline.cleaning import Failed, Tools
from pipeline.definitions.cleaning import FUNCTIONS
from pipeline.definitions.log import KafkaPlans
from pipeline.identifiers import Keys
from pipeline.identity import IdentityStage
from pipeline.ingest import Checks, IngestStage
from pipeline.observed import served
from pipeline.privacy.vault import FollowedVault, ensure_keys
from pipeline.records import (
    UNREADABLE,
    CaughtUp,
    DeadLetter,
    Event,
    Forward,
    decode_events_record,
    decode_links_record,
    encode,
    read_events_record,
)
from pipeline.runtime.adapters import Adapters
from pipeline.runtime.failpoints import Failpoints
from pipeline.runtime.functions import FunctionFailed, Functions
from pipeline.runtime.garbage import collecting_between
from pipeline.runtime.kafka.build import kafka_adapters, wall_clock_ms
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.group_clock import GroupClock
from pipeline.runtime.kafka.references import References
from pipeline.runtime.kafka.sources import Beside, SourcesAtEnd
from pipeline.runtime.lost import Source, Told
from pipeline.runtime.metrics import Metrics, StageCounters
from pipeline.runtime.observing import Observer, written_ms
from pipeline.runtime.ports import Record, Stage
from pipeline.runtime.progress import reporter
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.watermark import Watermark
from pipeline.runtime.worker import Worker
from pipeline.settings import Settings
from pipeline.topology import IDENTITY, INGEST, TOPICS, UNIFY, Role
from pipeline.unify import UnifyStage
from pipeline.vault import SEALED
from pipeline.wire import values_of
from pipeline.wire.registry import Schemas

_log = logging.getLogger(__name__)
_decode_letter = msgspec.json.Decoder(DeadLetter).decode

# A commit is answered before the broker has written its markers, and until it has, the next transaction is refused and
# asked for again only after 20 ms: longer than it takes to write them (docs/decisions/transactions-that-take-turns.md).
PAUSE_S = 0.002
# From the first record of a transaction on the client waits a millisecond before it adds partitions to it (the same
# page): what comes meanwhile may as well go along.
GATHER_S = 0.0007
# What a broker refuses for longer than a moment would else be tried, and told, eight times a second.
UNDONE_PAUSE_S = 0.1
# A turn of ticks is to take 25 ms (docs/decisions/a-tick-settles-what-fits.md).
LONG_TURN_S = 0.030
# In a steady stream the ends of the sources are reached a batch or a few after they were asked for.
CAUGHT_UP_WITHIN_S = 1.0
# Of unify, which takes what a batch has of a person together: with a backlog an event costs 6 to 16 % less than with
# the default (docs/performance-history.md). Other stages would gain nothing by it, and keep unify waiting.
_LARGE_BATCHES = {"batch_records": 80_000, "batch_ms": 2_000}

STAGES = ("ingest", "identity", "unify")
"""The roles that are stages; `deliver` and the doors run otherwise."""


def run_stage(name: str, settings: Settings, until: Callable[[], bool], failpoints: Failpoints) -> None:
    """Run one worker of a stage until `until()`.

    Raises:
        WorkerStopped: the worker cannot go on and its process must end; started again it recovers by itself.
    """
    role = _role(name, settings)
    config = KafkaConfig(
        settings.client_properties(),
        settings.prefix,
        settings.slot,
        max_message_bytes=MAX_MESSAGE_BYTES,
        turns=settings.transactional_ids,
        values=values_of(settings),
        subscription=_subscription(settings) if name == INGEST.name else "",
        elsewhere=settings.sources_elsewhere,
    )
    registry = served(settings)
    metrics = Metrics(registry)
    # Not only when something is written for the first time: a transaction would wait for the registry then.
    values_of(settings).prepare(topic.name for topic in TOPICS)
    worker = Worker(
        role,
        _stage_maker(name, settings, metrics, registry),
        _with_archive(settings, kafka_adapters(config, role, settings.state_dir, settings.compress_stores)),
        WorkerSettings(
            tombstone_retention_ms=tombstones_kept_ms(settings, [role.changelog])
            if role.changelog
            else DELETE_RETENTION_MS,
            scrub_interval_ms=int(settings.scrub_every_s * 1000),
            pause_s=PAUSE_S,
            gather_s=GATHER_S,
            undone_pause_s=UNDONE_PAUSE_S,
            long_turn_s=LONG_TURN_S,
            **(_LARGE_BATCHES if name == UNIFY.name else {}),
        ),
        failpoints,
        Observer(
            name,
            wall_clock_ms,
            metrics.for_role(name),
            reporter(settings.state_dir / name, settings.slot) if role.changelog is not None else None,
            received_ms if name == UNIFY.name else written_ms,
        ),
        _told(settings) if name == INGEST.name else None,
    )
    _log.info("%s runs in slot %s", name, settings.slot)
    worker.run(collecting_between(until))


def _subscription(settings: Settings) -> str:
    """What tells the sources from others, unless they are those that there are by default."""
    topics = sorted({settings.topic(source) for source in settings.sources})
    if topics == [settings.topic(source) for source in INGEST.inputs]:
        return ""
    return blake2b("\n".join(topics).encode(), digest_size=4).hexdigest()


def _with_archive(settings: Settings, adapters: Adapters) -> Adapters:
    """History begins in the archive, where there is one."""
    if adapters.history is None:
        return adapters
    return replace(adapters, history=with_archive(settings, adapters.history, patient=True))


def _checks(keys: Keys, plans: KafkaPlans, metrics: Metrics, settings: Settings) -> Callable[[], Checks]:
    functions = Functions(FUNCTIONS)

    def call(name: str, event: dict[str, Any], timeout_ms: int) -> Any:
        try:
            return functions.call(name, event, timeout_ms)
        except FunctionFailed as failed:
            raise Failed(str(failed)) from None

    references = References(settings)
    tools = Tools(lambda text: keys.actor(f"cleaning:{text}").decode(), call, references.row)

    schemas = Schemas(settings.schema_registry)

    def checks() -> Checks:
        references.follow()
        latest = plans.latest()
        return Checks(latest.contracts, latest.cleaning, metrics.violated, tools, latest.sources, schemas)

    return checks


def received_ms(record: Record) -> int:
    """When the event was received that a record of unify's inputs carries; 0 if it carries none, or cannot be read."""
    if not record.value:
        return 0
    if record.value[0] == SEALED:
        # What is in it is not for here; it was written the moment after.
        return record.timestamp_ms
    message = (read_events_record if record.topic == "events" else decode_links_record)(record.value)
    if isinstance(message, Forward):
        message = message.event
    return message.received if isinstance(message, Event) else 0


def _told(settings: Settings) -> Told:
    """What ingest's outputs tell: every event and every dead letter says which raw record it was."""
    # Not the stage's own vault, which belongs to its batches; and only if there is ever something to be read.
    opened = cache(lambda: FollowedVault(settings).open)

    def source(record: Record) -> Source | None:
        try:
            return read(record)
        except UNREADABLE:
            return None  # somebody else's, who writes what no role of ours does

    def read(record: Record) -> Source | None:
        if not record.value:
            return None
        if record.topic != "events":
            letter = _decode_letter(record.value)
            return (letter.topic, letter.partition, letter.offset) if letter.stage == INGEST.name else None
        value = opened()(record.value) if record.value[0] == SEALED else record.value
        message = decode_events_record(value) if value is not None else None
        if not isinstance(message, Event):
            return None
        topic, partition, offset = message.source.rsplit("/", 2)
        return topic, int(partition), int(offset)

    return Told(source, {"events": encode(CaughtUp(0))})


def _role(name: str, settings: Settings) -> Role:
    if name == INGEST.name:
        return INGEST._replace(inputs=settings.sources, tolerant=settings.sources)
    return {role.name: role for role in (IDENTITY, UNIFY)}[name]


def _stage_maker(
    name: str, settings: Settings, metrics: Metrics, registry: CollectorRegistry
) -> Callable[[int], Stage]:
    keys = Keys(settings.secret_bytes())
    if name == INGEST.name:
        ensure_keys(settings)
    plans = KafkaPlans(settings)
    if name == INGEST.name:
        sources = SourcesAtEnd(settings, INGEST.name, settings.sources)
        at_end = Beside(lambda: sources.within(CAUGHT_UP_WITHIN_S))
        vault = FollowedVault(settings)
        return lambda _: IngestStage(
            keys,
            lambda: plans.latest().identity,
            wall_clock_ms,
            settings.partitions,
            at_end.anew(),
            metrics.ingested,
            _checks(keys, plans, metrics, settings),
            vault,
        )
    made: dict[int, Callable[[], Mapping[str, int]]] = {}
    StageCounters(registry, name, lambda: [count() for count in made.values()])

    def identity(partition: int) -> Stage:
        stage = IdentityStage(keys, plans, settings.partitions)
        made[partition] = lambda: asdict(stage.counters)
        return stage

    if name == IDENTITY.name:
        return identity
    opened = FollowedVault(settings).open
    watermark = Watermark(Beside(GroupClock(settings, UNIFY)), wall_clock_ms)

    def unify(partition: int) -> Stage:
        stage = UnifyStage(
            partition, keys, plans, partitions=settings.partitions, open_sealed=opened, watermark=watermark
        )
        made[partition] = lambda: stage.counts
        return stage

    return unify
