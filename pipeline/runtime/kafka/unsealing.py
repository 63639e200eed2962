"""Sealed events, opened for whoever reads the history at a door. The stages have their own way, which never waits."""

import logging
import time
from typing import TYPE_CHECKING

from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing, Sealer

if TYPE_CHECKING:
    from pipeline.runtime.kafka.doors import TopicReader

_log = logging.getLogger(__name__)
SEALED_FIRST = b"\x01"
_LOOK_AGAIN_S = 0.5


class Unsealing:
    """Follows the topic `keys` as records come. Those whose key was destroyed are no more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sealer = Sealer(KeyRing())
        self._reader: TopicReader | None = None
        self._looked_at = 0.0
        self._has_warned = False

    def __call__(self, records: list[Record]) -> list[Record]:
        """The records with their events opened, without those that nobody can open any more."""
        if not any(record.value is not None and record.value[:1] == SEALED_FIRST for record in records):
            return records
        self._look()
        found = []
        for record in records:
            if record.topic == "events" and record.value is not None:
                try:
                    opened = self._sealer.open(record.value)
                except ValueError as error:
                    opened = None  # nobody sealed it: it was put aside when it was new
                    self._warn(record, error)
                if opened is None:
                    continue
                record = record._replace(value=opened)
            found.append(record)
        return found

    def _warn(self, record: Record, error: ValueError) -> None:
        """Once: with other keys than the history was sealed with, it is all of it."""
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s/%d@%d is passed over: %s", record.topic, record.partition, record.offset, error)

    def _look(self) -> None:
        if self._reader is not None and time.monotonic() - self._looked_at < _LOOK_AGAIN_S:
            return
        if self._reader is None:
            from pipeline.runtime.kafka.doors import TopicReader

            self._reader = TopicReader(self._settings, ["keys"])
            records = list(self._reader.read_to_end())
        else:
            records = self._reader.read(10_000, 0)
        for record in records:
            self._sealer.take(record.key or b"", record.value)
        self._looked_at = time.monotonic()

    def close(self) -> None:
        """Let go of the connection."""
        if self._reader is not None:
            self._reader.close()
