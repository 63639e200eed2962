"""The keys of the history and the list of the erased, as a running role follows them on the log."""

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from types import TracebackType

import msgspec

from pipeline.errors import BrokerError, StateError
from pipeline.records import UNREADABLE, Suppression
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.runtime.kafka.doors import TopicReader, current_values, produce_all, watermarks
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import SEALED, SEED_BYTES, KeyRing, Sealer

KEYS, SUPPRESSIONS = "keys", "suppressions"
WRITER = "privacy"
"""The transactional id behind the prefix: whoever writes keys ends every other who did."""

_WAIT_S = 0.2
_ATTEMPTS = 50
_FETCH_WAIT_MS = 100
_LOOKED_AT = 1_000
_SEALED = bytes((SEALED,))
_decode = msgspec.json.Decoder(Suppression).decode


class _Kind(msgspec.Struct):
    kind: str


_decode_kind = msgspec.json.Decoder(_Kind).decode


def ensure_keys(settings: Settings) -> None:
    """Make the seed of the workspace's keys, if there is none. Several processes may do so at once.

    Raises BrokerError; StateError: there were keys, and they are lost.
    """
    for _ in range(_ATTEMPTS):
        if _has_keys(settings):
            return
        try:
            _make_keys(settings)
        except BrokerError:
            # Another process does the same, and ended this attempt: then its keys are there in a moment.
            time.sleep(_WAIT_S)
    raise BrokerError("The keys of the workspace could not be made.", settings.topic(KEYS), "see that Kafka is well")


def _make_keys(settings: Settings) -> None:
    transaction = ApplyTransaction(settings, WRITER)
    try:
        # Only now nobody else can write any more: what is there is all there will be.
        if not _has_keys(settings):
            _refuse_lost(settings)
            first = KeyRing().begin(secrets.token_bytes(SEED_BYTES))
            transaction.write((KEYS, 0, key, value) for key, value in first)
    finally:
        transaction.close()


def _has_keys(settings: Settings) -> bool:
    with TopicReader(settings, [KEYS]) as reader:
        return any(True for _ in reader.read_to_end())


def _refuse_lost(settings: Settings) -> None:
    """New keys would open nothing of what was sealed under those that are gone, and stand in the way of their copy."""
    if any((record.value or b"").startswith(_SEALED) for record in _ends_of_history(settings)):
        raise StateError(
            "The keys of the history are gone: `events` is sealed, and there is nothing to open it with.",
            settings.topic(KEYS),
            "stop the roles and restore the topic from its copy; without one, begin a new workspace",
        )


def _ends_of_history(settings: Settings) -> Iterator[Record]:
    """The first events and the last ones: to read all of a history that was never sealed may take hours. What ingest
    says there every second while nothing comes is no event, and days of it may stand at either end."""
    bounds = watermarks(settings, ["events"])
    with TopicReader(settings, ["events"], as_they_stand=True) as reader:
        yield from islice(filter(_is_event, reader.read_to_end()), _LOOKED_AT * len(bounds))
    for place, (first, end) in bounds.items():
        yield from _last_events(settings, place, first, end)


def _last_events(settings: Settings, place: tuple[str, int], first: int, end: int) -> Iterator[Record]:
    begin, length = end, _LOOKED_AT
    has_any = False
    while begin > first and not has_any:
        begin, length = max(first, end - length), length * 4
        with TopicReader(settings, ["events"], as_they_stand=True, only={place: begin}) as reader:
            for record in filter(_is_event, reader.read_to_end()):
                has_any = True
                yield record


def _is_event(record: Record) -> bool:
    value = record.value or b""
    if value.startswith(_SEALED):
        return True
    try:
        return _decode_kind(value).kind == "event"
    except UNREADABLE:
        return False  # somebody else wrote it


def copy_suppressions(old: Settings, new: Settings) -> None:
    """Let a workspace that takes over keep out whom the former one kept out."""
    produce_all(new, SUPPRESSIONS, current_values(old, SUPPRESSIONS).items())


class FollowedVault:
    """What `IngestStage` and `UnifyStage` need of the vault, kept up to date by a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        """Reads everything there is. Raises BrokerError."""
        self.sealer = Sealer(KeyRing())
        self.seals = settings.seal_events
        self._keys_topic = settings.topic(KEYS)
        self._kept_out: dict[bytes, Suppression] = {}
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._reader = TopicReader(settings, [KEYS, SUPPRESSIONS], fetch_wait_ms=_FETCH_WAIT_MS)
        for record in self._reader.read_to_end():
            self._take(record.topic, record.key or b"", record.value)
        self._thread = threading.Thread(target=self._follow, name="vault", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                for record in self._reader.read(10_000, _WAIT_S):
                    self._take(record.topic, record.key or b"", record.value)
        except Exception as error:  # noqa: BLE001 - whoever uses the vault next raises it
            self._failure = error

    def _take(self, topic: str, key: bytes, value: bytes | None) -> None:
        with self._lock:
            if topic == KEYS:
                self.sealer.take(key, value)
            elif value is None:
                self._kept_out.pop(key, None)
            else:
                entry = _decode(value)
                if entry.consented_at > entry.at:
                    self._kept_out.pop(key, None)
                else:
                    self._kept_out[key] = entry

    @property
    def kept_out(self) -> Mapping[bytes, Suppression]:
        """By actor key: who was erased and has not consented anew."""
        self._raise_failure()
        return self._kept_out

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def readmit(self, actor: bytes) -> None:
        """Somebody consents anew: this worker need not wait until it reads that."""
        self._kept_out.pop(actor, None)

    def seal(self, actor: bytes, name: str, encoded: bytes) -> bytes:
        """An encoded event under the key of its route; as it is where the history is not sealed."""
        if not self.seals:
            return encoded
        with self._lock:
            return self.sealer.seal(actor, name, encoded)

    def open(self, value: bytes) -> bytes | None:
        """The encoded event of a sealed one; None if its key was destroyed. Raises BrokerError where keys are missing:
        that they have not come is no fault of the event's."""
        self._raise_failure()
        with self._lock:
            try:
                return self.sealer.open(value)
            except LookupError:
                raise BrokerError(
                    "An event is sealed, and the keys to open it with are not there.",
                    self._keys_topic,
                    "start it again: they may be on their way; if the topic is empty, restore it from its copy",
                ) from None

    def close(self) -> None:
        """Let go of the connection."""
        self._stop.set()
        self._thread.join()
        self._reader.close()

    def __enter__(self) -> "FollowedVault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
