"""What must be true when nothing is in flight (DESIGN section 9), checked from the topics as a reader sees them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from pipeline.identifiers import Keys
from pipeline.records import (
    EdgesRecord,
    Event,
    IdentityPointer,
    ProfileChange,
    ProfileDocument,
    Release,
    Relink,
    SegmentChange,
    SegmentMember,
    Unlink,
    decode_edges_record,
    decode_events_record,
)
from pipeline.records import Evidence as EvidenceRecord
from tests.oracle.identity import Evidence, Resolution, Rules, resolve
from tests.oracle.profiles import Accepted, ExpectedProfile, accept, gather_evidence, profiles
from tests.oracle.segments import Facts, computed, truth_at
from tests.simulation.driver import Said, Task, Written
from tests.simulation.instants import candidates

_document = msgspec.json.Decoder(ProfileDocument).decode
_pointer = msgspec.json.Decoder(IdentityPointer).decode
_profile_change = msgspec.json.Decoder(ProfileChange).decode
_segment_change = msgspec.json.Decoder(SegmentChange).decode
_segment_member = msgspec.json.Decoder(SegmentMember).decode


MOST_SHOWN = 10


class Topics(Protocol):
    """The topics as a reader of committed records sees them."""

    def records(self, name: str) -> list[Written]:
        """All records of a topic, partition by partition."""
        ...

    def compacted(self, name: str) -> dict[bytes, bytes]:
        """The present value of each key."""
        ...

    def by_partition(self, name: str) -> list[dict[int, Written]]:
        """The records of each partition by offset."""
        ...


class Violation(AssertionError):
    """An invariant does not hold; `rule` names it."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


class Truth:
    """The oracle's view of everything that was sent up to now."""

    def __init__(self, rules: Rules, keys: Keys) -> None:
        self.rules = rules
        self.keys = keys
        self.partitions: dict[int, list[Event]] = defaultdict(list)
        self.operated: list[tuple[int, EdgesRecord]] = []
        self.sent = 0
        self._known_at: dict[int, set[tuple[str, str]]] = {}
        self.accepted = Accepted()
        self.who = Resolution({}, {}, frozenset(), frozenset())
        self.evidence = Evidence()
        self.expected: dict[str, ExpectedProfile] = {}
        self.forgotten = 0
        self.epochs: dict[str, int] = {}
        self.told_before: list[Event] = []

    def id_of(self, name: str) -> str:
        """The profile_id of the profile that an identifier names now."""
        return self.keys.profile_id(name, self.epochs.get(name, 0))

    def send(self, partition: int, event: Event) -> None:
        self.partitions[partition].append(event)
        self.sent += 1

    def operate(self, record: EdgesRecord) -> None:
        self.operated.append((self.sent, record))

    def settle(self) -> None:
        """Work everything out from scratch."""
        self.accepted = accept(self.partitions[partition] for partition in sorted(self.partitions))
        self.evidence = evidence = self._evidence()
        self.who = resolve(evidence, self.rules)
        by_name = profiles(self.accepted.events, self.who)
        self.expected = {self.id_of(name): profile for name, profile in by_name.items()}

    def _evidence(self) -> Evidence:
        releases = [(sent, record) for sent, record in self.operated if isinstance(record, Release)]
        evidence = gather_evidence(self.accepted.events)
        for _, record in self.operated:
            if isinstance(record, Unlink):
                evidence.unlink(record.a, record.b, record.received, record.forever)
            elif isinstance(record, Relink):
                evidence.relink(record.a, record.b)
        for sent, record in releases:
            before = self._known_at.get(sent)
            assert before is not None, "a release is judged at rest only"
            evidence.touched_at_release[record.identifier] = {pair for pair in before if record.identifier in pair}
        self._known_at[self.sent] = set(evidence.edges)
        return evidence


