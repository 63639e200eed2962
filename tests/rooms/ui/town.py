"""A small town for the pages: people, what they did, and an apply that has its effect at once."""

import json
import math
import random
import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from pipeline.api.access import Hidden
from pipeline.api.model import decoded
from pipeline.api.trace import Effects
from pipeline.api.trial import facts_of, trial_of
from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import records
from pipeline.definitions.segments import SegmentDefinition
from pipeline.in_charge import NotInChargeError
from pipeline.letters import Letter
from pipeline.records import (
    Cause,
    DeadLetter,
    Event,
    IdentifierPair,
    PrivacyReceipt,
    ProfileDocument,
    ReceiptEntry,
    SegmentChange,
    SegmentMember,
    Total,
    UnfollowedLink,
    encode,
)
from pipeline.segments import compile_plan
from tests.rooms.api.harness import World, leave, show
from tests.rooms.ui.house import House

DAY_MS = 86_400_000
_NAMES = "ada bob cleo dan eva finn gul hana ida jon kaya leo mia noor omar pia quin rosa sam tove".split()
_FIRMS = "acme globex initech umbra hooli stark wayne tyrell".split()
_PATHS = ("/", "/pricing", "/pricing/pro", "/docs", "/blog/launch")


def people_of(count: int, seed: int = 3) -> list[tuple[ProfileDocument, list[Event]]]:
    """So many people, each with a few events of the last weeks."""
    rng = random.Random(seed)
    now = time.time_ns() // 1_000_000
    found = []
    for number in range(count):
        name = f"{_NAMES[number % len(_NAMES)]}{number // len(_NAMES) or ''}"
        email, user_id = f"email:{name}@example.org", f"user_id:{1000 + number}"
        events = []
        for place in range(rng.randint(2, 14)):
            kind = rng.choices(("Page Viewed", "Cart Viewed", "Order Completed", "Search"), (8, 2, 1.3, 2))[0]
            properties: dict[str, Any] = {"path": rng.choice(_PATHS)}
            if kind != "Page Viewed":
                properties = {"cart_id": f"c{number}", "total": round(rng.uniform(9, 240), 2)}
            at = now - rng.randint(60_000, 21 * DAY_MS)
            events.append(
                Event(f"m{number}-{place}", "track", kind, [user_id], at, at, f"raw/0/{place}", properties=properties)
            )
        events.sort(key=lambda one: one.time)
        totals: dict[str, Total] = {}
        for one in events:
            total = totals.setdefault(one.event, Total(0, one.time, one.time))
            total.count, total.last = total.count + 1, one.time
        profile_id = f"{rng.getrandbits(32):08x}-3c1d-5f9a-ac3c-{number:012x}"
        traits = {
            "plan": rng.choice(("free", "free", "team", "pro")),
            "city": rng.choice(("Oslo", "Lima", "Kyiv")),
            "name": name.title(),
        }
        document = ProfileDocument(
            profile_id, "person", [IdentifierPair(*one.split(":", 1)) for one in (user_id, email)], 2, traits,
            consents={"marketing": rng.random() < 0.7}, totals=totals, accounts=[], first_seen=events[0].time,
            last_seen=events[-1].time,
        )  # fmt: skip
        found.append((document, events))
    return found


class Town(NamedTuple):
    """What a page of a whole town may be asked for: the address of a trace, a person's profile_id, and what the pages
    asked of the API for others."""

    trace: str
    person: str
    asked: list[tuple[str, Any]]


def whole_town(house: House, monkeypatch: Any, people: int, firms: int) -> Town:
    """People, firms, a pipeline that works, and everything that the pages look at."""
    settle(house, people, firms)
    works(house)
    trace = traces(house, monkeypatch)
    person = hangs_together(house)
    applies(house, monkeypatch)
    return Town(trace, person, asks(house, monkeypatch))


