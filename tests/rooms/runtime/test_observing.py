"""What a worker tells about itself: every promise has a metric, and a restore says how far it is."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline.runtime import observing
from pipeline.runtime.errors import Abortable
from pipeline.runtime.memory import MemoryStores, memory_adapters
from pipeline.runtime.metrics import Metrics, WeightedHistogram
from pipeline.runtime.observing import Observer
from pipeline.runtime.progress import Progress, reporter, reports_in
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import CountingStage, World, run_idle

WORDS = [(f"k{n % 5}", "w") for n in range(40)]


class Observed:
    """A worker of a world, and what it tells."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.reports: list[Progress] = []
        self.metrics = Metrics(self.registry)
        role = world.role.name
        adapters = memory_adapters(
            world.broker, role, "0", lambda: world.now_ms, world.disks.setdefault("0", MemoryStores())
        )
        observer = Observer(role, lambda: world.now_ms, self.metrics.for_role(role), self.reports.append)
        self.worker = Worker(world.role, CountingStage, adapters, WorkerSettings(**settings), observer=observer)
        self.worker.start()

    def told(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(f"headwater_{name}", {"role": "counting", **labels})
        assert found is not None, name
        return found


def test_the_first_record_that_makes_a_step_raise_is_an_increase() -> None:
    """A series that begins with it would have none, and no alert would be set off."""
    assert Observed(World(partitions=1)).told("dead_letters_total", reason="step raised") == 0


def test_batches_transactions_and_lag() -> None:
    world = World(partitions=1)
    world.broker.now_ms = world.now_ms - 7_000
    world.say(*WORDS)
    observed = Observed(world)
    run_idle(observed.worker)
    world.now_ms += 2_000
    world.broker.fail_next("commit", Abortable("try again"))
    world.say(("k0", "w"))
    run_idle(observed.worker)
    lag_ms = observed.told("lag_ms")
    world.now_ms += 1_000
    run_idle(observed.worker)
    assert observed.told("records_total") == 41
    assert observed.told("transactions_committed_total") == 2 and observed.told("transactions_aborted_total") == 1
    assert observed.told("outputs_total") == 41 + 5 + 1
    assert observed.told("batch_records_count") == 2 and observed.told("batch_records_sum") == 41
    assert observed.told("batch_seconds_count") == observed.told("transaction_seconds_count") == 2
    assert lag_ms == 9_000 and observed.told("lag_records") == 0
    assert observed.told("rebalances_total") == 1


def test_latency_is_counted_for_every_record_though_few_are_looked_at() -> None:
    world = World(partitions=1)
    for age_ms in (30, 30, 30, 3_000):
        world.broker.now_ms = world.now_ms - age_ms
        world.say(*WORDS)
    observed = Observed(world)
    run_idle(observed.worker)
    assert observed.told("end_to_end_seconds_count") == pytest.approx(160)
    assert observed.told("end_to_end_seconds_bucket", le="0.02") == 0
    assert observed.told("end_to_end_seconds_bucket", le="0.05") == pytest.approx(120, abs=10)
    assert observed.told("end_to_end_seconds_bucket", le="2.5") == pytest.approx(120, abs=10)
    assert observed.told("end_to_end_seconds_bucket", le="5.0") == pytest.approx(160)
    assert observed.told("end_to_end_seconds_sum") == pytest.approx(120 * 0.03 + 40 * 3.0, rel=0.1)


def test_an_origin_that_is_not_told_is_not_counted() -> None:
    world = World(partitions=1)
    world.say(*WORDS)
    observed = Observed(world)
    observed.worker._observer._origin_ms = lambda record: 0
    run_idle(observed.worker)
    assert observed.told("records_total") == 40 and observed.told("end_to_end_seconds_count") == 0


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    histogram = WeightedHistogram("h", "text", "r", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value, 2)
    (family,) = histogram.collect()
    assert [(s.labels.get("le"), s.value) for s in family.samples] == [
        ("1.0", 4), ("2.0", 6), ("+Inf", 8), (None, 8), (None, 24)
    ]  # fmt: skip


def test_the_state_its_cache_and_its_deadlines() -> None:
    world = World(partitions=1)
    due = [(f"d{n}", f"wake {world.now_ms + 500 + n}") for n in range(3)]
    world.say(*WORDS[:5], *due)
    observed = Observed(world)
    run_idle(observed.worker)
    world.now_ms += 400
    world.broker.now_ms = world.now_ms
    observed.worker._observer._state_ms = 0
    run_idle(observed.worker)
    assert observed.told("state_keys") == 8 and observed.told("state_cached") == 8
    assert observed.told("state_bytes") > 8 * 9
    assert observed.told("state_hits_total") == 0 and observed.told("state_loads_total") == 0, "all were new"
    world.say(*WORDS[:5])
    run_idle(observed.worker)
    world.now_ms += 700
    observed.worker._observer._state_ms = 0
    stage = observed.worker.tasks[0].stage
    stage.wake = lambda state, out, now: None  # type: ignore[method-assign]
    run_idle(observed.worker)
    assert observed.told("state_hits_total") == 5 and observed.told("state_loads_total") == 0
    assert observed.told("deadlines_due") == 3 and observed.told("deadline_overdue_ms") == 600
    del stage.wake
    run_idle(observed.worker)
    world.now_ms += 1_000
    run_idle(observed.worker)
    assert observed.told("deadlines_due") == 0 and observed.told("deadline_overdue_ms") == 0


def test_of_many_deadlines_only_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "MOST_DUE", 10)
    world = World(partitions=2)
    world.say(*[(f"d{n}", f"wake {world.now_ms + 500}") for n in range(50)])
    observed = Observed(world)
    run_idle(observed.worker)
    for task in observed.worker.tasks.values():
        task.stage.wake = lambda state, out, now: None  # type: ignore[method-assign]
    world.now_ms += 1_500
    run_idle(observed.worker)
    assert observed.told("deadlines_due") == 10, "nothing else is done meanwhile"
    assert observed.told("deadline_overdue_ms") == 1_000


