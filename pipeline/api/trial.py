"""A rule tried on the people of the read model, before it is in force, and the reasons of one person for one rule.

The evaluator is that of production. What it is judged on is what a process of the API has: the traits, consents and
memberships of the documents, and the most recent events of each identifier. Of a person all of whose events are kept
that is everything, and the judgement is exact; of others a rule about many or old events may come out otherwise. So
each judgement says which it is (`whole`).

Profile ids are hashes: the first so many of them in order are a fair sample of all.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from pipeline.api.access import Hidden
from pipeline.api.model import ReadModel, decoded
from pipeline.definitions.segments import SegmentDefinition
from pipeline.profile import Fragment
from pipeline.records import Event, ProfileDocument
from pipeline.segments import SegmentsPlan, compile_plan, rules
from pipeline.segments.accounts import parts_of
from pipeline.segments.explain import Explained, explain

MAX_JUDGED = 1_000
_LONGEST_S = 0.4
_LOOK_EVERY = 20
_MAX_EVENTS = 100
_SEGMENTS, _COMPUTED = "~segments", "~computed"
_SHOWN = "tried"


class CannotBeTried(ValueError):
    """The rule asks for what one person's document and events do not tell."""


class Facts(Fragment):
    """What a process of the API knows of one person, as rules are judged on it."""

    profile_id: str = ""


class Tried(NamedTuple):
    """A rule on a sample of the people.

    `judged` of about `people` were; `people` is exact where `all` is true. `matching` of them are in it, `whole` were
    judged on everything they ever did. `members` are the first of those that match.
    """

    judged: int
    people: int
    all: bool
    whole: int
    matching: int
    members: list[tuple[ProfileDocument, Explained, bool]]
    sizes: dict[str, int]


def trial_plan(definition: SegmentDefinition) -> SegmentsPlan:
    """The plan of one segment that stands for itself: memberships and computed traits are facts of the document.

    Raises:
        CannotBeTried: the rule asks for an account, or is about accounts.
    """
    segment = definition.compiled()
    if segment.entity != "person":
        raise CannotBeTried("A segment of accounts cannot be tried beforehand: publish it to see who is in it.")
    if any(isinstance(part, rules.AccountIs) for part in parts_of(segment.when)):
        raise CannotBeTried("A rule that asks for accounts cannot be tried beforehand: publish it to see who is in it.")
    return compile_plan([rules.Segment(_SHOWN, _as_facts(segment.when), 1, "person", segment.valid)])


def _as_facts(rule: Any) -> Any:
    if isinstance(rule, rules.AllOf):
        return rules.AllOf(tuple(_as_facts(part) for part in rule.parts))
    if isinstance(rule, rules.AnyOf):
        return rules.AnyOf(tuple(_as_facts(part) for part in rule.parts))
    if isinstance(rule, rules.NotOf):
        return rules.NotOf(_as_facts(rule.part))
    if isinstance(rule, rules.InSegment):
        return rules.TraitIs((_SEGMENTS,), rules.Comparison((rules.Test("contains", rule.segment),)))
    if isinstance(rule, rules.ComputedIs):
        return rules.TraitIs((_COMPUTED, rule.name), rule.comparison)
    return rule


def try_rule(model: ReadModel, plan: SegmentsPlan, hide: Hidden, now_ms: int, samples: int) -> Tried:
    """Judge the people of the model one after the other, until enough were, or it has taken long enough."""
    judged = whole = matching = 0
    members: list[tuple[ProfileDocument, Explained, bool]] = []
    in_segments: dict[str, int] = {}
    last, is_all = "", True
    until = time.monotonic() + _LONGEST_S
    for profile_id, stored in model.documents():
        if judged >= MAX_JUDGED or (judged % _LOOK_EVERY == 0 and time.monotonic() > until):
            is_all = False
            break
        document = decoded(stored)
        if document.entity != "person":
            continue
        judged += 1
        last = profile_id
        facts, known = facts_of(model, document, plan, hide)
        whole += known
        if _SHOWN in plan.begin(facts, now_ms).members:
            matching += 1
            for name in document.segments:
                in_segments[name] = in_segments.get(name, 0) + 1
            if len(members) < samples:
                members.append((document, reasons(plan, facts, now_ms), known))
    people = judged if is_all else max(judged, round(judged / _share(last)))
    return Tried(judged, people, is_all, whole, matching, members, in_segments)


def _share(profile_id: str) -> float:
    """Which share of all ids comes up to this one: ids are spread evenly."""
    number = int(profile_id.replace("-", "")[:12] or "0", 16)
    return max((number + 1) / 16**12, 1e-9)


