"""The archive role: what comes to the topics goes into files, each record once.

One worker for each workspace, and no group: where it goes on is what the names of the files say. Two at once would
write the same twice, which readers pass over, and could undo each other's erasures.
"""

import logging
import time
from collections.abc import Callable

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from pipeline.archive.expired import Vault, take_out_expired
from pipeline.archive.files import CHANGES, TOPICS, Archive
from pipeline.archive.scrub import scrub
from pipeline.contracts import NO_CONTRACTS, ContractsPlan
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import BrokerError, InputError, SettingsError
from pipeline.observed import served
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing, Sealer

TOLD = "privacy-progress"
TOLD_PROGRESS = "told.json"
"""Up to which position of `privacy-progress` everybody has left the archive."""

_READ_AT_ONCE = 10_000
_WAIT_S = 0.2
_ON_ITS_WAY_S = 5.0
_MERGE_EVERY_S = 3_600.0
_EXPIRE_EVERY_S = 3_600.0
_PART_BYTES = 64 << 20
"""So much of a partition, before it is compressed, is written at the latest."""

_log = logging.getLogger(__name__)
Partition = tuple[str, int]


class _Told(msgspec.Struct):
    """What of a record of `privacy-progress` matters here."""

    profile_id: str = ""


class _Waiting:
    """What of a partition has been read and is in no file yet."""

    __slots__ = ("bytes", "first", "records", "since_s")

    def __init__(self, first: int) -> None:
        self.first = first
        self.records: list[Record] = []
        self.bytes = 0
        self.since_s = 0.0

    def take(self, record: Record, now_s: float) -> None:
        if not self.records:
            self.since_s = now_s
        self.records.append(record)
        self.bytes += len(record.value or b"") + len(record.key or b"") + 32


class ArchiveMetrics:
    """What the role says of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.written = Counter("headwater_archive_records_total", "Records archived", ["topic"], registry=registry)
        self.waiting = Gauge(
            "headwater_archive_lag_records", "Records that were read and are in no file yet", registry=registry
        )
        self.rewritten = Counter("headwater_archive_rewritten_total", "Files written anew", registry=registry)
        lag = Gauge(
            "headwater_archive_lag_seconds",
            "Age of the oldest record that was read and is in no file yet",
            registry=registry,
        )
        # Worked out when it is asked for: a store that hangs holds up who would set it.
        self.oldest_ms: int | None = None
        lag.set_function(lambda: max(0.0, time.time() - since / 1_000) if (since := self.oldest_ms) else 0.0)


class ArchiveRole:
    """Follows the topics into an archive."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        registry: CollectorRegistry,
        contracts: Callable[[], ContractsPlan] = lambda: NO_CONTRACTS,
        vault: Callable[[], Vault] | None = None,
    ) -> None:
        """`contracts` gives those in force: how long what may be kept; `vault`, what opens events of which only a part
        is to go. What a killed process left is taken away. Raises BrokerError: a topic cannot be read, or is not the
        one that was archived."""
        self._archive = archive
        self._contracts = contracts
        self._vault = vault
        self._expired_s = 0.0
        self._expire_every_s = min(_EXPIRE_EVERY_S, 20 * settings.archive_every_s)
        self._every_s = settings.archive_every_s
        self._rows = settings.archive_rows
        self._topics = {settings.topic(topic): topic for topic in CHANGES}
        self._next = _starts(settings, archive)
        for topic in TOPICS:
            for number in archive.partitions(topic):
                archive.tidy(topic, number)
        topics = (*TOPICS, TOLD)
        self._reader = TopicReader(settings, topics, start_at=self._next, as_they_stand=True, gapless=True)
        self._forgotten: set[str] = set()
        self._waiting: dict[Partition, _Waiting] = {}
        self._metrics = ArchiveMetrics(registry)
        # What a former process did not come to is done at once, and again.
        self._erased = True
        self._again_at = 0.0
        self._on_its_way: dict[Partition, int] = {}
        self._merged_s = 0.0

    def turn(self, now_s: float) -> None:
        """Read what has come, write what is due."""
        for record in self._read():
            if record.topic == TOLD:
                self._take_told(record, now_s)
                continue
            partition = record.topic, record.partition
            waiting = self._waiting.get(partition)
            if waiting is None:
                # Between the file before it and this record there are control records only.
                waiting = self._waiting[partition] = _Waiting(self._next.get(partition, record.offset))
            waiting.take(record, now_s)
            if len(waiting.records) >= self._rows or waiting.bytes >= _PART_BYTES:
                self._tell_waiting()
                self._write(partition)
        self._tell_waiting()
        for partition, waiting in list(self._waiting.items()):
            if now_s - waiting.since_s >= self._every_s:
                self._write_all(partition)
        self._scrub(now_s)
        if now_s - self._expired_s >= self._expire_every_s:
            self._expired_s = now_s
            kept, now_ms = self._contracts(), int(time.time() * 1_000)
            expired = take_out_expired(self._archive, kept.keeps_events, now_ms, kept.keeps_parts, self._vault)
            self._metrics.rewritten.inc(expired)
        if now_s - self._merged_s >= _MERGE_EVERY_S:
            self._merged_s = now_s
            for topic in TOPICS:
                for number in self._archive.partitions(topic):
                    self._archive.merge(topic, number, self._rows)
        self._tell_waiting()

    def _read(self) -> list[Record]:
        try:
            return self._reader.read(_READ_AT_ONCE, _WAIT_S)
        except BrokerError:
            # It may not be in the topic any more. What was read together with the failure is not at hand.
            for partition in list(self._waiting):
                self._write(partition)
            raise

    def _take_told(self, record: Record, now_s: float) -> None:
        """Somebody was erased. Of who had expired before, `profile-changes` says nothing more."""
        told = msgspec.json.decode(record.value or b"{}", type=_Told)
        if told.profile_id:
            self._forgotten.add(told.profile_id)
            self._again_at = self._again_at or now_s + self._every_s + _ON_ITS_WAY_S

    def _tell_waiting(self) -> None:
        self._metrics.waiting.set(sum(len(one.records) for one in self._waiting.values()))
        self._metrics.oldest_ms = min((one.records[0].timestamp_ms for one in self._waiting.values()), default=None)

    def _scrub(self, now_s: float) -> None:
        """Take out who was erased, at once; and once more when all that was on its way then is in files: of topics that
        are read on after a downtime that may be much."""
        if self._erased:
            self._erased = False
            self._again_at, self._on_its_way = now_s + self._every_s + _ON_ITS_WAY_S, {}
            self._metrics.rewritten.inc(scrub(self._archive, note=False, also=self._forgotten))
        elif self._again_at and now_s >= self._again_at:
            if not self._on_its_way:
                self._on_its_way = {
                    (self._topics[topic], number): end
                    for (topic, number), end in self._reader.ends().items()
                    if topic in self._topics
                }
            if all(self._in_files(partition) >= end for partition, end in self._on_its_way.items()):
                self._again_at = 0.0
                self._metrics.rewritten.inc(scrub(self._archive, also=self._forgotten))
                if self._forgotten:
                    self._archive.put_text(TOLD_PROGRESS, str(self._reader.positions[TOLD, 0]))
                    self._forgotten.clear()

    def _in_files(self, partition: Partition) -> int:
        """Up to which position everything that there is of a partition is in files."""
        waiting = self._waiting.get(partition)
        return self._reader.positions.get(partition, 0) if waiting is None else waiting.first

    def _write_all(self, partition: Partition) -> None:
        """Write everything that was read of a partition. Its file ends behind the control records that were passed: a
        topic that forgets all but these has not lost anything."""
        self._write(partition, self._reader.positions[partition])

    def _write(self, partition: Partition, end: int = 0) -> None:
        waiting = self._waiting.pop(partition)
        records = waiting.records
        self._next[partition] = max(end, records[-1].offset + 1)
        self._archive.write(*partition, records, waiting.first, self._next[partition])
        self._metrics.written.labels(partition[0]).inc(len(records))
        if partition[0] == "profile-changes":
            self._erased = self._erased or any(b'"erased"' in (one.value or b"") for one in records)

    def finish(self) -> None:
        """Write what was read."""
        for partition in list(self._waiting):
            self._write_all(partition)

    def close(self) -> None:
        """Let go of the connection. What is in no file yet is read again."""
        self._reader.close()


