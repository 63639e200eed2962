"""Why a destination has somebody, or has not: each thing that decides it, and what it says of them."""

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.activation.data import FREE
from pipeline.activation.destination import QUIET_CAUSES, Destination
from pipeline.activation.plan import ActivationPlan
from pipeline.activation.told import PROFILE, Told
from pipeline.records import CHANNEL, EVERYTHING, ProfileDocument, SegmentChange

Proof = tuple[int, bool, str, str, str]


class Finding(NamedTuple):
    """One thing that decides, whether it is in favour, and in words."""

    favourable: bool
    words: str


def about_person(
    plan: ActivationPlan, name: str, document: ProfileDocument, told: Told, proofs: Mapping[str, Proof]
) -> list[Finding]:
    """What the person allows, where that was said, and what the destination was told of them. `proofs`: purpose →
    (event time, granted, source, version of the wording, proof)."""
    destination = plan.named(name)
    if destination.entity not in (None, document.entity):
        return [
            Finding(False, f"it takes only what is said of {_a(destination.entity)}; this is {_a(document.entity)}")
        ]
    refusal = plan.refusal(name, document)
    if refusal:
        found = [Finding(False, f"they do not allow it: {refusal}")]
    elif name in told.refused:
        found = [Finding(False, "they allow it, but a part of them is on its way: nobody is let in before it has come")]
    elif destination.asks:
        asked = [*(f"the purpose {purpose}" for purpose in destination.purposes)]
        asked += [f"the channel {destination.channel}"] if destination.channel is not None else []
        found = [Finding(True, f"they allow it: {', '.join(asked)}")]
    else:
        found = [Finding(True, "it has no purposes and no channel: nobody is asked")]
    found += _said(destination, proofs)
    heard = [one for one in told.heard.get(name, ()) if one != PROFILE]
    if heard:
        found.append(Finding(True, f"it was told, and not taken back: {', '.join(sorted(heard))}"))
    if destination.paused:
        found.append(Finding(False, "it is paused: what is decided waits in its topic"))
    return found


def _a(entity: str | None) -> str:
    return "an account" if entity == "account" else f"a {entity}"


def _said(destination: Destination, proofs: Mapping[str, Proof]) -> list[Finding]:
    asked = [
        *destination.purposes,
        *([CHANNEL + destination.channel] if destination.channel is not None else []),
        EVERYTHING,
    ]
    found = []
    for purpose in asked:
        if purpose in proofs:
            _, granted, source, version, proof = proofs[purpose]
            parts = {"source": source, "wording": version, "proof": proof}
            shown = ", ".join(f"{name} {text}" for name, text in parts.items() if text)
            found.append(Finding(granted, f"{purpose}: {'yes' if granted else 'no'}, by {shown}"))
    return found


def about_segment(plan: ActivationPlan, name: str, segment: str) -> list[Finding]:
    """Whether the destination takes changes of a segment, and may know who is in it."""
    destination = plan.named(name)
    if not destination.wants(segment):
        return [Finding(False, f"it does not take changes of {segment}: see its `segments`")]
    rule = plan.data.segments.get(segment, FREE)
    refusal = rule.refusal(destination.labels, destination.purposes)
    if refusal:
        return [Finding(False, f"what {segment} looks at {refusal}")]
    return [Finding(True, f"it takes changes of {segment}, and may know who is in it")]


def not_for_it(plan: ActivationPlan, name: str, change: SegmentChange) -> str:
    """Why a change was none for a destination, whatever the person allowed; empty if it was one."""
    destination = plan.named(name)
    if destination.takes_segment_change(change):
        return ""
    if change.change not in destination.changes:
        return f"its `changes` have no {change.change}"
    if destination.entity not in (None, change.entity):
        return f"it takes only what is said of {_a(destination.entity)}"
    return _not_its_moment(destination, change)


def _not_its_moment(destination: Destination, change: SegmentChange) -> str:
    if change.cause in QUIET_CAUSES:
        return f"it is a trigger, and nothing happened to them just then: the cause is {change.cause}"
    age_ms = change.decided_at - change.at
    if age_ms > destination.max_age_ms:
        return (
            f"it is a trigger, and this was {age_ms} ms old when it was decided; `max_age` is {destination.max_age_ms}"
        )
    if change.change == "entered":
        return "it is a trigger, and they only went on being a member, across a merge"
    return "it is a trigger, and they are where they were, as a part of another profile"