def facts_of(model: ReadModel, document: ProfileDocument, plan: SegmentsPlan, hide: Hidden) -> tuple[Facts, bool]:
    """The facts of a person, and whether they are all there are. What is hidden from who asks is as if it were not."""
    shown = hide.strip(
        {
            "traits": document.traits,
            "consents": document.consents,
            "segments": document.segments,
            "computed": document.computed,
        }
    )
    facts = Facts(profile_id=document.profile_id)
    facts.traits = {name: (0, value) for name, value in shown.get("traits", {}).items()}
    facts.traits[_SEGMENTS] = (0, sorted(shown.get("segments", {})))
    facts.traits[_COMPUTED] = (0, shown.get("computed", {}))
    facts.consents = {purpose: (0, bool(granted)) for purpose, granted in shown.get("consents", {}).items()}
    events = {one.message_id: one for one, _, _ in model.recent(document, _MAX_EVENTS)}
    for event in sorted(events.values(), key=lambda one: one.time):
        plan.fold(facts.leaves, _stripped(event, hide))
    known = sum(total.count for total in document.totals.values()) <= len(events)
    return facts, known and document.identifiers_total <= len(document.identifiers)


def _stripped(event: Event, hide: Hidden) -> Event:
    if not hide:
        return event
    parts = {"properties": event.properties, "traits": event.traits, "context": event.context}
    shown = hide.strip(parts)
    return msgspec.structs.replace(event, **{name: shown.get(name, {}) for name in parts})


def reasons(plan: SegmentsPlan, facts: Facts, now_ms: int) -> Explained:
    """Why the rule is true or false: the tree of its parts."""
    return _spoken(explain(plan, facts, now_ms, _SHOWN).parts[0])


def _spoken(one: Explained) -> Explained:
    said = one.rule
    asked = f"trait {_SEGMENTS} contains "
    if said.startswith(asked):
        return Explained(f"in segment {said.removeprefix(asked)}", one.true, needed="another membership")
    said = said.replace(f"trait {_COMPUTED}.", "computed ")
    needed = one.needed.replace(f"the trait {_COMPUTED}.", "the computed trait ")
    return Explained(said, one.true, one.value, one.changes_at, needed, [_spoken(part) for part in one.parts])


# --------------------------------------------------------------------------------------------------------- vocabulary

_MOST_NAMES, _MOST_VALUES, _LONGEST_VALUE = 200, 8, 60


def vocabulary(model: ReadModel, hide: Hidden, most: int = 300) -> dict[str, Any]:
    """What people and events are made of, from a sample of them: the names a rule can be written with, the commonest
    first, and a few values of each."""
    events: dict[str, int] = {}
    paths: dict[str, dict[str, Any]] = {}
    traits: dict[str, dict[str, Any]] = {}
    purposes: set[str] = set()
    until = time.monotonic() + _LONGEST_S
    for count, (_, stored) in enumerate(model.documents()):
        if count >= most or time.monotonic() > until:
            break
        document = decoded(stored)
        shown = hide.strip({"traits": document.traits, "consents": document.consents})
        _note(traits, "", shown.get("traits", {}))
        purposes.update(shown.get("consents", ()))
        for name, total in document.totals.items():
            events[name] = events.get(name, 0) + total.count
        for event, _, _ in model.recent(document, 10):
            parts = hide.strip({"properties": event.properties, "context": event.context})
            _note(paths, "properties.", parts.get("properties", {}))
            _note(paths, "context.", parts.get("context", {}))
    return {
        "events": sorted(events, key=lambda name: (-events[name], name))[:_MOST_NAMES],
        "paths": _told(paths),
        "traits": _told(traits),
        "purposes": sorted(purposes)[:_MOST_NAMES],
    }


def _note(into: dict[str, dict[str, Any]], root: str, values: Mapping[str, Any], depth: int = 0) -> None:
    for name, value in values.items():
        path = root + name
        if isinstance(value, dict):
            if depth < 3:
                _note(into, f"{path}.", value, depth + 1)
            continue
        if path not in into and len(into) >= _MOST_NAMES * 5:
            continue
        seen = into.setdefault(path, {"count": 0, "values": {}})
        seen["count"] += 1
        if isinstance(value, str | int | float | bool) and len(str(value)) <= _LONGEST_VALUE:
            values_seen = seen["values"]
            if value in values_seen or len(values_seen) < 100:
                values_seen[value] = values_seen.get(value, 0) + 1


def _told(found: Mapping[str, dict[str, Any]]) -> dict[str, list[Any]]:
    names: Iterable[str] = sorted(found, key=lambda name: (-found[name]["count"], name))[:_MOST_NAMES]
    return {
        name: sorted(values, key=lambda one: (-values[one], str(one)))[:_MOST_VALUES]
        for name in names
        for values in (found[name]["values"],)
    }
