"""What may leave to a destination, written again from docs/privacy.md and docs/definitions.md, over the documents that
people write. It shares no code with the pipeline: not the compiler, not the rules, not the projection.

A policy is the list of documents in force. Paths are tuples; "*" stands for every item of a list.
"""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

Document = dict[str, Any]
Path = tuple[str, ...]


class Said(NamedTuple):
    """Labels, and purposes (None: nothing was said of them)."""

    labels: frozenset[str]
    purposes: frozenset[str] | None


def both(*all_said: Said) -> Said:
    labels: frozenset[str] = frozenset()
    purposes: frozenset[str] | None = None
    for one in all_said:
        labels = labels | one.labels
        if one.purposes is not None:
            purposes = one.purposes if purposes is None else purposes & one.purposes
    return Said(labels, purposes)


class Policy:
    def __init__(self, documents: list[Document]) -> None:
        def named(kind: str) -> dict[str, Document]:
            return {each[kind]: each for each in documents if kind in each}

        self.contracts = list(named("contract").values())
        self.segments, self.computed = named("segment"), named("computed")
        self.destinations = named("destination")
        self.alerts = named("alert")
        self.consent: Document = next(iter(named("consent").values()), {})

    # ------------------------------------------------------------------------------------------------ data, by contract

    def _events(self, name: str) -> Iterator[tuple[Document, Document]]:
        for contract in self.contracts:
            if name in contract["events"]:
                yield contract, contract["events"][name] or {}

    def _of_event(self, contract: Document, event: Document) -> Said:
        purposes = event["purposes"] if "purposes" in event else contract.get("purposes", [])
        return Said(frozenset(event.get("labels", [])), frozenset(purposes) or None)

    def event(self, name: str) -> Said:
        there = [self._of_event(*each) for each in self._events(name)]
        return both(*there) if there else self._not_planned()

    def _not_planned(self) -> Said:
        letting_in = [c for c in self.contracts if c.get("unplanned_events", "allow") in ("allow", "flag")]
        return both(*(Said(frozenset(), frozenset(c.get("purposes", [])) or None) for c in letting_in))

    def part(self, name: str, section: str, path: Path) -> Said:
        """A part of an event, but for what stands inside of it."""
        there = [self._part(self._of_event(*each), _schema(each[1], section), path) for each in self._events(name)]
        found = both(*there) if there else self._not_planned()
        return both(found, self.trait(path)) if section == "traits" and self._describing(path) else found

    def _part(self, of_event: Said, schema: Any, path: Path) -> Said:
        labels, purposes = of_event
        for step in path:
            schema = _into(schema, step)
            labels |= frozenset(schema.get("labels", []))
            if schema.get("purposes"):
                purposes = frozenset(schema["purposes"])
        return Said(labels, purposes)

    def _describing(self, path: Path) -> list[tuple[Document, Document]]:
        return [
            (contract, event or {})
            for contract in self.contracts
            for event in contract["events"].values()
            if path[0] in _schema(event or {}, "traits").get("properties", {})
        ]

    def trait(self, path: Path) -> Said:
        there = [self._part(self._of_event(c, e), _schema(e, "traits"), path) for c, e in self._describing(path)]
        return both(*there) if there else both(self._not_planned(), *self._bringing_others())

    def _bringing_others(self) -> list[Said]:
        found = []
        for contract in self.contracts:
            for event in contract["events"].values():
                said = event or {}
                others = said.get("unplanned_properties", contract.get("unplanned_properties", "allow"))
                if "properties" not in _schema(said, "traits") or others in ("allow", "flag"):
                    found.append(self._of_event(contract, said))
        return found

    def identifier(self, namespace: str) -> Said:
        return self.trait((namespace,)) if self._describing((namespace,)) else both()

    def with_inside(self, outer: Callable[[Path], Said], section: str, path: Path) -> Said:
        inside = {
            each
            for contract in self.contracts
            for event in contract["events"].values()
            for each in _paths(_schema(event or {}, section))
            if each[: len(path)] == path
        }
        return both(outer(path), *(outer(each) for each in sorted(inside)))

    # ------------------------------------------------------------------------------------------------------------ rules

    def segment(self, name: str) -> Said:
        """What it looks at, and what it is for."""
        return both(self._own(name), self.looked_at_by(name))

    def _own(self, name: str) -> Said:
        return Said(frozenset(), frozenset(self.segments[name].get("purposes", [])) or None)

    def looked_at_by(self, name: str) -> Said:
        one = self.segments[name]
        return both(*self._looked_at(one["when"], of_account=one.get("entity") == "account"))

    def refused_segments(self) -> list[str]:
        """The segments that are for something that what they look at is not for."""
        found = []
        for name, one in self.segments.items():
            allowed = self.looked_at_by(name).purposes
            if allowed is not None and not set(one.get("purposes", [])) <= allowed:
                found.append(name)
        return found

    def account_trait(self, path: Path) -> Said:
        """A trait of an account is a property of the event that says it."""
        return self.part("Group", "properties", path)

    def computed_trait(self, name: str) -> Said:
        compute = self.computed[name]["compute"]
        return both(*self._selected(compute, [compute["of"]] if "of" in compute else []))

    def _looked_at(self, rule: Document, of_account: bool = False) -> Iterator[Said]:
        [(key, value)] = rule.items()
        if key in ("all", "any"):
            for each in value:
                yield from self._looked_at(each, of_account)
        elif key == "not":
            yield from self._looked_at(value, of_account)
        elif key == "members":
            yield from self._looked_at(value["match"])
        elif key == "account":
            for name in value.get("trait", {}):
                yield self.with_inside(self.account_trait, "properties", tuple(name.split(".")))
            if "in_segment" in value:
                yield self.segment(value["in_segment"])
        elif key == "score":
            for each in value["events"]:
                yield from self._selected(each, [])
        elif key == "sequence":
            for each in value["steps"]:
                yield from self._selected(each.get("not", each), [value["by"]] if "by" in value else [])
        elif key == "trait" and of_account:
            for name in value:
                yield self.with_inside(self.account_trait, "properties", tuple(name.split(".")))
        elif key == "in_segment":
            yield self.segment(value)
        elif key == "computed":
            yield from (self.computed_trait(name) for name in value)
        elif key == "trait":
            yield from (self.with_inside(self.trait, "traits", tuple(name.split("."))) for name in value)
        elif key == "performed":
            paths = [value[each]["of"] for each in ("sum", "distinct") if each in value]
            yield from self._selected(value, paths)
        elif key != "consent":
            raise AssertionError(f"the checker does not know the rule {key}")

    def _selected(self, selected: Document, paths: list[str]) -> Iterator[Said]:
        names = selected["event"] if isinstance(selected["event"], list) else [selected["event"]]
        known = sorted({name for contract in self.contracts for name in contract["events"]})
        for name in names:
            for one in [*known, "an event that nobody planned"] if name == "*" else [name]:
                yield self.event(one)
                for written in (*paths, *selected.get("where", {})):
                    section, *path = written.split(".")
                    yield self.with_inside(lambda at, o=one, s=section: self.part(o, s, at), section, tuple(path))

    # -------------------------------------------------------------------------------------------------- a destination's

    def may_have(self, destination: Document, said: Said) -> bool:
        if not said.labels <= set(destination.get("labels", [])):
            return False
        purposes = destination.get("purposes", [])
        return said.purposes is None or (bool(purposes) and set(purposes) <= said.purposes)

    def refused(self, destination: Document) -> list[str]:
        """What a destination names, and may not have."""
        found = []
        for kind, names, said in (
            ("alert", destination.get("alerts", []), self.alert),
            ("segment", destination.get("segments", []), self.segment),
            ("event", destination.get("events", []), self.event),
            ("trait", destination.get("traits") or [], self.named_trait),
        ):
            for name in names if names != "*" else ():
                if not self.may_have(destination, said(name)):
                    found.append(f"{kind} {name}")
        return found

    def alert(self, name: str) -> Said:
        """It tells who is in a segment, and of each the traits it takes along."""
        one = self.alerts[name]
        along = [self.with_inside(self.account_trait, "properties", (trait,)) for trait in one.get("traits", [])]
        return both(self.segment(one["enters"]), *along)

    def named_trait(self, name: str) -> Said:
        return self.computed_trait(name) if name in self.computed else self.trait((name,))

    def may_have_person(self, destination: Document, consents: Mapping[str, bool], traits: Mapping[str, Any]) -> bool:
        if consents.get("*") is False or consents.get(f"channel:{destination.get('channel')}") is False:
            return False
        return all(self._purpose(purpose, consents, traits) for purpose in destination.get("purposes", []))

    def _purpose(self, purpose: str, consents: Mapping[str, bool], traits: Mapping[str, Any]) -> bool:
        basis = self.consent.get("purposes", {}).get(purpose, "consent")
        if basis == "legitimate_interests":
            return consents.get(purpose) is not False
        if basis != "consent":
            return True
        if purpose in consents:
            return consents[purpose]
        regions: Document = self.consent.get("regions", {})
        if traits.get("region") in regions:
            return purpose in regions[traits["region"]].get("granted", [])
        for region in regions.values():
            if traits.get("country") in region.get("countries", []):
                return purpose in region.get("granted", [])
        return bool(regions) and all(purpose in region.get("granted", []) for region in regions.values())

    def projected(self, destination: Document, section: str, said: Callable[[Path], Said], values: Any) -> Any:
        """What a destination gets of the values of a section: what it may have, in the form it asks for."""
        fields = {
            tuple(address.split("."))[1:]: form
            for address, form in destination.get("fields", {}).items()
            if address.split(".")[0] == section
        }
        missing = object()

        def leaves(value: Any, path: Path, form: str | None) -> Any:
            if path and not self.may_have(destination, said(path)):
                return missing
            form = form or fields.get(path)
            if form == "drop":
                return missing
            if isinstance(value, dict):
                kept = {name: leaves(each, (*path, name), form) for name, each in value.items()}
                return {name: each for name, each in kept.items() if each is not missing}
            if isinstance(value, list):
                kept_items = [leaves(each, (*path, "*"), form) for each in value]
                return [each for each in kept_items if each is not missing]
            return in_form(value, form)

        return leaves(values, (), None)


def in_form(value: Any, form: str | None) -> Any:
    text = value if isinstance(value, str) else str(value)
    if form == "sha256":
        return sha256(text.strip().lower().encode()).hexdigest()
    if form == "mask":
        return "*" * len(text) if len(text) <= 4 else "*" * (len(text) - 2) + text[-2:]
    return value


def _schema(event: Document, section: str) -> Document:
    if section == "properties":
        return {"properties": event.get("properties", {})}
    found: Document = event.get(section) or {}
    return found


def _into(schema: Any, step: str) -> Document:
    found = schema.get("items", {}) if step == "*" else schema.get("properties", {}).get(step, {})
    return found if isinstance(found, dict) else {}


def _paths(schema: Any, path: Path = ()) -> Iterator[Path]:
    """Every field a schema speaks of."""
    if path:
        yield path
    for name, each in schema.get("properties", {}).items():
        yield from _paths(each, (*path, name))
    if isinstance(schema.get("items"), dict):
        yield from _paths(schema["items"], (*path, "*"))
