"""Features as of a past time: `python -m tests.simulation.past --seeds N --first M`.

A deployment is stopped at one of its rests, amid merges, unlinks, people who leave, duplicates and crashes. The whole
history, with what comes later, played again as of that instant must give the features that the stopped one has.
"""

import random
from typing import Any

import msgspec

from pipeline.features.export import decided
from pipeline.features.past import Happened, profiles_at
from pipeline.features.table import table
from pipeline.identity import IdentityStage
from pipeline.plans import GenerationPlan
from pipeline.records import Event, ProfileDocument, Release, encode
from pipeline.runtime.ports import Record
from tests.simulation import checks, seeds
from tests.simulation.accounts import put_accounts
from tests.simulation.definitions import make_segments
from tests.simulation.driver import Simulation
from tests.simulation.run import KEYS
from tests.simulation.wiring import NEVER_DAYS, compile_segments, identity_rules, plan_of, unify_stage
from tests.simulation.world import Operate, Rest, Send, World, make_world

_decode = msgspec.json.Decoder(ProfileDocument).decode


def run_world(world: World) -> None:
    """Stop at a rest, and compare. Raises Violation, or whatever a stage raises."""
    rng = random.Random(f"past {world.seed}")
    plan = plan_of(identity_rules(world.rules), compile_segments(world.segments), world.accounts)
    rests = [number for number, arrival in enumerate(world.arrivals) if isinstance(arrival, Rest)]
    stopped_at = rng.choice(rests)
    now = world.arrivals[stopped_at]
    assert isinstance(now, Rest)
    stopped = _played(world, rng, plan, stopped_at)
    history = list(_history(world, stopped_at, now.now))
    again = profiles_at(now.now, history, KEYS, plan, NEVER_DAYS)
    for entity in ("person", "account"):
        due = _features(stopped, now.now, entity, world)
        checks.same("features", f"{entity} as of {now.now}", _features(again, now.now, entity, world), due)


def _played(world: World, rng: random.Random, plan: GenerationPlan, stopped_at: int) -> dict[str, ProfileDocument]:
    """The profiles of a deployment that is stopped at one of the arrivals."""
    unify = unify_stage(world, KEYS)

    def identity(partition: int) -> IdentityStage:
        return IdentityStage(KEYS, lambda generation: plan, world.partitions)

    simulation = Simulation(world.partitions, rng, identity, unify, rng.choice((0.0, 0.03, 0.15)))
    for arrival in world.arrivals[: stopped_at + 1]:
        if isinstance(arrival, Send):
            simulation.write("events", KEYS.actor(arrival.event.identifiers[0]), encode(arrival.event))
            simulation.now = max(simulation.now, arrival.event.received)
        elif isinstance(arrival, Operate):
            simulation.write("identity-edges", None, encode(arrival.record), 0)
        else:
            simulation.caught_up(arrival.now)
            simulation.come_to_rest()
            continue
        simulation.some_steps()
    return {key.decode(): _decode(value) for key, value in simulation.broker.compacted("profiles").items()}


def _history(world: World, stopped_at: int, now: int) -> list[Happened]:
    """Everything that was ever received, in the order of its receipt: what comes after the stop, after it."""
    found = []
    decisions = []
    for number, arrival in enumerate(world.arrivals):
        later = number > stopped_at
        if isinstance(arrival, Send):
            event: Event = arrival.event
            if later and event.received <= now:
                event = msgspec.structs.replace(event, received=now + 1)
            found.append(Happened(event.received, "events", KEYS.actor(event.identifiers[0]), encode(event)))
        elif isinstance(arrival, Operate):
            made: Any = arrival.record
            if later:
                made = msgspec.structs.replace(made, received=max(made.received, now + 1))
            about = f"{made.a} {made.b}".encode()
            decisions.append(Record("identity-decisions", 0, number, about, encode(made)))
    found += decided(decisions, now)[0]
    found.sort(key=lambda one: one.received)
    return found


def _features(documents: dict[str, ProfileDocument], at: int, entity: str, world: World) -> dict[str, list[Any]]:
    of_accounts = entity == "account"
    segments = [one["segment"] for one in world.segments if "segment" in one and ("entity" in one) is of_accounts]
    computed = ["people"] if of_accounts else [one["computed"] for one in world.segments if "computed" in one]
    namespaces = ["account"] if of_accounts else sorted(world.rules.namespaces)
    found = table(documents, at, entity=entity, computed=computed, segments=segments, namespaces=namespaces)
    return found.columns


def try_seed(seed: int) -> str | None:
    """Run one seed; what went wrong, or None."""
    world = make_world(seed, make_segments, put_accounts)
    if any(isinstance(one, Operate) and isinstance(one.record, Release) for one in world.arrivals):
        # What a release lets in is what was known by then: two orders of one history know different things.
        return None
    try:
        run_world(world)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is told
        return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    raise SystemExit(seeds.main(__spec__.name if __spec__ else __name__, __doc__, try_seed, seeds=200))
