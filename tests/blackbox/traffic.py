"""A seed's people and their events: late, early, doubled, nasty, and some that are no events at all."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.blackbox.people import DAY, Sent, Unlink
from tests.blackbox.values import value_as_instant

SECOND, HOUR = 1_000, 3_600_000
EVENTS = [
    "Order Completed",
    "Order Completed",
    "Cart Viewed",
    "Cart Viewed",
    "all",
    "not",
    "count",
    "within",
    "*",
    "Page Viewed",
]
TOTALS: list[Any] = [
    0.1, 0.2, 12.5, "12.5", -3, 1e-9, 4e-10, 5e-324, 2**53 + 1, 2**63 - 1, -(2**63), 1e300, 1.7e308, -1.7e308,
    True, None, 99.99,
]  # fmt: skip
COLOURS: list[Any] = ["red", "blue", "green", 1, 1.0, True, "1", "rot\u0000", "", "赤", 0.1, 1e300, None]
SIZES: list[Any] = [3, 3.0, "3", " 3 ", "3e0", "03", True, "³", "9" * 400, "9" * 5_000, "1e400", "-"]
CARTS: list[Any] = ["c1", "c2", 1, 1.0, True, None, ["c1"]]
PLANS: list[Any] = ["pro", "free", "3", 3, 3.0, True, None, ["pro"], {"name": "pro"}]
NAMES: list[Any] = ["Ada", "ada", "Ä\u0301da", "A\u0007da", "", "Null", "A\nda", 7]
CITIES: list[Any] = ["東京", "Berlin", "東", None, 1]
ACCOUNTS = ["acme", "über:co", "4711", "A/B #1"]
VALUES = [
    "Ünï-😀",
    "with:colons:in",
    "slash/../%2f",
    "quo\"te'",
    "中文",
    "a" * 190,
    "+plus",
    "sp ace",
    "-",
    "ⅷ",
    "user_id:x",
]
# Instants at which a window begins or ends: daylight saving in Berlin and Cairo, quarters, midnights in Havana.
MARKS = [
    "2026-03-29T01:00:00Z", "2026-03-29T00:59:59.999Z", "2026-10-25T00:30:00Z", "2026-10-25T00:29:59.999Z",
    "2026-06-30T22:00:00Z", "2026-09-30T21:59:59.999Z", "2026-09-30T22:00:00Z", "2026-03-31T22:00:00Z",
    "2026-04-23T22:00:00Z", "2026-07-31T21:00:00Z",
]  # fmt: skip


def iso(time: int) -> str:
    """An instant as SDKs write it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)).strftime(
        "%Y-%m-%dT%H:%M:%S."
    ) + f"{time % 1_000:03}Z"


@dataclass(slots=True)
class Person:
    """Somebody, or a device that several use. `loner`: has one identifier for ever."""

    name: str
    identifiers: list[str]
    loner: bool = False
    silent: bool = False  # erased, or kept for later
    past: list[Sent] = field(default_factory=list)