def settle(house: House, count: int = 40, firms: int = 0) -> None:
    """Let people live in the API's tables, so many firms among them."""
    world = house.world
    rng = random.Random(11)
    names = [f"{_FIRMS[number % len(_FIRMS)]}{number // len(_FIRMS) or ''}.example" for number in range(firms)]
    everybody = people_of(count)
    for document, _ in everybody:
        document.accounts = sorted(rng.sample(names, 1)) if names and rng.random() < 0.8 else []
    for name in names:
        profile_id = world.service.identifier(f"account:{name}")
        people = sum(name in document.accounts for document, _ in everybody)
        account = ProfileDocument(
            profile_id, "account", [IdentifierPair("account", name)], 1,
            {"plan": rng.choice(("free", "free", "trial", "team")), "owner": rng.choice(("kim", "lou"))},
            computed={"people": people},
        )  # fmt: skip
        world.follower.read([world.record("profiles", profile_id, encode(account))])
    for document, events in everybody:
        routes = [world.record("events", one.identifiers[0], encode(one), 0) for one in events]
        world.follower.read([*show(world, document), *routes])


def applies(house: House, monkeypatch: Any) -> None:
    """Applying changes the catalogue, and people enter and leave, as the pipeline would have it."""
    world = house.world

    def apply(settings: Any, written: Any = (), *, dry_run: bool = False, **more: Any) -> Any:
        now = time.time_ns() // 1_000_000
        planned = plan_apply(world.catalog, written, leaves_of=lambda *_: (), applied_at=now, **more)
        house.applied.append(("apply", {"written": list(written), **more}))
        if not dry_run:
            for key, value in records(planned.definitions, planned.generation):
                world.catalog.add(key, value)
            for change in planned.changes:
                if change.key.startswith("segment/"):
                    _judge(house, change.key.partition("/")[2], now)
        return SimpleNamespace(generation=planned.generation, changes=planned.changes)

    monkeypatch.setattr("pipeline.api.writes.apply", apply)
    monkeypatch.setattr("pipeline.api.writes.Readiness", AtOnce)
    monkeypatch.setattr("pipeline.api.writes.audit.note", lambda *_, **__: None)


def takes_no_definitions(monkeypatch: Any) -> None:
    """The workspace is a copy in which nothing is applied: `apply it in v.`"""

    def refuse(*_: Any, **__: Any) -> None:
        raise NotInChargeError("w. is a copy of v.", "w.", "apply it in v.")

    monkeypatch.setattr("pipeline.api.writes.apply", refuse)


