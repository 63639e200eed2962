"""One source that is pulled: asked for what is new, kept with its position in one transaction, told when that is done.

    1  poll from the position that is kept
    2  write the records and the new position, all or none
    3  tell the source that they are kept
    4  on: at once where something came, else after a while

A crash before 2 is done leaves nothing, and step 1 gives the same again. A crash behind it leaves a source that was not
told: it is told with the next records. A source that fails is asked again later and later; a broker that fails ends the
role, as everywhere.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from connectors.sources import MAX_POSITION, Pulled, Source
from pipeline.sources.files import KEPT_BYTES

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_MAX_TRANSACTION_BYTES = 4_000_000

Row = tuple[bytes | None, bytes]
"""(key, value) as it is written to the topic."""


class PullLog(Protocol):
    """Where records and positions are kept."""

    def position(self) -> str | None:
        """The position that is kept."""
        ...

    def write(self, records: Sequence[Row], position: str) -> None:
        """Keep records and the position behind them, all or none."""
        ...


class PullMetrics:
    """The metrics of all sources of a process, one typed catalogue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "headwater_source_records_total", "Records pulled and kept", ["source"], registry=registry
        )
        self.failures = Counter(
            "headwater_source_failures_total",
            "Times a source failed to give or to be told",
            ["source"],
            registry=registry,
        )
        self.up = Gauge("headwater_source_up", "Whether the last poll was answered", ["source"], registry=registry)

    def forget(self, source: str) -> None:
        """Tell nothing more of a source that is not pulled here: it would be down for ever."""
        with contextlib.suppress(KeyError):
            self.up.remove(source)


class Puller:
    """Pulls one source. `stamped`: values that are mappings are events, and say which source they are of."""

    def __init__(
        self, name: str, source: Source, log: PullLog, limit: int, every_s: float, metrics: PullMetrics, stamped: bool
    ) -> None:
        self.position = log.position()
        self._name = name
        self._source = source
        self._log = log
        self._limit = limit
        self._every_s = every_s
        self._metrics = metrics
        self._stamped = stamped
        self._failed = 0

    def turn(self) -> float:
        """Pull once; gives how many seconds to wait before the next time. Raises what the log raises."""
        try:
            pulled = self._source.poll(self.position, self._limit)
            parts = list(self._parts(pulled))
        except Exception as error:  # noqa: BLE001 - whatever a source of others raises
            return self._failure("gives nothing", error)
        self._metrics.up.labels(self._name).set(1)
        if not pulled:
            self._failed = 0
            return self._every_s
        for rows, position in parts:
            self._log.write(rows, position)
            self.position = position
            self._metrics.records.labels(self._name).inc(len(rows))
        assert self.position is not None
        try:
            self._source.acknowledged(self.position)
        except Exception as error:  # noqa: BLE001 - as above; all of it is kept, and told with what comes next
            return self._failure("could not be told what is kept", error)
        self._failed = 0
        return 0.0

    def _failure(self, what: str, error: Exception) -> float:
        self._metrics.failures.labels(self._name).inc()
        self._metrics.up.labels(self._name).set(0)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * float(2**self._failed))
        self._failed = min(self._failed + 1, 20)
        _log.warning(
            "the source %s %s: %s: %s; again in %.0f s", self._name, what, type(error).__name__, error, pause_s
        )
        return pause_s

    def _parts(self, pulled: Sequence[Pulled]) -> Iterator[tuple[list[Row], str]]:
        """What goes into one transaction each. Raises ValueError for what a source must not give."""
        if len(pulled) > self._limit:
            raise ValueError(f"it was asked for {self._limit} records at most, and gave {len(pulled)}")
        rows: list[Row] = []
        size = 0
        for number, one in enumerate(pulled, 1):
            if not isinstance(one.position, str) or not 0 < len(one.position) <= MAX_POSITION:
                raise ValueError(f"a position must be a text of 1 to {MAX_POSITION:,} characters")
            if one.key is not None and not isinstance(one.key, bytes):
                raise ValueError(f"a key must be bytes, and is {type(one.key).__name__}")
            if one.value is not None:
                value = self._written(one)
                rows.append((one.key, value))
                size += len(value)
            if size >= _MAX_TRANSACTION_BYTES or number == len(pulled):
                yield rows, one.position
                rows, size = [], 0

    def _written(self, one: Pulled) -> bytes:
        if isinstance(one.value, bytes):
            return one.value[:KEPT_BYTES]
        assert one.value is not None
        event = {**one.value, "source": self._name} if self._stamped else one.value
        try:
            try:
                return _encode(event)[:KEPT_BYTES]
            except UnicodeEncodeError:
                # Half of a surrogate pair, as Python's own JSON reads it. Ingest forgives it where it is escaped;
                # refused here, it would stop the source for ever.
                return json.dumps(msgspec.to_builtins(event)).encode()[:KEPT_BYTES]
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"the value at {one.position[:100]!r} cannot be written as JSON: {error}") from None