def check_profiles(truth: Truth, broker: Topics) -> None:
    """1: the final profiles are those of a batch resolution of all evidence."""
    published = _people(broker)
    if published.keys() != truth.expected.keys():
        name_of = {truth.id_of(one): one for one in _all_identifiers(truth)}
        there = sorted(name_of.get(one, one) for one in published)
        due = sorted(name_of.get(one, one) for one in truth.expected)
        raise Violation("1 profiles", f"published {there}, expected {due}")
    for profile_id, profile in truth.expected.items():
        document = published[profile_id]
        shown = {f"{pair.namespace}:{pair.value}" for pair in document.identifiers}
        same("1 identifiers", profile.name, shown, profile.identifiers)
        same("1 identifiers_total", profile.name, document.identifiers_total, len(profile.identifiers))
        same("1 traits", profile.name, document.traits, profile.traits)
        totals = {event: (one.count, one.first, one.last) for event, one in document.totals.items()}
        same("1 totals", profile.name, totals, profile.totals)
        same("1 first_seen", profile.name, document.first_seen, profile.first_seen)
        same("1 last_seen", profile.name, document.last_seen, profile.last_seen)
        same("1 profile_id", profile.name, document.profile_id, profile_id)


def _people(broker: Topics) -> dict[str, ProfileDocument]:
    """The documents of people, by profile_id."""
    found = {key.decode(): _document(value) for key, value in broker.compacted("profiles").items()}
    return {key: document for key, document in found.items() if document.entity == "person"}


def check_unfollowed(truth: Truth, broker: Topics) -> None:
    """Every profile shows which evidence about it is not followed; whoever has much of it, the newest of it."""
    junk = truth.who.quarantined
    links: dict[str, set[str]] = defaultdict(set)
    for edge in truth.evidence.counting():
        if (min(edge.a, edge.b), max(edge.a, edge.b)) in truth.who.refused or edge.a in junk or edge.b in junk:
            for one, other in ((edge.a, edge.b), (edge.b, edge.a)):
                if one not in junk:
                    links[one].add(other)
    for value in broker.compacted("profiles").values():
        document = _document(value)
        if document.entity != "person":
            continue
        shown = {
            (f"{link.identifier.namespace}:{link.identifier.value}", f"{link.other.namespace}:{link.other.value}")
            for link in document.unfollowed
        }
        members = truth.who.members.get(_name_of(document, truth), frozenset())
        due = {(one, other) for one in members for other in links[one]}
        if len(due) <= MOST_SHOWN:
            same("2 unfollowed", document.profile_id, shown, due)
        elif not shown <= due or len(shown) != MOST_SHOWN:
            raise Violation("2 unfollowed", f"{document.profile_id} shows {shown} of {due}")


def _name_of(document: ProfileDocument, truth: Truth) -> str:
    first = document.identifiers[0]
    text = f"{first.namespace}:{first.value}"
    return truth.who.name_of.get(text, text)


def check_limits(truth: Truth, broker: Topics) -> None:
    """2: no profile breaks a limit; nothing quarantined is with anybody else."""
    for value in broker.compacted("profiles").values():
        document = _document(value)
        counts = Counter(pair.namespace for pair in document.identifiers)
        for rule in truth.rules.namespaces.values():
            if rule.limit and counts[rule.name] > rule.limit:
                raise Violation("2 limits", f"{document.profile_id} holds {counts[rule.name]} of {rule.name}")
        texts = {f"{pair.namespace}:{pair.value}" for pair in document.identifiers}
        if len(texts) > 1 and texts & truth.who.quarantined:
            raise Violation("2 quarantine", f"{texts & truth.who.quarantined} stand in {texts}")


def check_pointers(truth: Truth, broker: Topics) -> None:
    """Look-ups by identifier end at the profile that holds it, and retired profiles lead to a living one."""
    pointers = {key.decode(): _pointer(value) for key, value in broker.compacted("identities").items()}
    routes = {event.identifiers[0] for event in truth.accepted.events}
    for one in routes | {one for one, name in truth.who.name_of.items() if name != one}:
        if truth.id_of(truth.who.name_of.get(one, one)) not in truth.expected:
            continue
        pointer = pointers.get(one)
        if pointer is None:
            raise Violation("identities", f"{one} leads nowhere")
        same("identities", one, pointer.profile_id, truth.id_of(truth.who.name_of.get(one, one)))
    last = {change.profile_id: change.change for change in _profile_changes(broker)}
    ended = {profile_id for profile_id, change in last.items() if change == "merged"}
    naming = {truth.id_of(one): one for one in {*_all_identifiers(truth), *truth.who.name_of}}
    for profile_id in ended - truth.expected.keys():
        here, steps = profile_id, 0
        if truth.epochs and profile_id not in naming:
            # It was one of somebody who was erased since.
            continue
        one = naming[profile_id]
        if truth.id_of(truth.who.name_of.get(one, one)) not in truth.expected:
            # What named it is nobody's now, or belongs to others of whom nothing is known.
            continue
        while here not in truth.expected:
            pointer = pointers.get(here)
            if pointer is None or steps > len(ended) + 1:
                raise Violation("identities", f"retired profile {profile_id} leads nowhere living (stopped at {here})")
            here, steps = pointer.profile_id, steps + 1


