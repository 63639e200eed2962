"""Who is asked to delete a person: every destination that may hold something of them, and no other.

    the destination                          it may hold the person
    was told of them (told.py)               yes
    may not have them                        if they said so themselves: until then it may have had them
    mirrors profiles                         yes
    mirrors memberships                      if they ever were in one of its segments
    hears of accounts, or alerts             if they belong to one: what is said of it names who stands behind it

What a destination holds from a time before its present definition is not known here.
"""

from collections.abc import Collection, Sequence

from pipeline.activation.destination import Destination
from pipeline.activation.ids import delivery_id
from pipeline.activation.plan import ActivationPlan
from pipeline.activation.told import Told
from pipeline.records import CHANNEL, EVERYTHING, Delivery, IdentifierPair

NAMES_AT_ONCE = 200
"""So many identifiers, with their profile_ids, go into one delivery."""


def holders(
    plan: ActivationPlan,
    told: Told,
    segments: Collection[str],
    of_accounts: Collection[str] | None,
    consents: Collection[str],
) -> list[str]:
    """The destinations that may hold a person, by name.

    `segments`: those they ever were in; `of_accounts`: the segments of accounts, None if they belong to none;
    `consents`: the purposes and channels of which they ever said something.
    """
    return [
        one.name
        for one in plan.destinations
        if _holds_account(one, of_accounts) or _may_hold(one, told, segments, consents)
    ]


def holders_of_segments(plan: ActivationPlan, told: Told, segments: Collection[str]) -> list[str]:
    """The destinations that mirror memberships of these segments: all that is to be asked for who has become a part of
    another profile, to which everything else that was told of them has gone."""
    return [
        one.name
        for one in plan.destinations
        if one.mirrors and one.entity != "account" and one.name not in told.refused and _takes_one(one, segments)
    ]


def _holds_account(destination: Destination, segments: Collection[str] | None) -> bool:
    # Where people are asked, nobody is named.
    if segments is None or destination.entity == "person" or destination.asks:
        return False
    return bool(destination.alerts) or _takes_one(destination, segments)


def _takes_one(destination: Destination, segments: Collection[str]) -> bool:
    return any(map(destination.wants, segments))


def _may_hold(destination: Destination, told: Told, segments: Collection[str], consents: Collection[str]) -> bool:
    if destination.name in told.heard:
        return True
    if destination.entity == "account" or destination.mode != "audience":
        return False
    if destination.name in told.refused:
        asked = (*destination.purposes, CHANNEL + (destination.channel or ""), EVERYTHING)
        if not any(one in consents for one in asked):
            return False
    return destination.profile_sections is not None or (destination.mirrors and _takes_one(destination, segments))


def erasures(
    plan: ActivationPlan,
    destination: str,
    request_id: str,
    subject: str,
    profile_id: str,
    names: Sequence[tuple[IdentifierPair, str]],
    clock_ms: int,
) -> list[Delivery]:
    """The deliveries that ask a destination to delete a person. `names`: each of their identifiers, with the profile_id
    of the profile that it names; `subject`: the keyed hash that stands for the person in receipts. The identifiers go
    as everything else of the person did: hashed, or not at all, where the destination got them so."""
    found = []
    for start in range(0, max(1, len(names)), NAMES_AT_ONCE):
        some = names[start : start + NAMES_AT_ONCE]
        body = {
            "request_id": request_id,
            "subject": subject,
            "profile_ids": [named for _, named in some],
            "last": start + NAMES_AT_ONCE >= len(names),
        }
        found.append(
            Delivery(
                delivery_id=delivery_id(destination, b"erased", request_id.encode(), subject.encode(), b"%d" % start),
                destination=destination,
                profile_id=profile_id,
                action="profile_erased",
                at=clock_ms,
                decided_at=clock_ms,
                identifiers=plan.identifiers(destination, [pair for pair, _ in some]),
                cause="erase",
                body=body,
            )
        )
    return found
