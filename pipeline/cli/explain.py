"""`headwater explain`: why a profile is in a segment, or is not, and what would change it."""

import json
import time
from collections.abc import Mapping
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._explained import instant, shown_time, tree
from pipeline.cli._held import held_profile
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import LookupFailed
from pipeline.identifiers import Keys, partition_of
from pipeline.lookup import find_profile, normalised
from pipeline.privacy import audit
from pipeline.records import ProfileDocument
from pipeline.runtime.kafka.doors import current_values
from pipeline.segments import explain as explain_rule

_CHANGELOG = "unify-changelog"


def command(
    profile: Annotated[str, typer.Argument(help="NAMESPACE:VALUE, or a profile_id (a retired one leads on).")],
    segment: Annotated[str, typer.Argument(help="As `headwater segments list` shows it.")],
    at: Annotated[
        str | None, typer.Option(help="As if it were then, if nothing more came: ISO 8601, or ms. Now by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a profile is, or is not, in a segment: the rule as a tree, what each part sees, what would change it.

    Reads the state itself, from one partition of unify's changelog; in a large workspace that takes a while.

    Example: headwater explain email:ada@example.org curious
    """
    settings = find_kafka(settings_module.load())
    now_ms = time.time_ns() // 1_000_000 if at is None else instant(at, "--at")
    plans = KafkaPlans(settings)
    is_profile_id = ":" not in profile and profile.count("-") == 4
    wanted = profile if is_profile_id else normalised(profile, plans.latest().identity)
    document = find_profile(wanted, lambda topic, key: current_values(settings, topic, key).get(key))

    known: dict[int, Mapping[bytes, bytes]] = {}

    def read(key: bytes) -> Mapping[bytes, bytes]:
        number = partition_of(key, settings.partitions)
        if number not in known:
            known[number] = current_values(settings, _CHANGELOG, key)
        return known[number]

    with Console(stderr=True).status("reading the state of the profile"):
        held, in_force = held_profile(document, read, Keys(settings.secret_bytes()), plans)
    plan = in_force.segments
    if segment not in plan.segments:
        there = ", ".join(sorted(plan.segments)) or "none"
        if segment in plans.latest().segments.segments:
            raise LookupFailed(f"The segment {segment} is not evaluated yet.", "", "look again in a moment")
        raise LookupFailed(f"There is no segment {segment} in force.", "", f"there are: {there}")
    audit.note(settings, "explained", wanted, f"segment/{segment}")
    explained = explain_rule(plan, held, now_ms, segment)
    console = Console(highlight=False)
    if as_json:
        console.print_json(json.dumps(msgspec.to_builtins(explained)))
        return
    console.print(f"[bold]{escape(wanted)}[/] at {shown_time(now_ms)}: {_standing(document, segment, explained.true)}")
    console.print(tree(explained, now_ms))


def _standing(document: ProfileDocument, segment: str, is_true: bool) -> str:
    """What was said of the membership last, where the rule says something else by now."""
    there = document.segments.get(segment)
    if (there is not None) is is_true:
        since = f" since {shown_time(there.since)}" if there is not None else ""
        return f"{'a member' if is_true else 'no member'}{since}"
    said = "a member" if there is not None else "no member"
    return f"the rule is {str(is_true).lower()}; last said to be {said}"
