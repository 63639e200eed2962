"""`headwater explain`: why a profile is in a segment, or is not, and what would change it; and why a destination was
told of it, or was not."""

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from pipeline import settings as settings_module
from pipeline.activation import Told
from pipeline.admin import refuse_other_partitions
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.cli._deliveries import Reached, findings, history
from pipeline.cli._explained import instant, tree
from pipeline.cli._held import HeldTold, ReadPartition, held_account, held_profile, held_told
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import InputError, LookupFailed
from pipeline.identifiers import Keys, partition_of
from pipeline.lookup import as_kept, as_named, find_profile, identifier_or_profile, known_in
from pipeline.privacy import audit
from pipeline.privacy.vault import SUPPRESSIONS
from pipeline.records import ProfileDocument, Suppression
from pipeline.runtime.kafka.doors import TopicReader, current_value, current_values
from pipeline.runtime.kafka.groups import reached
from pipeline.runtime.ports import Record
from pipeline.segments import SegmentsPlan
from pipeline.segments import explain as explain_rule
from pipeline.settings import Settings
from pipeline.shown_times import shown_time
from pipeline.topology import DELIVERIES

_CHANGELOG = "unify-changelog"
_COLOURS = {
    "delivered": "green",
    "waits": "yellow",
    "overtaken": "yellow",
    "dead letter": "red",
    "not delivered": "red",
}


