"""`headwater profile`: one profile, whole."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console, as_written
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import LookupFailed
from pipeline.lookup import as_kept, as_named, find_profile, identifier_or_profile, known_in
from pipeline.privacy import audit
from pipeline.records import ProfileDocument
from pipeline.runtime.kafka.doors import current_value
from pipeline.shown_times import shown_second

_LOOK_AGAIN_S = 0.2
_STEADY_S = 1.0


def command(
    identifier: Annotated[str, typer.Argument(help="NAMESPACE:VALUE, or a profile_id (a retired one leads on).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    wait: Annotated[
        float, typer.Option(help="Wait so many seconds for it to appear, and to be the same for one.", min=0)
    ] = 0,
) -> None:
    """Show one profile, whole.

    Example: headwater profile user_id:42
    """
    settings = find_kafka(settings_module.load())
    plan = KafkaPlans(settings).latest()
    meant = wanted = identifier_or_profile(identifier, plan.identity)

    value = partial(current_value, settings)

    def find() -> ProfileDocument:
        nonlocal meant
        meant = as_named(as_kept(identifier, wanted, known_in(value)), plan.accounts.same, known_in(value))
        return find_profile(meant, value)

    document = waited_for(find, wait)
    audit.note(settings, "looked_up", meant)
    console = Console()
    if as_json:
        console.print_json(json.dumps(msgspec.to_builtins(document)))
    else:
        _show(document, console)


def waited_for(find: Callable[[], ProfileDocument], wait_s: float) -> ProfileDocument:
    """The profile, as soon as it is there and has been the same for a second: a login is seen a moment before the merge
    that it leads to. After `wait_s` it is taken as it is. Raises LookupFailed."""
    give_up = time.monotonic() + wait_s
    found: ProfileDocument | None = None
    since = 0.0
    while True:
        try:
            seen = find()
        except LookupFailed:
            if time.monotonic() >= give_up:
                raise
        else:
            now = time.monotonic()
            if seen != found:
                found, since = seen, now
            if now - since >= _STEADY_S or now >= give_up:
                return seen
        time.sleep(_LOOK_AGAIN_S)


def _show(document: ProfileDocument, console: Console) -> None:
    console.print(f"[bold]{document.entity}[/] {document.profile_id}")
    if document.last_seen:
        console.print(f"seen {shown_second(document.first_seen)} – {shown_second(document.last_seen)}")
    sections: list[tuple[str, list[tuple[str, Any]]]] = [
        (f"identifiers ({document.identifiers_total})", [(i.namespace, i.value) for i in document.identifiers]),
        ("traits", sorted(document.traits.items())),
        ("computed traits", sorted(document.computed.items())),
        ("consents", sorted(document.consents.items())),
        (
            "events",
            [
                (
                    name,
                    f"{total.count} × (first {shown_second(total.first)}, last {shown_second(total.last)})",
                )
                for name, total in sorted(document.totals.items())
            ],
        ),
        (
            "segments",
            [(name, f"since {shown_second(held.since)}") for name, held in sorted(document.segments.items())],
        ),
        ("accounts", [(account, "") for account in document.accounts]),
    ]
    for title, rows in sections:
        if rows:
            console.print(f"\n[italic]{title}[/]")
            table = Table.grid(Column(overflow="fold"), Column(overflow="fold"), padding=(0, 2, 0, 0))
            for name, shown in rows:
                table.add_row(as_written(name), as_written(shown))
            console.print(table)
