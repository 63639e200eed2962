"""The thread that follows the topics into the read model, and tells the streams what has changed."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from pipeline.admin import admin_client, tombstones_kept_ms
from pipeline.api.model import FOLLOWED, ReadModel
from pipeline.api.positions import Visible, position_text
from pipeline.api.tables import TABLES
from pipeline.errors import BrokerError
from pipeline.identifiers import Keys
from pipeline.runtime import garbage
from pipeline.runtime.kafka.doors import (
    KAFKA_FAILURES,
    TopicReader,
    current_values,
    list_offsets,
    positions_at,
    topic_partitions,
    watermarks,
)
from pipeline.runtime.ports import Record
from pipeline.runtime.rocksdb import RocksTables
from pipeline.settings import Settings
from pipeline.topology import DAY_MS

TRUTH = ("profiles", "identities", "segment-members")
"""The compacted topics: what an answer is made from."""
TOPICS = (*FOLLOWED, "profile-changes")
_HISTORIES = ("events", "segment-changes", "account-alerts")
_CATCH_UP_BATCH = 20_000
_BATCH = 2_000
_WAIT_S = 0.2
_ASK_EVERY_S = 0.1
_ASKED = 1_000
_STAMP_EVERY_MS = 60_000
_RECALLED = 5_000
_RECALLED_TOPICS = ("events", "profile-changes")

_log = logging.getLogger(__name__)


class Follower:
    """Owns the read model of a process. `told` is called, in the follower's thread, after each batch."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recent_events = settings.api.recent_events
        self._recent_days = settings.api.recent_days
        self._folder = settings.state_dir / "api" / settings.slot
        self._keys = Keys(settings.secret_bytes())
        self._scrubber: threading.Thread | None = None
        self._scrubbed_at = 0.0
        self._scrub_failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._asking = threading.Thread(target=self._ask_ends, name="ends", daemon=True)
        self._asked: deque[tuple[int, dict[tuple[str, int], int]]] = deque(maxlen=_ASKED)
        self._starts: dict[tuple[str, int], int] = {}
        self._complete_at = self._stamped_at = 0
        self._admin = admin_client(settings)
        self.failure: BaseException | None = None
        self.model: ReadModel
        self.visible = Visible()
        self.position = ""
        self.is_ready = False
        self.fresh_at_ms = 0
        self.told: Callable[[Sequence[Record]], None] = lambda _: None

    def start(self) -> None:
        """Open the tables and begin to read. Raises StateError, BrokerError."""
        self.model, self._starts, begin = self._open()
        self._reader = TopicReader(self._settings, TOPICS, start_at=begin, patient=True)
        self._places = dict.fromkeys(self._reader.partitions, 0)
        # An answer is never older than one that was given before: those were from before this moment.
        self.fresh_at_ms = time.time_ns() // 1_000_000
        self._ready_at = {place: end for place, (_, end) in watermarks(self._settings, TRUTH).items()}
        self._truth = topic_partitions(self._settings, TRUTH)
        self._thread.start()
        self._asking.start()

    def _open(self) -> tuple[ReadModel, dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        """The tables, where they stand, and where reading begins: a little earlier, for who asks about what had an
        effect just before the last process ended."""
        model = self._tables()
        positions = model.positions()
        bounds = watermarks(self._settings, FOLLOWED)
        why = _why_anew(model, positions, bounds, tombstones_kept_ms(self._settings, TRUTH))
        if why and positions:
            _log.warning("the read model is made anew: %s", why)
        if why:
            model.close()
            RocksTables.wipe(self._folder)
            model, positions = self._tables(), {}
        else:
            model.forget_missed(current_values(self._settings, "suppressions"))
        # While it still reads what stood there, the tables are as old as before; new ones miss nothing from now on.
        self._complete_at = model.followed_at() or time.time_ns() // 1_000_000
        starts = {place: max(at, bounds[place][0]) for place, at in positions.items() if place in bounds}
        if not starts:
            since = time.time_ns() // 1_000_000 - self._recent_days * DAY_MS
            starts = positions_at(self._settings, ("events",), since)
        bounds |= (changes := watermarks(self._settings, ("profile-changes",)))
        starts |= {place: end for place, (_, end) in changes.items()}
        recalled = {
            place: max(bounds[place][0], at - _RECALLED) for place, at in starts.items() if place[0] in _RECALLED_TOPICS
        }
        return model, starts, {**starts, **recalled}

    def _tables(self) -> ReadModel:
        tables = RocksTables(self._folder, TABLES, compressed=self._settings.compress_stores)
        return ReadModel(tables, self._keys, self._recent_events, self._recent_days)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
        except BaseException as error:  # noqa: BLE001 - the server is told, and ends
            self.failure = error
            _log.exception("the read model cannot be kept up")
        finally:
            self._reader.close()
            if self._scrubber is not None:
                self._scrubber.join()
            self.model.close()

    def _step(self) -> None:
        records = self._reader.read(_BATCH if self.is_ready else _CATCH_UP_BATCH, _WAIT_S)
        positions = {**self._places, **self._reader.positions}
        if self._starts:
            records, positions = self._recall(records, positions)
        if records or positions != self.visible.positions:
            # Before the tables have it: an answer may say that it is newer than it is, never that it is older.
            self.position = position_text(positions, TRUTH)
            self.model.apply(records, positions, self._complete_at)
            self._stamped_at = self._complete_at
            self.visible.see(records, positions)
            self.told(records)
        elif self._complete_at - self._stamped_at > _STAMP_EVERY_MS:
            self.model.apply((), positions, self._complete_at)
            self._stamped_at = self._complete_at
        if not self.is_ready and self.visible.is_reached(self._ready_at):
            garbage.begin()  # it stops everybody for a moment, and nobody is served yet
            self.is_ready = True
            _log.info("the read model is ready: %s", self.position)
        self._scrub()
        asked = self._asked
        while asked and self.visible.is_reached(asked[0][1]):
            self.fresh_at_ms = asked.popleft()[0]
        if self.is_ready:
            self._complete_at = self.fresh_at_ms

    def _recall(
        self, records: list[Record], positions: dict[tuple[str, int], int]
    ) -> tuple[list[Record], dict[tuple[str, int], int]]:
        """Those of the records that the tables do not have, and the positions the tables come to with them."""
        starts = self._starts
        if all(positions[place] >= at for place, at in starts.items() if place in positions):
            self._starts = {}
        self.visible.recall(one for one in records if one.offset < starts.get((one.topic, one.partition), 0))
        fresh = [one for one in records if one.offset >= starts.get((one.topic, one.partition), 0)]
        return fresh, {place: max(at, starts.get(place, 0)) for place, at in positions.items()}

    def _ask_ends(self) -> None:
        """Ask again and again where the topics end. An answer is as old as the newest question whose answer was read up
        to; while the Kafka does not answer, it gets older."""
        while not self._stop.wait(_ASK_EVERY_S):
            at_ms = time.time_ns() // 1_000_000
            try:
                self._asked.append((at_ms, self.ends()))
            except BrokerError:
                continue

    def _scrub(self) -> None:
        """Now and then, if somebody was erased, let the files be written anew: in a thread, for it takes long."""
        scrubber, model = self._scrubber, self.model
        if scrubber is not None and not scrubber.is_alive():
            self._scrubber = scrubber = None
            if self._scrub_failure is not None:
                raise self._scrub_failure
            model.end_scrub()
        waited_s = time.monotonic() - self._scrubbed_at
        if scrubber is None and model.wants_scrub and self.is_ready and waited_s >= self._settings.scrub_every_s:
            self._scrubbed_at = time.monotonic()
            work = model.begin_scrub()
            self._scrubber = threading.Thread(target=self._write_anew, args=(work,), name="scrub", daemon=True)
            self._scrubber.start()

    def _write_anew(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the follower's thread raises it
            self._scrub_failure = error

    def ends(self) -> dict[tuple[str, int], int]:
        """The ends of the truth's partitions, open transactions included: whoever has read up to there has seen
        everything that was committed before the call. Takes a request to the broker. Raises BrokerError."""
        try:
            found = list_offsets(self._admin, [at for _, at in self._truth], latest=True)
        except KAFKA_FAILURES as error:
            raise BrokerError(f"The Kafka does not say where topics end: {error}.", "", "is it there?") from None
        return {place: found[at.topic, at.partition] for place, at in self._truth}

    def close(self) -> None:
        """Stop following; the tables are kept."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
        if self._asking.is_alive():
            self._asking.join(1)  # it may be waiting for a Kafka that is away, and keeps nothing


def _why_anew(
    model: ReadModel,
    positions: Mapping[tuple[str, int], int],
    bounds: Mapping[tuple[str, int], tuple[int, int]],
    kept_ms: int,
) -> str:
    """Why the tables cannot be gone on with; empty if they can."""
    if not model.is_readable():
        return "another release wrote it"
    if not positions:
        return "it is new" if any(model.rows().values()) else ""
    if time.time_ns() // 1_000_000 - model.followed_at() > kept_ms / 2:
        return "it is so old that the topics may have dropped tombstones it never saw"
    for place, at in positions.items():
        low, high = bounds.get(place, (0, -1))
        if at > high or (at < low and place[0] not in _HISTORIES):
            return f"{place[0]}/{place[1]} has {low} to {high}, and it was at {at}: the topic was made anew"
    return ""
