"""What one destination gets of people's data: what it chose, of that what it may have, and in which form."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from pipeline.activation.data import FREE, DataRules, Fields, Path, Rule, changed_at
from pipeline.activation.destination import Destination, Transform
from pipeline.records import Event, IdentifierPair, ProfileChange, ProfileDocument

Normalise = Callable[[str, str], str]
"""Gives the normalised form of a text that stands under a name."""

_canonical = msgspec.json.Encoder(order="deterministic").encode
_TRAITS = ("traits", "computed")


def as_it_is(name: str, text: str) -> str:
    """The text, whatever it is called."""
    return text.strip().lower()


class Projector:
    """The projection of one destination under the rules of all data."""

    def __init__(self, destination: Destination, data: DataRules, normalise: Normalise = as_it_is) -> None:
        self._destination = destination
        self._data = data
        self._normalise = normalise
        self._names = destination.traits
        self._sections = destination.profile_sections or frozenset()
        self._transforms: dict[str, list[tuple[Path, Transform]]] = {}
        for address, transform in destination.transforms:
            section, *path = address.split(".")
            self._transforms.setdefault(section, []).append((tuple(path), transform))
        self.is_plain = data.is_empty and not destination.transforms
        self._events: dict[tuple[str, str], Callable[[Mapping[str, Any]], dict[str, Any]]] = {}

    def may_have(self, rule: Rule) -> bool:
        """Whether data under a rule may leave to it."""
        return not rule.refusal(self._destination.labels, self._destination.purposes)

    def may_have_segment(self, segment: str) -> bool:
        """Whether it may know who is in a segment."""
        return self.is_plain or self.may_have(self._data.segments.get(segment, FREE))

    def may_have_event(self, event: str) -> bool:
        """Whether it may have anything of an event."""
        return self.is_plain or self.may_have(self._data.event(event))

    def identifiers(self, pairs: list[IdentifierPair]) -> list[IdentifierPair]:
        """The identifiers it may have."""
        if self.is_plain:
            return pairs
        found = []
        for pair in pairs:
            if self.may_have(self._data.identifier(pair.namespace)):
                value = self._transformed("identifiers", {pair.namespace: pair.value}).get(pair.namespace)
                if value is not None:
                    found.append(IdentifierPair(pair.namespace, value))
        return found

    def traits(self, document: ProfileDocument) -> dict[str, Any]:
        """The traits it chose, computed ones too, to go along with a change of a segment."""
        found: dict[str, Any] = {}
        for section in _TRAITS:
            values: dict[str, Any] = getattr(document, section)
            chosen = {name: values[name] for name in self._names or () if name in values}
            found |= self._entries(section, chosen, document.entity)
        return found

    def profile(self, change: ProfileChange) -> dict[str, Any]:
        """The body of a profile change."""
        body: dict[str, Any] = {"entity": change.entity, "change": change.change}
        changed, removed = self.sections(change.set, change.entity), self._gone(change.unset, change.entity)
        if changed:
            body["set"] = changed
        if removed:
            body["unset"] = removed
        if change.into is not None:
            body["into"] = change.into
        if change.origin is not None:
            body["origin"] = change.origin
        return body

    def sections(self, sections: Mapping[str, Any], entity: str) -> dict[str, Any]:
        """What it mirrors of sections of a profile."""
        kept = {name: self._kept(name, entries, entity) for name, entries in sections.items() if name in self._sections}
        # An emptied list is news (the section is replaced whole), a mapping with nothing of interest left is not.
        return {name: entries for name, entries in kept.items() if entries or not isinstance(entries, Mapping)}

    def event(self, event: Event) -> dict[str, Any]:
        """The body of a forwarded event."""
        body: dict[str, Any] = {
            "message_id": event.message_id,
            "type": event.type,
            "event": event.event,
            "received": event.received,
        }
        for section in ("properties", "traits", "context"):
            values: dict[str, Any] = getattr(event, section)
            if not self.is_plain:
                values = self._part(event.event, section)(values)
            if values or section == "properties":
                body[section] = values
        if event.group_id is not None:
            body["group_id"] = event.group_id
        return body

    def of_account(self, traits: Mapping[str, Any]) -> dict[str, Any]:
        """What it may have of the traits of an account."""
        return self._entries("traits", traits, "account")

    # ------------------------------------------------------------------------------------------------------- one field

    def _part(self, event: str, section: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        made = self._events.get((event, section))
        if made is None:
            found = self._data.fields(event, section)
            made = lambda values: self._transformed(section, self._allowed(values, found))  # noqa: E731
            if len(self._events) < 10_000:  # names come from events: an attacker may invent any number of them
                self._events[event, section] = made
        return made

    def _allowed(self, values: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
        """What it may have of the fields of a section, without what it may not have inside of them."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            if not self.may_have(fields.outer((name,))):
                continue
            for path in fields.inside((name,)):
                if not self.may_have(fields.outer(path)):
                    value = changed_at({name: value}, path, None)[name]
            found[name] = value
        return found

    def _transformed(self, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
        changed: Any = values
        for path, transform in self._transforms.get(section, ()):
            changed = changed_at(changed, path, None if transform == "drop" else self._change(path[-1], transform))
        return dict(changed)

    def _change(self, name: str, transform: Transform) -> Callable[[Any], Any]:
        def change(value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, list):
                return [change(item) for item in value]
            if isinstance(value, Mapping):
                return {key: change(item) for key, item in value.items()}
            text = value if isinstance(value, str) else _canonical(value).decode()
            if transform == "sha256":
                return sha256(self._normalise(name, text).encode()).hexdigest()
            shown = text[-2:] if len(text) > 4 else ""
            return "*" * (len(text) - len(shown)) + shown

        return change

    def _kept(self, section: str, entries: Any, entity: str) -> Any:
        if section == "identifiers":
            return self.identifiers(entries)
        if section not in (*_TRAITS, "segments"):
            return entries
        if section != "segments" and self._names is not None:
            entries = {name: entries[name] for name in entries if name in self._names}
        return self._entries(section, entries, entity)

    def _gone(self, sections: Mapping[str, list[str]], entity: str) -> dict[str, list[str]]:
        found = {}
        for section, names in sections.items():
            if section in self._sections:
                # A name says something too.
                kept = sorted(self._kept(section, dict.fromkeys(names), entity)) if section != "identifiers" else names
                if kept:
                    found[section] = kept
        return found

    def _entries(self, section: str, values: Mapping[str, Any], entity: str) -> dict[str, Any]:
        if self.is_plain:
            return dict(values)
        if section == "traits":
            fields = self._data.traits if entity == "person" else self._data.fields("Group", "properties")
            return self._transformed("traits", self._allowed(values, fields))
        rules: Mapping[str, Rule] = self._data.computed if section == "computed" else self._data.segments
        allowed = {name: value for name, value in values.items() if self.may_have(rules.get(name, FREE))}
        # Computed traits are addressed like traits: a destination sees no difference.
        return self._transformed("traits", allowed) if section == "computed" else allowed
