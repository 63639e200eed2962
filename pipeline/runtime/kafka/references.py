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
        # Where the name of a row is a field of it: by the record's key, which is all that a tombstone has, and back.
        self._names: dict[bytes, str] = {}
        self._keys: dict[str, bytes] = {}
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
            name = self._name_of(key, row)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            row = name = None
        if value is not None and (name is None or not isinstance(row, dict)):
            self._spoiled += 1
            if self._spoiled == 1:
                _log.warning("reference %s has records that are no rows: they are passed over", self._name)
            return
        if self._key and key is not None and key in self._names:
            self._let_go(key, self._names.pop(key))
        if name is None:
            return
        if row is None:
            self._rows.pop(name, None)
            return
        if self._key and key is not None:
            self._names[key] = name
            self._keys[name] = key
        chosen = {field: row[field] for field in self._fields if field in row} if self._fields else row
        self._rows[name] = _encode(chosen)
        if len(self._rows) > self._most:
            raise WorkerStopped(
                f"the reference {self._name} has more than {self._most:,} rows: raise its `max_rows`, or remove it"
            )

    def _name_of(self, key: bytes | None, row: Any) -> str | None:
        if not self._key:
            return key.decode() if key is not None else None
        for step in self._key:
            row = row.get(step) if isinstance(row, dict) else None
        return str(row) if isinstance(row, str | int) else None

    def _let_go(self, key: bytes, name: str) -> None:
        """Drop the row of a record's key, unless another record has the name by now."""
        if self._keys.get(name) == key:
            del self._keys[name]
            self._rows.pop(name, None)

    def row(self, key: str) -> dict[str, Any] | None:
        """The row of a key."""
        found = self._rows.get(key)
        return None if found is None else _decode(found)

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


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
