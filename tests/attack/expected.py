"""What must come of the raw records, worked out from the raw topic alone.

Simple on purpose, and of the traffic in `traffic.py` only: every identifier is valid, nothing contradicts anything, so
that people are the connected components of the identifiers that stood in one event.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from pipeline.runtime.ports import Record

WEIGHED = ("Seen", "Bought", "Left")


@dataclass
class Person:
    """What one profile must show: its identifiers, how often each event was performed, and the sum of their weights.

    A weight is a random number of 32 bits and no two events share one: a loss and a repetition cannot cancel out.
    """

    identifiers: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    weights: Counter[str] = field(default_factory=Counter)
    heaviest_seen: int = -1


@dataclass
class Expected:
    """People by their smallest identifier, and what became of the rest."""

    people: dict[str, Person]
    events: int
    duplicates: int
    refused: set[tuple[int, int]]
    accepted: set[tuple[int, int]]


def expected_of(raw: Iterable[Record]) -> Expected:
    """Fold raw records, in the order of their partitions."""
    parents: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    kept: list[tuple[str, str, int]] = []
    refused, accepted = set(), set()
    duplicates = 0

    def root(identifier: str) -> str:
        while parents.setdefault(identifier, identifier) != identifier:
            parents[identifier] = identifier = parents[parents[identifier]]
        return identifier

    for record in raw:
        position = (record.partition, record.offset)
        try:
            event = msgspec.json.decode(record.value or b"")
        except msgspec.DecodeError:
            refused.add(position)
            continue
        accepted.add(position)
        identifiers = [f"user_id:{event['userId']}"] if "userId" in event else []
        identifiers += [f"anonymous_id:{event['anonymousId']}"] if "anonymousId" in event else []
        route = identifiers[0]
        if (route, event["messageId"]) in seen:
            duplicates += 1
            continue
        seen.add((route, event["messageId"]))
        for other in identifiers[1:]:
            parents[root(other)] = root(route)
        kept.append((root(route), event["event"], event["properties"]["weight"]))
    people: dict[str, Person] = {}
    for identifier, name, weight in kept:
        person = people.setdefault(root(identifier), Person())
        person.counts[name] += 1
        person.weights[name] += weight
        if name == "Seen":
            person.heaviest_seen = max(person.heaviest_seen, weight)
    for identifier in parents:
        people[root(identifier)].identifiers.add(identifier)
    by_name = {min(person.identifiers): person for person in people.values()}
    return Expected(by_name, len(seen), duplicates, refused, accepted)
