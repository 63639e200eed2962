"""First sync and re-sync: an audience learns of every present membership, through its own topic.

It runs beside the live deliveries. A membership that ends meanwhile may arrive after its own exit; its `sequence` is
the lower one, and tells. The ids are those of the original changes, so nothing that a destination knows is news to it.
"""

import time
from collections.abc import Callable, Iterator

import msgspec

from pipeline.activation import ActivationPlan
from pipeline.definitions.catalog import activation_plan
from pipeline.definitions.log import read_catalog
from pipeline.errors import InputError, LookupFailed
from pipeline.records import ProfileDocument, SegmentMember, encode
from pipeline.runtime.kafka.doors import current_values, produce_all
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_decode_member = msgspec.json.Decoder(SegmentMember).decode
_decode_profile = msgspec.json.Decoder(ProfileDocument).decode


def resync(settings: Settings, destination: str, progress: Callable[[int], None] = lambda sent: None) -> int:
    """Put every present membership that a destination wants on its topic; returns how many.

    Raises LookupFailed for a destination that is not in force, InputError for one that is a trigger, BrokerError.
    """
    catalog = read_catalog(settings)
    plan = activation_plan(catalog, catalog.latest)
    found = next((each for each in plan.destinations if each.name == destination), None)
    if found is None:
        known = ", ".join(each.name for each in plan.destinations) or "none"
        raise LookupFailed(f"There is no destination {destination}.", destination, f"there are: {known}")
    if found.mode != "audience":
        raise InputError(
            f"{destination} is a trigger: it acts on a moment, and these moments have passed.",
            destination,
            "write `mode: audience` into its definition if it shall mirror memberships",
        )
    return produce_all(settings, DELIVERIES.name + destination, _memberships(settings, plan, destination), progress)


def _memberships(settings: Settings, plan: ActivationPlan, destination: str) -> Iterator[tuple[bytes | None, bytes]]:
    now_ms = time.time_ns() // 1_000_000
    # The members first: a profile that comes to be in between is told by its own changes.
    members = current_values(settings, "segment-members")
    profiles = current_values(settings, "profiles")
    for value in members.values():
        member = _decode_member(value)
        raw = profiles.get(member.profile_id.encode())
        if raw is None:
            continue
        delivery = plan.for_member(destination, member, now_ms, lambda raw=raw: _decode_profile(raw))  # type: ignore[misc]
        if delivery is not None:
            yield member.profile_id.encode(), encode(delivery)
