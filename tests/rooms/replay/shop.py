"""An old deployment in memory, what happens in it, and whom a copy of it knows."""

import random
from dataclasses import replace

import msgspec

from pipeline.activation import ActivationPlan
from pipeline.identity import IdentityStage, builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import EraseRequest, Event, encode
from pipeline.replay.ports import CopySettings
from pipeline.segments import NO_SEGMENTS
from pipeline.unify import UnifyStage
from tests.oracle.identity import Rules
from tests.simulation.cluster import Cluster
from tests.simulation.replays import Replay
from tests.simulation.run import KEYS
from tests.simulation.wiring import NEVER_DAYS

ANN, TAB, BOB = "user_id:ann", "anonymous_id:tab", "user_id:bob"
NOON = 1_700_000_000_000
PLAN = GenerationPlan(0, builtin_rules(), NO_SEGMENTS, ActivationPlan())


class Shop:
    """An old deployment of two partitions, and what happens in it."""

    def __init__(self, seed: int, crash_rate: float = 0.0, days: int = NEVER_DAYS) -> None:
        self.rng = random.Random(seed)
        self.crash_rate, self.days = crash_rate, days
        self.old = Cluster(
            2,
            self.rng,
            lambda partition: IdentityStage(KEYS, lambda generation: PLAN, 2),
            lambda partition: UnifyStage(partition, KEYS, lambda generation: PLAN, days, 2),
            crash_rate,
        )
        self.number = 0

    def send(self, *identifiers: str, at: int, happened: int | None = None, consents: bool = False) -> None:
        self.number += 1
        time = NOON + (at if happened is None else happened)
        event = Event(f"m{self.number}", "track", "Seen", list(identifiers), time, NOON + at)
        if consents:
            event.context = {"consent": {"marketing": True}}
        self.old.write("events", KEYS.actor(identifiers[0]), encode(event))
        self.old.now = max(self.old.now, NOON + at)

    def erase(self, identifier: str, at: int, keep_out: bool = False) -> None:
        self.old.write("identity-edges", None, encode(EraseRequest(identifier, NOON + at, "r1", keep_out)), 0)
        self.rest(at)

    def rest(self, at: int) -> None:
        self.old.caught_up(NOON + at)
        self.old.come_to_rest()

    def replay(self, settings: CopySettings | None = None) -> Replay:
        found = Replay(self.old, self.rng, PLAN, Rules({}, 10), self.crash_rate, self.days)
        if settings is not None:
            found.ports = replace(found.ports, settings=settings)
        return found


def known(replay: Replay) -> dict[str, int]:
    """Whom the new deployment knows, and how often each was seen: by the strongest identifier."""
    return known_in(replay.new)


def known_in(cluster: Cluster) -> dict[str, int]:
    found = {}
    for value in cluster.broker.compacted("profiles").values():
        document = msgspec.json.decode(value)
        first = document["identifiers"][0]
        found[f"{first['namespace']}:{first['value']}"] = document["totals"]["Seen"]["count"]
    return found
