"""A workspace of a million people for the pages: what the topics would hold, written without waiting for the roles."""

import random
import time
from collections.abc import Iterator
from typing import Any

import yaml

from bench.workspace import SECRET, Headwater
from pipeline.identifiers import Keys
from pipeline.records import (
    AccountAlert,
    Cause,
    DeadLetter,
    Event,
    IdentifierPair,
    IdentityPointer,
    Membership,
    ProfileDocument,
    SegmentChange,
    SegmentMember,
    Total,
    encode,
)
from pipeline.runtime.kafka.doors import produce_all

DAY_MS = 86_400_000
ACCOUNTS = 20_000
GIANT = "giant.example"
"""An account of 50,000 people."""
SEGMENTS = 24
WHALE = 7
"""The person with a hundred identifiers and as many events as are kept of each."""
_GIANTS_PEOPLE = 50_000
_BUSY, _BUSY_EVENTS = 10_000, 20
_ENTRIES = 1_000_000
_NAMES = ("Page Viewed", "Cart Viewed", "Order Completed", "Search")
_PATHS = ("/", "/pricing", "/pricing/teams", "/docs", "/blog/launch")

Rows = Iterator[tuple[bytes | None, bytes]]


def rules() -> str:
    """The definitions: segments of people and of accounts, a destination."""
    parts: list[dict[str, Any]] = []
    for number in range(SEGMENTS):
        seen = {"event": _NAMES[number % 4], "count": {"at_least": 1 + number % 5}, "within": f"{7 + number}d"}
        rule: list[dict[str, Any]] = [{"performed": seen}, {"trait": {"plan": {"in": ["free", "team"]}}}]
        if number % 3 == 0:
            rule.append({"not": {"performed": {"event": "Order Completed", "within": "30d"}}})
        parts.append({"segment": f"segment_{number}", "description": "One of many.", "when": {"all": rule}})
    pays_not = {"trait": {"plan": {"in": ["free", "trial"]}}}
    parts.append({"segment": "pays_not", "entity": "account", "when": pays_not})
    looks = {"performed": {"event": "Page Viewed", "where": {"properties.path": {"starts_with": "/pricing"}}}}
    parts.append({"segment": "warm", "entity": "account", "when": {"members": {"match": looks, "at_least": 2}}})
    parts.append({"destination": "crm", "kind": "file", "segments": ["segment_1"], "path": "crm.jsonl"})
    return yaml.safe_dump_all(parts)


