"""The profile as the world sees it, the difference of two of them, and the fold that makes one of its changes."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pipeline.profile.state import Fragment
from pipeline.profile.values import same_value
from pipeline.records import IdentifierPair, Membership, ProfileChange, ProfileDocument, Total, UnfollowedLink

SHOWN_IDENTIFIERS = 100
_MAPPINGS = ("traits", "computed", "consents", "totals", "segments")
_WHOLE = ("identifiers", "identifiers_total", "accounts", "first_seen", "last_seen", "unfollowed")
_BEGINS = ("created", "split")
_ENDS = ("merged", "expired", "erased")


def build(
    profile_id: str,
    entity: str,
    identifiers: list[IdentifierPair],
    identifiers_total: int,
    joined: Fragment,
    memberships: Mapping[str, Membership],
    computed: Mapping[str, Any] | None = None,
    accounts: Iterable[str] = (),
    unfollowed: Iterable[UnfollowedLink] = (),
) -> ProfileDocument:
    """The document of a profile. `identifiers` are the strongest, strongest first."""
    return ProfileDocument(
        profile_id=profile_id,
        entity=entity,
        identifiers=identifiers,
        identifiers_total=identifiers_total,
        traits=shown_traits(joined),
        computed=dict(computed) if computed else {},
        consents=shown_consents(joined),
        totals=shown_totals(joined),
        segments=dict(memberships),
        accounts=sorted(accounts),
        first_seen=joined.first_seen,
        last_seen=joined.last_seen,
        unfollowed=list(unfollowed),
    )


def shown_traits(joined: Fragment) -> dict[str, Any]:
    """The traits that have a value."""
    return {name: value for name, (_, value) in joined.traits.items() if value is not None}


def shown_consents(joined: Fragment) -> dict[str, bool]:
    """What is known of each purpose."""
    return {purpose: granted for purpose, (_, granted) in joined.consents.items()}


def shown_totals(joined: Fragment) -> dict[str, Total]:
    """How often each event was performed."""
    return {name: Total(count, first, last) for name, (count, first, last) in joined.totals.items()}


def contents(document: ProfileDocument) -> dict[str, Any]:
    """Everything of a document that a change which begins a profile sets."""
    found: dict[str, Any] = {}
    for section in (*_WHOLE, *_MAPPINGS):
        value = getattr(document, section)
        if value:
            found[section] = value
    return found


def difference(before: ProfileDocument, after: ProfileDocument) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """(set, unset) of the change that leads from one document to the other."""
    added: dict[str, Any] = {}
    removed: dict[str, list[str]] = {}
    for section in _WHOLE:
        value = getattr(after, section)
        if value != getattr(before, section):
            added[section] = value
    for section in _MAPPINGS:
        old, new = getattr(before, section), getattr(after, section)
        if old is new:
            continue
        changed = {name: value for name, value in new.items() if name not in old or not same_value(old[name], value)}
        if changed:
            added[section] = changed
        gone = [name for name in old if name not in new]
        if gone:
            removed[section] = sorted(gone)
    return added, removed


def apply_change(document: ProfileDocument | None, change: ProfileChange) -> ProfileDocument | None:
    """The document after a change: the fold whose result is `profiles`.

    Raises ValueError for a change that cannot follow: a beginning of what lives, anything else of what doesn't.
    """
    if (document is None) is not (change.change in _BEGINS):
        raise ValueError(f"{change.change} of a profile that {'is not' if document is None else 'is already'} there")
    if change.change in _ENDS:
        return None
    there: dict[str, Any] = (
        {"profile_id": change.profile_id, "entity": change.entity, "identifiers": [], "identifiers_total": 0}
        if document is None
        else msgspec.to_builtins(document)
    )
    for section, value in change.set.items():
        if section in _MAPPINGS:
            there[section] = {**there.get(section, {}), **msgspec.to_builtins(value)}
        else:
            there[section] = msgspec.to_builtins(value)
    for section, names in change.unset.items():
        there[section] = {name: value for name, value in there.get(section, {}).items() if name not in names}
    return msgspec.convert(there, ProfileDocument)
