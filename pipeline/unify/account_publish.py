"""What the world is told of accounts: the same records as of people, with what a reader wants to know beside them."""

from collections.abc import Sequence
from heapq import nlargest
from typing import Any

from pipeline.activation import QUIET_CAUSES
from pipeline.identifiers import split_identifier
from pipeline.profile import contents, difference, write
from pipeline.records import (
    AccountAlert,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
)
from pipeline.segments import PEOPLE, asked_of_people
from pipeline.unify import memberships
from pipeline.unify.account_hand import AtHand
from pipeline.unify.account_state import Person
from pipeline.unify.publish import Moment, deliver, no_pointer, pointer
from pipeline.unify.task import Task

ACCOUNT = "account"
SHOWN_PEOPLE = 20


def write_traits(traits: dict[str, tuple[int, Any]], told: dict[str, Any], at: int) -> list[str]:
    """Write what a group event says of the account; gives the names whose value changed."""
    return [name for name, value in told.items() if write(traits, name, at, value)]


def document(hand: AtHand) -> ProfileDocument:
    """The account as it is shown now. `people` is how many belong to it."""
    account = hand.account
    return ProfileDocument(
        profile_id=hand.profile_id,
        entity=ACCOUNT,
        identifiers=hand.identifiers,
        identifiers_total=1,
        traits={name: value for name, (_, value) in account.traits.items() if value is not None},
        computed={"people": hand.people.get(PEOPLE, 0)},
        segments=memberships.shown(hand.account.pairs),
    )


def write_documents(task: Task) -> None:
    """Write the documents of the batch's changed accounts."""
    for hand in task.dirty_accounts.values():
        task.out.upsert("profiles", hand.profile_key, task.writer.sorted(document(hand)))
    task.dirty_accounts.clear()


def segment_change(
    task: Task, hand: AtHand, segment: str, entered: bool, moment: Moment, approximate: bool = False
) -> bool:
    """Enter or leave a segment, unless that is how it is already. Gives whether anything changed."""
    turned = memberships.turn(hand.account.pairs, segment, entered, moment, hand.rules.segments.get(segment))
    if turned is None:
        return False
    pair, late = turned
    change = SegmentChange(
        profile_id=hand.profile_id,
        entity=ACCOUNT,
        segment=segment,
        version=pair.version,
        change="entered" if entered else "exited",
        at=pair.at,
        decided_at=task.clock,
        sequence=pair.sequence,
        cause=moment.cause,
        evidence=moment.evidence,
        late=late,
        identifiers=hand.identifiers,
        approximate=approximate,
        context=context(task, hand, segment),
    )
    task.out.log("segment-changes", hand.profile_key, task.writer.plain(change))
    memberships.write_row(task, ACCOUNT, hand.profile_id, segment, pair)
    if entered and moment.cause not in QUIET_CAUSES:
        _alert(task, hand, change)
    deliver(task, task.plan.activation.for_segment_change(change, lambda: document(hand)))
    return True


def _alert(task: Task, hand: AtHand, change: SegmentChange) -> None:
    """Tell whoever wants to know; a segment that is entered was left before, so nothing is said twice."""
    account = hand.account
    traits = {name: value for name, (_, value) in account.traits.items() if value is not None}
    for alert in task.plan.accounts.alerts.get(change.segment, ()):
        last = account.alerted.get(alert.name)
        if last is not None and change.decided_at - last < alert.again_after_ms:
            continue
        account.alerted[alert.name] = change.decided_at
        owner = traits.get(alert.owner)
        told = AccountAlert(
            alert_id=f"{alert.name}/{hand.profile_id}/{change.sequence}",
            alert=alert.name,
            account=hand.name,
            profile_id=hand.profile_id,
            owner=owner if isinstance(owner, str) and owner else alert.fallback,
            segment=change.segment,
            version=change.version,
            at=change.at,
            decided_at=change.decided_at,
            sequence=change.sequence,
            cause=change.cause,
            evidence=change.evidence,
            message=alert.message,
            traits={name: traits[name] for name in alert.traits if name in traits},
            context=change.context,
        )
        task.out.log("account-alerts", hand.profile_key, task.writer.sorted(told))
        deliver(task, task.plan.activation.for_alert(told, hand.identifiers))


