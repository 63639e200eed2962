"""Tables of other systems, kept in memory from their topics: a catalogue, attributes of partners."""

import logging
from typing import Any

import msgspec

from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_AT_A_TIME = 10_000


class Table:
    """The newest row of each key of one topic. Rows are kept as JSON: a fraction of what objects take."""

    def __init__(
        self, reader: TopicReader, name: str, key: tuple[str, ...], fields: tuple[str, ...], most: int
    ) -> None:
        self._reader = reader
        self._name = name
        self._key = key
        self._fields = frozenset(fields)
        self._most = most
        self._rows: dict[str, bytes] = {}
        self._spoiled = 0
        for record in reader.read_to_end():
            self._take(record.key, record.value)
        _log.info("reference %s: %d rows", name, len(self._rows))

    def follow(self) -> None:
        """Take what has come since, without waiting for it."""
        for record in self._reader.read(_AT_A_TIME, 0):
            self._take(record.key, record.value)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        try:
            row = _decode(value) if value is not None else None
            name = _text(key, row, self._key)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            row = name = None
        if name is None or (value is not None and not isinstance(row, dict)):
            self._spoiled += 1
            if self._spoiled == 1:
                _log.warning("reference %s has records that are no rows: they are passed over", self._name)
            return
        if row is None:
            self._rows.pop(name, None)
            return
        chosen = {field: row[field] for field in self._fields if field in row} if self._fields else row
        self._rows[name] = _encode(chosen)
        if len(self._rows) > self._most:
            raise WorkerStopped(
                f"the reference {self._name} has more than {self._most:,} rows: raise its `max_rows`, or remove it"
            )

    def row(self, key: str) -> dict[str, Any] | None:
        """The row of a key."""
        found = self._rows.get(key)
        return None if found is None else _decode(found)

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


def _text(key: bytes | None, row: Any, path: tuple[str, ...]) -> str | None:
    if path and isinstance(row, dict):
        for step in path:
            row = row.get(step) if isinstance(row, dict) else None
        return str(row) if isinstance(row, str | int) else None
    return key.decode() if key is not None else None


class References:
    """The tables that are asked for, each read when it is first needed and followed from then on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tables: dict[tuple[Any, ...], Table] = {}

    def follow(self) -> None:
        """Bring every table up to now."""
        for table in self._tables.values():
            table.follow()

    def row(self, reference: Any, key: str) -> dict[str, Any] | None:
        """The row of a key in a reference (name, topic, key, fields, most). Reads the whole topic the first time."""
        place = (reference.name, reference.topic, reference.key, reference.fields, reference.max_rows)
        table = self._tables.get(place)
        if table is None:
            reader = TopicReader(self._settings, [reference.topic])
            table = self._tables[place] = Table(reader, reference.name, *place[2:])
        return table.row(key)
