"""People with ground truth: who really did what, as raw messages of the tracking shape.

People own devices, devices have browsers, browsers have cookies that are lost now and then. People come back in
sessions, which are anonymous until they log in, identify themselves by an address they typed, or never do. Some
devices are shared within a family or stand in a shop, some addresses belong to a family, some clients send junk
where an identifier should be, some messages come twice or late. Events are of four kinds: who people are, what they
do, how they deal with the shop, and what they feel about it.
"""

import random
from dataclasses import dataclass, field
from typing import Any

DAY = 86_400_000
START = 1_750_000_000_000

CITIES = ("Kyiv", "Lima", "Oslo", "Quito", "Graz", "Bern", "Riga")
FIRST_NAMES = ("Ana", "Bo", "Chidi", "Dana", "Emre", "Fay", "Goran", "Hiro", "Ines", "Jude")
PRODUCTS = tuple(f"sku-{n}" for n in range(60))
JUNK = ("null", "undefined", "", "none", "[object Object]", "0", "00000000-0000-0000-0000-000000000000", "anonymous")
TEST_ADDRESSES = ("test@test.com", "noreply@shop.example")


@dataclass(frozen=True)
class Mix:
    """How common each difficulty is, as shares."""

    shared_devices: float = 0.05
    family_addresses: float = 0.05
    junk: float = 0.02
    late: float = 0.05
    duplicated: float = 0.03
    with_account: float = 0.9
    second_addresses: float = 0.0
    cookie_lost: float = 0.1
    days: int = 60


@dataclass(frozen=True)
class Said:
    """One raw message and the person who really caused it. `received` is when ingest gets it (ms)."""

    message: dict[str, Any]
    person: int
    session: int
    received: int


@dataclass
class _Device:
    device_id: str
    cookie: str
    mobile: bool
    cookies: int = 1


@dataclass
class _Person:
    number: int
    name: str
    city: str
    account: str | None
    address: str
    telephone: str | None
    second_address: str | None = None
    devices: list[_Device] = field(default_factory=list)
    has_identified_on: set[str] = field(default_factory=set)


def people(seed: int, count: int, mix: Mix = Mix()) -> list[Said]:
    """`count` people's messages in the order in which they arrive."""
    return _Town(random.Random(f"people {seed}"), count, mix).live()