def _starts(settings: Settings, archive: Archive) -> dict[Partition, int]:
    """Where each partition goes on. Raises BrokerError where the topic is another one than the one archived."""
    with TopicReader(settings, (*TOPICS, TOLD), as_they_stand=True) as reader:
        bounds = reader.bounds()
    starts: dict[Partition, int] = {}
    for (topic, partition), (low, high) in bounds.items():
        if topic == TOLD:
            told = int(archive.text(TOLD_PROGRESS) or 0)
            starts[topic, partition] = told if low <= told <= high else low
            continue
        end = archive.end(topic, partition)
        if end is None:
            continue
        if end > high:
            raise BrokerError(
                f"{topic}/{partition} ends at {high}, and the archive of it at {end}: it is not the topic that was "
                "archived.",
                settings.topic(topic),
                "give the new workspace an archive of its own",
            )
        if end < low:
            _log.error(
                "%s/%d: records %d to %d were deleted by the topic's retention before they were archived; "
                "let the archive run, or give the topic a longer retention.ms",
                topic,
                partition,
                end,
                low,
            )
        starts[topic, partition] = max(end, low)
    return starts


def open_archive(settings: Settings) -> Archive:
    """The workspace's archive. Raises SettingsError: there is none, or its address cannot be used."""
    if settings.archive is None:
        raise SettingsError(
            "The workspace has no archive.", "archive", "set HEADWATER_ARCHIVE to a folder or to s3://bucket/prefix"
        )
    try:
        return Archive(settings.archive)
    except ValueError as error:
        raise SettingsError(str(error), "archive", "pip install s3fs, gcsfs or adlfs, as the address needs") from None
    except OSError as error:
        raise SettingsError(
            f"The archive {settings.archive} cannot be opened: {error.strerror or error}.",
            "archive",
            "set HEADWATER_ARCHIVE to a folder or to s3://bucket/prefix",
        ) from None


def _keys_of(settings: Settings) -> Sealer:
    """The keys of the history, as they are now."""
    sealer = Sealer(KeyRing())
    with TopicReader(settings, ["keys"]) as reader:
        for record in reader.read_to_end():
            sealer.take(record.key or b"", record.value)
    return sealer


def run(settings: Settings, until: Callable[[], bool]) -> None:
    """Run the role until `until()`. Raises HeadwaterError when it cannot go on; started again, it does."""
    archive = open_archive(settings)
    plans = KafkaPlans(settings)
    role = ArchiveRole(
        settings, archive, served(settings), lambda: plans.latest().contracts, lambda: _keys_of(settings)
    )
    try:
        while not until():
            role.turn(time.monotonic())
        role.finish()
    except OSError as error:
        raise InputError(
            f"The archive cannot be read or written: {error}",
            str(settings.archive),
            "mend it, and start the role again: it goes on where the last file ends",
        ) from error
    finally:
        role.close()
        plans.close()
