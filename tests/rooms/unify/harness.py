"""A small world for unify: partitions as lists, the real identity stage, and a scheduler that draws from a seed.

Each partition is one log, so messages arrive in the order in which they were sent to it; everything else is drawn:
who works next, on which of its inputs, how many records a batch has, when a task loses its caches.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.accounts import GROUPS_ONLY, AccountRules
from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import SegmentDefinition
from pipeline.definitions.traits import TraitDefinition
from pipeline.identifiers import Keys, partition_of, split_identifier
from pipeline.identity import IdentityStage, builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.profile import apply_change
from pipeline.records import (
    CaughtUp,
    Event,
    IdentityPointer,
    Marker,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
    SegmentMember,
    encode,
)
from pipeline.runtime.ports import Record, Stage
from pipeline.segments import NOTHING_SAID, Keeps, SegmentsPlan, compile_plan
from pipeline.unify import UnifyStage
from pipeline.unify.actor import ACTORS

NOON = 1_700_000_000_000
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
COMPACTED = ("profiles", "identities", "segment-members", "identity-decisions")
KEYS = Keys(b"the secret of the tests")
Definition = dict[str, Any]


class State:
    """Values as objects; `lose_caches` makes them anew from their stored form."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.values: dict[bytes, Any] = {}
        self.wakes: dict[bytes, int] = {}
        self.stored: dict[bytes, bytes] = {}
        self.touched: set[bytes] = set()
        self.changed: set[bytes] = set()
        self.awake: dict[bytes, None] = {}

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        return iter(keys)

    def rest(self, prefix: bytes) -> None:
        """Every object is a new one at each step."""
        for key in self.awake:
            if key.startswith(prefix) and key in self.values:
                self.stage.resting(key, again=bool(key[-1] & 1))  # type: ignore[attr-defined]
                self.values[key] = self.stage.decode(key, self.stage.encode(key, self.values[key]))
        self.awake.clear()

    def get(self, key: bytes) -> Any | None:
        self.awake[key] = None
        self.touched.add(key)
        return self.values.get(key)

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        self.changed.add(key)
        self.awake[key] = None
        self.values[key] = value
        self.wakes[key] = wake_at

    def delete(self, key: bytes) -> None:
        self.values.pop(key, None)
        self.wakes.pop(key, None)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        return iter([(key, self.values[key]) for key in sorted(self.values) if key.startswith(prefix)])

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        return sorted((at, key) for key, at in self.wakes.items() if at and at <= until_ms)[:limit]

    def first_wake(self) -> int | None:
        return min((at for at in self.wakes.values() if at), default=None)

    def scrub(self, prefix: bytes) -> None:
        """Here a former value is gone at once."""

    def commit(self) -> None:
        """Keep what was put; what was changed without being put would be lost."""
        for key in self.changed & self.values.keys():
            self.stored[key] = self.stage.encode(key, self.values[key])
        for key in (self.touched - self.changed) & self.values.keys():
            assert self.stage.encode(key, self.values[key]) == self.stored[key], f"{key!r} was changed and not put"
        self.touched.clear()
        self.changed.clear()

    def lose_caches(self) -> None:
        self.stage.forget()
        stored = {key: self.stage.encode(key, value) for key, value in self.values.items()}
        self.values = {key: self.stage.decode(key, data) for key, data in stored.items()}


def _in_bytes(documents: dict[str, ProfileDocument]) -> dict[str, bytes]:
    return {name: msgspec.json.encode(one, order="deterministic") for name, one in documents.items()}


