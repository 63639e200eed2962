"""The metrics of a worker, one typed catalogue. Updated per batch, never per record."""

import re
from bisect import bisect_left
from collections import Counter as Sum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from pipeline.runtime import dead_letters

_TIMES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_MOST_VIOLATIONS = 2_000
_MAX_LABEL = 200
_SIZES = (1, 10, 50, 100, 200, 500, 1_000, 2_000)
_LATENCIES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)


class Violation(Protocol):
    """What of a contract was violated: the field, as a JSON pointer, and the rule."""

    @property
    def pointer(self) -> str: ...

    @property
    def rule(self) -> str: ...


class WeightedHistogram:
    """A histogram whose observations stand for several: a batch is sampled, not counted record by record."""

    def __init__(self, name: str, text: str, role: str, buckets: tuple[float, ...]) -> None:
        self._name = name
        self._text = text
        self._role = role
        self._bounds = buckets
        self._counts = [0.0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float, weight: float = 1.0) -> None:
        """Count `value` as `weight` observations."""
        self._counts[bisect_left(self._bounds, value)] += weight
        self._sum += value * weight

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """One family with the label `role`."""
        family = HistogramMetricFamily(self._name, self._text, labels=["role"])
        total, buckets = 0.0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric([self._role], buckets, self._sum)
        yield family


@dataclass(frozen=True, slots=True)
class WorkerMetrics:
    """Every metric has the label `role`; the children here are bound to one."""

    records: Counter
    outputs: Counter
    commits: Counter
    aborts: Counter
    batch_records: Histogram
    batch_seconds: Histogram
    transaction_seconds: Histogram
    end_to_end_seconds: WeightedHistogram
    lag_records: Gauge
    lag_ms: Gauge
    partitions_ready: Gauge
    partitions_restoring: Gauge
    restore_records_left: Gauge
    restore_seconds_left: Gauge
    restored_records: Counter
    ready_seconds: Gauge
    history_records_left: Gauge
    state_loads: Counter
    state_hits: Counter
    state_cached: Gauge
    state_keys: Gauge
    state_bytes: Gauge
    deadlines_due: Gauge
    deadline_overdue_ms: Gauge
    dead_letters: Counter
    rebalances: Counter


class Metrics:
    """The catalogue of one registry; `for_role` binds it to a role."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"headwater_{name}", text, ["role"], registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"headwater_{name}", text, ["role"], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"headwater_{name}", text, ["role"], registry=registry, buckets=buckets)

        self._registry = registry
        self._children = {
            "records": counter("records_total", "Input records whose transaction was committed"),
            "outputs": counter("outputs_total", "Records written to output topics, changelog included"),
            "commits": counter("transactions_committed_total", "Transactions committed"),
            "aborts": counter("transactions_aborted_total", "Batches dropped and done again"),
            "batch_records": histogram("batch_records", "Input records in a batch", _SIZES),
            "batch_seconds": histogram("batch_seconds", "Time from consuming a batch to its local write", _TIMES_S),
            "transaction_seconds": histogram("transaction_seconds", "Time from begin to the commit's answer", _TIMES_S),
            "lag_records": gauge("lag_records", "Records waiting in the inputs of this worker's partitions"),
            "lag_ms": gauge("lag_ms", "Age of the last record of the last batch when it was committed"),
            "partitions_ready": gauge("partitions_ready", "Partitions being processed"),
            "partitions_restoring": gauge("partitions_restoring", "Partitions whose state is being restored"),
            "restore_records_left": gauge("restore_records_left", "Changelog offsets still to be read back"),
            "restore_seconds_left": gauge("restore_seconds_left", "How long that will take at the rate so far"),
            "restored_records": counter("restored_records_total", "Changelog records read back"),
            "ready_seconds": gauge("ready_seconds", "From the last assignment until every partition was ready"),
            "history_records_left": gauge("history_records_left", "Offsets of history still to be read for new rules"),
            "state_loads": counter("state_loads_total", "Values read from the store because they were not cached"),
            "state_hits": counter("state_hits_total", "Values that batches changed and found decoded in the cache"),
            "state_keys": gauge("state_keys", "Keys in the stores, as RocksDB estimates them"),
            "state_bytes": gauge("state_bytes", "Bytes of the stores, on disk and in write buffers"),
            "deadlines_due": gauge("deadlines_due", "Deadlines that have come and are not settled, up to 1,000"),
            "deadline_overdue_ms": gauge("deadline_overdue_ms", "How long ago the earliest of them came"),
            "state_cached": gauge("state_cached", "Decoded values in the caches"),
            "rebalances": counter("rebalances_total", "Assignments taken, given back or lost"),
        }
        self._dead_letters = Counter(
            "headwater_dead_letters_total",
            "Records put into dead-letters, by reason",
            ["role", "reason"],
            registry=registry,
        )

        self._ingested = Counter(
            "headwater_ingested_total",
            "Raw records by what became of them: emitted, refused (with the reason); flagged counts flags of events",
            ["outcome", "reason"],
            registry=registry,
        )

        self._violations = Counter(
            "headwater_contract_violations_total",
            "What events violated of their contracts, by field (items of lists as *) and rule",
            ["contract", "event", "field", "rule"],
            registry=registry,
        )
        self._told_apart: set[tuple[str, str, str, str]] = set()

    def violated(self, version: str, event: str, violations: Sequence[Violation]) -> None:
        """Count what an event violated."""
        contract = version.partition("/")[0]
        for violation in violations:
            # Producers invent names: past a number of them they are counted together.
            field = re.sub(r"/[0-9]+(?=/|$)", "/*", violation.pointer)
            labels = (contract, event[:_MAX_LABEL], field[:_MAX_LABEL], violation.rule)
            if labels not in self._told_apart:
                if len(self._told_apart) >= _MOST_VIOLATIONS:
                    labels = (contract, "others", "others", violation.rule)
                self._told_apart.add(labels)
            self._violations.labels(*labels).inc()

    def ingested(self, outcome: str, reason: str, records: int) -> None:
        """Count what became of raw records."""
        self._ingested.labels(outcome, reason).inc(records)
        if outcome == "refused":
            self._dead_letters.labels("ingest", reason).inc(records)

    def for_role(self, role: str) -> WorkerMetrics:
        """The metrics of one role. `dead_letters` still takes its reason as a label."""
        bound = {name: metric.labels(role) for name, metric in self._children.items()}
        # A series that begins with the first of them has no increase: nobody would hear of it.
        self._dead_letters.labels(role, dead_letters.REASON)
        end_to_end = WeightedHistogram(
            "headwater_end_to_end_seconds",
            "From when a record was received to the commit of what came of it",
            role,
            _LATENCIES_S,
        )
        self._registry.register(end_to_end)
        return WorkerMetrics(end_to_end_seconds=end_to_end, dead_letters=self._dead_letters, **bound)  # type: ignore[arg-type]


class StageCounters:
    """What stages count themselves (duplicates, merges, conflicts, …), read when somebody asks for the metrics.

    `read` gives the counters of all stages of this process; they are added up by name.
    """

    def __init__(self, registry: CollectorRegistry, role: str, read: Callable[[], Iterable[Mapping[str, int]]]) -> None:
        self._role = role
        self._read = read
        registry.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """One family: headwater_stage_total{role, what}."""
        total: Sum[str] = Sum()
        for counters in self._read():
            total.update(counters)
        family = CounterMetricFamily("headwater_stage", "What the stages counted, by name", labels=["role", "what"])
        for what, number in sorted(total.items()):
            family.add_metric([self._role, what], number)
        yield family
