"""The read model: the compacted topics as tables, with the reasons of memberships and the most recent events.

One thread applies batches of records, in the order of their partitions; any thread asks. A batch becomes visible as a
whole, together with the positions it brings the model to, so a process that was killed goes on exactly where its
tables are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from pyroaring import BitMap

from pipeline.api.belonging import People, belonging
from pipeline.api.histories import Histories, Route, alerts_of, growth_of, joined, route_of, violations_of
from pipeline.api.numbers import NUMBER_BYTES, Numbers, number_in, segment_of
from pipeline.api.tables import Row, Tables
from pipeline.identifiers import Keys, identifier
from pipeline.records import (
    AccountAlert,
    Cause,
    Event,
    IdentityPointer,
    Marker,
    ProfileDocument,
    Ready,
    SegmentChange,
    Suppression,
    decode_events_record,
    read_events_record,
)
from pipeline.runtime.ports import Record

FORMAT = 4
FOLLOWED = (
    "profiles",
    "identities",
    "segment-members",
    "segment-changes",
    "account-alerts",
    "events",
    "suppressions",
)
"""The topics the tables are made from."""

Positions = Mapping[tuple[str, int], int]
"""(topic, partition) → the position of the next record."""

_MAX_SUCCESSORS = 1_000
_TRIM_EVERY = 8
_MOST_SCRUBS = 500
_NOBODYS = b"\0"
"""Begins the keys of records that are about nobody: they only begin a new segment of their topic."""
_TRIM_COUNTERS = 200_000
_LATEST = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_decode_pointer = msgspec.json.Decoder(IdentityPointer).decode
_decode_change = msgspec.json.Decoder(SegmentChange).decode
_decode_alert = msgspec.json.Decoder(AccountAlert).decode
_decode_document = msgspec.json.Decoder(ProfileDocument).decode
_decode_suppression = msgspec.json.Decoder(Suppression).decode
_decode_positions = msgspec.json.Decoder(dict[str, int]).decode


class Reason(msgspec.Struct, omit_defaults=True):
    """Why a profile is a member: the change that made it one."""

    at: int
    decided_at: int
    sequence: int
    cause: str
    evidence: Cause
    late: bool = False
    continues: list[str] = []
    approximate: bool = False


_decode_reason = msgspec.json.Decoder(Reason).decode


class ReadModel:
    """The tables of one process, and what it keeps of them in memory: a bitmap of each segment's members."""

    def __init__(self, tables: Tables, keys: Keys, recent_events: int = 20, recent_days: int = 30) -> None:
        """`recent_events` is how many of each route are kept, `recent_days` how many days it is counted by."""
        self._tables = tables
        self._keys = keys
        self._any_erased = any(True for _ in islice(tables.scan("erased", b""), 1))
        # What is to be written anew, (table, prefix): everything, where that was not done before a restart.
        self._scrubs: set[tuple[str, bytes]] | None = set()
        if tables.get("meta", b"scrub") is not None:
            self._scrubs = None
        self._recent_events = recent_events
        self._recent_days = recent_days
        self._untrimmed: dict[bytes, int] = {}
        self.generations = _Generations(tables)
        self._next_number = number_in(tables.get("meta", b"next_number") or bytes(NUMBER_BYTES))
        self.bitmaps: dict[str, BitMap] = {}
        for key, value in tables.scan("members", b""):
            self._bitmap(segment_of(key)).add(number_in(value))

    def positions(self) -> dict[tuple[str, int], int]:
        """How far the tables have read each topic; empty when they are new."""
        kept = self._tables.get("meta", b"positions")
        found = _decode_positions(kept) if kept is not None else {}
        return {
            (topic, int(number)): at for (topic, _, number), at in ((k.rpartition("/"), v) for k, v in found.items())
        }

    def followed_at(self) -> int:
        """Up to when (ms) the tables miss nothing; 0 if they do not say."""
        return int(self._tables.get("meta", b"followed_at") or 0)

    def is_readable(self) -> bool:
        """Whether the tables are of this release, or new."""
        return self._tables.get("meta", b"format") in (None, b"%d" % FORMAT)

    # ---------------------------------------------------------------------------------------------------- writing

    def apply(self, records: Iterable[Record], positions: Positions, followed_at: int = 0) -> None:
        """Take in records; afterwards the tables stand at `positions`, and miss nothing of what was up to
        `followed_at`."""
        rows: list[Row] = []
        numbers = Numbers(self._tables, self._next_number)
        people = People(self._tables)
        histories = Histories(self._tables, self._keys, self._recent_days)
        for record in records:
            if record.topic == "events":
                rows += self._event(record, histories)
            elif record.key is None or record.key[:1] == _NOBODYS:
                continue
            elif record.topic == "segment-members":
                rows.append(numbers.member(record.key, record.value))
            elif record.topic == "segment-changes":
                change = _decode_change(record.value or b"")
                rows.append(_reason(change))
                histories.change(change)
            elif record.topic == "account-alerts":
                histories.alert(_decode_alert(record.value or b""), record.partition, record.offset)
            elif record.topic == "profiles":
                rows += people.rows(record.key, record.value)
                rows.append(("profiles", record.key, record.value))
                if record.value is None and self._any_erased and self._tables.get("erased", record.key) is not None:
                    self._scrub("profiles", record.key)
            elif record.topic == "identities":
                if record.value is None:
                    rows += self._forget(record.key, histories)
                rows.append(self._pointer_row(record.key, record.value))
            elif record.topic == "suppressions":
                rows += self._suppressed(bytes.fromhex(record.key.decode()), record.value)
        named = {f"{topic}/{number}": at for (topic, number), at in positions.items() if topic in FOLLOWED}
        rows += numbers.rows()
        rows += histories.rows()
        rows.append(("meta", b"positions", _encode(named)))
        rows.append(("meta", b"format", b"%d" % FORMAT))
        # In the same batch: a process that is killed may be left with tables older than any file beside them.
        rows.append(("meta", b"followed_at", b"%d" % followed_at))
        if self.wants_scrub:
            rows.append(("meta", b"scrub", b"1"))
        self._tables.write(rows)
        self._next_number = numbers.next
        for segment, number, is_member in numbers.flips:
            (self._bitmap(segment).add if is_member else self._bitmap(segment).discard)(number)

    def _bitmap(self, segment: str) -> BitMap:
        found = self.bitmaps.get(segment)
        if found is None:
            found = self.bitmaps[segment] = BitMap()
        return found

    def _event(self, record: Record, histories: Histories) -> Iterator[Row]:
        value = record.value or b""
        if b'"kind":"event"' not in value[:20]:
            yield from self.generations.see(record)
            return
        event = read_events_record(value)
        if isinstance(event, Event) and event.identifiers:
            erased_at = self._erased_at(event.identifiers[0]) if self._any_erased else None
            if erased_at is not None and event.time <= erased_at:
                # The history may be read after the truth: what was erased must not come in by it.
                return
            if not histories.event(event, record.partition, record.offset):
                return
            route = self._keys.digest(event.identifiers[0])
            place = (_LATEST - event.time).to_bytes(8, "big") + record.partition.to_bytes(4, "big")
            yield "recent", route + place + (_LATEST - record.offset).to_bytes(8, "big"), value
            yield from self._trim(route)

    def _trim(self, route: bytes) -> Iterator[Row]:
        """Now and then, delete what is beyond the newest events of a route."""
        count = self._untrimmed.get(route, 0) + 1
        if count < _TRIM_EVERY:
            if len(self._untrimmed) >= _TRIM_COUNTERS:
                self._untrimmed.clear()
            self._untrimmed[route] = count
            return
        self._untrimmed.pop(route, None)
        for key, _ in islice(self._tables.scan("recent", route), self._recent_events, None):
            yield "recent", key, None

    def _forget(self, key: bytes, histories: Histories) -> Iterator[Row]:
        """An identifier that leads nowhere any more was erased or has expired: so have its events."""
        digest = self._keys.digest(key.decode())
        histories.forget(digest)
        for row, _ in self._tables.scan("recent", digest):
            yield "recent", row, None
        if self._any_erased and self._tables.get("erased", digest) is not None:
            yield from self._scrub_person(digest)

    def _pointer_row(self, key: bytes, value: bytes | None) -> Row:
        named = len(key).to_bytes(2, "big") + key
        return "identities", self._keys.digest(key.decode()), named + value if value is not None else None

    def _pointer(self, text: str) -> IdentityPointer | None:
        row = self._tables.get("identities", self._keys.digest(text))
        return _decode_pointer(_named(row)[1]) if row is not None else None

    def _suppressed(self, digest: bytes, value: bytes | None) -> Iterator[Row]:
        entry = _decode_suppression(value) if value is not None else None
        if entry is None or entry.consented_at > entry.at:
            yield "erased", digest, None
            return
        self._any_erased = True
        yield "erased", digest, b"%d" % entry.at
        if self._tables.get("identities", digest) is not None:
            yield from self._scrub_person(digest)
        elif self._tables.get("erased", digest) is None:
            # Their rows may have gone before it was known why: where they stood, nobody can say any more.
            self._scrubs = None

    def forget_missed(self, suppressions: Mapping[bytes, bytes]) -> None:
        """Forget who was erased while nobody followed: their tombstones in `identities`, whose keys are identifiers,
        are gone a minute after an erasure. `suppressions` is what that topic holds now. Who has come back since is read
        on from where the tables stand."""
        since = self.followed_at()
        rows: list[Row] = []
        histories = Histories(self._tables, self._keys, self._recent_days)
        for key, value in suppressions.items():
            if key[:1] == _NOBODYS:
                continue
            digest, entry = bytes.fromhex(key.decode()), _decode_suppression(value)
            row = self._tables.get("identities", digest)
            # Without an epoch it is not decided yet who they are: who was taken for them is let go again.
            if row is None or not entry.epoch or entry.at < entry.consented_at <= since:
                continue
            self._any_erased = True
            rows += self._scrub_person(digest)
            rows += self._forget(_named(row)[0], histories)
            rows.append(("identities", digest, None))
        if rows:
            self._tables.write([*rows, *histories.rows(), ("meta", b"scrub", b"1")])

    def _scrub_person(self, digest: bytes) -> Iterator[Row]:
        """The rows of an identifier, and of the profile it leads to, are to go from the files when they have gone."""
        self._scrub("identities", digest)
        self._scrub("recent", digest)
        self._scrub("routes", digest)
        row = self._tables.get("identities", digest)
        if row is not None:
            profile_id = _decode_pointer(_named(row)[1]).profile_id.encode()
            self._scrub("profiles", profile_id)
            yield "erased", profile_id, b""

    def _scrub(self, table: str, prefix: bytes) -> None:
        if self._scrubs is not None:
            self._scrubs.add((table, prefix))
            if len(self._scrubs) > _MOST_SCRUBS:
                self._scrubs = None

    def _erased_at(self, text: str) -> int | None:
        row = self._tables.get("erased", self._keys.digest(text))
        return int(row) if row is not None else None

    @property
    def wants_scrub(self) -> bool:
        """Whether files may hold rows of somebody who was erased."""
        return self._scrubs is None or bool(self._scrubs)

    def begin_scrub(self) -> Callable[[], None]:
        """Gives what writes these files anew: it takes long, and any thread may call it."""
        wanted, self._scrubs = self._scrubs, set()
        return lambda: self._tables.compact(wanted if wanted is None else sorted(wanted))

    def end_scrub(self) -> None:
        """They were written anew."""
        if not self.wants_scrub:
            self._tables.write([("meta", b"scrub", None)])

    # ----------------------------------------------------------------------------------------------------- asking

    def document(self, text: str) -> bytes | None:
        """The document of the living profile of an identifier or profile_id, successors followed; None if nobody is
        known by it."""
        profile_id = text
        pointer = self._pointer(text)
        for _ in range(_MAX_SUCCESSORS):
            if pointer is not None:
                profile_id = pointer.profile_id
            document = self._tables.get("profiles", profile_id.encode())
            if document is not None:
                return document
            pointer = self._pointer(profile_id)
            if pointer is None:
                return None
        return None

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Every document in the order of profile_ids, as of when it is come to."""
        for key, value in self._tables.scan("profiles", b""):
            yield key.decode(), value

    def reason(self, segment: str, profile_id: str) -> Reason | None:
        """Why a profile is a member, while the change that says so is kept."""
        found = self._tables.get("reasons", f"{segment}/{profile_id}".encode())
        return _decode_reason(found) if found is not None else None

    def members(self, segment: str, after: str, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` members in the order of their profile_ids, behind `after`."""
        prefix = f"{segment}/".encode()
        start = prefix + after.encode() + b"\x00" if after else b""
        rows = islice(self._tables.scan("members", prefix, start), limit)
        return [msgspec.json.decode(value[NUMBER_BYTES:]) for _, value in rows]

    def size(self, segment: str) -> int:
        """How many members a segment has."""
        found = self.bitmaps.get(segment)
        return len(found) if found is not None else 0

    def overlap(self, segments: Sequence[str]) -> int:
        """How many profiles are members of all of these."""
        return len(BitMap.intersection(*(self.bitmaps.get(one) or BitMap() for one in segments)))

    def union(self, segments: Sequence[str]) -> int:
        """How many profiles are members of at least one of these."""
        return len(BitMap.union(*(self.bitmaps.get(one) or BitMap() for one in segments)))

    def recent(self, document: ProfileDocument, limit: int) -> list[tuple[Event, int, int]]:
        """The newest events of a profile (of its strongest 100 identifiers), newest first: event, partition, offset."""
        found = []
        for one in document.identifiers:
            route = self._keys.digest(identifier(one.namespace, one.value))
            for key, value in islice(self._tables.scan("recent", route), min(limit, self._recent_events)):
                event = decode_events_record(value)
                assert isinstance(event, Event)
                place = key[len(route) + 8 :]
                found.append((event, int.from_bytes(place[:4], "big"), _LATEST - int.from_bytes(place[4:], "big")))
        found.sort(key=lambda one: (-one[0].time, one[1], -one[2]))
        return found[:limit]

    def people(self, account: str, after: str, limit: int) -> tuple[list[ProfileDocument], str]:
        """Up to `limit` people of an account in the order of their profile_ids, behind `after`, and behind whom to go
        on ("": those were all)."""
        start = belonging(account, after.encode()) + b"\x00" if after else b""
        keys = [key for key, _ in islice(self._tables.scan("people", belonging(account, b""), start), limit)]
        ids = [key.rpartition(b"\x00")[2] for key in keys]
        # Who has ended since the page was begun is left out of it; the page after it begins where it would have.
        found = [_decode_document(one) for each in ids if (one := self._tables.get("profiles", each)) is not None]
        return found, ids[-1].decode() if len(ids) == limit else ""

    def headcount(self, account: str) -> int:
        """How many people belong to an account."""
        return sum(1 for _ in self._tables.scan("people", belonging(account, b"")))

    def accounts(self, begins: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Up to `limit` accounts whose names begin so, behind `after`: (name, profile_id), in the order of names."""
        start = after.encode() + b"\x00" if after else b""
        rows = islice(self._tables.scan("accounts", begins.encode(), start), limit)
        return [(name.decode(), profile_id.decode()) for name, profile_id in rows]

    def account_count(self) -> int:
        """How many accounts there are."""
        return sum(1 for _ in self._tables.scan("accounts", b""))

    def account_id(self, name: str) -> str:
        """The profile_id of an account of this name."""
        return self._keys.profile_id(f"account:{name}")

    def history(self, document: ProfileDocument) -> Route:
        """What came by the identifiers of a profile (its strongest 100), together."""
        digests = (self._keys.digest(identifier(one.namespace, one.value)) for one in document.identifiers)
        return joined([found for digest in digests if (found := route_of(self._tables, digest)) is not None])

    def digest(self, text: str) -> bytes:
        """The keyed hash under which histories know an identifier."""
        return self._keys.digest(text)

    def growth(self, segment: str, since_ms: int) -> list[tuple[int, int, int]]:
        """(beginning of an hour, entered, exited), the oldest first."""
        return growth_of(self._tables, segment, since_ms)

    def violations(self, since_ms: int) -> list[tuple[int, str, str, str, int]]:
        """(day, contract, event, flag, how often), the oldest day first."""
        return violations_of(self._tables, since_ms)

    def alerts(self, profile_id: str, limit: int) -> list[AccountAlert]:
        """The newest alerts of an account, or of all accounts ("")."""
        return alerts_of(self._tables, profile_id, limit)

    def rows(self) -> dict[str, dict[bytes, bytes]]:
        """Everything the tables show of the compacted topics, for comparison with the topics."""
        return {
            "profiles": dict(self._tables.scan("profiles", b"")),
            "identities": dict(_named(row) for _, row in self._tables.scan("identities", b"")),
            "segment-members": {key: value[NUMBER_BYTES:] for key, value in self._tables.scan("members", b"")},
        }

    def close(self) -> None:
        """Make everything lasting."""
        self._tables.close()


class _Generations:
    """Per partition of `events`, the generation of definitions that was marked last, and the one that is in force."""

    def __init__(self, tables: Tables) -> None:
        kept = tables.get("meta", b"generations")
        self._known: dict[str, list[int]] = msgspec.json.decode(kept) if kept is not None else {}

    def see(self, record: Record) -> Iterator[Row]:
        """Take in a marker, or that a generation is ready."""
        if b'"generation"' not in (record.value or b""):
            return
        message = read_events_record(record.value)
        if isinstance(message, Marker | Ready):
            known = self._known.setdefault(str(record.partition), [0, 0])
            place = 1 if isinstance(message, Ready) else 0
            known[place] = max(known[place], message.generation)
            yield "meta", b"generations", _encode(self._known)

    def behind(self) -> int:
        """The newest generation that is not in force everywhere yet; 0 if there is none."""
        return max((marked for marked, ready in list(self._known.values()) if marked > ready), default=0)


def decoded(document: bytes) -> ProfileDocument:
    """A document as a struct."""
    return _decode_document(document)


def _reason(change: SegmentChange) -> Row:
    key = f"{change.segment}/{change.profile_id}".encode()
    if change.change == "exited":
        return "reasons", key, None
    reason = Reason(
        change.at,
        change.decided_at,
        change.sequence,
        change.cause,
        change.evidence,
        change.late,
        change.continues,
        change.approximate,
    )
    return "reasons", key, _encode(reason)


def _named(row: bytes) -> tuple[bytes, bytes]:
    """The key and the value that a row of `identities` holds."""
    end = 2 + int.from_bytes(row[:2], "big")
    return row[2:end], row[end:]