def check_folds(truth: Truth, broker: Topics) -> None:
    """6: alternation, continuous sequences; the logs fold to the compacted topics."""
    members: dict[tuple[str, str], SegmentChange] = {}
    last: dict[tuple[str, str], SegmentChange] = {}
    for change in _segment_changes(broker):
        pair = (change.segment, change.profile_id)
        before = last.get(pair)
        if before is not None and before.change == change.change:
            raise Violation("6 alternation", f"{pair} {change.change} twice: {before} then {change}")
        if before is None and change.change != "entered":
            raise Violation("6 alternation", f"{pair} begins with {change.change}")
        if change.sequence != (before.sequence if before else 0) + 1:
            raise Violation("6 sequence", f"{pair} goes from {before and before.sequence} to {change.sequence}")
        if before is not None and change.at < before.at:
            raise Violation("6 at", f"{pair} goes back in time: {before.at} then {change.at}")
        if change.at > change.decided_at:
            raise Violation("6 at", f"{pair} at {change.at} was decided before, at {change.decided_at}")
        last[pair] = change
        if change.change == "entered":
            members[pair] = change
        else:
            members.pop(pair, None)
    published = {}
    for key, value in broker.compacted("segment-members").items():
        member = _segment_member(value)
        same("6 member key", key.decode(), key.decode(), f"{member.segment}/{member.profile_id}")
        published[member.segment, member.profile_id] = member
    same("6 members", "fold of segment-changes", published.keys(), members.keys())
    for pair, member in published.items():
        same("6 member sequence", str(pair), member.sequence, members[pair].sequence)
        same("6 member since", str(pair), member.since, members[pair].at)

    for told in (_segment_changes(broker), _profile_changes(broker)):
        decided: dict[str, int] = {}
        for one in told:
            if one.decided_at < decided.get(one.profile_id, 0):
                raise Violation("6 decided_at", f"{one.profile_id} goes back: {decided[one.profile_id]} then {one}")
            decided[one.profile_id] = one.decided_at

    folded: dict[str, dict[str, Any]] = {}
    for changed in _profile_changes(broker):
        _fold_profile_change(folded, changed)
    documents = {}
    for key, value in broker.compacted("profiles").items():
        document = msgspec.json.decode(value)
        documents[key.decode()] = {name: value for name, value in document.items() if value not in ({}, [], 0)}
    shown = {
        profile_id: {name: value for name, value in document.items() if value not in ({}, [], 0)}
        for profile_id, document in folded.items()
    }
    same("6 fold of profile-changes", "ids", shown.keys(), documents.keys())
    for profile_id, document in documents.items():
        for section in (document.keys() | shown[profile_id].keys()) - {"profile_id", "entity"}:
            same(
                "6 fold of profile-changes",
                f"{profile_id} {section}",
                shown[profile_id].get(section),
                document.get(section),
            )


def _fold_profile_change(folded: dict[str, dict[str, Any]], change: ProfileChange) -> None:
    there = folded.get(change.profile_id)
    if change.change in ("created", "split"):
        if there is not None:
            raise Violation("6 lifecycle", f"{change.profile_id} {change.change} while alive")
        there = folded[change.profile_id] = {}
    elif there is None:
        raise Violation("6 lifecycle", f"{change.profile_id} {change.change} while not alive")
    if change.change in ("merged", "expired", "erased"):
        del folded[change.profile_id]
        return
    for section, value in change.set.items():
        if isinstance(value, dict):
            there[section] = {**there.get(section, {}), **value}
        else:
            there[section] = value
    for section, names in change.unset.items():
        there[section] = {name: value for name, value in there.get(section, {}).items() if name not in names}


