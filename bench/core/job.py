"""The core job: what goes in, the rules, and what must come out.

Every event belongs to one person, known by one identifier. A person has traits, totals of each event (how often, first,
last), and is in or out of twenty segments: counts and sums over windows of 7 to 365 days. The events span a few hours,
so no window expires within a run: time alone changes nothing, and the results can be compared one for one.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import yaml

from pipeline.records import Event, encode

SPAN_MS = 6 * 3_600_000
# How often each event comes, of 100.
MIX = {
    "Page Viewed": 40,
    "Product Viewed": 25,
    "Product Added": 14,
    "Order Completed": 10,
    "Support Asked": 6,
    "Identify": 5,
}
CATEGORIES = ("garden", "kitchen", "books", "toys")


@dataclass(frozen=True, slots=True)
class Rule:
    """True if the count (`of` empty) or sum of `of` over the last `days` is at least `least`; `negated` turns it round.
    With `category`, only events of that category count."""

    name: str
    event: str
    days: int
    least: int
    of: str = ""
    category: str = ""
    negated: bool = False


RULES = (
    Rule("visits_3_in_7", "Page Viewed", 7, 3),
    Rule("visits_10_in_30", "Page Viewed", 30, 10),
    Rule("visits_25_in_90", "Page Viewed", 90, 25),
    Rule("reads_garden", "Page Viewed", 30, 3, category="garden"),
    Rule("no_visit", "Page Viewed", 14, 1, negated=True),
    Rule("browses_2_in_7", "Product Viewed", 7, 2),
    Rule("browses_8_in_30", "Product Viewed", 30, 8),
    Rule("browses_kitchen", "Product Viewed", 60, 2, category="kitchen"),
    Rule("browses_worth_2000", "Product Viewed", 30, 2_000, of="price"),
    Rule("adds_1_in_7", "Product Added", 7, 1),
    Rule("adds_5_in_30", "Product Added", 30, 5),
    Rule("adds_toys", "Product Added", 180, 2, category="toys"),
    Rule("adds_worth_1000", "Product Added", 365, 1_000, of="price"),
    Rule("buys_1_in_30", "Order Completed", 30, 1),
    Rule("buys_3_in_90", "Order Completed", 90, 3),
    Rule("buys_6_in_365", "Order Completed", 365, 6),
    Rule("spends_500_in_90", "Order Completed", 90, 500, of="price"),
    Rule("has_not_bought", "Order Completed", 60, 1, negated=True),
    Rule("asks_2_in_14", "Support Asked", 14, 2),
    Rule("never_asks", "Support Asked", 365, 1, negated=True),
)


def rules_as_yaml(rules: tuple[Rule, ...] = RULES) -> str:
    """The rules in our language."""
    documents = []
    for rule in rules:
        performed: dict[str, Any] = {"event": rule.event, "within": f"{rule.days}d"}
        if rule.category:
            performed["where"] = {"properties.category": rule.category}
        if rule.of:
            performed["sum"] = {"of": f"properties.{rule.of}", "at_least": rule.least}
        else:
            performed["count"] = {"at_least": rule.least}
        when: dict[str, Any] = {"performed": performed}
        documents.append({"segment": rule.name, "when": {"not": when} if rule.negated else when})
    return yaml.safe_dump_all(documents, sort_keys=False)


def rules_as_data() -> list[dict[str, Any]]:
    """The rules as the peers read them."""
    return [asdict(rule) for rule in RULES]


def events(count: int, people: int, start_ms: int, seed: int = 1) -> Iterator[Event]:
    """The events, in the order of their times, from `start_ms` on; about 366 bytes each when encoded."""
    chance = random.Random(seed)
    names, weights = list(MIX), list(MIX.values())
    chosen = chance.choices(names, weights, k=count)
    for number, name in enumerate(chosen):
        person = chance.randrange(people)
        at = start_ms + number * SPAN_MS // count
        traits: dict[str, Any] = {}
        if name == "Identify":
            traits = {"plan": chance.choice(("free", "pro", "team")), "city": chance.choice(("Gent", "Graz", "Turku"))}
        category, price = chance.choice(CATEGORIES), chance.randrange(5, 200)
        sku, path = f"sku-{price:05d}", f"/{category}/{price}"
        yield Event(
            message_id=f"{number:08x}-5f3e-4c1a-9d27-{person:012x}",
            type="identify" if name == "Identify" else "track",
            event=name,
            identifiers=[f"user_id:u-{person}"],
            time=at,
            received=at + 40,
            source=f"raw/0/{number}",
            properties={"sku": sku, "category": category, "price": price, "path": path},
            traits=traits,
            context={"page": {"referrer": "https://search.example/?q=gifts"}},
        )


def encoded(count: int, people: int, start_ms: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """(identifier, record value) of each event."""
    for event in events(count, people, start_ms, seed):
        yield event.identifiers[0], encode(event)


class Outcome:
    """What must come out, or did: for each identifier its totals {event: [count, first, last]} and memberships."""

    def __init__(self) -> None:
        self.totals: dict[str, dict[str, list[int]]] = {}
        self.members: dict[str, set[str]] = {}
        self.changes = 0

    def differences(self, other: "Outcome") -> list[str]:
        """What is not the same, in words; empty if all is."""
        found = []
        for person in sorted(self.totals.keys() | other.totals.keys()):
            one, two = self.totals.get(person), other.totals.get(person)
            if one != two:
                found.append(f"totals of {person}: {one} and {two}")
            entered, others = self.members.get(person, set()), other.members.get(person, set())
            if entered != others:
                found.append(f"memberships of {person} differ in {sorted(entered ^ others)}")
        return found


def expected(count: int, people: int, start_ms: int, first: int, seed: int = 1) -> Outcome:
    """What must come out of the `first` so many of the events, counted plainly."""
    outcome = Outcome()
    measures: dict[tuple[str, str], int] = {}
    by_event: dict[str, list[Rule]] = {}
    for rule in RULES:
        by_event.setdefault(rule.event, []).append(rule)
    for event in islice(events(count, people, start_ms, seed), first):
        person = event.identifiers[0]
        total = outcome.totals.setdefault(person, {}).setdefault(event.event, [0, event.time, event.time])
        total[0] += 1
        total[2] = event.time
        for rule in by_event.get(event.event, ()):
            if not rule.category or event.properties["category"] == rule.category:
                measures[person, rule.name] = measures.get((person, rule.name), 0) + (
                    event.properties[rule.of] if rule.of else 1
                )
    for person in outcome.totals:
        outcome.members[person] = {
            rule.name for rule in RULES if (measures.get((person, rule.name), 0) >= rule.least) is not rule.negated
        }
    return outcome
