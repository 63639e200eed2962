"""The API in one process on memory tables: records in, HTTP answers out, without sockets and without Kafka."""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec

from pipeline.accounts import GROUPS_ONLY
from pipeline.activation.data import NO_RULES
from pipeline.api.access import SCOPES, Access, Token, hashed
from pipeline.api.app import build_app, operations
from pipeline.api.audit import Audit
from pipeline.api.model import FOLLOWED, ReadModel
from pipeline.api.positions import Visible, position_text
from pipeline.api.pulse import Pulse
from pipeline.api.service import Service
from pipeline.api.streams import Hub
from pipeline.api.tables import TABLES
from pipeline.contracts import NO_CONTRACTS
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.identity import identity_rules
from pipeline.identifiers import Keys, partition_of
from pipeline.letters import Letter
from pipeline.records import (
    Cause,
    Definition,
    Event,
    Generation,
    IdentifierPair,
    IdentityPointer,
    Membership,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
    SegmentMember,
    Total,
    encode,
)
from pipeline.replay.backfills import Backfill
from pipeline.runtime.memory import MemoryTables
from pipeline.runtime.ports import Record
from pipeline.segments import NO_SEGMENTS
from pipeline.settings import Settings

PARTITIONS = 2
ADA = "11111111-1111-5111-8111-111111111111"
BOB = "22222222-2222-5222-8222-222222222222"
OLD = "33333333-3333-5333-8333-333333333333"


class MemoryFollower:
    """Stands where `Follower` does: the test says what is read."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.model = ReadModel(MemoryTables(kept, TABLES), Keys(b"s"), recent_events=20)
        self.visible = Visible()
        self.is_ready = True
        self.failure = None
        self.fresh_at_ms = 0
        self.position = ""
        self.told: Any = lambda _: None
        self.positions = {(topic, n): 0 for topic in (*FOLLOWED, "profile-changes") for n in range(PARTITIONS)}
        self.uncommitted: dict[tuple[str, int], int] = {}

    def start(self) -> None:
        """Nothing is running."""

    def ends(self) -> dict[tuple[str, int], int]:
        return dict(self.uncommitted)

    def read(self, records: Iterable[Record]) -> None:
        """One batch."""
        batch = list(records)
        for record in batch:
            self.positions[record.topic, record.partition] = record.offset + 1
        self.model.apply(batch, self.positions)
        self.visible.see(batch, self.positions)
        self.position = position_text(self.positions, ("profiles", "identities", "segment-members"))
        self.told(batch)


class MemoryKafka:
    """Stands where the pulse asks a Kafka: the test says what there is."""

    def __init__(self) -> None:
        self.groups: dict[str, tuple[int, int]] = {}
        self.members: dict[str, int] = {}
        self.waits: dict[str, int | None] = {}
        self.counted: list[str] = []
        self.kept: dict[str, list[str]] = {}
        self.new_letters: list[Letter] = []
        self.history: list[Backfill] = []

    def positions(self, groups: Any) -> dict[str, tuple[int, int]]:
        return {group: at for group, at in self.groups.items() if group in groups}

    def waiting(self, groups: Any) -> dict[str, int | None]:
        self.counted += groups
        return {group: self.waits.get(group, 0) for group in groups}

    def notes(self) -> dict[str, list[str]]:
        return self.kept

    def working(self, groups: Any) -> dict[str, int]:
        return {group: self.members.get(group, 0) for group in groups}

    def letters(self) -> list[Letter]:
        found, self.new_letters = self.new_letters, []
        return found

    def backfills(self) -> list[Backfill]:
        return self.history


class World:
    """An API and what it reads."""

    def __init__(self, folder: Path, streams: int = 100, most_waiting: int = 3) -> None:
        self.kept: dict[str, Any] = {}
        self.follower = MemoryFollower(self.kept)
        self.offsets: dict[tuple[str, int], int] = {}
        self.catalog = Catalog()
        self.log: list[Record] = []
        plans = SimpleNamespace(
            latest=lambda: SimpleNamespace(
                identity=identity_rules({}),
                segments=NO_SEGMENTS,
                contracts=NO_CONTRACTS,
                activation=SimpleNamespace(data=NO_RULES),
                accounts=GROUPS_ONLY,
            ),
            look=lambda: self.catalog,
            follow_to=lambda *_: True,
            close=lambda: None,
        )
        settings = Settings.model_validate({"state_dir": folder, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
        self.audit_path = folder / "audit.jsonl"
        self.audit = Audit(self.audit_path)
        tokens = [
            Token(name="all", sha256=hashed("all"), scopes=SCOPES),  # type: ignore[arg-type]
            Token(
                name="web", sha256=hashed("web"), scopes=("profiles:read",), hide=("traits.phone", "identifiers.email")
            ),
            Token(name="slow", sha256=hashed("slow"), scopes=("profiles:read",), per_second=1),
            Token(name="shy", sha256=hashed("shy"), scopes=("streams:read", "events:read"), hide=("properties.total",)),
        ]
        self.hub = Hub(streams, most_waiting)
        self.service = Service(settings, self.follower, plans, Access(tokens), self.audit, self.hub)  # type: ignore[arg-type]
        self.decisions: list[bytes] = []
        self.service.decisions = lambda: self.decisions  # type: ignore[method-assign]
        self.kafka = MemoryKafka()
        self.now_ms = 1_790_000_000_000
        self.service.pulse = Pulse(
            settings, lambda: self.service.names_in_force("destination"), self.kafka, lambda: self.now_ms
        )
        self.service._missed = self._missed  # type: ignore[method-assign]
        self.service.partitions_of = lambda topic: PARTITIONS  # type: ignore[method-assign]
        self.app = build_app(self.service)
        self._described = [
            (one.method, re.compile(re.sub(r"\{\w+\}", "[^/]+", one.path)), {*one.document()["responses"], "405"})
            for one in operations(self.service)
        ]

    def _missed(self, since: Any, until: Any, concerns: Any) -> Any:
        from pipeline.api.streams import changes

        wanted = [r for r in self.log if since.get((r.topic, r.partition), 1 << 60) <= r.offset]
        found = [one for one in changes(wanted) if one.offset < until[one.topic, one.partition] and concerns(one)]
        return found, True

    def record(self, topic: str, key: str, value: bytes | None, partition: int | None = None) -> Record:
        """The next record of a topic."""
        number = partition_of(key.encode(), PARTITIONS) if partition is None else partition
        offset = self.offsets.get((topic, number), 0)
        self.offsets[topic, number] = offset + 1
        found = Record(topic, number, offset, key.encode(), value, 0)
        self.log.append(found)
        return found

    def segment(self, name: str) -> None:
        """Put a segment into force."""
        latest = self.catalog.latest
        body = {"segment": name, "when": {"all": []}}
        self.catalog.add(f"segment/{name}/1".encode(), encode(Definition("segment", name, 1, body)))
        members = {**latest.members, f"segment/{name}": 1}
        self.catalog.add(b"generation/x", encode(Generation(latest.number + 1, members)))

    def client(self, token: str | None = "all") -> httpx.AsyncClient:
        """Somebody who asks."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)

    def ask(self, path: str, token: str | None = "all", method: str = "GET", **more: Any) -> httpx.Response:
        """One request. That it is answered as OpenAPI describes is part of every test."""

        async def once() -> httpx.Response:
            async with self.client(token) as client:
                return await client.request(method, path, **more)

        answer = asyncio.run(once())
        status, asked = str(answer.status_code), path.partition("?")[0]
        for described, template, statuses in self._described:
            if method.replace("HEAD", "GET") == described and template.fullmatch(asked):
                assert status in statuses, f"{method} {asked} answers {status}, which OpenAPI does not describe"
                break
        return answer


