"""What destinations hold about people, read from where they keep it, and what they should hold: the projection of the
profiles under the documents in force. It knows the docs (privacy.md, definitions.md, the heads of the connectors) and
shares no code with the pipeline or the connectors.

    a profile, here and there: {"identifiers": {(namespace, value)}, "traits": {…}, "computed": {…}, …}, empty ones left
    out; by profile_id
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.oracle.leaving import Policy, in_form

SECTIONS = ("identifiers", "traits", "computed", "consents", "segments", "accounts")
Profiles = dict[str, dict[str, Any]]
Members = set[tuple[str, str]]
"""(segment, profile_id)"""


# ------------------------------------------------------------------------------------------------------ what is right


def right_profiles(policy: Policy, name: str, documents: Iterable[Mapping[str, Any]]) -> Profiles:
    """What a destination that mirrors profiles should hold, given the content of the topic `profiles`."""
    destination = policy.destinations[name]
    sections = SECTIONS if destination["profiles"] is True else destination["profiles"]
    found: Profiles = {}
    for document in documents:
        if _may_have(policy, destination, document):
            held = {section: _section(policy, destination, section, document) for section in sections}
            found[document["profile_id"]] = {section: value for section, value in held.items() if value}
    return found


def right_members(policy: Policy, name: str, documents: Iterable[Mapping[str, Any]]) -> Members:
    """The memberships that an audience should hold."""
    destination = policy.destinations[name]
    wanted = destination.get("segments", [])
    return {
        (segment, document["profile_id"])
        for document in documents
        if _may_have(policy, destination, document)
        for segment in document.get("segments", {})
        if (wanted == "*" or segment in wanted) and policy.may_have(destination, policy.segment(segment))
    }


def _may_have(policy: Policy, destination: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    consents = document.get("consents", {})
    said = {purpose: each if isinstance(each, bool) else each["granted"] for purpose, each in consents.items()}
    return policy.may_have_person(dict(destination), said, document.get("traits", {}))


def _section(policy: Policy, destination: dict[str, Any], section: str, document: Mapping[str, Any]) -> Any:
    values = document.get(section)
    if not values:
        return None
    if section == "identifiers":
        forms = {one.removeprefix("identifiers."): form for one, form in destination.get("fields", {}).items()}
        allowed = [one for one in values if policy.may_have(destination, policy.identifier(one["namespace"]))]
        return {(one["namespace"], in_form(one["value"], forms.get(one["namespace"]))) for one in allowed}
    if section in ("traits", "computed") and "traits" in destination:
        values = {name: each for name, each in values.items() if name in destination["traits"]}
    if section == "traits":
        return policy.projected(destination, "traits", policy.trait, values)
    if section in ("computed", "segments"):
        said = policy.computed_trait if section == "computed" else policy.segment
        return {name: each for name, each in values.items() if policy.may_have(destination, said(name))}
    return values


# --------------------------------------------------------------------------------------------------- what is held there


def in_file(path: Path) -> tuple[Profiles, Members]:
    """By a file of JSON lines, read from its beginning, each line once."""
    profiles: Profiles = {}
    members: dict[tuple[str, str], tuple[int, bool]] = {}
    seen = set()
    for line in path.read_text().splitlines() if path.exists() else ():
        told = json.loads(line)
        if told["delivery_id"] in seen:
            continue
        seen.add(told["delivery_id"])
        profile_id, body = told["profile_id"], told.get("body", {})
        if told["action"] == "profile_deleted":
            profiles.pop(profile_id, None)
        elif told["action"] == "profile_changed":
            _change(profiles.setdefault(profile_id, {}), told, body)
        elif told["action"] in ("segment_entered", "segment_exited"):
            pair = told["segment"], profile_id
            before = members.get(pair, (-1, False))[0]
            # A consent changes no membership, and so no sequence.
            if body["sequence"] > before or (body["sequence"] == before and told.get("cause") == "consent"):
                members[pair] = body["sequence"], told["action"] == "segment_entered"
    here = {pair for pair, (_, is_member) in members.items() if is_member}
    return {one: _without_empty(held) for one, held in profiles.items()}, here


def _change(held: dict[str, Any], told: dict[str, Any], body: dict[str, Any]) -> None:
    if body.get("change") in ("created", "split"):
        held.clear()
    for section, values in body.get("set", {}).items():
        held[section] = {**held.get(section, {}), **values} if isinstance(values, dict) else values
    for section, names in body.get("unset", {}).items():
        held[section] = {name: each for name, each in held.get(section, {}).items() if name not in names}
    held["identifiers"] = {(one["namespace"], one["value"]) for one in told["identifiers"]}


def in_postgres(address: str) -> tuple[Profiles, Members]:
    """By the tables of a PostgreSQL."""
    import psycopg

    with psycopg.connect(address) as connection:
        rows = connection.execute(f"SELECT profile_id, {', '.join(SECTIONS)} FROM headwater_profiles").fetchall()
        members = connection.execute("SELECT segment, profile_id FROM headwater_members WHERE is_member").fetchall()
    profiles = {}
    for profile_id, *values in rows:
        held = dict(zip(SECTIONS, values, strict=True))
        held["identifiers"] = {(one["namespace"], one["value"]) for one in held["identifiers"]}
        profiles[profile_id] = _without_empty(held)
    return profiles, {(segment, profile_id) for segment, profile_id in members}


def in_redis(address: str) -> tuple[Profiles, Members]:
    """By the keys of a Redis."""
    import redis

    client = redis.Redis.from_url(address, decode_responses=True)
    profiles: Profiles = {}
    members: Members = set()
    for key in client.scan_iter("headwater:profile:*", 1_000):
        held: dict[str, Any] = {}
        for name, text in client.hgetall(key).items():  # type: ignore[union-attr]
            section, _, field = name.partition(".")
            if field:
                held.setdefault(section, {})[field] = json.loads(text)
            elif section == "identifiers":
                held[section] = {tuple(one.split(":", 1)) for one in json.loads(text)}
            elif section == "accounts":
                held[section] = json.loads(text)
        profiles[key.split(":", 2)[2]] = _without_empty(held)
    for key in client.scan_iter("headwater:members:*", 1_000):
        segment = key.split(":", 2)[2]
        members |= {(segment, one) for one in client.smembers(key)}  # type: ignore[union-attr]
    client.close()
    return profiles, members


def _without_empty(held: Mapping[str, Any]) -> dict[str, Any]:
    return {section: value for section, value in held.items() if value}


# ------------------------------------------------------------------------------------------------------ the difference


def differences(right: Profiles, held: Profiles, sections: Iterable[str], limit: int = 5) -> list[str]:
    """Where what is held is not what is right, as text; [] if nowhere. Identifiers are compared where the destination
    chose them."""
    found = []
    for profile_id in sorted({*right, *held}):
        if profile_id not in held:
            if right[profile_id]:
                found.append(f"{profile_id} is missing: {right[profile_id]}")
        elif profile_id not in right:
            found.append(f"{profile_id} should not be there: {held[profile_id]}")
        else:
            for section in sections:
                here, there = right[profile_id].get(section), held[profile_id].get(section)
                if here != there:
                    found.append(f"{profile_id}: {section} is {there}, and should be {here}")
        if len(found) >= limit:
            break
    return found
