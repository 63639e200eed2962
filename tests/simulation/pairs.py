"""Random definitions against random histories, the compiled plan against the naive evaluator.

`python -m tests.simulation.pairs --seeds N --first M`. One profile, its events spread over up to three fragments,
arriving late and out of order; judged at every arrival, at every instant at which time alone could change a rule,
and after fragments come and go. In some, contracts let what is counted be kept for a while only: then it is gone from
the states at that instant, too.
"""

import copy
import random
import sys
import traceback
from typing import Any

from pipeline.records import Event
from pipeline.segments import Keeps, goes_at, let_go
from tests.oracle.profiles import ExpectedProfile, newest, tie_order
from tests.oracle.segments import truth_at
from tests.simulation import seeds
from tests.simulation.checks import Violation
from tests.simulation.definitions import make_segments
from tests.simulation.instants import candidates
from tests.simulation.vocabulary import EVENT_NAMES
from tests.simulation.wiring import compile_segments
from tests.simulation.world import DAY, HOUR, STARTS, Send, make_world

PROFILE_ID = "8c7d8c06-9d0c-5c1c-8d0e-2f1f3f9b6d11"


class Facts:
    """The joined fragment, as a plan sees it."""

    def __init__(self, leaves: dict[str, Any], events: list[Event]) -> None:
        self.profile_id = PROFILE_ID
        self.leaves = leaves
        self.consents: dict[str, Any] = {}
        self.totals: dict[str, list[int]] = {}
        self.traits: dict[str, tuple[int, Any]] = {}
        for event in events:
            self.learn(event)

    def learn(self, event: Event) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Fold an event in; the names of the traits and purposes it speaks of."""
        for name, value in newest([event]).items():
            there = self.traits.get(name)
            if there is None or (event.time, tie_order(value)) >= (there[0], tie_order(there[1])):
                self.traits[name] = (event.time, value)
        for purpose, granted in event.context.get("consent", {}).items():
            known = self.consents.get(purpose)
            if known is None or (event.time, not granted) > (known[0], not known[1]):
                self.consents[purpose] = (event.time, granted)
        total = self.totals.setdefault(event.event, [0, event.time, event.time])
        total[:] = total[0] + 1, min(total[1], event.time), max(total[2], event.time)
        return tuple(event.traits), tuple(event.context.get("consent", {}))


class Pair:
    """One run: definitions and a history."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"pair {seed}")
        start = self.rng.choice(STARTS)
        self.definitions = make_segments(self.rng, start, wide=True)
        self.segments = [one for one in self.definitions if "segment" in one]
        self.keeps = _keeps(random.Random(f"kept {seed}"))
        parts = {(event, tuple(path.split("."))): ms for (event, path), ms in self.keeps.items() if path}
        kept = Keeps({event: ms for (event, path), ms in self.keeps.items() if not path}, parts)
        self.plan = compile_segments(self.definitions, kept)
        self.arrivals = self._history(seed)
        self.clock = min([event.received for event in self.arrivals], default=start)
        self.known: list[Event] = []
        self.parts: list[dict[str, Any]] = [{} for _ in range(self.rng.randint(1, 3))]
        self.events_of: list[list[Event]] = [[] for _ in self.parts]

    def _history(self, seed: int) -> list[Event]:
        for extra in range(100):
            world = make_world(1_000_000 + seed * 100 + extra)
            events = [arrival.event for arrival in world.arrivals if isinstance(arrival, Send)]
            distinct = {event.message_id: event for event in events}
            if len(distinct) >= 3:
                return list(distinct.values())[: self.rng.choice((5, 12, 30))]
        raise AssertionError("no world with enough events")

    def run(self) -> None:
        rng, plan = self.rng, self.plan
        facts = Facts({}, [])
        standing = plan.begin(facts, self.clock)
        self.compare(standing.members, "at the beginning")
        for event in self.arrivals:
            if rng.random() < 0.1:
                self.pass_time(standing, facts, self.clock + rng.choice((1, HOUR, DAY)))
            self.pass_time(standing, facts, max(self.clock, event.received))
            part = rng.randrange(len(self.parts))
            before = set(standing.members)
            plan.fold(self.parts[part], event)
            self.events_of[part].append(event)
            self.known.append(event)
            touched = plan.fold(facts.leaves, event)
            traits, purposes = facts.learn(event)
            flips = plan.update(standing, facts, self.clock, touched, traits, purposes)
            self.applied(before, flips, standing.members, f"update by {event.message_id}")
            self.compare(standing.members, f"after {event.message_id}")
            if rng.random() < 0.25:
                facts = Facts(self.joined(), self.known)
                standing = plan.begin(facts, self.clock)
                self.compare(standing.members, f"joined anew after {event.message_id}")
        for step in (1, HOUR, DAY, 40 * DAY):
            self.pass_time(standing, facts, self.clock + step)

    def joined(self) -> dict[str, Any]:
        """The join of the parts in any order; a join must leave its arguments as they were."""
        order = self.rng.sample(range(len(self.parts)), len(self.parts))
        kept = copy.deepcopy(self.parts)
        joined: dict[str, Any] = {}
        for part in order:
            joined = self.plan.join(joined, self.parts[part])
        if kept != self.parts:
            raise Violation("join", "a join changed its arguments")
        return copy.deepcopy(joined)

    def pass_time(self, standing: Any, facts: Facts, until: int) -> None:
        if until == self.clock:
            return
        members = set(standing.members)
        flipped = self.plan.settle(standing, facts, until)
        self.let_go(standing, facts, until)
        history: list[tuple[int, set[str]]] = []
        last = self.clock
        for at, flips in flipped:
            if not last <= at <= until or (history and at == last):
                raise Violation("settle", f"flips at {at} after {last}, until {until}")
            last = at
            for flip in flips:
                if flip.entered == (flip.segment in members):
                    raise Violation("settle", f"{flip} at {at}, but it stood so already")
                (members.add if flip.entered else members.discard)(flip.segment)
            history.append((at, set(members)))
        if members != set(standing.members):
            raise Violation("settle", f"flips give {members}, members are {set(standing.members)}")
        lengths = [{"within": f"{ms // 1000}s"} for ms in self.keeps.values()]
        instants = candidates([*self.definitions, *lengths], self.known, self.clock, until)
        if len(instants) > 400:
            instants = sorted(self.rng.sample(instants, 400))
        near = {at + d for at, _ in history for d in (-1, 0) if self.clock < at + d <= until}
        start_members = self.truth(self.clock)
        for instant in sorted({*instants, *near, until}):
            stood = next((stood for at, stood in reversed(history) if at <= instant), start_members)
            should = self.truth(instant)
            if stood != should:
                raise Violation("settle", self.said(stood, should, instant, f"passing from {self.clock} to {until}"))
        self.clock = until

    def let_go(self, standing: Any, facts: Facts, now: int) -> None:
        """What may be kept no longer goes from the states, and no rule notices."""
        changed = [one for one in let_go(self.plan, facts.leaves, now) if one in facts.leaves]
        for part in self.parts:
            let_go(self.plan, part, now)
        flips = self.plan.update(standing, facts, now, changed)
        if flips:
            raise Violation("kept", f"{flips} when what no rule counts any more went at {now}")
        for states in (facts.leaves, *self.parts):
            goes = goes_at(self.plan, states)
            if goes is not None and goes <= now:
                raise Violation("kept", f"something that was to go at {goes} is there at {now}: {states}")

    def truth(self, now: int) -> set[str]:
        profile = ExpectedProfile("x", set(), events=self.known)
        return {
            one["segment"]
            for one in self.segments
            if truth_at(one, self.definitions, profile, PROFILE_ID, now, self.keeps)
        }

    def compare(self, members: set[str], when: str) -> None:
        should = self.truth(self.clock)
        if set(members) != should:
            raise Violation("4 members", self.said(set(members), should, self.clock, when))

    def applied(self, before: set[str], flips: list[Any], after: set[str], when: str) -> None:
        for flip in flips:
            (before.add if flip.entered else before.discard)(flip.segment)
        if before != set(after):
            raise Violation("flips", f"{when}: flips give {before}, members are {set(after)}")

    def said(self, stood: set[str], should: set[str], now: int, when: str) -> str:
        wrong = sorted(stood ^ should)
        rules = [one for one in self.definitions if one.get("segment") in wrong]
        events = [(event.event, event.time, event.received, event.properties, event.traits) for event in self.known]
        return f"{when}, at {now}: {wrong} should be {[one in should for one in wrong]}\n  {rules}\n  {events}"


def _keeps(rng: random.Random) -> dict[tuple[str, str], int]:
    """How long contracts let some events, and parts of them, be kept: by (event, path)."""
    if rng.random() >= 0.4:
        return {}
    lengths = (HOUR, 6 * HOUR, DAY, 3 * DAY, 30 * DAY)
    found = {(event, ""): rng.choice(lengths) for event in EVENT_NAMES if rng.random() < 0.6}
    for path in ("properties.amount", "properties.path", "properties"):
        if rng.random() < 0.2:
            found[rng.choice(EVENT_NAMES), path] = rng.choice(lengths)
    return found


def try_pair(seed: int) -> str | None:
    try:
        Pair(seed).run()
    except Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001 -- whatever is raised is a finding
        return traceback.format_exc()
    return None


if __name__ == "__main__":
    sys.exit(seeds.main("tests.simulation.pairs", __doc__, try_pair, seeds=300, most_failures=10))