class _Town:
    def __init__(self, rng: random.Random, count: int, mix: Mix) -> None:
        self.rng = rng
        self.mix = mix
        self.said: list[Said] = []
        self.sessions = 0
        self.people = [self._person(number) for number in range(count)]
        self._share()

    def _person(self, number: int) -> _Person:
        rng = self.rng
        name = rng.choice(FIRST_NAMES)
        person = _Person(
            number,
            name,
            rng.choice(CITIES),
            f"u-{number}" if rng.random() < self.mix.with_account else None,
            f"{name}.{number}@mail.example",
            f"+3069{number:08d}" if rng.random() < 0.3 else None,
        )
        if self.mix.second_addresses and rng.random() < self.mix.second_addresses:
            person.second_address = f"{name}.{number}@work.example"
        for nth in range(rng.choice((1, 1, 2, 2, 3))):
            person.devices.append(_Device(f"dev-{number}-{nth}", f"c-{number}-{nth}-0", rng.random() < 0.6))
        return person

    def _share(self) -> None:
        """Families have a tablet and an address in common; a few devices stand in public."""
        rng, people = self.rng, self.people
        for person in people:
            if len(people) < 2:
                return
            other = people[(person.number + rng.randint(1, min(5, len(people) - 1))) % len(people)]
            if rng.random() < self.mix.shared_devices * 2:
                other.devices.append(rng.choice(person.devices))
            if rng.random() < self.mix.family_addresses:
                other.address = person.address

    def live(self) -> list[Said]:
        for person in self.people:
            for _ in range(self.rng.choice((1, 2, 3, 4, 6, 10))):
                self._session(person)
        self.said.sort(key=lambda one: one.received)
        return self.said

    def _session(self, person: _Person) -> None:
        rng, mix = self.rng, self.mix
        self.sessions += 1
        device = rng.choice(person.devices)
        if rng.random() < mix.cookie_lost:
            device.cookie = f"{device.device_id}-{device.cookies}"
            device.cookies += 1
        now = START + rng.randrange(mix.days * DAY)
        context: dict[str, Any] = {"device": {"id": device.device_id}} if device.mobile else {}
        known_as: dict[str, Any] = {}
        # People who come to shop mostly log in; those who were known here before are often still logged in.
        first_here = device.device_id not in person.has_identified_on
        logs_in_after = 0 if not first_here and rng.random() < 0.6 else rng.choice((1, 1, 2, 3))
        stays_unknown = not first_here and rng.random() < 0.15
        for nth in range(rng.randint(2, 9)):
            now += rng.randint(2_000, 120_000)
            if nth == logs_in_after and not stays_unknown:
                person.has_identified_on.add(device.device_id)
                known_as = self._introduction(person)
                self._say(person, device, now, context, {"type": "identify", **known_as, "traits": self._who(person)})
                known_as.pop("identifiers", None)
                continue
            self._say(person, device, now, context, {**self._deed(bool(known_as)), **known_as})

    def _introduction(self, person: _Person) -> dict[str, Any]:
        identifiers: dict[str, str] = {}
        if person.account is None or self.rng.random() < 0.5:
            second = person.second_address
            identifiers["email"] = second if second and self.rng.random() < 0.5 else person.address
        if person.telephone and self.rng.random() < 0.5:
            identifiers["phone"] = person.telephone
        introduction: dict[str, Any] = {"userId": person.account} if person.account else {}
        if identifiers:
            introduction["identifiers"] = identifiers
        return introduction

    def _who(self, person: _Person) -> dict[str, Any]:
        return {
            "firstName": person.name,
            "city": person.city,
            "newsletter": self.rng.random() < 0.5,
            "plan": self.rng.choice(("free", "free", "pro")),
        }

    def _deed(self, known: bool) -> dict[str, Any]:
        rng = self.rng
        sku = rng.choice(PRODUCTS)
        draw = rng.random()
        if draw < 0.45:
            path = rng.choice(("/", "/pricing", f"/p/{sku}", "/help"))
            return {"type": "page", "properties": {"path": path}}
        if draw < 0.60:
            return _track("Product Viewed", sku=sku, price=rng.randint(3, 90))
        if draw < 0.68:
            return _track("Cart Viewed", cart_id=f"cart-{rng.randint(1, 9)}", value=rng.randint(3, 200))
        if draw < 0.84 and known:
            return _track("Order Completed", order_id=f"o-{rng.getrandbits(32)}", total=rng.randint(5, 300), sku=sku)
        if draw < 0.90:
            return _track("Ticket Opened", topic=rng.choice(("delivery", "payment", "return")))
        if draw < 0.95:
            return _track("Survey Answered", score=rng.randint(0, 10))
        return _track("Product Rated", sku=sku, stars=rng.randint(1, 5))

    def _say(self, person: _Person, device: _Device, now: int, context: dict[str, Any], deed: dict[str, Any]) -> None:
        rng, mix = self.rng, self.mix
        message = {
            "messageId": f"{person.number}-{self.sessions}-{now}",
            "anonymousId": device.cookie,
            "timestamp": now,
            "context": dict(context),
            **deed,
        }
        if rng.random() < mix.junk:
            self._spoil(message)
        received = now + rng.randint(0, 3_000)
        if rng.random() < mix.late:
            received += rng.randint(60_000, 2 * DAY)
        message["sentAt"] = received
        self.said.append(Said(message, person.number, self.sessions, received))
        if rng.random() < mix.duplicated:
            again = received + rng.randint(1, 3_600_000)
            self.said.append(Said({**message, "sentAt": again}, person.number, self.sessions, again))

    def _spoil(self, message: dict[str, Any]) -> None:
        """A client that fills a field with what it had: a null printed, a placeholder, a test address."""
        rng = self.rng
        kind = rng.choice(("user", "anonymous", "device", "address"))
        if kind == "user":
            message["userId"] = rng.choice(JUNK)
        elif kind == "anonymous":
            message["anonymousId"] = rng.choice(JUNK)
        elif kind == "device":
            message["context"] = {"device": {"id": rng.choice(JUNK)}}
        else:
            message["identifiers"] = {**message.get("identifiers", {}), "email": rng.choice(TEST_ADDRESSES)}


def _track(event: str, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "properties": properties}