def check_computed(truth: Truth, broker: Topics, definitions: Sequence[Mapping[str, Any]], now: int) -> None:
    """What a document shows beyond identity: computed traits at the clock, and consents."""
    bodies = {one["computed"]: one["compute"] for one in definitions if "computed" in one}
    for key, document in _people(broker).items():
        profile = truth.expected[key]
        facts = Facts(profile.events, key, definitions, now)
        given = {purpose: said == "granted" for purpose, said in facts.consents.items()}
        same("5 consents", profile.name, document.consents, given)
        due = {name: shown for name, body in bodies.items() if (shown := computed(body, facts)) is not None}
        same("5 computed", f"{profile.name} at {now} {bodies}", document.computed, due)


def same_end(one: Topics, other: Topics) -> None:
    """10: any order and partition count give the same final profiles and members."""

    def end(topics: Topics) -> dict[str, Any]:
        documents = {}
        for key, value in topics.compacted("profiles").items():
            document = msgspec.json.decode(value)
            document["segments"] = sorted(document.get("segments", {}))
            documents[key.decode()] = document
        return documents

    same("10 same end", "profiles of two deployments", end(other), end(one))
    same(
        "10 same end",
        "members of two deployments",
        sorted(other.compacted("segment-members")),
        sorted(one.compacted("segment-members")),
    )


def check_causes(broker: Topics) -> None:
    """DESIGN section 3: `at`, `late` and `evidence` of every change say what caused it, and when."""
    events = {
        (partition, offset): decode_events_record(written.value)
        for partition, records in enumerate(broker.by_partition("events"))
        for offset, written in records.items()
        if written.value is not None
    }
    last: dict[tuple[str, str], int] = {}
    for change in _segment_changes(broker):
        pair = (change.segment, change.profile_id)
        before = last.get(pair)
        if change.cause == "event":
            position = (change.evidence.partition, change.evidence.offset)
            event = events.get(position)  # type: ignore[arg-type]
            if not isinstance(event, Event) or event.message_id != change.evidence.message_id:
                raise Violation("3 evidence", f"{change}: at {position} there is {event}")
            due = event.time if before is None else max(event.time, before)
            same("3 at of an event", str(change), change.at, due)
            same("3 late", str(change), change.late, before is not None and event.time < before)
        elif change.cause in ("merge", "split"):
            same("3 at of a merge", str(change), change.at, change.decided_at)
        last[pair] = change.at


