"""What kinds of role a worker can run, and what it refuses."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.rights import rights
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.failpoints import VARIABLE, failpoints_from
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.watchdog import EXIT_CODE
from pipeline.settings import Settings
from pipeline.topology import IDENTITY, INGEST, UNIFY, Role
from tests.rooms.runtime.counting import COUNTING, StatelessStage, World, run_idle

COPYING = Role("copying", ("first", "second"), None, tolerant=("first", "second"))


class CopyingStage(StatelessStage):
    """Copies everything to `counts`; keeps nothing."""

    def step(self, record: Record, state: State, out: Outputs) -> None:
        if record.value == b"poison":
            raise ValueError("a poisoned word")
        if record.value == b"use state":
            state.get(b"k")
        out.log("counts", record.key, record.value or b"")


ROOMS = Path(__file__).parents[3] / "pipeline"
SETTINGS = Settings(prefix="w.", secret="s", bootstrap_servers="k:1")  # type: ignore[arg-type]


@pytest.mark.parametrize("role", [INGEST, IDENTITY, UNIFY], ids=lambda role: role.name)
def test_what_a_stage_writes_is_among_its_outputs_and_its_rights(role: Role) -> None:
    """After a change of the rules the identity stage tells itself to go on, in its own input: without the right to do
    so it undid that transaction again and again, and ended."""
    written = {
        call.args[0].value
        for path in (ROOMS / role.name).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("log", "upsert")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    assert written and written <= set(role.outputs)
    may_write = {right.name for right in rights(SETTINGS) if right.role == role.name and "Write" in right.operations}
    assert {f"w.{topic}" for topic in written} <= may_write


def copying_world() -> World:
    world = World(role=COPYING)
    world.broker.topics["second"] = world.broker.topics["second"][:1]
    return world


def test_a_role_without_state_reads_topics_that_are_not_co_partitioned() -> None:
    world = copying_world()
    for n in range(10):
        world.say((f"k{n}", f"a{n}"), topic="first")
        world.say((f"k{n}", f"b{n}"), topic="second")
    worker = world.worker(make_stage=lambda _: CopyingStage())
    assert worker.input_lag() is None
    run_idle(worker)
    assert sorted(world.counts()) == sorted([f"a{n}" for n in range(10)] + [f"b{n}" for n in range(10)])
    assert worker.input_lag() == 0
    worker.close()
    world.say(("k", "poison"), ("k", "later"), topic="second")
    run_idle(world.worker(make_stage=lambda _: CopyingStage()))
    assert len(world.counts()) == 21 and len(world.broker.read("dead-letters")) == 1


def test_a_role_without_state_that_uses_some_is_stopped() -> None:
    world = copying_world()
    world.say(("k", "use state"), topic="first")
    with pytest.raises(WorkerStopped, match="no state"):
        run_idle(world.worker(make_stage=lambda _: CopyingStage()))


def test_inputs_with_different_partition_counts_are_refused() -> None:
    world = World()
    world.broker.topics["echoes"] = world.broker.topics["echoes"][:1]
    with pytest.raises(WorkerStopped, match="partition counts differ"):
        world.worker()


def test_a_skewed_assignment_is_refused() -> None:
    worker = World().worker()
    with pytest.raises(WorkerStopped, match="without those of echoes"):
        worker.assigned([("words", 0), ("words", 1), ("echoes", 0)])


def test_a_missing_topic_is_named() -> None:
    world = World()
    del world.broker.topics["counting-changelog"]
    with pytest.raises(WorkerStopped, match="counting-changelog"):
        world.worker()


def test_case_60_more_workers_than_partitions() -> None:
    world = World(partitions=2)
    workers = [world.worker(str(slot)) for slot in range(4)]
    world.say(*[(f"k{n}", "w") for n in range(20)])
    run_idle(*workers)
    assert len(world.counts()) == 20
    assert sorted(len(worker.tasks) for worker in workers) == [0, 0, 1, 1]


def test_failpoints_from_the_environment() -> None:
    assert COUNTING.changelog is not None
    with pytest.raises(ValueError, match="after_lunch"):
        failpoints_from({VARIABLE: "after_lunch"})
    code = (
        "from pipeline.runtime.failpoints import failpoints_from as f\n"
        "reached = f({'HEADWATER_FAILPOINT': 'after_begin:2,after_write:~7:0.0'})\n"
        "for _ in range(3): print('x', flush=True); reached('after_write'); reached('after_begin')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -9 and done.stdout == b"x\nx\n"


def test_a_call_that_hangs_ends_the_process() -> None:
    code = (
        "import tests.rules.taken_out\n"
        "import time\n"
        "from pipeline.runtime.watchdog import Watchdog\n"
        "with Watchdog(lambda: 1, lambda: 0.2, 'worker'): time.sleep(300)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == EXIT_CODE
    assert b"has not come back" in done.stderr


def test_sending_the_offsets_has_a_limit_of_its_own() -> None:
    """librdkafka's call for it may never return. The worker's other calls are given their time."""
    code = (
        "import tests.rules.taken_out\n"
        "import time\n"
        "from pipeline.runtime.settings import WorkerSettings\n"
        "from tests.rooms.runtime.counting import World, run_idle\n"
        "world = World()\n"
        "worker = world.worker(settings=WorkerSettings(stuck_s=20.0, offsets_stuck_s=0.5))\n"
        "world.say(('a', 'w'))\n"
        "worker.start = lambda: None\n"
        "began = time.monotonic()\n"
        "worker._producer.commit = (lambda commit: lambda s: (time.sleep(1.5), commit(s)))(worker._producer.commit)\n"
        "worker.run(lambda: bool(world.counts()))\n"
        "assert world.counts() == ['a 1'] and time.monotonic() - began > 1.4\n"
        "worker = world.worker(settings=WorkerSettings(stuck_s=20.0, offsets_stuck_s=0.5))\n"
        "worker.start = lambda: None\n"
        "world.say(('a', 'w'))\n"
        "print('hangs', flush=True)\n"
        "worker._producer.send_offsets = lambda *_: time.sleep(300)\n"
        "worker.run(lambda: False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (EXIT_CODE, b"hangs\n"), done.stderr
    assert b"has not come back for 0.5 s" in done.stderr and b"<lambda>" in done.stderr
