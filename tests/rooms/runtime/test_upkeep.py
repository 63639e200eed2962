"""What a worker does now and then: each in its time, also when nothing comes, and asked for no more than once."""

from types import SimpleNamespace
from typing import Any

from pipeline.runtime.memory.store import MemoryStore
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.upkeep import Upkeep
from tests.rooms.runtime.counting import COUNTING, CountingStage, World, run_idle


class Scrubbing(CountingStage):
    """Has everything it counted rewritten."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        super().step(record, state, out)
        state.scrub(b"c" + (record.key or b""))


def test_an_idle_worker_has_its_stores_rewritten_in_their_time(monkeypatch: Any) -> None:
    rewritten: list[tuple[int, list[bytes]]] = []
    world = World(partitions=1)
    monkeypatch.setattr(MemoryStore, "scrub", lambda _, wanted: rewritten.append((world.now_ms, sorted(wanted))))
    worker = world.worker(make_stage=Scrubbing, settings=WorkerSettings(scrub_interval_ms=1_000))
    run_idle(worker)
    began = world.now_ms
    world.say(("a", "w"), ("b", "w"))
    run_idle(worker)
    for _ in range(30):
        world.now_ms += 100
        worker.run_once()
    assert rewritten == [(began + 1_000, [b"ca", b"cb"])]


def test_topics_are_trimmed_in_their_time_and_once_to_each_place() -> None:
    now, deleted = 1_000_000, []
    admin = SimpleNamespace(delete_records=lambda below: deleted.append((now, dict(below))))
    adapters: Any = SimpleNamespace(clock=lambda: now, admin=admin)
    upkeep = Upkeep(COUNTING, adapters, WorkerSettings(trim_interval_ms=1_000))
    at = {("words", 0): 70, ("echoes", 0): 7, ("echoes", 1): 0}
    task: Any = SimpleNamespace(positions=at)
    for then, echoes in ((0, 7), (400, 8), (1_000, 8), (2_000, 8), (3_000, 9)):
        now, at["echoes", 0] = 1_000_000 + then, echoes
        upkeep.trim(dict.fromkeys(at, task))
    assert [(then - 1_000_000, below) for then, below in deleted] == [
        (0, {("echoes", 0): 7}),
        (1_000, {("echoes", 0): 8}),
        (3_000, {("echoes", 0): 9}),
    ]