def command(
    profile: Annotated[str, typer.Argument(help="NAMESPACE:VALUE, or a profile_id (a retired one leads on).")],
    segment: Annotated[
        str | None, typer.Argument(help="As `headwater segments list` shows it. May be left out with --destination.")
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="Say why this destination was told of them, or was not.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="As if it were then, if nothing more came: ISO 8601, or ms. Now by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a profile is, or is not, in a segment: the rule as a tree, what each part sees, what would change it.

    With --destination: what decides whether that destination has them, and what became of each change, as far as the
    topics still have them.

    Reads the state itself, from one partition of unify's changelog; in a large workspace that takes a while.

    Example: headwater explain email:ada@example.org curious
    """
    if segment is None and destination is None:
        raise InputError("Say what is to be explained.", "", "name a segment, or --destination NAME, or both")
    settings = find_kafka(settings_module.load())
    asked_ms = None if at is None else instant(at, "--at")
    refuse_other_partitions(settings)
    plans = KafkaPlans(settings)
    wanted = identifier_or_profile(profile, plans.latest().identity)
    known_as = known_in(partial(current_value, settings))
    wanted = as_named(as_kept(profile, wanted, known_as), plans.latest().accounts.same, known_as)
    document = _found(settings, wanted)

    known: dict[int, Mapping[bytes, bytes]] = {}

    def read(key: bytes) -> Mapping[bytes, bytes]:
        number = partition_of(key, settings.partitions)
        if number not in known:
            known[number] = current_values(settings, _CHANGELOG, key)
        return known[number]

    if destination is not None:
        _tell(settings, plans, document, read, wanted, segment, destination, as_json)
        return
    assert segment is not None
    with Console(stderr=True).status("reading the state of the profile"):
        keys = Keys(settings.secret_bytes())
        held: Any
        if document.entity == "account":
            held, in_force = held_account(document, read, keys, plans)
        else:
            held, in_force = held_profile(document, read, keys, plans)
    plan = in_force.segments.of_segment(segment)
    _see_that_it_is_in_force(segment, document, in_force.segments, plans.latest().segments)
    audit.note(settings, "explained", wanted, f"segment/{segment}")
    # Now is after all that was read: what is said of somebody is never newer than the instant it is held against.
    now_ms = time.time_ns() // 1_000_000 if asked_ms is None else asked_ms
    explained = explain_rule(plan, held, now_ms, segment)
    console = Console(highlight=False)
    if as_json:
        console.print_json(json.dumps(msgspec.to_builtins(explained)))
        return
    console.print(f"[bold]{escape(wanted)}[/] at {shown_time(now_ms)}: {_standing(document, segment, explained.true)}")
    console.print(tree(explained, now_ms))


def _found(settings: Settings, wanted: str) -> ProfileDocument:
    """The profile; LookupFailed if there is none, and if that is because they were erased it says so."""
    try:
        return find_profile(wanted, partial(current_value, settings))
    except LookupFailed:
        actor = Keys(settings.secret_bytes()).actor(wanted)
        kept = current_value(settings, SUPPRESSIONS, actor)
        if kept is not None:
            erased = msgspec.json.decode(kept, type=Suppression)
            if erased.consented_at <= erased.at:
                raise erased_since(wanted, erased) from None
        raise


def erased_since(wanted: str, erased: Suppression) -> LookupFailed:
    """What there is to say of whoever was erased and has not consented anew."""
    return LookupFailed(
        f"Whoever had {wanted} was erased at {shown_time(erased.at)}: nothing of them is taken in, and nothing goes"
        " anywhere, until they consent anew.",
        f"the request {erased.request_id}" if erased.request_id else "",
        "`headwater privacy status` has its receipt, with what each destination answered",
    )


def _see_that_it_is_in_force(segment: str, document: ProfileDocument, plan: SegmentsPlan, latest: SegmentsPlan) -> None:
    """Raise LookupFailed for a segment that is not evaluated, or not for this kind of profile."""
    if segment not in plan.names:
        if segment in latest.names:
            raise LookupFailed(f"The segment {segment} is not evaluated yet.", "", "look again in a moment")
        there = ", ".join(plan.names) or "none"
        raise LookupFailed(f"There is no segment {segment} in force.", "", f"there are: {there}")
    of_accounts = plan.of_segment(segment) is not plan
    if of_accounts is not (document.entity == "account"):
        whose, what = ("accounts", "account:NAME") if of_accounts else ("people", "one of its people")
        raise LookupFailed(f"{segment} is a segment of {whose}.", "", f"name {what}")


def _tell(
    settings: Settings,
    plans: KafkaPlans,
    document: ProfileDocument,
    read: ReadPartition,
    wanted: str,
    segment: str | None,
    destination: str,
    as_json: bool,
) -> None:
    """Say why a destination was told, or was not."""
    with Console(stderr=True).status("reading the state of the profile, and what has left"):
        if document.entity == "person":
            held = held_told(document, read, Keys(settings.secret_bytes()))
            plan = plans(held.generation).activation
        else:
            held, plan = HeldTold(Told(), 0, {}), plans.latest().activation
        known = [one.name for one in plan.destinations]
        if destination not in known:
            there = ", ".join(known) or "none"
            raise LookupFailed(f"There is no destination {destination} in force.", "", f"there are: {there}")
        audit.note(settings, "explained", wanted, f"destination/{destination}")
        key = document.profile_id.encode()
        changes = [one.value for one in _records(settings, "segment-changes", key) if one.value is not None]
        found = findings(plan, destination, document, held, segment, changes)
        deliveries = _records(settings, f"{DELIVERIES.name}{destination}", key)
        paused = plan.named(destination).paused
        reached = _reached(settings, destination, deliveries, paused)
        lines = history(plan, destination, document.profile_id, segment, changes, deliveries, reached)
    console = Console(highlight=False)
    if as_json:
        told_all = {"findings": [one._asdict() for one in found], "history": [one._asdict() for one in lines]}
        console.print_json(json.dumps(told_all))
        return
    console.print(f"[bold]{escape(wanted)}[/] and the destination [bold]{escape(destination)}[/]")
    for one in found:
        console.print(f"  {'[green]✓[/]' if one.favourable else '[red]✗[/]'} {escape(one.words)}")
    for line in lines:
        colour = _COLOURS[line.state]
        became = f"[{colour}]{line.state}[/]{' ' if line.delivered else ': '}{escape(line.why)}"
        console.print(f"  {shown_time(line.at)} {escape(line.what)}: {became}")


def _records(settings: Settings, topic: str, key: bytes) -> list[Record]:
    """The records under a key that a topic still has."""
    with TopicReader(settings, [topic], key=key) as reader:
        return [record for record in reader.read_to_end() if record.key == key and record.value is not None]


def _reached(settings: Settings, destination: str, deliveries: Sequence[Record], paused: bool) -> Reached:
    """How far the destination has come with these."""
    if not deliveries:
        return Reached(0, "")
    # A profile's deliveries, and the dead letters of them, all stand in one partition.
    first = deliveries[0]
    position, note = reached(settings, f"deliver-{destination}", first.topic, first.partition)
    with TopicReader(settings, ["dead-letters"], key=first.key) as reader:
        letters = [record.value for record in reader.read_to_end() if record.key == first.key and record.value]
    return Reached(position, note, letters, paused)


def _standing(document: ProfileDocument, segment: str, is_true: bool) -> str:
    """What was said of the membership last, where the rule says something else by now."""
    there = document.segments.get(segment)
    if (there is not None) is is_true:
        since = f" since {shown_time(there.since)}" if there is not None else ""
        return f"{'a member' if is_true else 'no member'}{since}"
    said = "a member" if there is not None else "no member"
    return f"the rule is {str(is_true).lower()}; last said to be {said}"
