"""The source role: pulls the sources that definitions have a `pull` for, each in a thread of its own."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event

from connectors.base import SecretFiles, Unsaid, withhold
from connectors.sources import Source
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.log import KafkaPlans, read_catalog
from pipeline.definitions.sources import SourceDefinition
from pipeline.errors import BrokerError, HeadwaterError
from pipeline.identifiers import partition_of
from pipeline.in_step import Threads
from pipeline.observed import served
from pipeline.records import Definition, encode
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.runtime.kafka.doors import current_values, produce_all
from pipeline.settings import Settings, settings_file
from pipeline.sources.pulling import Puller, PullMetrics, Row
from pipeline.workspaces import TOPIC, SourcePosition, decode_workspace_record, source_key

_LOOK_EVERY_S = 0.5

_log = logging.getLogger(__name__)


class KafkaPullLog:
    """A source's topic and position on a real Kafka. Opening it ends every former process that pulled this source."""

    def __init__(self, settings: Settings, name: str, topic: str) -> None:
        """Raises BrokerError, TopicsError."""
        self._name = name
        self._topic = topic
        self._transaction = ApplyTransaction(settings, _writer(name))
        self._partitions = self._transaction.partitions(topic)
        # Only now: before, a former self could still commit.
        self._position = position_of(settings, name)

    def position(self) -> str | None:
        return self._position

    def write(self, records: Sequence[Row], position: str) -> None:
        rows = [
            (self._topic, partition_of(self._name.encode() if key is None else key, self._partitions), key, value)
            for key, value in records
        ]
        kept = encode(SourcePosition(position))
        try:
            self._transaction.write([*rows, (TOPIC, 0, source_key(self._name), kept)])
        except BrokerError as error:
            raise BrokerError(
                f"What was pulled of {self._name} could not be written: {error.what}",
                self._topic,
                "does another process pull the same source? Else see that the broker is well",
            ) from None

    def close(self) -> None:
        """Let go of the connections."""
        self._transaction.close()


def _writer(name: str) -> str:
    return f"source-{name}"


def position_of(settings: Settings, name: str) -> str | None:
    """How far a source was pulled; None if it never was."""
    kept = current_values(settings, TOPIC).get(source_key(name))
    found = decode_workspace_record(kept) if kept is not None else None
    return found.position if isinstance(found, SourcePosition) else None


def hand_over_positions(old: Settings, new: Settings) -> None:
    """Let a workspace that takes over pull on where the former one was. Who still pulls for that one is ended: what it
    had yet to write, a slow source's answer say, would be pulled twice."""
    begun = source_key("")
    catalog = read_catalog(old)
    known = [key.removeprefix(begun).decode() for key in current_values(old, TOPIC) if key.startswith(begun)]
    for name in {*known, *(each.name for each in catalog.of_kind(catalog.latest, "source") if each.body.get("pull"))}:
        ApplyTransaction(old, _writer(name)).close()
    there = current_values(new, TOPIC)
    kept = {key: value for key, value in current_values(old, TOPIC).items() if key.startswith(begun)}
    produce_all(new, TOPIC, [(key, value) for key, value in kept.items() if key not in there])


class SourceRole:
    """Keeps the pullers in step with the definitions. `only` limits it to one source."""

    def __init__(self, settings: Settings, only: str | None, metrics: PullMetrics) -> None:
        self._settings = settings
        self._only = only
        self._metrics = metrics
        self.threads = Threads("source", metrics.forget)
        self._said = False

    def follow(self, catalog: Catalog) -> None:
        """Bring the pullers in step with the newest generation. Raises what ended one."""
        latest = catalog.latest
        wanted = {
            each.name: each
            for each in catalog.of_kind(latest, "source")
            if each.body.get("pull") and self._only in (None, each.name)
        }
        if not wanted and not self._said:
            self._said = True
            _log.info("no source %sis pulled: apply one with `pull`", f"{self._only} " if self._only else "")
        self.threads.follow(wanted)
        for name, definition in wanted.items():
            if self.threads.may_start(name):
                self._start(definition)

    def _start(self, written: Definition) -> None:
        name = written.name
        unsaid: Callable[[str], str] = str
        try:
            definition = SourceDefinition.model_validate(written.body)
            assert definition.pull is not None
            self._check_topic(definition)
            secrets = SecretFiles(definition.pull.options)
            unsaid = Unsaid(definition.pull.options)
            source = definition.pull.opened(name)
        except Exception as error:  # noqa: BLE001 - a secret that is not there, or whatever a source of others raises
            # The set-up of one source, and a topic that nobody reads, is no reason to stop the others.
            _log.error("the source %s cannot be opened: %s: %s", name, type(error).__name__, unsaid(str(error)))
            self.threads.try_later(name)
            self._metrics.up.labels(name).set(0)
            return
        self.threads.start(written, secrets, partial(self._pull, definition, source))
        _log.info("pulling %s (%s, version %d) into %s", name, definition.pull.kind, written.version, definition.topic)

    def _check_topic(self, definition: SourceDefinition) -> None:
        settings = self._settings
        if settings.topic(definition.topic) not in {settings.topic(each) for each in settings.sources}:
            raise HeadwaterError(
                f"The source {definition.source} would be pulled into {definition.topic}, which ingest does not read.",
                f"source/{definition.source}",
                f"name one of `sources` ({', '.join(settings.sources)}), or add it there, for every role",
            )

    def _pull(self, definition: SourceDefinition, source: Source, stop: Event) -> None:
        assert definition.pull is not None
        settings, pull, name = self._settings, definition.pull, definition.source
        try:
            log = KafkaPullLog(settings, name, definition.topic)
            try:
                puller = Puller(
                    name, source, log, pull.limit, pull.every / 1000, self._metrics, stamped=definition.event is None
                )
                while not stop.is_set():
                    stop.wait(puller.turn())
            finally:
                log.close()
        finally:
            source.close()

    def close(self) -> None:
        """Stop all, and wait for what is under way."""
        self.threads.close()


def run(settings: Settings, only: str | None, until: Callable[[], bool]) -> None:
    """Run the role until `until()`.

    Raises:
        BrokerError: Kafka does not do what it is asked for, or another process pulls the same source.
    """
    withhold(settings.state_dir, settings_file())
    registry = served(settings)
    plans = KafkaPlans(settings)
    role = SourceRole(settings, only, PullMetrics(registry))
    try:
        while not until():
            role.follow(plans.look())
            time.sleep(_LOOK_EVERY_S)
    finally:
        role.close()
        plans.close()
    role.threads.raise_error()