def test_values_that_are_not_cached_are_loads() -> None:
    world = World(partitions=1)
    world.say(*WORDS)
    run_idle(world.worker())
    world.disks["0"].crash()
    observed = Observed(world)
    world.say(*WORDS[:5])
    run_idle(observed.worker)
    world.now_ms += 1_000
    run_idle(observed.worker)
    assert observed.told("state_loads_total") == 5 and observed.told("state_hits_total") == 0


def test_dead_letters_by_reason() -> None:
    world = World(partitions=1)
    world.say(("k0", "poison"), ("k0", "w"))
    observed = Observed(world)
    run_idle(observed.worker)
    assert observed.told("dead_letters_total", reason="step raised") == 1
    observed.metrics.ingested("refused", "not_json", 2)
    found = observed.registry.get_sample_value("headwater_dead_letters_total", {"role": "ingest", "reason": "not_json"})
    assert found == 2


def test_a_restore_tells_its_progress_and_when_it_was_ready() -> None:
    world = World(partitions=2)
    world.say(*[(f"k{n}", "w") for n in range(40)])
    run_idle(world.worker())
    world.disks["0"].crash()
    world.disks["0"] = MemoryStores()
    observed = Observed(world, restore_records=2)
    for _ in range(3):
        world.now_ms += 1_000
        observed.worker.run_once()
    assert observed.told("partitions_restoring") == 2 and observed.told("partitions_ready") == 0
    left, restored = observed.told("restore_records_left"), observed.told("restored_records_total")
    assert left > 0 and restored > 0 and observed.told("restore_seconds_left") > 0
    last = observed.reports[-1]
    assert {each.partition for each in last.restoring} == {0, 1} and not last.ready_ms
    assert last.seconds_left is not None and last.records_per_second > 0
    assert sum(each.target - each.position for each in last.restoring if each.target is not None) == left
    began = last.began_ms
    while observed.worker.restoring():
        world.now_ms += 1_000
        observed.worker.run_once()
    assert observed.told("partitions_restoring") == 0 and observed.told("partitions_ready") == 2
    assert observed.told("restore_records_left") == 0 and observed.told("restore_seconds_left") == 0
    assert observed.told("ready_seconds") == (world.now_ms - began) / 1_000
    assert observed.reports[-1].ready == [0, 1] and observed.reports[-1].ready_ms == world.now_ms
    changelog = [record for p in range(2) for record in world.broker.read("counting-changelog", p)]
    assert observed.told("restored_records_total") == len(changelog)


def test_the_report_is_a_file_that_is_replaced_whole(tmp_path: Path) -> None:
    report = reporter(tmp_path / "unify", "a-1")
    for ready_ms in (0, 9):
        report(Progress("unify", "", 0, 7, 5, [0], [], ready_ms))
    (found,) = reports_in(tmp_path / "unify")
    assert (found.slot, found.role, found.ready_ms) == ("a-1", "unify", 9) and found.pid > 0
    (tmp_path / "unify" / "progress-b.json").write_text("{")
    assert len(reports_in(tmp_path / "unify")) == 1
    (tmp_path / "file").write_text("")
    reporter(tmp_path / "file", "0")(found)