def context(task: Task, hand: AtHand, segment: str) -> dict[str, Any]:
    """Who stands behind a segment of the account: how many people it has, and of each `members` rule who matches it,
    since when, the latest first."""
    found: dict[str, Any] = {"people": hand.people.get(PEOPLE, 0)}
    source = hand.rules.sources.get(segment)
    if source is None:
        return found
    matches = []
    for rule, hidden in asked_of_people(source):
        matching = hand.matching.get(hidden, {})
        newest = nlargest(SHOWN_PEOPLE, ((since, person) for person, since in matching.items()))
        who = [_shown(task, hand, person, since) for since, person in newest]
        matches.append({"rule": rule, "people": len(matching), "who": who})
    if matches:
        found["matches"] = matches
    return found


def _shown(task: Task, hand: AtHand, name: str, since: int) -> dict[str, Any]:
    person: Person | None = task.state.get(b"p" + hand.key[1:] + task.keys.actor(name))
    assert person is not None
    pairs = [split_identifier(one) for one in person.identifiers]
    return {
        "profile_id": person.profile_id,
        "since": since,
        "identifiers": [{"namespace": namespace, "value": value} for namespace, value in pairs],
    }


# ------------------------------------------------------------------------------------------------ changes of profiles


def begin(task: Task, hand: AtHand, moment: Moment) -> None:
    """The account begins, with everything that is known of it."""
    profile_change(task, hand, "created", moment, contents(document(hand)), {})
    pointer(task, hand.account.identifier, hand.profile_id, 0)
    task.dirty_accounts[hand.key] = hand


def end(task: Task, hand: AtHand, moment: Moment) -> None:
    """The account is no more: it leaves its segments."""
    for segment in sorted(one for one, pair in hand.account.pairs.items() if pair.member):
        segment_change(task, hand, segment, False, moment)
    profile_change(task, hand, "expired", moment, {}, {})
    no_pointer(task, hand.account.identifier)
    task.dirty_accounts.pop(hand.key, None)
    task.out.upsert("profiles", hand.profile_key, None)
    hand.account.published = False
    hand.standing = None


def say(task: Task, hand: AtHand, moment: Moment, segments: Sequence[str], traits: Sequence[str], people: bool) -> None:
    """Say what has just changed of the account's memberships, traits and number of people, if anything."""
    account = hand.account
    added: dict[str, Any] = {}
    removed: dict[str, list[str]] = {}
    if people:
        added["computed"] = {"people": hand.people.get(PEOPLE, 0)}
    memberships.traits_changed(account.traits, traits, added, removed)
    memberships.changed(account.pairs, segments, added, removed)
    if added or removed:
        profile_change(task, hand, "updated", moment, added, removed)
        task.dirty_accounts[hand.key] = hand


def say_difference(task: Task, hand: AtHand, before: ProfileDocument, moment: Moment) -> None:
    """Say what has changed of the account since `before`."""
    added, removed = difference(before, document(hand))
    if added or removed:
        profile_change(task, hand, "updated", moment, added, removed)
        task.dirty_accounts[hand.key] = hand


def profile_change(
    task: Task, hand: AtHand, change: Any, moment: Moment, added: dict[str, Any], removed: dict[str, list[str]]
) -> None:
    """Say what changed of the account."""
    record = ProfileChange(
        profile_id=hand.profile_id,
        entity=ACCOUNT,
        change=change,
        at=moment.at,
        decided_at=task.clock,
        cause=moment.cause,
        evidence=moment.evidence,
        set=added,
        unset=removed,
    )
    task.out.log("profile-changes", hand.profile_key, task.writer.sorted(record))
    activation = task.plan.activation
    if activation.wants_profile_changes:
        deliver(task, activation.for_profile_change(record, lambda: document(hand), moment.position))