class Town:
    """Whoever lives in it, worked out from their number: so each topic can be written by itself."""

    def __init__(self, people: int, now_ms: int) -> None:
        self.people = people
        self.now_ms = now_ms
        self.keys = Keys(SECRET.encode())

    def person(self, number: int) -> str:
        """The profile_id."""
        return self.keys.profile_id(f"user_id:u{number}")

    def identifiers(self, number: int) -> list[str]:
        """Of everybody a user_id, of every second an e-mail."""
        found = [f"user_id:u{number}"]
        if number % 2 == 0:
            found.append(f"email:person.{number}@mail.example")
        if number == WHALE:
            found += [f"device_id:device-{place}" for place in range(99)]
        return found

    def account(self, number: int) -> str | None:
        """Where somebody belongs."""
        if number < _GIANTS_PEOPLE:
            return GIANT
        return f"firm-{number % ACCOUNTS:05}.example" if number % 5 else None

    def segments(self, number: int) -> list[str]:
        """Segment 0 has six of ten people, the others fewer and fewer; one membership each, about."""
        draw = random.Random(number)
        return [f"segment_{place}" for place in range(SEGMENTS) if draw.random() < 0.6 / (place + 1) ** 2]

    def events(self, number: int) -> Iterator[Event]:
        """What somebody did in the last weeks."""
        draw = random.Random(number)
        for place in range(self.event_count(number)):
            names = self.identifiers(number)
            route = names[:1] if number != WHALE else [names[place % len(names)]]
            both = [*route, *names[1:2]] if place % 3 == 0 and number != WHALE else route
            at = self.now_ms - draw.randrange(60_000, 25 * DAY_MS)
            traits = {"plan": draw.choice(("free", "team", "pro"))} if place == 0 else {}
            properties = {"path": draw.choice(_PATHS), "total": draw.randrange(300), "cart_id": f"c{number}"}
            yield Event(
                f"m{number}-{place}", "track", draw.choices(_NAMES, (8, 2, 1, 2))[0], both, at, at,
                f"raw/0/{number}", properties=properties, traits=traits,
            )  # fmt: skip

    def event_count(self, number: int) -> int:
        """One, many, or as many as are kept."""
        return 2_000 if number == WHALE else _BUSY_EVENTS if number < _BUSY else 1

    def document(self, number: int) -> ProfileDocument:
        """What `profiles` says of them."""
        draw = random.Random(number)
        pairs = [IdentifierPair(*text.split(":", 1)) for text in self.identifiers(number)]
        traits = {"plan": draw.choice(("free", "team", "pro")), "city": draw.choice(("Oslo", "Lima", "Kyiv"))}
        traits |= {f"trait_{place}": draw.choice(("red", "green")) for place in range(6)}
        at = self.now_ms - DAY_MS
        account = self.account(number)
        return ProfileDocument(
            self.person(number), "person", pairs[:100], len(pairs), {**traits, "name": f"Person {number}"},
            consents={"marketing": number % 3 > 0}, totals={"Page Viewed": Total(self.event_count(number), at, at)},
            segments={name: Membership(at, 1, 1) for name in self.segments(number)},
            accounts=[account] if account else [], first_seen=at, last_seen=at,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------- the topics

    def profiles(self) -> Rows:
        for number in range(self.people):
            document = self.document(number)
            yield document.profile_id.encode(), encode(document)
        draw = random.Random(1)
        for name in [GIANT, *(f"firm-{number:05}.example" for number in range(ACCOUNTS))]:
            profile_id = self.keys.profile_id(f"account:{name}")
            plan, owner = draw.choice(("free", "free", "trial", "team")), draw.choice(("kim", "lou"))
            segments = {"pays_not": Membership(self.now_ms, 1, 1)} if plan != "team" else {}
            account = ProfileDocument(
                profile_id, "account", [IdentifierPair("account", name)], 1, {"plan": plan, "owner": owner},
                computed={"people": _GIANTS_PEOPLE if name == GIANT else 40}, segments=segments,
            )  # fmt: skip
            yield profile_id.encode(), encode(account)

    def identities(self) -> Rows:
        for number in range(self.people):
            pointer = encode(IdentityPointer(self.person(number), 1))
            for text in self.identifiers(number):
                yield text.encode(), pointer
        for name in [GIANT, *(f"firm-{number:05}.example" for number in range(ACCOUNTS))]:
            text = f"account:{name}"
            yield text.encode(), encode(IdentityPointer(self.keys.profile_id(text), 1))

    def members(self) -> Rows:
        at = self.now_ms - DAY_MS
        for number in range(self.people):
            for name in self.segments(number):
                row = SegmentMember(name, self.person(number), "person", 1, at, 1)
                yield f"{name}/{row.profile_id}".encode(), encode(row)
        for profile_id, stored in self.profiles_of_accounts():
            if b"pays_not" in stored:
                row = SegmentMember("pays_not", profile_id.decode(), "account", 1, at, 1)
                yield f"pays_not/{row.profile_id}".encode(), encode(row)

    def profiles_of_accounts(self) -> Iterator[tuple[bytes, bytes]]:
        everybody, self.people = self.people, 0
        try:
            for key, value in self.profiles():
                assert key is not None
                yield key, value
        finally:
            self.people = everybody

    def changes(self) -> Rows:
        """Entries over the last weeks."""
        told = 0
        for number in range(self.people):
            at = self.now_ms - number % 500 * 3_600_000
            for name in self.segments(number):
                change = SegmentChange(
                    self.person(number), "person", name, 1, "entered", at, at, 1, "event",
                    Cause(f"m{number}-0", number % 4, number // 4), False, [IdentifierPair("user_id", f"u{number}")],
                )  # fmt: skip
                yield change.profile_id.encode(), encode(change)
                told += 1
                if told >= _ENTRIES:
                    return

    def history(self) -> Rows:
        for number in range(self.people):
            for event in self.events(number):
                yield self.keys.actor(event.identifiers[0]), encode(event)

    def letters(self) -> Rows:
        for number in range(300):
            reason = ("not_json", "unknown_type", "contract_violation")[number % 3]
            at = self.now_ms - number * 60_000
            letter = DeadLetter(reason, f"Number {number} of many.", "raw", 0, number, at, b'{"type": "dance"}')
            yield None, encode(letter)

    def alerts(self) -> Rows:
        for number in range(200):
            name = GIANT if number % 4 == 0 else f"firm-{number:05}.example"
            profile_id, at = self.keys.profile_id(f"account:{name}"), self.now_ms - number * 3_600_000
            alert = AccountAlert(
                f"alert-{number}", "warm", name, profile_id, "kim", "warm", 1, at, at, 1, "event", Cause(),
                "{account} is warm", {"plan": "free"}, {"people": 40},
            )  # fmt: skip
            yield profile_id.encode(), encode(alert)


def settle(headwater: Headwater, people: int) -> None:
    """Fill the workspace's topics."""
    town = Town(people, time.time_ns() // 1_000_000)
    written = {
        "profiles": town.profiles,
        "identities": town.identities,
        "segment-members": town.members,
        "segment-changes": town.changes,
        "events": town.history,
        "dead-letters": town.letters,
        "account-alerts": town.alerts,
    }
    for topic, rows in written.items():
        began = time.monotonic()
        count = produce_all(headwater.settings, topic, rows())
        print(f"{topic}: {count:,} records in {time.monotonic() - began:.0f} s", flush=True)
