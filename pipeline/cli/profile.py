"""`headwater profile`: one profile, whole."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import LookupFailed
from pipeline.lookup import find_profile, normalised
from pipeline.privacy import audit
from pipeline.records import ProfileDocument
from pipeline.runtime.kafka.doors import current_values

_LOOK_AGAIN_S = 0.2


def command(
    identifier: Annotated[str, typer.Argument(help="NAMESPACE:VALUE, or a profile_id (a retired one leads on).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    wait: Annotated[float, typer.Option(help="Wait so many seconds for it to appear.", min=0)] = 0,
) -> None:
    """Show one profile, whole.

    Example: headwater profile user_id:42
    """
    settings = find_kafka(settings_module.load())
    is_profile_id = ":" not in identifier and identifier.count("-") == 4
    wanted = identifier if is_profile_id else normalised(identifier, KafkaPlans(settings).latest().identity)

    def value(topic: str, key: bytes) -> bytes | None:
        return current_values(settings, topic, key).get(key)

    give_up = time.monotonic() + wait
    while True:
        try:
            document = find_profile(wanted, value)
            break
        except LookupFailed:
            if time.monotonic() >= give_up:
                raise
            time.sleep(_LOOK_AGAIN_S)
    audit.note(settings, "looked_up", wanted)
    console = Console()
    if as_json:
        console.print_json(json.dumps(msgspec.to_builtins(document)))
    else:
        _show(document, console)


def _show(document: ProfileDocument, console: Console) -> None:
    console.print(f"[bold]{document.entity}[/] {document.profile_id}")
    console.print(f"seen {_time(document.first_seen)} – {_time(document.last_seen)}")
    sections: list[tuple[str, list[tuple[str, Any]]]] = [
        (f"identifiers ({document.identifiers_total})", [(i.namespace, i.value) for i in document.identifiers]),
        ("traits", sorted(document.traits.items())),
        ("computed traits", sorted(document.computed.items())),
        ("consents", sorted(document.consents.items())),
        (
            "events",
            [
                (name, f"{total.count} × (first {_time(total.first)}, last {_time(total.last)})")
                for name, total in sorted(document.totals.items())
            ],
        ),
        ("segments", [(name, f"since {_time(held.since)}") for name, held in sorted(document.segments.items())]),
        ("accounts", [(account, "") for account in document.accounts]),
    ]
    for title, rows in sections:
        if rows:
            console.print(f"\n[italic]{title}[/]")
            table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for name, shown in rows:
                table.add_row(name, str(shown))
            console.print(table)


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