class World:
    """One deployment and everything that happens to it."""

    def __init__(
        self,
        segments: tuple[Definition, ...] = (),
        seed: int = 0,
        partitions: int = 3,
        activation: ActivationPlan | None = None,
        expire_after_days: int = 90,
        make_unify: Callable[..., Stage] = UnifyStage,
        accounts: AccountRules = GROUPS_ONLY,
    ) -> None:
        self.accounts = accounts
        self.rng = random.Random(seed)
        self.partitions = partitions
        self.generations: list[GenerationPlan] = []
        self.define(segments, activation)
        self.logs: dict[str, list[list[tuple[bytes | None, bytes]]]] = {}
        self.compacted: dict[str, dict[str, bytes]] = {topic: {} for topic in COMPACTED}
        self.said: dict[str, list[bytes]] = {}
        self.messages = 0
        self.lose = 0.2
        self.tasks: list[tuple[Stage, State, dict[tuple[str, int], int]]] = []
        self._add(IdentityStage(KEYS, self.generations.__getitem__, partitions), [("identity-edges", 0)])
        for partition in range(partitions):
            stage = make_unify(partition, KEYS, self.generations.__getitem__, expire_after_days, partitions)
            self._add(stage, [("events", partition), ("links", partition)])
        self.weights = [self.rng.choice((0.2, 1.0, 4.0)) for _ in self.tasks]

    def _add(self, stage: Stage, inputs: list[tuple[str, int]]) -> None:
        self.tasks.append((stage, State(stage), dict.fromkeys(inputs, 0)))

    # ------------------------------------------------------------------------------------------------- what happens

    def define(self, segments: tuple[Definition, ...], activation: ActivationPlan | None = None) -> int:
        """A new generation of definitions; gives its number."""
        number = len(self.generations)
        plan = compiled(segments, number, self.generations[-1].segments.births if self.generations else None)
        self.generations.append(self._plan(number, plan, activation))
        return number

    def _plan(self, number: int, plan: SegmentsPlan, activation: ActivationPlan | None) -> GenerationPlan:
        return GenerationPlan(number, builtin_rules(), plan, activation or ActivationPlan(), accounts=self.accounts)

    def send(
        self,
        *identifiers: str,
        event: str = "Page Viewed",
        at: int = 0,
        received: int | None = None,
        message_id: str | None = None,
        kind: str = "track",
        **fields: Any,
    ) -> Event:
        """Ingest writes an event that happened `at` ms after noon."""
        self.messages += 1
        sent = Event(
            message_id=message_id or f"m{self.messages}",
            type=kind,
            event=event,
            identifiers=list(identifiers),
            time=NOON + at,
            received=NOON + (at if received is None else received),
            source=f"raw/0/{self.messages}",
            **fields,
        )
        self.write("events", KEYS.actor(identifiers[0]), encode(sent))
        return sent

    def operate(self, record: Any) -> None:
        """Somebody writes into identity-edges."""
        self.write("identity-edges", None, encode(record), 0)

    def mark(self, generation: int, at: int) -> None:
        """The definitions change: a marker into every partition."""
        for partition in range(self.partitions):
            self.write("events", None, encode(Marker(generation, NOON + at)), partition)

    def write(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        log = self._log(topic)
        log[partition_of(key or b"", len(log)) if partition is None else partition].append((key, value))

    def rest(self, at: int) -> None:
        """Everything is read to its end, and time comes to `at`."""
        for partition in range(self.partitions):
            self.write("events", None, encode(CaughtUp(NOON + at)), partition)
        while self.work() or self._read_history(most_slices=10_000) or self._wake(NOON + at):
            pass

    def work(self, most_batches: int = 1_000_000) -> bool:
        """Batches of whoever is drawn, until nothing waits. Gives whether there was any."""
        worked = False
        for _ in range(most_batches):
            waiting = [number for number, task in enumerate(self.tasks) if self._ready(task[2])]
            if not waiting:
                break
            worked = True
            self._batch(self.rng.choices(waiting, [self.weights[number] for number in waiting])[0])
            if self.rng.random() < 0.3:
                self._read_history(most_slices=1)
        return worked

    def _read_history(self, most_slices: int) -> bool:
        """Slices of history of whoever is drawn, until nobody has any. Gives whether there was one."""
        for done in range(most_slices):
            asking = [
                (stage, state, bounds)
                for stage, state, _ in self.tasks
                if isinstance(stage, UnifyStage) and (bounds := stage.history(state)) is not None
            ]
            if not asking:
                return done > 0
            stage, state, (start, end) = self.rng.choice(asking)
            reached = min(end, start + self.rng.choice((1, 3, 100)))
            partition = stage._task.partition
            log = self._log("events")[partition][:reached]
            records = [Record("events", partition, offset, *log[offset]) for offset in range(start, reached)]
            out = _Out()
            stage.fold_history(records, reached, state, out)
            stage.finish(state, out)
            state.commit()
            self._commit(out)
            if self.rng.random() < self.lose:
                state.lose_caches()
        return True

    def _batch(self, number: int) -> None:
        stage, state, positions = self.tasks[number]
        out = _Out()
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            ready = self._ready(positions)
            if not ready:
                break
            topic, partition = self.rng.choice(ready)
            offset = positions[topic, partition]
            key, value = self._log(topic)[partition][offset]
            stage.step(Record(topic, partition, offset, key, value), state, out)
            positions[topic, partition] += 1
        stage.finish(state, out)
        state.commit()
        self._commit(out)
        if self.rng.random() < self.lose:
            state.lose_caches()

    def _wake(self, now: int) -> bool:
        said = False
        for stage, state, _ in self.tasks:
            out = _Out()
            stage.wake(state, out, now)
            state.commit()
            said = said or bool(out.logged)
            self._commit(out)
        return said

    def _commit(self, out: "_Out") -> None:
        for topic, key, value, partition in out.logged:
            if topic in ("links", "identity-edges", "events"):
                self.write(topic, key, value, partition)
            self.said.setdefault(topic, []).append(value)
        for (topic, upserted), data in out.upserts.items():
            if data is None:
                self.compacted[topic].pop(upserted.decode(), None)
            else:
                self.compacted[topic][upserted.decode()] = data

    def _ready(self, positions: dict[tuple[str, int], int]) -> list[tuple[str, int]]:
        return [one for one, offset in positions.items() if offset < len(self._log(one[0])[one[1]])]

    def _log(self, topic: str) -> list[list[tuple[bytes | None, bytes]]]:
        if topic not in self.logs:
            self.logs[topic] = [[] for _ in range(1 if topic == "identity-edges" else self.partitions)]
        return self.logs[topic]

    # ------------------------------------------------------------------------------------------------- what came out

    def document(self, identifier: str) -> ProfileDocument | None:
        """The profile an identifier leads to, as a reader finds it."""
        key = identifier
        for _ in range(20):
            data = self.compacted["identities"].get(key)
            if data is None:
                return None
            key = msgspec.json.decode(data, type=IdentityPointer).profile_id
            found = self.compacted["profiles"].get(key)
            if found is not None:
                return msgspec.json.decode(found, type=ProfileDocument)
        raise AssertionError(f"{identifier} leads round in a circle")

    def profile(self, identifier: str) -> ProfileDocument:
        """The same, where there must be one."""
        found = self.document(identifier)
        assert found is not None, f"{identifier} leads to no profile"
        return found

    def identifiers(self, identifier: str) -> set[str]:
        """Who belongs to the same profile."""
        return {f"{pair.namespace}:{pair.value}" for pair in self.profile(identifier).identifiers}

    def totals(self, identifier: str) -> dict[str, int]:
        """How often the person did what."""
        return {name: total.count for name, total in self.profile(identifier).totals.items()}

    def profiles(self) -> dict[str, ProfileDocument]:
        """All of them, by profile_id."""
        return {
            key: msgspec.json.decode(data, type=ProfileDocument) for key, data in self.compacted["profiles"].items()
        }

    def segment_changes(self, segment: str | None = None) -> list[SegmentChange]:
        """What was said on `segment-changes`, about one segment or all."""
        found = [msgspec.json.decode(data, type=SegmentChange) for data in self.said.get("segment-changes", [])]
        return [change for change in found if segment in (None, change.segment)]

    def profile_changes(self) -> list[ProfileChange]:
        """What was said on `profile-changes`."""
        return [msgspec.json.decode(data, type=ProfileChange) for data in self.said.get("profile-changes", [])]

    def members(self, segment: str) -> set[str]:
        """The profile_ids of the present members."""
        found = [msgspec.json.decode(data, type=SegmentMember) for data in self.compacted["segment-members"].values()]
        return {member.profile_id for member in found if member.segment == segment}

    def counts(self) -> dict[str, int]:
        """What all unify tasks counted."""
        total: dict[str, int] = {}
        for _, state, _ in self.tasks[1:]:
            meta = state.get(b"g")
            for what, number in (meta.counts if meta is not None else {}).items():
                total[what] = total.get(what, 0) + number
        return total

    def check(self) -> None:
        """The logs fold to the compacted topics; memberships alternate, with sequences that rise by one; how a profile
        stands is kept as it would be found anew."""
        documents: dict[str, ProfileDocument] = {}
        for change in self.profile_changes():
            after = apply_change(documents.get(change.profile_id), change)
            if after is None:
                del documents[change.profile_id]
            else:
                documents[change.profile_id] = after
        # As bytes: to Python 1 equals True, and is another value.
        assert _in_bytes(documents) == _in_bytes(self.profiles())
        last: dict[tuple[str, str], SegmentChange] = {}
        for change in self.segment_changes():
            before = last.get((change.segment, change.profile_id))
            assert change.change == ("entered" if before is None or before.change == "exited" else "exited"), change
            assert change.sequence == (before.sequence if before is not None else 0) + 1, change
            assert before is None or before.at <= change.at <= change.decided_at, change
            last[change.segment, change.profile_id] = change
        members = {
            f"{segment}/{profile_id}": SegmentMember(
                segment, profile_id, change.entity, change.version, change.at, change.sequence
            )
            for (segment, profile_id), change in last.items()
            if change.change == "entered"
        }
        found = self.compacted["segment-members"]
        assert members == {key: msgspec.json.decode(data, type=SegmentMember) for key, data in found.items()}
        for profile_id, document in documents.items():
            shown = {f"{segment}/{profile_id}": one.sequence for segment, one in document.segments.items()}
            assert shown == {key: one.sequence for key, one in members.items() if one.profile_id == profile_id}

        for stage, state, _ in self.tasks[1:]:
            state.lose_caches()
            for key in [key for key in state.values if key.startswith(ACTORS)]:
                _check_standing(stage, state, key)


def _check_standing(stage: Any, state: State, key: bytes) -> None:
    actor, out = state.values[key], _Out()
    stage._task.enter(state, out)
    profile = stage._task.profile(key, actor)
    if not actor.published:
        assert actor.standing == b"" and profile.standing is None
        return
    assert actor.standing == profile.plan.segments.begin(profile, actor.settled).kept
    assert profile.standing is not None and profile.standing.kept == actor.standing


class _Out:
    def __init__(self) -> None:
        self.logged: list[tuple[str, bytes | None, bytes, int | None]] = []
        self.upserts: dict[tuple[str, bytes], bytes | None] = {}

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        assert topic not in COMPACTED
        self.logged.append((topic, key, value, partition))

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        assert topic in COMPACTED
        self.upserts[topic, key] = value


def compiled(
    definitions: tuple[Definition, ...],
    generation: int,
    births: dict[str, int] | None,
    keeps: Keeps = NOTHING_SAID,
) -> SegmentsPlan:
    """The plan of what people wrote; `version` beside a definition is its version."""
    return compile_plan(
        [
            SegmentDefinition.model_validate({k: v for k, v in one.items() if k != "version"}).compiled(
                one.get("version", 1)
            )
            for one in definitions
            if "segment" in one
        ],
        [TraitDefinition.model_validate(one).compiled() for one in definitions if "computed" in one],
        generation,
        births,
        keeps,
    )


def id_of(identifier: str, erased: int = 0) -> str:
    """The profile_id of the profile an identifier names."""
    return KEYS.profile_id(identifier, erased)


def pairs(*identifiers: str) -> list[tuple[str, str]]:
    """Public pairs of identifiers."""
    return [split_identifier(one) for one in identifiers]
