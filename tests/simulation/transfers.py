"""Fragments in flight: decisions come faster than fragments can follow them.

`python -m tests.simulation.transfers --seeds N --first M`. The identity stage is played: at any moment everybody is
grouped anew at random, and the assignments go out while events, recalls and fragments of former decisions are still on
their way, fragments in many pieces among them. When everything has arrived, every event must be where the last
decision says, once.
"""

import random
import sys
import traceback
from collections import Counter, defaultdict

from pipeline.identifiers import partition_of
from pipeline.records import Assign, Event, encode
from tests.oracle.identity import Resolution
from tests.oracle.profiles import accept, profiles
from tests.oracle.segments import truth_at
from tests.simulation import checks, seeds
from tests.simulation.definitions import make_segments
from tests.simulation.driver import Simulation
from tests.simulation.run import KEYS
from tests.simulation.vocabulary import EVENT_NAMES
from tests.simulation.wiring import identity_stage, unify_stage
from tests.simulation.world import DAY, HOUR, MINUTE, STARTS, World, make_rules


class Decided(checks.Truth):
    """The oracle where who is who is what was decided last."""

    def settle(self) -> None:
        self.accepted = accept(self.partitions[partition] for partition in sorted(self.partitions))
        by_name = profiles(self.accepted.events, self.who)
        self.expected = {self.keys.profile_id(name): profile for name, profile in by_name.items()}


class Transfers:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(f"transfers {seed}")
        self.world = World(seed, rng.choice((1, 2, 3, 4)), make_rules(rng))
        self.now = STARTS[0]
        if rng.random() < 0.5:
            self.world.segments = make_segments(rng, self.now)
        unify = unify_stage(self.world, KEYS)
        identity = identity_stage(self.world.rules, self.world.partitions, seed, KEYS)
        self.simulation = Simulation(self.world.partitions, rng, identity, unify, rng.choice((0.0, 0.0, 0.1)))
        self.truth = Decided(self.world.rules, KEYS)
        names = ["user_id:u0", "user_id:u1", "email:e0@x.org", "device_id:d0", "anonymous_id:a0", "anonymous_id:a1"]
        self.identifiers = sorted(rng.sample(names, rng.randint(3, 5)))
        self.names = {one: one for one in self.identifiers}
        # Often it is always the same one that is sent about, faster than anybody reads.
        self.favourite = rng.choice(self.identifiers) if rng.random() < 0.5 else None
        self.steps = rng.choice((0.1, 0.5, 0.9))
        self.epoch = 0
        self.sent = 0

    def run(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((6, 12, 25))):
            self.now += rng.choice((0, 1, 1_000, MINUTE, HOUR))
            self.simulation.now = max(self.simulation.now, self.now)
            draw = rng.random()
            if draw < 0.5 or not self.sent:
                self.event()
            elif draw < 0.93:
                self.decide()
            else:
                self.rest()
            if rng.random() < self.steps:
                self.simulation.some_steps()
        self.rest()
        self.now += rng.choice((MINUTE, DAY, 8 * DAY))
        self.rest()

    def event(self) -> None:
        rng = self.rng
        identifier = rng.choice(self.identifiers)
        event = Event(
            message_id=f"m{self.sent}",
            type="track",
            event=rng.choice((*EVENT_NAMES, *(f"Named {n}" for n in range(4)))),
            identifiers=[identifier],
            time=self.now - rng.choice((0, 0, 1, HOUR)),
            received=self.now,
            properties={"amount": rng.choice((1, 5, 10)), "path": "/pricing"},
            traits={f"trait_{rng.randrange(6)}": f"{self.sent} {'x' * 60}"} if rng.random() < 0.5 else {},
        )
        self.sent += 1
        key = KEYS.actor(identifier)
        self.simulation.write("events", key, encode(event))
        self.truth.send(partition_of(key, self.world.partitions), event)

    def decide(self) -> None:
        """Group everybody anew: the groups are named by their strongest members, as the identity stage would."""
        rng = self.rng
        former = dict(self.names)
        if rng.random() < (0.95 if self.favourite else 0.7):
            # Mostly one identifier goes elsewhere, or comes home.
            moving = self.favourite or rng.choice(self.identifiers)
            groups = defaultdict(set)
            for one, name in former.items():
                groups[name].add(one)
            groups[former[moving]].discard(moving)
            target = rng.choice([set[str](), *groups.values()])
            target.add(moving)
            parts = [group for group in groups.values() if group]
            if not any(moving in group for group in parts):
                parts.append({moving})
        else:
            drawn = defaultdict(set)
            for one in self.identifiers:
                drawn[rng.randrange(3)].add(one)
            parts = list(drawn.values())
        for group in parts:
            name = min(group, key=self.world.rules.rank)
            for one in group:
                self.names[one] = name
        self.epoch += 1
        moved = [one for one in self.identifiers if self.names[one] != former[one]]
        together = Counter((former[one], self.names[one]) for one in moved)
        for one in moved:
            before, name = former[one], self.names[one]
            assign = Assign(
                identifier=one,
                name=name,
                epoch=self.epoch,
                reason=rng.choice(("evidence", "unlink")),
                clock=self.now,
                companions=together[before, name],
                former_lives=self.names[before] == before,
            )
            self.simulation.write("links", KEYS.actor(one), encode(assign))

    def rest(self) -> None:
        simulation, truth, definitions = self.simulation, self.truth, self.world.segments
        simulation.caught_up(self.now)
        simulation.come_to_rest()
        members: dict[str, set[str]] = defaultdict(set)
        for one, name in self.names.items():
            members[name].add(one)
        frozen = {name: frozenset(group) for name, group in members.items()}
        truth.who = Resolution(dict(self.names), frozen, frozenset(), frozenset())
        truth.settle()
        broker: checks.Topics = simulation.broker
        checks.check_nothing_refused(broker)
        checks.check_profiles(truth, broker)
        checks.check_pointers(truth, broker)
        checks.check_accounting(truth, broker)
        checks.check_folds(truth, broker)
        segments = [one for one in definitions if "segment" in one]
        expected = {
            segment["segment"]: {
                profile_id
                for profile_id, profile in truth.expected.items()
                if truth_at(segment, definitions, profile, profile_id, self.now)
            }
            for segment in segments
        }
        checks.check_members(truth, broker, expected, self.now)
        checks.check_store(simulation.stores())


def try_seed(seed: int) -> str | None:
    """What went wrong at a seed, or None."""
    try:
        Transfers(seed).run()
    except checks.Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001 -- whatever is raised is a finding
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    sys.exit(seeds.main("tests.simulation.transfers", __doc__, try_seed))
