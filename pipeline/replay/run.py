"""The copier on a real Kafka: put together, kept running, and looked at."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.admin import MAX_MESSAGE_BYTES
from pipeline.archive.reading import with_archive
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import BrokerError
from pipeline.identifiers import Keys
from pipeline.privacy.vault import FollowedVault, ensure_keys
from pipeline.replay.copier import Copier
from pipeline.replay.cuts import read_cuts
from pipeline.replay.errors import ReplayError
from pipeline.replay.ports import Committed, CopySettings, Ports
from pipeline.replay.workspace import old_settings, origin_of
from pipeline.runtime.adapters import LogReader
from pipeline.runtime.errors import Abortable, Fatal, Retriable
from pipeline.runtime.kafka.build import wall_clock_ms
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaLogReader
from pipeline.runtime.kafka.doors import GroupPositions, current_values
from pipeline.runtime.kafka.producer import KafkaProducer
from pipeline.runtime.kafka.rest import STAGES, AtRest
from pipeline.runtime.opening import OpeningReader
from pipeline.settings import Settings
from pipeline.wire import values_of
from pipeline.workspace_view import WorkspaceView, view_of

ROLE = "replay"
_PAUSE_S = 0.02
_AGAIN_S = 1.0
_MOST_AGAIN = 30
# More than it takes to give up on a broker that does not answer.
_WELL_S = 120.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: events copied, positions of the old log left, what is on its way in the new workspace
    (None: not known), the time it has come to, and whether the copy had reached the end when it was last looked at."""

    copied: int
    left: int
    in_flight: int | None
    clock_ms: int
    at_end: bool


def make_ports(
    settings: Settings, old: Settings, copy: CopySettings | None = None, transaction_timeout_ms: int = 10_000
) -> Ports:
    """The copier's ports between two workspaces of one Kafka."""
    keys = Keys(settings.secret_bytes())
    plans = KafkaPlans(settings)
    old_config = KafkaConfig(
        old.client_properties(), old.prefix, max_message_bytes=MAX_MESSAGE_BYTES, values=values_of(old)
    )
    # One id whatever the slot: two copiers of a workspace would copy everything twice.
    new_config = KafkaConfig(
        settings.client_properties(),
        settings.prefix,
        "0",
        transaction_timeout_ms=transaction_timeout_ms,
        max_message_bytes=MAX_MESSAGE_BYTES,
        values=values_of(settings),
    )
    positions, at_rest = GroupPositions(settings), AtRest(settings)

    ensure_keys(settings)
    opened = FollowedVault(old).open

    of_history = with_archive(old, lambda: KafkaLogReader(old_config, ROLE), whole=True)

    def reader() -> LogReader:
        return OpeningReader(of_history(), opened)

    def in_flight() -> int:
        told = positions.now(STAGES)
        # A broker that does not say just now is asked again: nothing is sent on a guess.
        return sum(end - at for at, end in told.values()) if len(told) == len(STAGES) else 2**40

    def cuts(erased: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
        found = reader()
        try:
            return read_cuts(found, old.partitions, erased)
        finally:
            found.close()

    def committed() -> Committed:
        view = view_of(settings)
        return Committed(view.position, view.erasures, view.unlinks)

    def names(actors: Collection[bytes]) -> Mapping[bytes, str]:
        if not actors:
            return {}
        known = (text.decode() for text in current_values(settings, "identities"))
        return {actor: text for text in known if (actor := keys.actor(text)) in actors}

    return Ports(
        old=reader,
        partitions=old.partitions,
        new_partitions=settings.partitions,
        producer=KafkaProducer(new_config, ROLE),
        committed=committed,
        in_flight=in_flight,
        at_rest=at_rest,
        cuts=cuts,
        names=names,
        rules=lambda: plans.latest().identity,
        keys=keys,
        clock=wall_clock_ms,
        settings=copy or CopySettings(),
        seal=FollowedVault(settings).seal,
    )


def run(
    settings: Settings,
    until: Callable[[], bool],
    progress: Callable[[Progress], None] = lambda progress: None,
    copy: CopySettings | None = None,
) -> None:
    """Copy until `until()`, or until the switch takes over. `progress` is told several times a second.

    Raises:
        ReplayError: this workspace is no replay, or it cannot go on.
    """
    origin = origin_of(settings)
    old = old_settings(settings, origin)
    failures, began_s = 0, 0.0
    going_on = WorkspaceView(old)

    def is_over() -> bool:
        """Whether the switch is under way: it copies the rest by itself."""
        try:
            going_on.look()
        except BrokerError as error:
            _log.warning("whether the switch has begun cannot be read: %s", error.what)
        return going_on.successor is not None and going_on.successor.prefix == settings.prefix

    # Looked at first: a copier that began, for its supervisor had started it again, would end the switch.
    while not is_over() and not until():
        if not going_on.is_known:
            time.sleep(_AGAIN_S)
            continue
        if time.monotonic() - began_s > _WELL_S:
            failures = 0
        began_s = time.monotonic()
        copier: Copier | None = None
        try:
            copier = Copier(make_ports(settings, old, copy))
            copier.start()
            _copy(copier, until, is_over, progress)
            return
        except (Abortable, Retriable, BrokerError) as fault:
            # A new one begins at what was committed. One that cannot even begin is no passing fault.
            failures += 1
            what = fault.what if isinstance(fault, BrokerError) else f"{fault}."
            _log.warning("the copier begins again: %s", what)
            if failures > _MOST_AGAIN:
                raise ReplayError(f"The replay stands still: {what}", settings.prefix, "see to Kafka") from fault
            time.sleep(_AGAIN_S)
        except Fatal as fault:
            if is_over():
                return
            raise ReplayError(
                f"The copier was ended: {fault}.",
                settings.prefix,
                "another one has taken its place; if none did, start it again",
            ) from fault
        finally:
            if copier is not None:
                copier.close()


def _copy(
    copier: Copier, until: Callable[[], bool], is_over: Callable[[], bool], progress: Callable[[Progress], None]
) -> None:
    told_s = 0.0
    while not until() and not copier.state.ended:
        moved = copier.run_once()
        now_s = time.monotonic()
        if now_s - told_s > 0.25:
            told_s = now_s
            if is_over():
                _log.info("the switch takes the copier's place")
                return
            state = copier.state
            progress(Progress(state.copied, copier.left, None, state.clock, copier.at_end))
        if not moved:
            time.sleep(_PAUSE_S)
