"""A rule tried on the people of the read model, before it is in force, and the reasons of one person for one rule.

The evaluator is that of production. What it is judged on is what a process of the API has: the traits, consents and
memberships of the documents, and the most recent events of each identifier. Of a person all of whose events are kept
that is everything, and the judgement is exact; of others a rule about many or old events may come out otherwise. So
each judgement says which it is (`whole`).

Profile ids are hashes: the first so many of them in order are a fair sample of all.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from pipeline.api.access import Hidden
from pipeline.api.engagement import all_of
from pipeline.api.model import ReadModel, decoded
from pipeline.definitions.segments import SegmentDefinition
from pipeline.profile import Fragment
from pipeline.records import Event, ProfileDocument
from pipeline.segments import SegmentsPlan, compile_plan, rules
from pipeline.segments.accounts import AccountFacts, AccountIs
from pipeline.segments.describe import describe, in_full
from pipeline.segments.explain import Explained, explain

MAX_JUDGED = 1_000
_LONGEST_S = 0.4
_LOOK_EVERY = 20
_MAX_EVENTS = 100
_SEGMENTS, _COMPUTED, _PEOPLE, _ACCOUNTS = "~segments", "~computed", "~people", "~accounts"
_IS_TRUE = rules.Comparison((rules.Test("equals", True),))
MOST_PEOPLE = 100
"""So many people of an account are looked at, the first by their ids."""
_SHOWN = "tried"


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


class Trial(NamedTuple):
    """The plan of one segment that stands for itself: memberships and computed traits are facts of the document, and so
    is what it asks of the people of an account (`people`: what is counted, the trial that judges it, whether it must be
    all of them), or of the accounts of a person (`accounts`)."""

    plan: SegmentsPlan
    entity: str
    people: tuple[tuple[str, "Trial", bool], ...] = ()
    accounts: tuple[tuple[str, rules.AccountIs], ...] = ()


def trial_of(definition: SegmentDefinition) -> Trial:
    """The trial of a segment."""
    return _trial(definition.compiled())


def _trial(segment: rules.Segment) -> Trial:
    people: dict[str, tuple[Any, bool]] = {}
    accounts: dict[str, rules.AccountIs] = {}

    def as_facts(rule: Any) -> Any:
        if isinstance(rule, rules.AllOf):
            return rules.AllOf(tuple(as_facts(part) for part in rule.parts))
        if isinstance(rule, rules.AnyOf):
            return rules.AnyOf(tuple(as_facts(part) for part in rule.parts))
        if isinstance(rule, rules.NotOf):
            return rules.NotOf(as_facts(rule.part))
        if isinstance(rule, rules.InSegment):
            return rules.TraitIs((_SEGMENTS,), rules.Comparison((rules.Test("contains", rule.segment),)))
        if isinstance(rule, rules.ComputedIs):
            return rules.TraitIs((_COMPUTED, rule.name), rule.comparison)
        if isinstance(rule, rules.Members):
            named = _name_among(people, ("all: " if rule.every else "") + in_full(rule.match), (rule.match, rule.every))
            return rules.TraitIs((_PEOPLE, named), _IS_TRUE if rule.every else rule.comparison)
        if isinstance(rule, rules.AccountIs):
            named = _name_among(accounts, describe(rule), rule)
            return rules.TraitIs((_ACCOUNTS, named), _IS_TRUE)
        return rule

    when = as_facts(segment.when)
    plan = compile_plan([rules.Segment(_SHOWN, when, 1, "person", segment.valid)])
    asked = [(named, _trial(rules.Segment(_SHOWN, match)), every) for named, (match, every) in people.items()]
    return Trial(plan, segment.entity, tuple(asked), tuple(accounts.items()))


def _name_among(known: dict[str, Any], said: str, asked: Any) -> str:
    """The name by which `asked` is known from now on: what it says, with a number where another one says the same."""
    named, number = said, 1
    while known.setdefault(named, asked) != asked:
        number += 1
        named = f"{said} ({number})"
    return named


def try_rule(model: ReadModel, trial: Trial, hide: Hidden, now_ms: int, samples: int) -> Tried:
    """Judge the people (or accounts) of the model one after the other, until enough were, or it has taken long
    enough."""
    judged = whole = matching = 0
    members: list[tuple[ProfileDocument, Explained, bool]] = []
    in_segments: dict[str, int] = {}
    last, is_all = "", True
    until = time.monotonic() + _LONGEST_S
    is_account = trial.entity == "account"
    for profile_id, document in _everybody(model, trial.entity):
        if judged >= MAX_JUDGED or ((is_account or judged % _LOOK_EVERY == 0) and time.monotonic() > until):
            is_all = False
            break
        judged += 1
        last = profile_id
        facts, known = facts_of(model, document, trial, hide, now_ms)
        whole += known
        if _SHOWN in trial.plan.begin(facts, now_ms).members:
            matching += 1
            for name in document.segments:
                in_segments[name] = in_segments.get(name, 0) + 1
            if len(members) < samples:
                members.append((document, reasons(trial, facts, now_ms), known))
    if is_all:
        people = judged
    else:
        people = model.account_count() if is_account else max(judged, round(judged / _share(last)))
    return Tried(judged, people, is_all, whole, matching, members, in_segments)


def _everybody(model: ReadModel, entity: str) -> Iterator[tuple[str, ProfileDocument]]:
    if entity == "account":
        for _, document in all_of(model):
            yield document.profile_id, document
        return
    for profile_id, stored in model.documents():
        document = decoded(stored)
        if document.entity == entity:
            yield profile_id, document


def _share(profile_id: str) -> float:
    """Which share of all ids comes up to this one: ids are spread evenly."""
    number = int(profile_id.replace("-", "")[:12] or "0", 16)
    return max((number + 1) / 16**12, 1e-9)


def facts_of(
    model: ReadModel, document: ProfileDocument, trial: Trial, hide: Hidden, now_ms: int
) -> tuple[Facts, bool]:
    """The facts of a person or account, and whether they are all there are. What is hidden from who asks is as if it
    were not."""
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
    if trial.accounts:
        held = _accounts_of(model, document, hide)
        facts.traits[_ACCOUNTS] = (
            0,
            {named: AccountIs(rule).says({}, held, now_ms)[0] for named, rule in trial.accounts},
        )
    if document.entity == "person":
        return facts, _fold(model, document, trial.plan, facts, hide)
    people, more = model.people(document.identifiers[0].value, "", MOST_PEOPLE) if document.identifiers else ([], "")
    whole = not more
    for person in people:
        whole &= _fold(model, person, trial.plan, facts, hide)
    counts: dict[str, Any] = {}
    for named, match, every in trial.people:
        judged = [facts_of(model, person, match, hide, now_ms)[0] for person in people]
        count = sum(_SHOWN in match.plan.begin(one, now_ms).members for one in judged)
        counts[named] = count == len(people) if every else count
    facts.traits[_PEOPLE] = (0, counts)
    return facts, whole


def _fold(model: ReadModel, document: ProfileDocument, plan: SegmentsPlan, facts: Facts, hide: Hidden) -> bool:
    """Fold the events of a person that are kept; whether those are all."""
    events = {one.message_id: one for one, _, _ in model.recent(document, _MAX_EVENTS)}
    for event in sorted(events.values(), key=lambda one: one.time):
        plan.fold(facts.leaves, _stripped(event, hide))
    known = sum(total.count for total in document.totals.values()) <= len(events)
    return known and document.identifiers_total <= len(document.identifiers)


class _HasAccounts(NamedTuple):
    accounts: dict[str, AccountFacts]


def _accounts_of(model: ReadModel, document: ProfileDocument, hide: Hidden) -> _HasAccounts:
    found = {}
    for name in document.accounts:
        stored = model.document(model.account_id(name))
        if stored is None:
            continue
        shown = hide.strip(msgspec.to_builtins(decoded(stored)))
        traits = {trait: (0, value) for trait, value in shown.get("traits", {}).items()}
        found[name] = AccountFacts(traits, frozenset(shown.get("segments", {})))
    return _HasAccounts(found)


def _stripped(event: Event, hide: Hidden) -> Event:
    if not hide:
        return event
    parts = {"properties": event.properties, "traits": event.traits, "context": event.context}
    shown = hide.strip(parts)
    return msgspec.structs.replace(event, **{name: shown.get(name, {}) for name in parts})


def reasons(trial: Trial, facts: Facts, now_ms: int) -> Explained:
    """Why the rule is true or false: the tree of its parts."""
    return _spoken(explain(trial.plan, facts, now_ms, _SHOWN).parts[0])


def _spoken(one: Explained) -> Explained:
    said = one.rule
    asked = f"trait {_SEGMENTS} contains "
    if said.startswith(asked):
        return Explained(f"in segment {said.removeprefix(asked)}", one.true, needed="another membership")
    said = said.replace(f"trait {_COMPUTED}.", "computed ")
    if said.startswith(f"trait {_PEOPLE}."):
        return Explained(said.replace(f"trait {_PEOPLE}.", "people: "), one.true, one.value, needed="other people")
    if said.startswith(f"trait {_ACCOUNTS}."):
        return Explained(said.removeprefix(f"trait {_ACCOUNTS}."), one.true, needed="another account")
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