def check_calm(
    truth: Truth,
    broker: Topics,
    segments: Sequence[Mapping[str, Any]],
    definitions: Sequence[Mapping[str, Any]],
    now: int,
) -> None:
    """Where every event is on time and nobody has two identifiers, the log of changes is known to the millisecond."""
    changes: dict[tuple[str, str], list[SegmentChange]] = defaultdict(list)
    for change in _segment_changes(broker):
        changes[change.segment, change.profile_id].append(change)
    for profile_id, profile in truth.expected.items():
        begin = profile.first_seen
        instants = candidates(definitions, profile.events, begin, now)
        if len(instants) > 300:
            instants = instants[:: len(instants) // 300 + 1]
        for definition in segments:
            told = changes.get((definition["segment"], profile_id), [])
            near = {change.at + d for change in told for d in (-1, 0)}
            for instant in sorted({begin, now, *instants, *near}):
                if not begin <= instant <= now:
                    continue
                before = [change for change in told if change.at <= instant]
                stood = bool(before) and before[-1].change == "entered"
                should = truth_at(definition, definitions, profile, profile_id, instant)
                if stood != should:
                    raise Violation(
                        "4 instants", f"{profile.name} {definition} at {instant}: told {stood}, is {should}; {told}"
                    )


def members_due(
    truth: Truth, definitions: Sequence[Mapping[str, Any]], asked: Iterable[Mapping[str, Any]], now: int
) -> dict[str, set[str]]:
    """Segment → the profiles that should be in it at an instant, of those `asked` for."""
    return {
        str(one["segment"]): {
            profile_id
            for profile_id, profile in truth.expected.items()
            if truth_at(one, definitions, profile, profile_id, now)
        }
        for one in asked
    }


def check_members(truth: Truth, broker: Topics, expected: Mapping[str, set[str]], now: int) -> None:
    """4: memberships are those of a naive evaluator that sees every event so far."""
    published: dict[str, set[str]] = {segment: set() for segment in expected}
    for value in broker.compacted("segment-members").values():
        member = _segment_member(value)
        published.setdefault(member.segment, set()).add(member.profile_id)
    names = {profile_id: profile.name for profile_id, profile in truth.expected.items()}
    for segment, ids in expected.items():
        if published[segment] != ids:
            extra = sorted(names.get(one, one) for one in published[segment] - ids)
            missing = sorted(names.get(one, one) for one in ids - published[segment])
            raise Violation("4 members", f"{segment} at {now}: also has {extra}, lacks {missing}")
    for key, value in broker.compacted("profiles").items():
        document = _document(value)
        shown = set(document.segments)
        due = {segment for segment, ids in expected.items() if key.decode() in ids}
        same("4 segments of the document", names.get(key.decode(), key.decode()), shown, due)


def check_store(stores: Mapping[str, tuple[Any, Any]]) -> None:
    """9: the local store is what the changelog gives."""
    for task, (local, rebuilt) in stores.items():
        same("9 store", task, local, rebuilt)


def check_what_is_told(truth: Truth, broker: Topics) -> None:
    """What holds of a workspace at rest whatever its rules: who is who, where everybody is found, and that nothing is
    lost or told twice."""
    check_nothing_refused(broker)
    check_profiles(truth, broker)
    check_limits(truth, broker)
    check_unfollowed(truth, broker)
    check_pointers(truth, broker)
    check_accounting(truth, broker)
    check_folds(truth, broker)


def check_nothing_refused(broker: Topics) -> None:
    """No record of ours made a stage raise."""
    letters = broker.records("dead-letters")
    if letters:
        raise Violation("dead letters", f"{len(letters)}, the first: {letters[0].value!r}")


def check_accounting(truth: Truth, broker: Topics) -> None:
    """8: every input event is in a profile, is a duplicate, or went with somebody who was erased (none expires)."""
    counted = sum(
        one.count for value in broker.compacted("profiles").values() for one in _document(value).totals.values()
    )
    same("8 accounting", "events", counted + truth.accepted.duplicates + truth.forgotten, truth.sent)


def check_evidence(truth: Truth, broker: Topics) -> None:
    """The evidence that reached identity-edges says what the events said, no more and no less."""
    told: dict[tuple[str, str], int] = {}
    for written in broker.records("identity-edges"):
        assert written.value is not None
        record = decode_edges_record(written.value)
        if isinstance(record, EvidenceRecord):
            pair = (record.a, record.b)
            told[pair] = min(record.first, told.get(pair, record.first))
    evidence = gather_evidence([*truth.told_before, *truth.accepted.events])
    due = {pair: edge.first for pair, edge in evidence.edges.items()}
    same("evidence", "edges and their first seen", told, due)


def _segment_changes(broker: Topics) -> list[SegmentChange]:
    return [_segment_change(written.value) for written in broker.records("segment-changes") if written.value]


def _profile_changes(broker: Topics) -> list[ProfileChange]:
    return [_profile_change(written.value) for written in broker.records("profile-changes") if written.value]


def _all_identifiers(truth: Truth) -> set[str]:
    return {one for events in truth.partitions.values() for event in events for one in event.identifiers}


def same(rule: str, what: str, is_: Any, should: Any) -> None:
    """Raise Violation unless the two are equal."""
    if is_ != should:
        raise Violation(rule, f"{what}: is {is_!r}, should be {should!r}")


Kept = Mapping[bytes, tuple[int, bytes]]


def same_said(task: Task, said: Said, before: Kept, after: Kept) -> None:
    """10: the same records in the same order give the same bytes, whatever the batch boundaries. Those of the state
    too: the changelog is an output."""
    for place, (one, other) in enumerate(zip(task.produced, said, strict=False)):
        if one != other:
            raise Violation("10 same bytes", f"{task.role} {task.partition} record {place}: {one} then {other}")
    if len(task.produced) != len(said):
        detail = f"{task.role} {task.partition}: {len(task.produced)} then {len(said)} records"
        raise Violation("10 same bytes", detail)
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            detail = f"{task.role} {task.partition} {key!r}: {before.get(key)!r} then {after.get(key)!r}"
            raise Violation("10 same state", detail)