class AtOnce:
    """Stands where `Readiness` does: everything is in force at once."""

    def __init__(self, _: Any) -> None:
        """Nothing is asked."""

    def wait(self, generation: int, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""


def _entered(world: World, segment: str, profile_id: str, at: int, entity: str = "person") -> list[Any]:
    member = SegmentMember(segment, profile_id, entity, 1, at, 1)
    cause = Cause("m", 0, 7)
    change = SegmentChange(profile_id, entity, segment, 1, "entered", at, at, 1, "backfill", cause, False, [])
    return [
        world.record("segment-changes", profile_id, encode(change)),
        world.record("segment-members", f"{segment}/{profile_id}", encode(member), 0),
    ]


def _judge(house: House, name: str, now_ms: int) -> None:
    world = house.world
    held = world.catalog.in_force(world.catalog.latest, f"segment/{name}")
    trial = trial_of(SegmentDefinition.model_validate(held.body)) if held is not None else None
    records_: list[Any] = []
    for _, stored in list(world.follower.model.documents()):
        document = decoded(stored)
        is_member = (
            trial is not None
            and trial.entity == document.entity
            and bool(
                trial.plan.begin(facts_of(world.follower.model, document, trial, Hidden(), now_ms)[0], now_ms).members
            )
        )
        if is_member and name not in document.segments:
            records_ += _entered(world, name, document.profile_id, now_ms, document.entity)
        elif not is_member and name in document.segments:
            records_ += leave(world, name, document.profile_id)
    world.follower.read(records_)


def hangs_together(house: House) -> str:
    """Somebody with three devices and a login that is not followed; gives their profile_id."""
    world = house.world
    document = decoded(world.follower.model.document("user_id:1002") or b"")
    now = time.time_ns() // 1_000_000
    ids = ["user_id:1002", "email:cleo@example.org", "phone:+4790000002", "device_id:laptop-7", "anonymous_id:f3a1"]
    document.identifiers = [IdentifierPair(*one.split(":", 1)) for one in ids]
    document.identifiers_total = len(ids)
    kiosk = IdentifierPair("device_id", "kiosk-lobby")
    document.unfollowed = [UnfollowedLink(document.identifiers[0], kiosk, "crowded", now - 9 * DAY_MS)]
    pairs = [(0, 1)] * 6 + [(0, 3)] * 9 + [(0, 4)] * 2 + [(1, 2)] + [(1, 3)] * 3
    events = [
        Event(
            f"h{number}", "identify", "Identify", [ids[a], ids[b]], now - number * 40_000_000, now, f"raw/0/{number}",
            traits={"city": document.traits["city"]} if number == 3 else {}, contract="shop/3",
        )
        for number, (a, b) in enumerate(pairs)
    ]  # fmt: skip
    world.follower.read(
        [*show(world, document), *(world.record("events", one.identifiers[0], encode(one), 0) for one in events)]
    )
    return document.profile_id


def works(house: House) -> None:
    """Let the pipeline run for an hour: busy, one destination failing, a few dead letters and violations."""
    world, rng = house.world, random.Random(5)
    pulse, kafka = world.service.pulse, world.kafka
    assert pulse is not None
    now = time.time_ns() // 1_000_000
    kafka.members = {"ingest": 1, "unify": 2, "identity": 1, "deliver-hook": 1, "deliver-crm": 1}
    done = dict.fromkeys(kafka.members, 1_000)
    for number in range(720):
        world.now_ms = now - (719 - number) * 5_000
        wave = 1 + 0.5 * math.sin(number / 70)
        for group, rate in (("ingest", 810), ("unify", 1_650), ("identity", 35), ("deliver-hook", 12)):
            done[group] += int(rate * 5 * wave * rng.uniform(0.9, 1.1))
        behind = {"unify": int(900 * wave), "deliver-crm": number}
        kafka.groups = {group: (at, at + behind.get(group, 2)) for group, at in done.items()}
        pulse.look()
    kafka.new_letters = [
        Letter(
            number % 2, number, DeadLetter(reason, detail, topic, 0, 40 + number, now - number * 400_000, stage=stage)
        )
        for number, (reason, detail, topic, stage) in enumerate(_LETTERS * 3)
    ]
    pulse.look()
    latencies = world.follower.visible.latencies
    latencies._now_ms = lambda: world.now_ms
    for number in range(1_800):
        world.now_ms = now - (1_799 - number) * 2_000
        latencies.came(0, number, world.now_ms - int(rng.lognormvariate(3.2, 0.5)))
        latencies.had_effect(0, number)
    world.now_ms = now
    flags = [
        "contract_violation:/properties/total",
        "contract_violation:/properties/total",
        "unplanned_property:/properties/ref",
    ]
    events = [
        Event(f"v{number}", "track", "Order Completed", ["user_id:1"], now, now, flags=[flag], contract="shop/3")
        for number, flag in enumerate(flags)
    ]
    world.follower.read([world.record("events", "user_id:1", encode(one), 0) for one in events])
    world.follower.fresh_at_ms = time.time_ns() // 1_000_000


_LETTERS = [
    ("not_json", "The value is not JSON: at 1, a name in quotes is missing.", "raw", "ingest"),
    ("contract_violation", "/properties/total: it is no number.", "raw", "ingest"),
    ("refused", "422: the field `email` is missing (attempt 1)", "deliveries.hook", "deliver"),
]


def traces(house: House, monkeypatch: Any) -> str:
    """Let an event be followed: what the topics would hold. Gives the address of its page."""
    model = house.world.follower.model
    document = decoded(model.document("user_id:1001") or b"")
    event, partition, offset = model.recent(document, 1)[0]
    seen = msgspec.structs.replace(
        event, identifiers=["user_id:1001", "email:bob@example.org"], contract="shop/3", traits={"plan": "pro"},
        flags=["contract_violation:/properties/total", "bot"],
    )  # fmt: skip
    raw = {"type": "track", "event": seen.event, "userId": "1001", "properties": {**seen.properties, "path": " /Docs"}}
    flip = {"segment": "lookers", "change": "entered", "version": 1, "decided_at": seen.received, "sequence": 1}
    change = {"change": "updated", "decided_at": seen.received, "set": {"traits": {"plan": "pro"}}}
    told = {"action": "segment_entered", "segment": "lookers", "decided_at": seen.received}
    deliveries = [
        {**told, "destination": "crm", "became": "handed over", "why": ""},
        {**told, "destination": "hook", "became": "given up", "why": "refused: 422: the field `email` is missing"},
    ]
    rule = {"performed": {"event": seen.event, "within": "30d"}}
    lookers = SegmentDefinition.model_validate({"segment": "lookers", "when": rule})
    latest = house.world.service.plans.latest()
    latest.segments = compile_plan([lookers.compiled()])
    monkeypatch.setattr(house.world.service.plans, "latest", lambda: latest)
    monkeypatch.setattr("pipeline.api.tracing.event_at", lambda *_: seen)
    monkeypatch.setattr("pipeline.api.tracing.raw_of", lambda *_: json.dumps(raw).encode())
    monkeypatch.setattr("pipeline.api.tracing.effects", lambda *_: Effects([change], [flip], deliveries, True))
    return f"/debugger/{partition}/{offset}"


RECEIPT = "20270115-4f1d0a9c3e"


def asks(house: House, monkeypatch: Any) -> list[tuple[str, Any]]:
    """Let links be taken back, dead letters be sent again and privacy requests be made: (what, with what) of each."""
    asked: list[tuple[str, Any]] = []

    def kept(_: Any, topic: str, records_: Any) -> int:
        asked.append((topic, list(records_)))
        return len(asked[-1][1])

    def named(_: Any, ids: list[str]) -> list[Letter]:
        known = {f"{one.partition}/{one.offset}": one for one in house.world.service.pulse.letters()}  # type: ignore[union-attr]
        value = json.dumps({"type": "track", "userId": "1001", "properties": {"total": "much"}}).encode()
        return [
            Letter(one.partition, one.offset, msgspec.structs.replace(one.letter, value=value))
            for one in map(known.__getitem__, ids)
        ]

    def ask(_: Any, *what: Any) -> str:
        asked.append(("privacy", what))
        return RECEIPT

    receipt = PrivacyReceipt(RECEIPT, "erase", "5d7d", time.time_ns() // 1_000_000 - 90_000, "working", "ui.operator")
    receipt.stores = [
        ReceiptEntry("state of unify", "done", receipt.requested_at + 1_200, "the fragments are gone"),
        ReceiptEntry("profiles", "working", receipt.requested_at + 1_300, "a tombstone; compacted within ten minutes"),
        ReceiptEntry("files of crm", "impossible", receipt.requested_at + 1_400, "the destination cannot delete"),
    ]
    monkeypatch.setattr("pipeline.api.writes.produce_all", kept)
    monkeypatch.setattr("pipeline.api.writes.refuse_decisions", lambda _: None)
    monkeypatch.setattr("pipeline.letters.produce_all", kept)
    monkeypatch.setattr("pipeline.api.operating.named", named)
    monkeypatch.setattr("pipeline.api.privacy.ask", ask)
    monkeypatch.setattr("pipeline.api.privacy.current_values", lambda *_: {RECEIPT.encode(): encode(receipt)})
    return asked