def profile(
    profile_id: str, *identifiers: str, segments: dict[str, int] | None = None, **traits: Any
) -> ProfileDocument:
    """A profile with these identifiers, traits and memberships (segment → sequence)."""
    pairs = [IdentifierPair(*one.split(":", 1)) for one in identifiers]
    held = {name: Membership(1_000, sequence, 1) for name, sequence in (segments or {}).items()}
    totals = {"Order Completed": Total(2, 1_000, 2_000)}
    return ProfileDocument(
        profile_id, "person", pairs, len(pairs), traits, totals=totals, segments=held, first_seen=1_000, last_seen=2_000
    )


def show(world: World, document: ProfileDocument) -> list[Record]:
    """The records that show a profile: its document and its pointers."""
    pointers = [
        world.record("identities", text, encode(IdentityPointer(document.profile_id, 1)))
        for text in (f"{one.namespace}:{one.value}" for one in document.identifiers)
    ]
    return [world.record("profiles", document.profile_id, encode(document)), *pointers]


def retire(world: World, old: str, new: str) -> list[Record]:
    """The records that end a profile that was merged into another."""
    pointer = world.record("identities", old, encode(IdentityPointer(new, 2, retired=True)))
    return [world.record("profiles", old, None), pointer]


def enter(world: World, segment: str, profile_id: str, sequence: int = 1, cause: str = "event") -> list[Record]:
    """The records of an entry."""
    member = SegmentMember(segment, profile_id, "person", 1, 1_000, sequence)
    change = _change(segment, profile_id, "entered", sequence, cause)
    return [
        world.record("segment-changes", profile_id, encode(change)),
        world.record("segment-members", f"{segment}/{profile_id}", encode(member), 0),
    ]


def leave(world: World, segment: str, profile_id: str, sequence: int = 2) -> list[Record]:
    """The records of an exit."""
    change = _change(segment, profile_id, "exited", sequence, "timer")
    return [
        world.record("segment-changes", profile_id, encode(change)),
        world.record("segment-members", f"{segment}/{profile_id}", None, 0),
    ]


def _change(segment: str, profile_id: str, change: Any, sequence: int, cause: Any) -> SegmentChange:
    return SegmentChange(
        profile_id, "person", segment, 1, change, 1_000, 1_001, sequence, cause, Cause("m", 0, 7), False, []
    )


def event(world: World, route: str, time: int, name: str = "Page Viewed", **properties: Any) -> Record:
    """The record of an event."""
    offset = world.offsets.get(("events", 0), 0)
    made = Event(f"m-{offset}", "track", name, [route], time, time, source=f"raw/0/{offset}", properties=properties)
    return world.record("events", route, encode(made), 0)


def changed(world: World, profile_id: str, evidence: tuple[int, int], at: int = 1_000) -> Record:
    """The record of a change of a profile that an event caused."""
    made = ProfileChange(
        profile_id,
        "person",
        "updated",
        at,
        at,
        "event",
        Cause("m", *evidence),
        {"traits": {"plan": "pro", "phone": "1"}},
    )
    return world.record("profile-changes", profile_id, encode(made))


def body(answer: httpx.Response) -> Any:
    """What was answered."""
    return msgspec.json.decode(answer.content)


def world_with_ada(folder: Path) -> World:
    """A world of one segment and one person, who has a number and an e-mail."""
    found = World(folder)
    found.segment("a")
    found.follower.read(show(found, profile(ADA, "user_id:42", "email:ada@example.org")))
    return found
