"""Reads the topics as a user would, and checks what must always be true of them. Knows the records, not the code."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.kafka.deployment import Deployment

ENDS = {"merged", "expired", "erased"}
SECTIONS = ("traits", "computed", "consents", "totals", "segments")


@dataclass
class Topics:
    """The committed content of the output topics."""

    segment_changes: list[dict[str, Any]]
    profile_changes: list[dict[str, Any]]
    members: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, Any]]
    identities: dict[str, dict[str, Any]]
    dead_letters: list[dict[str, Any]] = field(default_factory=list)


def read_topics(deployment: Deployment) -> Topics:
    """Everything there is, of a deployment at rest."""
    return Topics(
        deployment.values("segment-changes"),
        deployment.values("profile-changes"),
        deployment.table("segment-members"),
        deployment.table("profiles"),
        deployment.table("identities"),
        deployment.values("dead-letters"),
    )


def by_profile(changes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Changes by profile, each in its order."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        grouped[change["profile_id"]].append(change)
    return dict(grouped)


def fold_members(changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `segment-members` must be. Asserts alternation and sequences without gap or repetition."""
    members: dict[str, dict[str, Any]] = {}
    sequences: dict[str, int] = {}
    for change in changes:
        pair = f"{change['segment']}/{change['profile_id']}"
        assert change["sequence"] == sequences.get(pair, 0) + 1, f"{pair}: a gap or a repetition at {change}"
        assert (change["change"] == "entered") == (pair not in members), f"{pair}: entered and exited must alternate"
        sequences[pair] = change["sequence"]
        if change["change"] == "entered":
            members[pair] = {"since": change["at"], "sequence": change["sequence"], "version": change["version"]}
        else:
            del members[pair]
    return members


def fold_profiles(changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `profiles` must be."""
    profiles: dict[str, dict[str, Any]] = {}
    for change in changes:
        profile_id = change["profile_id"]
        if change["change"] in ENDS:
            assert profile_id in profiles, f"{profile_id} ends without having been: {change}"
            del profiles[profile_id]
            continue
        if change["change"] in ("created", "split"):
            assert profile_id not in profiles, f"{profile_id} begins twice: {change}"
            profiles[profile_id] = {"profile_id": profile_id, "entity": change["entity"]}
        profile = profiles[profile_id]
        for section, entries in change.get("set", {}).items():
            if section in SECTIONS:
                profile.setdefault(section, {}).update(entries)
            else:
                profile[section] = entries
        for section, names in change.get("unset", {}).items():
            for name in names:
                profile.get(section, {}).pop(name, None)
    return profiles


def without_empty(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile without its empty sections, which may be left out."""
    return {name: value for name, value in profile.items() if value not in ({}, [])}


def check(topics: Topics) -> None:
    """Invariant 6 of the design: the logs fold to the compacted topics; entered and exited alternate."""
    members = fold_members(topics.segment_changes)
    shown = {key: {name: row[name] for name in ("since", "sequence", "version")} for key, row in topics.members.items()}
    assert members == shown
    folded = {profile_id: without_empty(p) for profile_id, p in fold_profiles(topics.profile_changes).items()}
    assert folded == {profile_id: without_empty(profile) for profile_id, profile in topics.profiles.items()}
    for pair in topics.members:
        assert pair.partition("/")[2] in topics.profiles, f"{pair} is a member that has no profile"
