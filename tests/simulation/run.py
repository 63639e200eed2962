"""Run seeds: `python -m tests.simulation.run --seeds N --first M`. A failing seed prints how to see it again."""

import argparse
import random
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.identifiers import Keys, partition_of
from pipeline.records import encode
from tests.simulation import checks
from tests.simulation.accounts import check_accounts, check_alerts, put_accounts, world_of
from tests.simulation.cluster import Cluster
from tests.simulation.definitions import make_segments
from tests.simulation.driver import Simulation, replayed
from tests.simulation.wiring import identity_stage, said_by_records, unify_stage
from tests.simulation.world import Operate, Rest, Send, World, make_world

SECRET = b"the secret of a small world"
KEYS = Keys(SECRET)
Engine = Literal["light", "real"]
ENGINES: tuple[Engine, ...] = ("light", "real")
KNOWN_SEEDS = Path(__file__).with_name("failing_seeds.txt")


@dataclass(frozen=True)
class Failure:
    """A seed at which something was not true."""

    seed: int
    rule: str
    detail: str
    trace: str

    def command(self) -> str:
        return f"make simulate SEEDS=1 FIRST={self.seed}"


def run_world(world: World, engine: Engine) -> None:
    """Run one world to its end and check it whenever it rests. Raises Violation, or whatever a stage raises.

    `engine` "light" drives the stages alone, and can say again what a task said; "real" drives the real worker. Now
    and then the world is played into a second deployment, of another size and in another order.
    """
    rng = random.Random(f"{engine} {world.seed}")
    simulation = play(world, engine, rng, world.partitions)
    if isinstance(simulation, Simulation):
        for task in simulation.tasks:
            said, kept = replayed(task, rng)
            checks.same_said(task, said, said_by_records(task.state.store), said_by_records(kept))
    if rng.random() < 0.25:
        again = play(world, "light", rng, world.partitions % 4 + 1)
        checks.same_end(simulation.broker, again.broker)


def play(world: World, engine: Engine, rng: random.Random, partitions: int) -> Simulation | Cluster:
    """A deployment with this many partitions, and everything that happens in the world."""
    unify = unify_stage(world, KEYS)
    identity = identity_stage(world.rules, partitions, world.seed, KEYS)
    crash_rate = 0.0 if world.calm else rng.choice((0.0, 0.03, 0.15))
    simulation: Simulation | Cluster
    if engine == "light":
        simulation = Simulation(partitions, rng, identity, unify, crash_rate)
    else:
        simulation = Cluster(partitions, rng, identity, unify, crash_rate)
    truth = checks.Truth(world.rules, KEYS)
    for arrival in world.arrivals:
        if isinstance(arrival, Send):
            key = KEYS.actor(arrival.event.identifiers[0])
            simulation.write("events", key, encode(arrival.event))
            truth.send(partition_of(key, partitions), arrival.event)
            if not world.calm:
                simulation.now = max(simulation.now, arrival.event.received)
            if rng.random() < 0.05:
                simulation.caught_up(simulation.now)
        elif isinstance(arrival, Operate):
            simulation.write("identity-edges", None, encode(arrival.record), 0)
            truth.operate(arrival.record)
        else:
            rest(simulation, truth, world, arrival)
            continue
        simulation.some_steps()
    return simulation


def rest(simulation: Simulation | Cluster, truth: checks.Truth, world: World, arrival: Rest) -> None:
    """Bring everything to rest at the arrival's time and check what must be true then."""
    if world.calm:
        # Where the wall clock runs ahead of what is still unread, what began and ended meanwhile is not told.
        simulation.come_to_rest()
    simulation.caught_up(arrival.now)
    simulation.come_to_rest()
    truth.settle()
    broker: checks.Topics = simulation.broker
    checks.check_evidence(truth, broker)
    checks.check_what_is_told(truth, broker)
    segments = [one for one in world.segments if "segment" in one]
    if world.accounts is not None:
        due = world_of(truth, world.segments, world.accounts, arrival.now)
        check_accounts(due, broker)
        check_alerts(broker, world.accounts.alerts)
        expected = {segment["segment"]: due.members(segment) for segment in segments}
    else:
        expected = checks.members_due(truth, world.segments, segments, arrival.now)
    checks.check_members(truth, broker, expected, arrival.now)
    checks.check_computed(truth, broker, world.segments, arrival.now)
    checks.check_causes(broker)
    if world.calm:
        checks.check_calm(truth, broker, segments, world.segments, arrival.now)
    checks.check_store(simulation.stores())


def try_seed(seed: int, engine: Engine | None = None) -> Failure | None:
    """Run one seed, on the engine it chooses if none is named; what went wrong, or None."""
    try:
        run_world(make_world(seed, make_segments, put_accounts), engine or ENGINES[seed % len(ENGINES)])
    except checks.Violation as violation:
        return Failure(seed, violation.rule, str(violation), traceback.format_exc())
    except Exception as error:  # noqa: BLE001 -- whatever a stage raises is a failure of the seed
        return Failure(seed, type(error).__name__, str(error), traceback.format_exc())
    return None


def known_seeds() -> list[int]:
    """Seeds that failed once; the suite runs them always."""
    if not KNOWN_SEEDS.exists():
        return []
    lines = (line.partition("#")[0].strip() for line in KNOWN_SEEDS.read_text().splitlines())
    return [int(line) for line in lines if line]


def run_seeds(
    seeds: Iterable[int], most_failures: int = 10, progress: bool = False, engine: Engine | None = None
) -> list[Failure]:
    """Run seeds until enough have failed."""
    failures: list[Failure] = []
    started = time.monotonic()
    for done, seed in enumerate(seeds, start=1):
        failure = try_seed(seed, engine)
        if failure is not None:
            failures.append(failure)
            if progress:
                print(f"seed {seed}: {failure.rule}", flush=True)
            if len(failures) >= most_failures:
                break
        if progress and done % 200 == 0:
            rate = done / (time.monotonic() - started)
            print(f"{done} seeds, {rate:.0f} a second, {len(failures)} failed", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most-failures", type=int, default=10)
    parser.add_argument("--engine", choices=ENGINES, help="otherwise each seed chooses")
    parser.add_argument("--trace", action="store_true", help="show where it was raised")
    arguments = parser.parse_args()
    started = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    failures = run_seeds(seeds, arguments.most_failures, arguments.seeds > 200, arguments.engine)
    for failure in failures:
        print(f"seed {failure.seed}: {failure.detail}\n    {failure.command()}")
        if arguments.trace or arguments.seeds == 1:
            print(failure.trace)
    took = time.monotonic() - started
    print(f"{arguments.seeds} seeds from {arguments.first}: {len(failures)} failed, {took:.1f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