class Traffic:
    """Makes events. Each is made when it is sent, for it says when it was received."""

    def __init__(self, seed: int, people: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.number = 0
        self.used_times: set[int] = set()
        self.people = [self._loner(index) for index in range(people // 2)]
        self.people += [self._family(index) for index in range(people // 2)]
        self.shared = self._shared()
        self.strangers: list[Person] = []

    # ---------------------------------------------------------------------------------------------------------- people

    def _loner(self, index: int) -> Person:
        space = self.random.choice(["user_id", "user_id", "email", "device_id", "anonymous_id", "card"])
        nasty = VALUES[index] if index < len(VALUES) else "loner"
        value = f"l{index}.{nasty}" if space != "email" else f"l{index}@example.org"
        return Person(f"l{index}", [f"{space}:{value}"], loner=True)

    def _family(self, index: int) -> Person:
        names = [f"user_id:f{index}"] if self.random.random() < 0.8 else []
        names += [f"email:f{index}.{n}@example.org" for n in range(self.random.choice([0, 1, 1, 2, 4]))]
        names += [f"phone:+4930{23_125_000 + 10 * index + n}" for n in range(self.random.choice([0, 0, 1, 2]))]
        names += [f"card:c-{index:05}"] if self.random.random() < 0.3 else []
        names += [f"device_id:d{index}.{n}" for n in range(self.random.choice([0, 1, 2]))]
        names += [f"anonymous_id:b{index}.{n}" for n in range(self.random.choice([1, 2, 3]))]
        return Person(f"f{index}", names)

    def _shared(self) -> list[tuple[str, list[str]]]:
        families = [each for each in self.people if not each.loner and each.identifiers[0].startswith("user_id:")]
        users = [each.identifiers[0] for each in families]
        self.random.shuffle(users)
        shared = [
            ("device_id:kiosk", users[:6]),
            ("email:test@shop.example", users[4:9]),
            ("anonymous_id:sofa", users[8:10]),
            ("email:both@example.org", users[10:12]),
            ("phone:+493023125999", users[11:14]),
        ]
        return [each for each in shared if each[1]]

    # ---------------------------------------------------------------------------------------------------------- events

    def some(self, now: int) -> Sent:
        """Any event of anybody."""
        if self.random.random() < 0.04:
            shared, users = self.random.choice(self.shared)
            return self.event(now, shared, [self.random.choice(users), shared], plain=True, own_id=True)
        person = self.random.choice([each for each in self.people if not each.silent])
        if person.past and self.random.random() < 0.06:
            return self._again(now, self.random.choice(person.past))
        made = self.of_person(now, person)
        person.past.append(made)
        return made

    def of_person(self, now: int, person: Person) -> Sent:
        """An event of this person, with some of their identifiers."""
        if person.loner:
            return self.event(now, person.name, person.identifiers, plain=False)
        chosen: dict[str, str] = {}
        for each in self.random.sample(
            person.identifiers, min(len(person.identifiers), self.random.choice([1, 1, 2, 2, 3]))
        ):
            chosen.setdefault(each.partition(":")[0], each)
        return self.event(now, person.name, list(chosen.values()), plain=True)

    def event(
        self, now: int, key: str, identifiers: Sequence[str], plain: bool, own_id: bool = False, **more: Any
    ) -> Sent:
        """An event under these identifiers; `plain`: at an instant of its own, not long ago."""
        sort = self.random.random()
        body: dict[str, Any] = {"type": "track", "event": self.random.choice(EVENTS), "properties": self._properties()}
        states = sort < 0.25
        if sort < 0.12:
            body = {"type": "identify", "traits": self._traits(now)}
        elif sort < 0.16:
            body = {
                "type": "group",
                "groupId": self.random.choice(ACCOUNTS),
                "traits": {"plan": self.random.choice(["free", "enterprise"])},
            }
        elif sort < 0.18:
            body = {"type": "track", "event": "Account Removed User", "groupId": self.random.choice(ACCOUNTS)}
        elif sort < 0.25:
            body["context"] = {"traits": self._traits(now)}
        elif sort < 0.30:
            body = {"type": "page", "properties": self._properties()}
        if self.random.random() < 0.08:
            allowed = self.random.random() < 0.6
            body.setdefault("context", {})["consent"] = {"marketing": allowed}
        body |= more
        received = now
        time = self._time(now, body, plain or states)
        if self.random.random() < 0.9:
            own = f"m{self.seed}-{self.number}"
            body["messageId"] = own if own_id else self.random.choice([own, own, f"shared-{self.number % 7}"])
            if not plain and self.random.random() < 0.04:
                received = now - 30 * HOUR  # received long ago: the same again is another one
                time = min(time, received)
                body["timestamp"] = iso(time)
                body.pop("sentAt", None)
        body["receivedAt"] = iso(received)
        self.name(body, identifiers)
        return self.sent(key, body, identifiers, time, received)

    def sent(self, key: str, body: Mapping[str, Any], identifiers: Sequence[str], time: int, received: int) -> Sent:
        self.number += 1
        context = dict(body.get("context", {}))
        # DESIGN: properties of the event named Group are the traits of the call.
        group = body["type"] == "group"
        names = {"identify": "Identify", "group": "Group", "page": "Page Viewed"}
        ranks = ["user_id", "card", "email", "phone", "device_id", "anonymous_id"]
        return Sent(
            self.number,
            json.dumps(body, ensure_ascii=self.random.random() < 0.5).encode(),
            key,
            names.get(body["type"], body.get("event", "")),
            max(time, 1),  # docs/segments.md: the first instant there is
            received,
            tuple(sorted(identifiers, key=lambda each: ranks.index(each.partition(":")[0]))),
            body.get("messageId"),
            body.get("traits", {}) if group else body.get("properties", {}),
            {} if group else {**context.get("traits", {}), **body.get("traits", {})},
            context,
            body.get("groupId"),
            context.get("consent", {}),
        )

    def name(self, body: dict[str, Any], identifiers: Sequence[str]) -> None:
        others = {}
        for each in identifiers:
            space, _, value = each.partition(":")
            if space == "user_id":
                body["userId"] = value
            elif space == "anonymous_id":
                body["anonymousId"] = value
            elif space == "email":
                others[space] = self.random.choice([value, f" {value} ", value.upper()])
            elif space == "phone":
                others[space] = self.random.choice([value, f"{value[:3]} {value[3:5]} {value[5:]}", f"0{value[3:]}"])
            else:
                others[space] = value
        if others:
            body["identifiers"] = others

    def _again(self, now: int, sent: Sent) -> Sent:
        """The same message once more, received now."""
        body = json.loads(sent.value)
        body["receivedAt"] = iso(now)
        said = value_as_instant(body.get("timestamp"))
        time = now if said is None else min(said, now)
        if "sentAt" in body:
            time = now - (sent.received - sent.time)
        return self.sent(sent.key, body, sent.identifiers, time, now)

    def _time(self, now: int, body: dict[str, Any], plain: bool) -> int:
        """Choose when it happened, and write it as a client would; ms."""
        sort = self.random.choice(
            ["recent", "late", "edge"]
            if plain
            else ["recent", "late", "edge", "mark", "old", "future", "same", "none", "skewed"]
        )
        ago = {"recent": lambda: self.random.randrange(3_000), "late": lambda: self.random.randrange(60_000)}
        time = now
        if sort in ago:
            time = now - ago[sort]()
        elif sort == "edge":
            time = (
                now - self.random.choice([10, 12, 15, 18, 20, 25, 30]) * SECOND + self.random.randrange(4_000, 15_000)
            )
        elif sort == "mark":
            time = int(datetime.fromisoformat(self.random.choice(MARKS)).timestamp() * 1_000)
        elif sort == "old":
            time = self.random.choice([0, 1, DAY, 999, now - 400 * DAY])
        elif sort == "same":
            time = now // 10_000 * 10_000
        elif sort == "future":
            body["timestamp"] = iso(self.random.choice([4_102_444_800_000, now + HOUR, now + 700]))
            return now
        elif sort == "none":
            return now
        elif sort == "skewed":
            ago_ms = self.random.randrange(20_000)
            wrong = now + self.random.choice([-HOUR, HOUR, 50 * 365 * DAY, -20 * 365 * DAY])
            body["timestamp"], body["sentAt"] = iso(wrong - ago_ms), iso(wrong)
            return now - ago_ms
        time = min(time, now)
        while plain and time in self.used_times:
            time -= 1
        self.used_times.add(time)
        body["timestamp"] = iso(time)
        return time

    def _properties(self) -> dict[str, Any]:
        pools: dict[str, list[Any]] = {"total": TOTALS, "colour": COLOURS, "size": SIZES, "cart": CARTS, "city": CITIES}
        found: dict[str, Any] = {
            name: self.random.choice(pool) for name, pool in pools.items() if self.random.random() < 0.5
        }
        if self.random.random() < 0.2:
            found |= {
                "a": self.random.choice([{"b": {"c": 0}}, {"b": None}, {"b.c": 1}, [], "b"]),
                "a.b.c": 1,
                "": "x",
                "\u0000": "\u0000",
            }
        return found

    def _traits(self, now: int) -> dict[str, Any]:
        pools: dict[str, list[Any]] = {"plan": PLANS, "name": NAMES, "city": CITIES, "note": ["x\u0000y", "xy", None]}
        found: dict[str, Any] = {
            name: self.random.choice(pool) for name, pool in pools.items() if self.random.random() < 0.5
        }
        if self.random.random() < 0.3:
            found["trial_end"] = self.random.choice(
                [now + 40 * SECOND, iso(now + 30 * SECOND), "2100-01-01", "soon", 1e300, -1e300, 2**63 - 1]
            )
        if self.random.random() < 0.2:
            found["address"] = {"city": self.random.choice(CITIES)}
        return found

    # --------------------------------------------------------------------------------------------------------- strange

    def giants(self, now: int, identifiers: int) -> Iterator[Sent]:
        """Somebody with traits of 3 MB, and somebody with very many browsers."""
        for index in range(75):
            body = {"type": "identify", "traits": {f"trait-{index}": f"{index}" + "x" * 40_000}}
            yield self._bare(now - index, "giant", ["user_id:giant", f"anonymous_id:giant.{index}"], body)
        for index in range(identifiers):
            body = {"type": "track", "event": "Order Completed", "properties": {"total": 1}}
            yield self._bare(now - index, "crowd", ["user_id:crowd", f"anonymous_id:crowd.{index}"], body)

    def _bare(self, now: int, key: str, identifiers: list[str], body: dict[str, Any]) -> Sent:
        body |= {"messageId": f"{key}-{self.number}", "timestamp": iso(now), "receivedAt": iso(now)}
        self.name(body, identifiers)
        return self.sent(key, body, identifiers, now, now)

    def strange(self, now: int, door: str = "") -> list[Sent]:
        """Records that are hardly events, each under a person of its own: in their profile, or a dead letter."""
        made: list[Sent] = []
        for label, expected, build in STRANGE:
            self.number += 1
            if door and label in NULL_TO_COLLECTOR:
                expected = "used"
            user = f"strange-{door}{len(made)}"
            body = build(
                {"type": "track", "event": "Strange", "userId": user, "receivedAt": iso(now), "timestamp": iso(now)}
            )
            value = body if isinstance(body, bytes) else json.dumps(body).encode()
            made.append(
                Sent(self.number, value, user, "Strange", now, now, (f"user_id:{user}",), expected=expected, what=label)
            )
        return made


def with_text(**texts: str) -> Callable[[dict[str, Any]], bytes]:
    """A builder that writes JSON by hand where Python would not."""

    def build(body: dict[str, Any]) -> bytes:
        inside = "".join(f', "{name}": {text}' for name, text in texts.items())
        return (json.dumps(body)[:-1] + inside + "}").encode(errors="surrogatepass")

    return build


# docs/collector.md: a number that is none is null there.
NULL_TO_COLLECTOR = ("NaN", "Infinity")
Built = dict[str, Any] | bytes
STRANGE: list[tuple[str, str, Callable[[dict[str, Any]], Built]]] = [
    ("empty", "refused", lambda body: b""),
    ("no JSON", "refused", lambda body: b"\xff\xfe{"),
    ("a list", "refused", lambda body: b"[1]"),
    ("null", "refused", lambda body: b"null"),
    ("not UTF-8", "refused", lambda body: json.dumps(body).encode().replace(b"Strange", b"Str\xffnge")),
    ("cut off", "refused", lambda body: json.dumps(body).encode()[:-5]),
    ("unknown type", "refused", lambda body: body | {"type": "purchase"}),
    ("nobody", "refused", lambda body: body | {"userId": None}),
    ("junk only", "refused", lambda body: body | {"userId": " NULL ", "anonymousId": "00000000-0000-0000"}),
    ("quoted junk", "refused", lambda body: body | {"userId": '"undefined"'}),
    ("NaN", "refused", with_text(properties='{"total": NaN}')),
    ("Infinity", "refused", with_text(properties='{"total": -Infinity}')),
    ("1e400", "either", with_text(properties='{"total": 1e400}')),
    ("a whole number of 65 bits", "refused", with_text(properties='{"total": 18446744073709551616}')),
    ("a huge whole number", "refused", with_text(properties='{"total": 1' + 400 * "0" + "}")),
    ("nested 1,000 deep", "either", with_text(properties='{"a": ' + 1_000 * "[" + 1_000 * "]" + "}")),
    ("nested 100,000 deep", "either", with_text(properties='{"a": ' + 100_000 * "[" + 100_000 * "]" + "}")),
    ("a lone surrogate", "either", with_text(properties='{"a": "\\ud800"}')),
    ("a name that stands twice", "either", with_text(event='"Strange"')),
    ("900 KB", "either", lambda body: body | {"properties": {"a": "x" * 900_000}}),
    ("many properties", "either", lambda body: body | {"properties": {f"p{n}": n for n in range(5_000)}}),
    ("many identifiers", "either", lambda body: body | {"identifiers": {f"n{n}": "x" for n in range(300)}}),
    ("a number as userId", "either", lambda body: body | {"anonymousId": 17}),
    ("a list as anonymousId", "either", lambda body: body | {"anonymousId": ["a"]}),
    ("colon in a namespace", "either", lambda body: body | {"identifiers": {"crm:eu": "x"}}),
    ("namespace of blanks", "either", lambda body: body | {"identifiers": {"": "x", " ": "y", "user_id ": "z"}}),
    ("identifiers as a list", "either", lambda body: body | {"identifiers": ["email:a@example.org"]}),
    ("NUL in an identifier", "either", lambda body: body | {"anonymousId": "nul\u0000nul"}),
    ("a long identifier", "either", lambda body: body | {"anonymousId": "x" * 100_000}),
    ("no name", "either", lambda body: body | {"event": ""}),
    ("a long name", "either", lambda body: body | {"event": "Strange" * 1_000}),
    ("a name that is a number", "either", lambda body: body | {"event": 7}),
    ("messageId that is a number", "either", lambda body: body | {"messageId": 7}),
    ("a long messageId", "either", lambda body: body | {"messageId": "m" * 100_000}),
    ("NUL in messageId", "either", lambda body: body | {"messageId": "\u0000"}),
    ("timestamp in words", "either", lambda body: body | {"timestamp": "yesterday"}),
    ("timestamp in seconds", "either", lambda body: body | {"timestamp": 1_790_000_000}),
    ("timestamp in the year 9999", "either", lambda body: body | {"timestamp": "9999-12-31T23:59:59.999999999Z"}),
    ("timestamp before 1970", "either", lambda body: body | {"timestamp": "1969-12-31T23:59:59Z"}),
    ("timestamp in the year 0", "either", lambda body: body | {"timestamp": "0000-01-01T00:00:00Z"}),
    ("timestamp out of range", "either", lambda body: body | {"timestamp": 1e300}),
    ("sentAt in words", "either", lambda body: body | {"sentAt": "now"}),
    ("receivedAt in words", "either", lambda body: body | {"receivedAt": "now"}),
    ("receivedAt in 2100", "either", lambda body: body | {"receivedAt": "2100-01-01T00:00:00Z"}),
    ("receivedAt in 1970", "either", lambda body: body | {"receivedAt": "1970-01-01T00:00:00Z"}),
    ("properties as text", "either", lambda body: body | {"properties": "a"}),
    ("traits as a list", "either", lambda body: body | {"traits": [1]}),
    ("context as a number", "either", lambda body: body | {"context": 1}),
    ("consent as text", "either", lambda body: body | {"context": {"consent": "yes"}}),
    ("2,000 consents", "either", lambda body: body | {"context": {"consent": {f"p{n}": True for n in range(2_000)}}}),
    ("a group without a name", "either", lambda body: body | {"type": "group", "groupId": ""}),
    ("type as a number", "refused", lambda body: body | {"type": 1}),
]  # fmt: skip


def first_link(people: Sequence[Person], known_edges: Mapping[tuple[str, str], Any]) -> list[Unlink]:
    """Links to be taken back: one of each of the first families that has one."""
    found: list[Unlink] = []
    for person in people:
        links = [ends for ends in known_edges if set(ends) <= set(person.identifiers)]
        if links and not person.silent:
            found.append(Unlink(*sorted(links)[0], forever=len(found) % 3 == 2))
    return found
