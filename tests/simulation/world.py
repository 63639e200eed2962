"""Small random worlds: a seed gives rules, messages, operators' interventions and moments of rest.

A world says what happens, never in which order the workers get to see it; that is the driver's part. Everything is
small (a dozen identifiers, a few dozen messages), because faults live where few things meet often.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.records import EdgesRecord, Event, Release, Relink, Unlink
from tests.oracle.accounts import AccountRules
from tests.oracle.identity import NamespaceRule, Rules
from tests.simulation.vocabulary import CITIES, EVENT_NAMES, PATHS, PLANS

# An ordinary evening, and the evenings before the clocks change in Europe.
STARTS = (1_700_000_000_000, 1_711_830_000_000, 1_729_980_000_000)
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True)
class Send:
    """Ingest writes an event."""

    event: Event


@dataclass(frozen=True)
class Operate:
    """Somebody writes a record into identity-edges."""

    record: EdgesRecord


@dataclass(frozen=True)
class Rest:
    """Everything is read to its end, and time comes to `now`: what must be true at rest is checked."""

    now: int


Arrival = Send | Operate | Rest


@dataclass
class World:
    """Everything that happens, in the order in which the outside makes it happen."""

    seed: int
    partitions: int
    rules: Rules
    arrivals: list[Arrival] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    calm: bool = False
    accounts: AccountRules | None = None

    @property
    def end(self) -> int:
        return max(arrival.now for arrival in self.arrivals if isinstance(arrival, Rest))


def make_rules(rng: random.Random) -> Rules:
    """The built-in namespaces; sometimes with limits, another conflict rule, a namespace more."""
    latest = rng.random() < 0.25
    namespaces = [
        NamespaceRule("user_id", 1, 1, "latest" if latest else "first"),
        NamespaceRule("email", 2, rng.choice((None, None, 1, 2))),
        NamespaceRule("phone", 3, None),
        NamespaceRule("device_id", 4, rng.choice((None, None, None, 2, 3))),
        NamespaceRule("anonymous_id", 5, None),
    ]
    return Rules({rule.name: rule for rule in namespaces}, rng.choice((1, 2, 3, 10)))


def _strict(rules: Rules, rng: random.Random) -> Rules:
    """Now and then, rules that take some namespaces harder than others."""
    if rng.random() >= 0.15:
        return rules
    changed = {
        "device_id": {"quarantine_after": rng.choice((1, 2))},
        "anonymous_id": {"quarantine_after": rng.choice((None, 1))},
        "email": {"person": True, "quarantine_after": rng.choice((None, 2))},
    }
    chosen = rng.sample(sorted(changed), rng.randint(1, 3))
    return Rules(
        {name: replace(rule, **changed[name]) if name in chosen else rule for name, rule in rules.namespaces.items()},
        rules.quarantine_after,
    )


def make_world(
    seed: int,
    segments: Callable[[random.Random, int], list[dict[str, Any]]] | None = None,
    accounts: Callable[[random.Random, "Story"], None] | None = None,
    story: "type[Story] | None" = None,
) -> World:
    """The world of a seed. `accounts` puts some into it; `story` tells another kind of story."""
    rng = random.Random(f"world {seed}")
    rules = _strict(make_rules(rng), random.Random(f"strict {seed}"))
    world = World(seed, rng.choice((1, 2, 3, 4)), rules)
    world.calm = rng.random() < 0.15
    start = rng.choice((STARTS[0], *STARTS))
    if segments is not None and rng.random() < 0.85:
        world.segments = segments(rng, start)
    told = (story or Story)(rng, world, start)
    # Drawn apart: a world without accounts is what it was before there were any.
    of_accounts = random.Random(f"accounts {seed}")
    if accounts is not None and not world.calm and of_accounts.random() < 0.4:
        accounts(of_accounts, told)
    told.tell()
    return world


class Story:
    """Draws the arrivals of one world."""

    def __init__(self, rng: random.Random, world: World, start: int) -> None:
        self.rng = rng
        self.world = world
        self.start = start
        self.now = start
        self.pool = {
            "user_id": [f"user_id:u{n}" for n in range(rng.randint(1, 4))],
            "email": [f"email:e{n}@x.org" for n in range(rng.randint(0, 3))],
            "device_id": [f"device_id:d{n}" for n in range(rng.randint(0, 3))],
            "anonymous_id": [f"anonymous_id:a{n}" for n in range(rng.randint(1, 4))],
        }
        self.all = [one for many in self.pool.values() for one in many]
        self.sent: list[Event] = []
        self.undone: list[Unlink] = []
        self.unlinked: set[tuple[str, str]] = set()
        self.pace = rng.choice((SECOND, MINUTE, HOUR, 6 * HOUR))
        # In a storm people are linked and unlinked faster than their fragments can follow.
        self.storm = not world.calm and rng.random() < 0.2
        self.names = rng.sample(EVENT_NAMES, rng.randint(1, 3))
        self.change: Callable[[Event], None] = lambda event: None

    def tell(self) -> None:
        rng = self.rng
        length = rng.choice((4, 8, 15, 25, 40))
        for _ in range(length):
            self.pass_time()
            draw = rng.random()
            if draw < (0.5 if self.storm else 0.82) or not self.sent:
                event = self.fresh()
                self.change(event)
                self.send(event)
            elif draw < (0.55 if self.storm else 0.90) and not self.world.calm:
                self.duplicate()
            elif draw < 0.97 and not self.world.calm:
                self.operate()
            else:
                self.rest()
        self.rest()
        if rng.random() < 0.5:
            self.now += rng.choice((HOUR, DAY, 8 * DAY, 40 * DAY))
            self.rest()

    def pass_time(self) -> None:
        draw = self.rng.random()
        if draw < 0.15:
            return
        if draw < 0.3:
            self.now += 1
        elif draw < 0.9:
            self.now += self.rng.randint(1, self.pace)
        else:
            self.now += self.rng.choice((MINUTE, HOUR, DAY, 3 * DAY, 8 * DAY))

    def rest(self) -> None:
        self.now += self.rng.choice((0, 1, SECOND, self.pace))
        self.world.arrivals.append(Rest(self.now))

    def send(self, event: Event) -> None:
        self.sent.append(event)
        self.world.arrivals.append(Send(event))

    def fresh(self) -> Event:
        rng = self.rng
        received = self.now
        time = received
        if self.world.calm:
            identifiers = [rng.choice(self.all)]
        else:
            identifiers = self.identifiers()
            if rng.random() < 0.1:
                received = max(self.start, received - rng.randint(0, 3 * SECOND))
            time = received
            draw = rng.random()
            if draw < 0.25:
                time = received - rng.choice((1, SECOND, MINUTE, HOUR, DAY, rng.randint(0, 8 * DAY)))
            elif draw < 0.32 and self.sent:
                time = min(received, rng.choice(self.sent).time)
        identify = rng.random() < 0.25
        name = "Identify" if identify else rng.choice(self.names)
        return Event(
            message_id=f"m{len(self.sent)}",
            type="identify" if identify else "page" if name == "Page Viewed" else "track",
            event=name,
            identifiers=identifiers,
            time=time,
            received=received,
            source=f"raw/0/{len(self.sent)}",
            properties={} if identify else self.properties(),
            traits=self.traits() if identify else {},
            context={"consent": {"marketing": rng.random() < 0.5}} if rng.random() < 0.1 else {},
        )

    def identifiers(self) -> list[str]:
        rng = self.rng
        count = rng.choices((1, 2, 3), (5, 5, 1))[0]
        chosen: set[str] = set()
        while len(chosen) < min(count, len(self.all)):
            chosen.add(rng.choice(rng.choice([many for many in self.pool.values() if many])))
        return sorted(chosen, key=self.world.rules.rank)

    def properties(self) -> dict[str, Any]:
        rng = self.rng
        properties: dict[str, Any] = {}
        if rng.random() < 0.7:
            properties["path"] = rng.choice(PATHS)
        if rng.random() < 0.7:
            properties["amount"] = rng.choice((0, 1, 5, 10, 25, 2.5, "5"))
        if rng.random() < 0.5:
            properties["cart_id"] = rng.choice(("c1", "c2"))
        if rng.random() < 0.3:
            properties["city"] = rng.choice(CITIES)
        return properties

    def traits(self) -> dict[str, Any]:
        rng = self.rng
        traits: dict[str, Any] = {}
        if rng.random() < 0.8:
            traits["plan"] = rng.choice(PLANS)
        if rng.random() < 0.5:
            traits["city"] = rng.choice(CITIES)
        if rng.random() < 0.3:
            traits["age"] = rng.choice((1, 5, 10, "5"))
        if rng.random() < 0.2:
            traits["since"] = self.now + rng.choice((-1, 1)) * rng.choice((0, SECOND, HOUR, DAY, 8 * DAY))
        return traits

    def duplicate(self) -> None:
        event = self.rng.choice(self.sent)
        again = Event(**{name: getattr(event, name) for name in event.__struct_fields__})
        # Copies are near or far, never in between: whether a copy of a copy counts is not this world's question.
        gap = self.now - event.received
        if gap > 8 * HOUR:
            if gap < 60 * HOUR or any(
                other.message_id == event.message_id for other in self.sent if other is not event
            ):
                return
            again.time += gap
        again.received = self.now
        self.send(again)

    def operate(self) -> None:
        rng = self.rng
        if self.undone and rng.random() < 0.4:
            unlink = self.undone.pop(rng.randrange(len(self.undone)))
            self.unlinked.discard((unlink.a, unlink.b))
            self.world.arrivals.append(Operate(Relink(unlink.a, self.now, unlink.b)))
            return
        linked = [event for event in self.sent if len(event.identifiers) > 1]
        if not linked:
            return
        if rng.random() < (0.02 if self.storm else 0.15):
            self.world.arrivals.append(Rest(self.now))
            self.world.arrivals.append(Operate(Release(rng.choice(self.all), self.now)))
            self.world.arrivals.append(Rest(self.now))
            return
        a, b = rng.sample(rng.choice(linked).identifiers, 2)
        if rng.random() < 0.3:
            b = ""
        else:
            a, b = min(a, b), max(a, b)
        if (a, b) in self.unlinked:
            return
        received = self.now if rng.random() < 0.8 else max(self.start, self.now - rng.randint(0, DAY))
        unlink = Unlink(a, received, b, forever=rng.random() < 0.2)
        self.unlinked.add((a, b))
        self.undone.append(unlink)
        self.world.arrivals.append(Operate(unlink))
