"""What contracts say of data, compiled to the rules of what may leave; and the refusal of destinations and segments
that want what they may not have.

    events, and their parts    each event's own labels and purposes, and those of its fields
    traits                     what the contracts say of the traits of events; traits that are described nowhere are as
                               all events that may bring traits they do not describe
    segments, computed traits  all that they look at, together
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from pipeline.accounts import Alert
from pipeline.activation import FREE, ActivationPlan, DataRules, Destination, Fields, Rule
from pipeline.activation.data import together
from pipeline.contracts import Contract, ContractsPlan, EventContract
from pipeline.contracts.plan import SECTIONS
from pipeline.errors import DefinitionError
from pipeline.segments.inputs import Input, inputs_of, inputs_of_measure
from pipeline.segments.rules import ComputedTrait, Segment

_OPEN = ("allow", "flag")


def _said(purposes: Iterable[str]) -> frozenset[str] | None:
    return frozenset(purposes) or None


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of data before anything is asked about it: the rules of events and traits, the definitions that
    look at them, what segments are for where they say it, and which alerts tell of them."""

    rules: DataRules
    segments: Mapping[str, Segment]
    computed: Mapping[str, ComputedTrait]
    purposes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    alerts: Mapping[str, Alert] = field(default_factory=dict)

    def rule(self, one: Input) -> Rule:
        """The rule of one input that is data itself."""
        if one.kind == "trait":
            return self.rules.traits.whole(one.path)
        if one.kind == "account":
            return self.rules.fields("Group", "properties").whole(one.path)
        names = [*self.rules.events, ""] if one.name == "*" else [one.name]
        if one.kind == "event":
            return together(self.rules.event(name) for name in names)
        section, *path = one.path
        return together(self.rules.fields(name, section).whole(tuple(path)) for name in names)

    def looks_at(self, kind: str, name: str) -> Iterator[Input]:
        """What a segment or a computed trait looks at, at first sight."""
        if kind == "computed":
            found = self.computed.get(name)
            return inputs_of_measure(found.measure) if found is not None else iter(())
        segment = self.segments.get(name)
        return inputs_of(segment.when, segment.entity) if segment is not None else iter(())

    def ways(self, kind: str, name: str) -> Iterator[tuple[tuple[str, ...], Rule]]:
        """Everything that a segment or computed trait rests on: the way from the data to it, and the data's rule."""
        seen: set[tuple[str, str]] = set()
        yield from self._ways(kind, name, seen)

    def _ways(self, kind: str, name: str, seen: set[tuple[str, str]]) -> Iterator[tuple[tuple[str, ...], Rule]]:
        if (kind, name) in seen:
            return
        seen.add((kind, name))
        here = f"{_WORDS[kind]} {name}"
        if kind == "segment" and name in self.purposes:
            yield (here,), Rule(purposes=_said(self.purposes[name]))
        for one in self.looks_at(kind, name):
            if one.kind in _WORDS:
                for way, rule in self._ways(one.kind, one.name, seen):
                    yield (*way, here), rule
            else:
                yield (_spoken(one), here), self.rule(one)


_WORDS = {"segment": "segment", "computed": "computed trait"}


def _spoken(one: Input) -> str:
    path = ".".join(one.path)
    if one.kind == "event":
        return "any event" if one.name == "*" else one.name
    if one.kind == "part":
        return f"{path} of {'any event' if one.name == '*' else one.name}"
    return f"traits.{path}" + (" of an account" if one.kind == "account" else "")


def described(
    contracts: ContractsPlan,
    segments: Iterable[Segment],
    computed: Iterable[ComputedTrait],
    purposes: Mapping[str, Iterable[str]] | None = None,
    alerts: Iterable[Alert] = (),
) -> Described:
    """The rules of all data, and what they follow from. `purposes`: what segments are for, of those that say it."""
    named = {name: tuple(said) for name, said in (purposes or {}).items() if said}
    found: dict[str, Rule] = {}
    parts: dict[tuple[str, str], Fields] = {}
    traits = Fields()
    unplanned = undescribed = FREE
    for contract in contracts.contracts:
        if contract.unplanned_events in _OPEN:
            unplanned = unplanned.joined(Rule(purposes=_said(contract.purposes)))
        for event in contract.events.values():
            rule = Rule(event.labels, _said(event.purposes))
            found[event.event] = found.get(event.event, FREE).joined(rule)
            for section in SECTIONS:
                key = (event.event, section)
                parts[key] = parts.get(key, Fields()).joined(Fields(rule, _fields(event, section)))
            if "traits" not in event.planned or event.unplanned_properties in _OPEN:
                undescribed = undescribed.joined(rule)
            traits = traits.joined(Fields(FREE, _traits(event, rule)))
    for event_name in found:
        # A trait is the same trait, whichever event brings it.
        key = (event_name, "traits")
        parts[key] = parts[key].joined(Fields(FREE, traits.said, apart=True))
    base = DataRules(
        events=found,
        unplanned=unplanned,
        parts=parts,
        traits=Fields(undescribed.joined(unplanned), traits.said, apart=True),
    )
    known = Described(
        base,
        {one.name: one for one in segments},
        {one.name: one for one in computed},
        named,
        {one.name: one for one in alerts},
    )
    if not named and (base.is_empty or not _says_anything(contracts.contracts)):
        return replace(known, rules=DataRules())
    return replace(
        known,
        rules=DataRules(
            events=base.events,
            unplanned=base.unplanned,
            parts=base.parts,
            traits=base.traits,
            computed={name: together(rule for _, rule in known.ways("computed", name)) for name in known.computed},
            segments={name: together(rule for _, rule in known.ways("segment", name)) for name in known.segments},
        ),
    )


