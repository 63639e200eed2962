"""The identity stage alone against the oracle, after every single record, in any order of evidence and operators.

`python -m tests.simulation.deciding --seeds N --first M`. Routes are played: each remembers what it has sent, sends
only what is earlier, and answers a Forget.
"""

import random
import sys
import traceback

from pipeline.identifiers import Keys
from pipeline.records import (
    Assign,
    Evidence,
    Forget,
    Release,
    Relink,
    Unlink,
    decode_links_record,
    encode,
)
from pipeline.runtime.ports import Record
from tests.oracle.identity import Evidence as Gathered
from tests.oracle.identity import resolve
from tests.simulation import seeds
from tests.simulation.checks import Violation
from tests.simulation.driver import Buffer, OverlayState
from tests.simulation.wiring import identity_stage
from tests.simulation.world import Operate, Send, make_world

KEYS = Keys(b"who decides")
Pair = tuple[str, str]


class Deciding:
    """One run: the records of a world, shuffled a little, into the stage; its assignments into a table."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"deciding {seed}")
        self.world = make_world(seed)
        self.make_stage = identity_stage(self.world.rules, 2, seed, KEYS)
        self.stage = self.make_stage(0)
        self.state = OverlayState(self.stage, {})
        self.offset = 0
        self.names: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.gathered = Gathered()
        self.sent: dict[tuple[str, Pair], int] = {}
        self.seen: dict[tuple[str, Pair], tuple[int, int]] = {}
        self.pending: list[Evidence] = []

    def run(self) -> None:
        shuffle = self.rng.random() < 0.5
        arrivals = [one for one in self.world.arrivals if isinstance(one, Send | Operate)]
        if shuffle:
            sends = [one for one in arrivals if isinstance(one, Send)]
            self.rng.shuffle(sends)
            places = iter(sends)
            arrivals = [next(places) if isinstance(one, Send) else one for one in arrivals]
        for arrival in arrivals:
            if isinstance(arrival, Operate):
                self.drain()
                self.check("before an operator")
                self.operate(arrival)
            else:
                self.route(arrival)
            while self.pending and self.rng.random() < 0.7:
                self.consume(self.pending.pop(self.rng.randrange(len(self.pending))))
        self.drain()
        self.check("at the end")

    def route(self, arrival: Send) -> None:
        event = arrival.event
        route = event.identifiers[0]
        distinct = sorted(set(event.identifiers))
        for place, a in enumerate(distinct):
            for b in distinct[place + 1 :]:
                key = (route, (a, b))
                first, last = self.seen.get(key, (event.time, event.received))
                self.seen[key] = (min(first, event.time), max(last, event.received))
                if self.seen[key][0] < self.sent.get(key, 1 << 60):
                    self.send(key)

    def send(self, key: tuple[str, Pair]) -> None:
        first, last = self.seen[key]
        self.sent[key] = first
        self.pending.append(Evidence(key[1][0], key[1][1], first, last, key[0]))

    def operate(self, arrival: Operate) -> None:
        match arrival.record:
            case Unlink(a=a, b=b, received=received, forever=forever):
                self.gathered.unlink(a, b, received, forever)
            case Relink(a=a, b=b):
                self.gathered.relink(a, b)
            case Release(identifier=identifier):
                self.gathered.release(identifier)
        self.consume(arrival.record)
        self.drain()
        self.check(f"after {arrival.record}")

    def drain(self) -> None:
        while self.pending:
            self.consume(self.pending.pop(self.rng.randrange(len(self.pending))))

    def consume(self, record: Evidence | Unlink | Relink | Release | object) -> None:
        if isinstance(record, Evidence):
            self.gathered.saw([record.a, record.b], record.first, record.last_received)
        out = Buffer()
        self.stage.step(Record("identity-edges", 0, self.offset, None, encode(record)), self.state, out)
        self.stage.finish(self.state, out)
        self.state.applied(self.state.encoded())
        self.offset += 1
        if self.rng.random() < 0.1:
            self.stage = self.make_stage(0)
            self.state = OverlayState(self.stage, self.state.store)
        assigned: set[str] = set()
        for topic, key, value, _ in out.logged:
            if topic != "links":
                continue
            message = decode_links_record(value)
            if isinstance(message, Assign):
                self.assigned(message, key, assigned)
            elif isinstance(message, Forget):
                self.forget(message, key)

    def assigned(self, message: Assign, key: bytes | None, assigned: set[str]) -> None:
        if key != KEYS.actor(message.identifier):
            raise Violation("key", f"{message} under {key!r}")
        if message.identifier in assigned:
            raise Violation("assign", f"{message.identifier} twice by one record")
        assigned.add(message.identifier)
        if message.epoch <= self.epochs.get(message.identifier, 0):
            raise Violation("epoch", f"{message} after {self.epochs[message.identifier]}")
        if self.names.get(message.identifier, message.identifier) == message.name:
            raise Violation("assign", f"{message} changes nothing")
        self.names[message.identifier] = message.name
        self.epochs[message.identifier] = message.epoch

    def forget(self, message: Forget, key: bytes | None) -> None:
        if key != KEYS.actor(message.route):
            raise Violation("key", f"{message} under {key!r}")
        known = (message.route, (message.a, message.b))
        self.sent.pop(known, None)
        if known in self.seen and self.seen[known][1] > message.received:
            self.send(known)

    def check(self, when: str) -> None:
        who = resolve(self.gathered, self.world.rules)
        for one, name in who.name_of.items():
            if self.names.get(one, one) != name:
                raise Violation(
                    "who is who", f"{when}: {one} is with {self.names.get(one, one)}, should be with {name}"
                )
        for one, name in self.names.items():
            if who.name_of.get(one, one) != name:
                raise Violation("who is who", f"{when}: {one} is with {name}, nothing says so")


def try_seed(seed: int) -> str | None:
    try:
        Deciding(seed).run()
    except Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001 -- whatever is raised is a finding
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    sys.exit(seeds.main("tests.simulation.deciding", __doc__, try_seed))
