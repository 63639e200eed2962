"""Two workspaces beside each other: who is a profile and a member in only one of them, and why.

A profile is compared by its id, which is the same in both wherever it is named after the same identifier. What is kept
of each is a few hashes, so that millions fit; the samples are looked up again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from pipeline.records import IdentityPointer, ProfileDocument

Table = Callable[[str], Iterator[tuple[bytes, bytes]]]
"""Gives the present content of a compacted topic: (key, value)."""

_decode_profile = msgspec.json.Decoder(ProfileDocument).decode
_decode_pointer = msgspec.json.Decoder(IdentityPointer).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
MOST_SAMPLES = 20

ONLY_HERE = {
    "merged": "its identifiers belong to another profile there",
    "renamed": "the same identifiers have another profile_id there",
    "nobody": "none of its identifiers is known there",
}
DIFFERENT = {
    "identifiers": "other identifiers: other people were put together, or parted",
    "facts": "the same identifiers, other totals or traits: some events count in one of the two only",
    "rules": "the same facts: the segments are other ones, are paused, or one of the two is behind in time",
}


class Seen(NamedTuple):
    """What is kept of a profile: hashes of its identifiers and of its facts, and its segments."""

    identifiers: bytes
    facts: bytes
    segments: frozenset[str]


class Sample(NamedTuple):
    """One difference: the profile, the segment if it is about one, and why."""

    profile_id: str
    segment: str
    why: str


@dataclass(slots=True)
class Comparison:
    """What differs. `profiles` counts "same", and differences by where and why; `members` does so for each segment:
    "both", "only old", "only new". `samples` holds some of each kind."""

    profiles: Counter[tuple[str, str]] = field(default_factory=Counter)
    members: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    @property
    def is_equal(self) -> bool:
        """Whether the two have the same profiles and members."""
        return set(self.profiles) <= {("same", "")} and not self.reasons

    def sample(self, kind: tuple[str, str], profile_id: str, segment: str, why: str) -> None:
        """Keep an example of a kind of difference."""
        found = self.samples.setdefault(kind, [])
        if len(found) < MOST_SAMPLES:
            found.append(Sample(profile_id, segment, why))


def compare(old: Table, new: Table) -> Comparison:
    """Compare the profiles and members of two workspaces, as published at this moment."""
    found = Comparison()
    before, now = _profiles(old), _profiles(new)
    lonely_old = {one for one in before if one not in now}
    lonely_new = {one for one in now if one not in before}
    why = {
        "only old": _why_lonely(old, new, lonely_old, before, now),
        "only new": _why_lonely(new, old, lonely_new, now, before),
    }
    for where, lonely, there in (("only old", lonely_old, before), ("only new", lonely_new, now)):
        for profile_id in sorted(lonely):
            reason = why[where].get(profile_id, "nobody")
            found.profiles[where, reason] += 1
            found.sample((where, reason), profile_id, "", reason)
            for segment in there[profile_id].segments:
                _member(found, where, segment, profile_id, reason)
    for profile_id in before.keys() & now.keys():
        one, other = before[profile_id], now[profile_id]
        reason = "identifiers" if one.identifiers != other.identifiers else "facts" if one.facts != other.facts else ""
        found.profiles["different" if reason else "same", reason] += 1
        if reason:
            found.sample(("different", reason), profile_id, "", reason)
        for segment in one.segments & other.segments:
            found.members.setdefault(segment, Counter())["both"] += 1
        for segment in one.segments - other.segments:
            _member(found, "only old", segment, profile_id, reason or "rules")
        for segment in other.segments - one.segments:
            _member(found, "only new", segment, profile_id, reason or "rules")
    return found


def _member(found: Comparison, where: str, segment: str, profile_id: str, why: str) -> None:
    found.members.setdefault(segment, Counter())[where] += 1
    found.reasons[segment, where, why] += 1
    found.sample((where, segment), profile_id, segment, why)


def _profiles(table: Table) -> dict[str, Seen]:
    found = {}
    for key, value in table("profiles"):
        document = _decode_profile(value)
        names = sorted((pair.namespace, pair.value) for pair in document.identifiers)
        facts: Mapping[str, Any] = {
            "traits": document.traits,
            "computed": document.computed,
            "consents": document.consents,
            "totals": document.totals,
        }
        found[key.decode()] = Seen(
            _hash([names, document.identifiers_total]), _hash(facts), frozenset(document.segments)
        )
    return found


def _hash(value: Any) -> bytes:
    return blake2b(_encode(value), digest_size=8).digest()


def _why_lonely(
    here: Table, there: Table, lonely: set[str], profiles_here: Mapping[str, Seen], profiles_there: Mapping[str, Seen]
) -> dict[str, str]:
    """Why profiles of one workspace are not in the other: where their identifiers lead there."""
    if not lonely:
        return {}
    identifiers = {
        key: profile_id
        for key, value in here("identities")
        if (profile_id := _decode_pointer(value).profile_id) in lonely and b":" in key
    }
    leads: dict[str, set[str]] = {}
    for key, value in there("identities"):
        owner = identifiers.get(key)
        if owner is not None:
            leads.setdefault(owner, set()).add(_decode_pointer(value).profile_id)
    return {
        profile_id: _reason(profile_id, leads.get(profile_id, set()), profiles_here, profiles_there)
        for profile_id in lonely
    }


def _reason(profile_id: str, leads: set[str], here: Mapping[str, Seen], there: Mapping[str, Seen]) -> str:
    found = [there[one] for one in leads if one in there]
    if not found:
        return "nobody"
    names = here[profile_id].identifiers
    return "renamed" if any(one.identifiers == names for one in found) else "merged"