def _says_anything(contracts: Iterable[Contract]) -> bool:
    return any(
        contract.purposes
        or any(
            event.labels or event.purposes or any(one.labels or one.purposes for one in event.fields)
            for event in contract.events.values()
        )
        for contract in contracts
    )


def _fields(event: EventContract, section: str) -> dict[tuple[str, ...], Rule]:
    fields = (one for one in event.fields if one.section == section)
    return {one.path: Rule(one.labels, _said(one.purposes)) for one in fields if one.labels or one.purposes}


def _traits(event: EventContract, rule: Rule) -> dict[tuple[str, ...], Rule]:
    """What an event says of the traits it describes: of each, also where nothing of its own is said."""
    found: dict[tuple[str, ...], Rule] = {(name,): rule for name in event.planned.get("traits", ())}
    for path, own in _fields(event, "traits").items():
        found[path] = Rule(own.labels | rule.labels, own.purposes or (rule.purposes if len(path) == 1 else None))
    return found


def refuse(plan: ActivationPlan, known: Described) -> None:
    """Whether every segment may look at what it looks at, and every destination have what it names.

    Raises:
        DefinitionError: one may not; it says by which way the data would reach it.
    """
    for name, purposes in sorted(known.purposes.items()):
        for way, rule in known.ways("segment", name):
            others = [one for one in purposes if rule.purposes is not None and one not in rule.purposes]
            if others:
                only = ", ".join(sorted(rule.purposes or ())) or "nothing"
                raise DefinitionError(
                    f"The segment {name} may not look at what it asks for: {way[0]} may be used for {only} only, and "
                    f"the segment is for {others[0]}.",
                    " → ".join(way),
                    "take it out of the rule, or the purpose out of the segment, or say in the contract that it may be "
                    "used so",
                )
    for destination in plan.destinations:
        refused = next(_refused(destination, known), None)
        if refused is not None:
            way, why = refused
            raise DefinitionError(
                f"The destination {destination.name} may not have what it asks for: {way[0]} {why}.",
                " → ".join((*way, f"destination {destination.name}")),
                "take it out of the destination or of the rule, or say in the contract that it may be used so",
            )


def _of_account(alert: Alert) -> Iterator[Input]:
    return (Input("account", path=(trait,)) for trait in alert.traits)


def _named_traits(destination: Destination, names: Iterable[str], known: Described) -> Iterator[tuple[Input, Rule]]:
    """Traits that go along: of people, but where a destination takes accounts only."""
    for name in names:
        if destination.entity == "account":
            yield Input("account", path=(name,)), known.rules.fields("Group", "properties").outer((name,))
        else:
            yield Input("trait", path=(name,)), known.rules.traits.outer((name,))


def _refused(destination: Destination, known: Described) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a destination names and may not have. What it takes by `*` it gets without that."""
    told = [known.alerts[name] for name in destination.alerts if name in known.alerts]
    named_events = (Input("event", name) for name in destination.events if name != "*")
    traits = [name for name in destination.traits or () if name not in known.computed]
    computed = [name for name in destination.traits or () if name in known.computed]
    ways = chain(
        (way for segment in sorted(destination.segments or ()) for way in known.ways("segment", segment)),
        (way for name in computed for way in known.ways("computed", name)),
        (((*way, f"alert {one.name}"), rule) for one in told for way, rule in known.ways("segment", one.segment)),
        (((_spoken(each), f"alert {one.name}"), known.rule(each)) for one in told for each in _of_account(one)),
        (((_spoken(one),), known.rule(one)) for one in named_events),
        (((_spoken(one),), rule) for one, rule in _named_traits(destination, traits, known)),
    )
    if known.rules.is_empty:
        return
    for way, rule in ways:
        why = rule.refusal(destination.labels, destination.purposes)
        if why:
            yield way, why
