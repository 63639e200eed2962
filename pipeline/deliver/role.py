"""The deliver role: a worker for each destination in force, following the definitions as they change.

Each destination has a thread, a consumer and a group of its own: nothing they share can be held up by one of them.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from connectors import Connector
from connectors.base import SecretFiles, Unsaid, withhold
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.destinations import DestinationDefinition
from pipeline.definitions.log import KafkaPlans
from pipeline.deliver.circuit import Limits
from pipeline.deliver.dry_run import DryRun
from pipeline.deliver.forgotten import TOPIC, ForgottenProfiles
from pipeline.deliver.health import Health, health_file
from pipeline.deliver.metrics import DeliverMetrics
from pipeline.deliver.outcomes import Outcomes
from pipeline.deliver.scheduler import Policy
from pipeline.deliver.worker import DestinationWorker, passed_in_a_pause, wall_clock_ms
from pipeline.identifiers import Keys
from pipeline.in_step import Threads
from pipeline.observed import served
from pipeline.records import Definition
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.delivery_log import KafkaDeliveryLog
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings, settings_file
from pipeline.wire import values_of

_LOOK_EVERY_S = 0.5

_log = logging.getLogger(__name__)


def policy_of(definition: DestinationDefinition) -> Policy:
    """How a destination is served: what its definition says, and else what its kind is made for."""
    if definition.dry_run is not None:
        return Policy(concurrency=DryRun.concurrency, max_batch=DryRun.max_batch, keeps_order=DryRun.keeps_order)
    connector, asked = definition.connector, definition.delivery
    most = connector.takes_at_once(definition.options)
    return Policy(
        concurrency=asked.concurrency or connector.concurrency,
        max_batch=min(asked.batch or most, most),
        keeps_order=connector.keeps_order,
        attempts=asked.attempts,
        first_retry_ms=asked.first_retry,
        longest_retry_ms=asked.longest_retry,
        limits=Limits(per_second=asked.per_second),
    )


def opened(definition: DestinationDefinition) -> Connector:
    """The connector of a destination, or the file of its dry run. ValueError when it cannot be opened."""
    if definition.dry_run is not None:
        return DryRun(definition.destination, Path(definition.dry_run))
    return definition.connector(definition.destination, definition.options)


def outcomes_of(definition: DestinationDefinition) -> Outcomes:
    """What is told of a destination's deliveries: under no identifier that leaves in another form."""
    fields = (address.split(".") for address in definition.fields)
    return Outcomes(definition.destination, {path[1] for path in fields if path[0] == "identifiers"})


@dataclass(slots=True)
class _Serving:
    worker: DestinationWorker
    looked_at: int = -1


def at_once(destination: str) -> bool:
    """Where nothing has to be waited for."""
    return True


class DeliverRole:
    """Keeps the workers in step with the definitions. `only` limits it to one destination."""

    def __init__(
        self,
        settings: Settings,
        only: str | None,
        metrics: DeliverMetrics,
        forgotten: ForgottenProfiles,
        may_begin: Callable[[str], bool] = at_once,
    ) -> None:
        self._may_begin = may_begin
        self._forgotten = forgotten
        self._tell_health = health_file(settings.state_dir, settings.slot)
        self._config = KafkaConfig(
            settings.client_properties(),
            settings.prefix,
            settings.slot,
            values=values_of(settings),
            elsewhere=settings.sources_elsewhere,
        )
        self._only = only
        self._source = settings.sources[0]
        self._metrics = metrics
        # The next worker of a destination is of the same group and slot: it waits for the former to end.
        self.threads = Threads("destination", self._forget)
        self._serving: dict[str, _Serving] = {}

    def follow(self, catalog: Catalog) -> None:
        """Bring the workers in step with the newest generation. Raises what ended a worker."""
        latest = catalog.latest
        wanted = {each.name: each for each in catalog.of_kind(latest, "destination")}
        if self._only is not None:
            wanted = {name: each for name, each in wanted.items() if name == self._only}
        paused = catalog.paused(latest, "destination")
        self.threads.follow(wanted)
        for name, definition in wanted.items():
            if self.threads.may_start(name) and self._may_begin(name):
                self._start(catalog, definition)
            if name in self.threads:
                serving = self._serving[name]
                if serving.looked_at != latest.number:
                    serving.looked_at = latest.number
                    self._tell_pauses(catalog, definition)
                # Only now: what waited in a pause is judged by when it ended.
                serving.worker.paused = name in paused

    def _tell_pauses(self, catalog: Catalog, written: Definition) -> None:
        destination = DestinationDefinition.model_validate(written.body).compiled()
        pauses = catalog.pauses(f"destination/{written.name}")
        if destination.mode == "trigger" and pauses:
            self._serving[written.name].worker.has_passed = lambda delivery: passed_in_a_pause(
                delivery, pauses, destination.max_age_ms
            )

    def _start(self, catalog: Catalog, written: Definition) -> None:
        name = written.name
        unsaid: Callable[[str], str] = str
        try:
            definition = DestinationDefinition.model_validate(written.body)
            secrets = SecretFiles(definition.options)
            unsaid = Unsaid(definition.options)
            connector = opened(definition)
        except Exception as error:  # noqa: BLE001 - a secret that is not there, or whatever a connector of others raises
            # The set-up of one destination is no reason to stop the others.
            why = f"{type(error).__name__}: {unsaid(str(error))}"
            _log.error("%s cannot be opened: %s", name, why)
            self.threads.try_later(name)
            self._metrics.of(name).up.set(0)
            self._tell_health(Health(name, False, wall_clock_ms(), f"it cannot be opened: {why}"))
            return
        log = KafkaDeliveryLog(self._config, name, self._source)
        outcomes = outcomes_of(definition) if definition.outcomes and definition.dry_run is None else None
        metrics = self._metrics.of(name)
        worker = DestinationWorker(
            name,
            connector,
            log,
            policy_of(definition),
            metrics,
            outcomes=outcomes,
            tell_health=self._tell_health,
            forgotten=self._forgotten,
            unsaid=unsaid,
        )

        def serve(stop: Event) -> None:
            worker.run(stop.is_set)

        self._serving[name] = _Serving(worker)
        self._tell_pauses(catalog, written)
        worker.paused = name in catalog.paused(catalog.latest, "destination")
        self.threads.start(written, secrets, serve)
        _log.info("delivering to %s (%s, version %d)", name, definition.kind, written.version)

    def _forget(self, name: str) -> None:
        self._metrics.forget(name)
        self._serving.pop(name, None)

    def close(self) -> None:
        """Stop all workers in order: what is under way ends, progress is kept."""
        self.threads.close()


def run(
    settings: Settings,
    destination: str | None,
    until: Callable[[], bool],
    may_begin: Callable[[str], bool] = at_once,
) -> None:
    """Run the role: see `pipeline.deliver.run_deliver`."""
    withhold(settings.state_dir, settings_file())
    registry = served(settings)
    plans = KafkaPlans(settings)
    forgotten = ForgottenProfiles(Keys(settings.secret_bytes()))
    said = TopicReader(settings, [TOPIC])
    # Before anything goes out.
    forgotten.take(said.read_to_end())
    role = DeliverRole(settings, destination, DeliverMetrics(registry), forgotten, may_begin)
    try:
        looked_at = 0.0
        while not until():
            forgotten.take(said.read(1_000, 0.0))
            if time.monotonic() - looked_at >= _LOOK_EVERY_S:
                looked_at = time.monotonic()
                role.follow(plans.look())
            time.sleep(0.05)
    finally:
        role.close()
        plans.close()
        said.close()
    role.threads.raise_error()
