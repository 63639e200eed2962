"""`headwater identity`: what a person decides about who is who."""

import getpass
import time
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console, as_written
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import InputError
from pipeline.in_charge import refuse_decisions
from pipeline.lookup import person
from pipeline.privacy import audit
from pipeline.records import EdgesRecord, IdentityConflict, Release, Relink, Unlink, encode
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Take links back, undo that, release from quarantine, see refusals.")

First = Annotated[str, typer.Argument(help="NAMESPACE:VALUE")]
Second = Annotated[str | None, typer.Argument(help="The other end; without one, every link of the first.")]


@app.command()
def unlink(
    first: First,
    second: Second = None,
    forever: Annotated[bool, typer.Option(help="Also against what is still to come.")] = False,
) -> None:
    """Take back the link between two identifiers, or all links of one. What comes later links them again, unless
    --forever. Profiles and memberships become what they would be without the link.

    Example: headwater identity unlink user_id:42 anonymous_id:f3a1
    """
    settings, a, b = _ends(first, second)
    _note(settings, "unlink", a, b)
    _decide(settings, Unlink(a=a, b=b, received=_now_ms(), forever=forever, actor=getpass.getuser()))


@app.command()
def relink(first: First, second: Second = None) -> None:
    """Undo an unlink of the same identifiers.

    Example: headwater identity relink user_id:42 anonymous_id:f3a1
    """
    settings, a, b = _ends(first, second)
    _note(settings, "relink", a, b)
    _decide(settings, Relink(a=a, b=b, received=_now_ms(), actor=getpass.getuser()))


@app.command()
def release(identifier: First) -> None:
    """Let the links of an identifier count again that was found beside too many people.

    Example: headwater identity release email:info@example.org
    """
    settings, a, _ = _ends(identifier, None)
    _note(settings, "release", a)
    _decide(settings, Release(identifier=a, received=_now_ms(), actor=getpass.getuser()))


@app.command()
def conflicts(
    identifier: Annotated[str | None, typer.Argument(help="Only those of this identifier.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 50,
) -> None:
    """Show evidence that was not followed, and why.

    Example: headwater identity conflicts device_id:kiosk-7
    """
    settings = find_kafka(settings_module.load())
    wanted = person(identifier, KafkaPlans(settings).latest().identity) if identifier else None
    if wanted is not None:
        audit.note(settings, "looked_up", wanted, "conflicts")
    decode = msgspec.json.Decoder(IdentityConflict).decode
    found = []
    with TopicReader(settings, ["identity-conflicts"]) as reader:
        for record in reader.read_to_end():
            conflict = decode(record.value or b"")
            if wanted is None or wanted in (conflict.a, conflict.b):
                found.append(conflict)
    _show(sorted(found, key=lambda conflict: conflict.epoch)[-limit:], Console())


def _show(found: list[IdentityConflict], console: Console) -> None:
    table = Table(title="evidence not followed", title_justify="left")
    for heading in ("identifiers", "reason", "detail"):
        table.add_column(heading, overflow="fold")
    for conflict in found:
        table.add_row(as_written(f"{conflict.a} – {conflict.b}"), conflict.reason, as_written(conflict.detail))
    console.print(table)


def _ends(first: str, second: str | None) -> tuple[Settings, str, str]:
    settings = find_kafka(settings_module.load())
    refuse_decisions(settings)
    rules = KafkaPlans(settings).latest().identity
    a, b = person(first, rules), person(second, rules) if second else ""
    if a == b:
        raise InputError("An identifier has no link to itself.", a, "name two different ones")
    # The order of an edge's ends is fixed, so that both ways of saying it mean the same.
    return settings, *(sorted((a, b)) if b else (a, b))


def _note(settings: Settings, what: str, *ends: str) -> None:
    for end in filter(None, ends):
        audit.note(settings, "decided", end, what)


def _decide(settings: Settings, decision: EdgesRecord) -> None:
    produce_all(settings, "identity-edges", [(None, encode(decision))])
    typer.echo("Told to the identity stage.")
    typer.echo("Next: headwater watch profile-changes, or headwater profile NAMESPACE:VALUE")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
