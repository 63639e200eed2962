"""`headwater privacy`: requests of people about their data, and what became of them."""

import getpass
import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console, as_written
from pipeline.definitions.log import KafkaPlans
from pipeline.errors import InputError, LookupFailed
from pipeline.lookup import as_kept, known_in, person_or_profile
from pipeline.privacy import audit
from pipeline.privacy.asking import ask
from pipeline.records import PrivacyReceipt
from pipeline.runtime.kafka.doors import current_value, current_values
from pipeline.settings import Settings
from pipeline.shown_times import shown_second

_LOOK_AGAIN_S = 0.3
# A request is carried out when Headwater has done its part; destinations answer a moment later, or when they are there.
_ANSWERS_S = 5.0
_decode = msgspec.json.Decoder(PrivacyReceipt).decode

Who = Annotated[str, typer.Argument(help="NAMESPACE:VALUE of one of the person's identifiers, or their profile_id.")]
Wait = Annotated[float, typer.Option(help="Wait so many seconds for the receipt.", min=0)]

app = typer.Typer(no_args_is_help=True, help="Erase, export, rectify, suppress; and what became of it.")


@app.command()
def erase(identifier: Who, wait: Wait = 0) -> None:
    """Forget a person: everything known under all of their identifiers, everywhere. It cannot be taken back.

    Example: headwater privacy erase email:ada@example.org --wait 30
    """
    _request("erase", identifier, wait)


@app.command()
def rectify(
    identifier: Who,
    traits: Annotated[list[str], typer.Argument(help="TRAIT=VALUE: JSON, else a text; null takes it back.")],
    wait: Wait = 0,
) -> None:
    """Correct traits of a person. The correction is the newest statement, so it holds.

    Example: headwater privacy rectify email:ada@example.org last_name=Lovelace
    """
    _request("rectify", identifier, wait, dict(map(_trait, traits)))


@app.command()
def suppress(
    identifier: Who,
    lift: Annotated[bool, typer.Option("--lift", help="Take it back: they are acted upon again.")] = False,
    wait: Wait = 0,
) -> None:
    """Leave a person alone: nothing about them goes to any destination, and each lets go of them. Their data stay.

    Example: headwater privacy suppress email:ada@example.org
    """
    _request("suppress", identifier, wait, lift=lift)


@app.command()
def export(
    identifier: Who,
    to: Annotated[Path, typer.Option(help="The folder to make, with export.json and export.md in it.")],
) -> None:
    """Write everything that is kept about a person into a folder: export.md to read, export.json for machines.

    Example: headwater privacy export email:ada@example.org --to ada
    """
    from pipeline.privacy.export import export as exported
    from pipeline.privacy.export import write_export

    settings, text = _named(identifier)
    with Console(stderr=True).status("reading the history"):
        found = exported(settings, text, to)
    write_export(found, to)
    audit.note(settings, "exported", text, f"{len(found['events'])} events")
    typer.echo(f"{to}/export.json and {to}/export.md: {len(found['events']):,} events.")
    typer.echo("Next: read it, and give it to the person over a safe way")


@app.command()
def status(
    request_id: Annotated[str | None, typer.Argument(help="As the request printed it; all by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show receipts: what became of a request, store by store, and when.

    Example: headwater privacy status
    """
    settings = find_kafka(settings_module.load())
    receipts = sorted(map(_decode, current_values(settings, "privacy-receipts").values()), key=_asked)
    console = Console(highlight=False)
    if request_id is None:
        if as_json:
            console.print_json(json.dumps(msgspec.to_builtins(receipts)))
        else:
            _list(receipts, console)
        return
    found = next((each for each in receipts if each.request_id == request_id), None)
    if found is None:
        raise LookupFailed(f"There is no receipt for {request_id} yet.", "", "see that `headwater run privacy` runs")
    if as_json:
        console.print_json(json.dumps(msgspec.to_builtins(found)))
    else:
        _show(found, console)


def _asked(receipt: PrivacyReceipt) -> int:
    return receipt.requested_at


def _trait(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{text} is not TRAIT=VALUE.", "", "write for example last_name=Lovelace")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _named(identifier: str, whole: bool = False) -> tuple[Settings, str]:
    settings = find_kafka(settings_module.load())
    wanted = person_or_profile(identifier, KafkaPlans(settings).latest().identity)
    return settings, as_kept(identifier, wanted, known_in(partial(current_value, settings)), whole)


def _request(kind: Any, identifier: str, wait: float, traits: dict[str, Any] | None = None, lift: bool = False) -> None:
    settings, text = _named(identifier, whole=kind == "erase")
    request_id = ask(settings, kind, text, getpass.getuser(), traits, lift)
    typer.echo(f"Request {request_id} is made.")
    give_up = time.monotonic() + wait
    while wait:
        value = current_values(settings, "privacy-receipts").get(request_id.encode())
        if value is not None and (receipt := _decode(value)).state != "working":
            give_up = min(give_up, time.monotonic() + _ANSWERS_S)
            if time.monotonic() >= give_up or not any(entry.state == "waiting" for entry in receipt.stores):
                _show(receipt, Console(highlight=False))
                if receipt.state == "failed":
                    raise typer.Exit(1)
                return
        elif time.monotonic() > give_up:
            raise LookupFailed(
                f"{request_id} was not carried out within {wait:g} s.", "", "see that `headwater run privacy` runs"
            )
        time.sleep(_LOOK_AGAIN_S)
    typer.echo(f"Next: headwater privacy status {request_id}")


def _list(receipts: list[PrivacyReceipt], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("request", "what", "asked", "by", "state", "finished"):
        table.add_column(heading, no_wrap=heading == "request", overflow="fold")
    for each in receipts:
        finished = shown_second(each.finished_at) if each.finished_at else ""
        asked, by = shown_second(each.requested_at), as_written(each.by)
        table.add_row(as_written(each.request_id), each.request, asked, by, each.state, finished)
    console.print(table if receipts else "No requests yet.")


def _show(receipt: PrivacyReceipt, console: Console) -> None:
    told = as_written(f"{receipt.request_id}: {receipt.state} {receipt.detail}".rstrip())
    console.print(f"[bold]{receipt.request}[/] {told}")
    asked = f"asked {shown_second(receipt.requested_at)} by {receipt.by}; identifiers: {receipt.identifiers}"
    console.print(as_written(asked))
    table = Table(box=None, pad_edge=False)
    for heading in ("store", "state", "when", "how"):
        table.add_column(heading)
    now_ms = time.time_ns() // 1_000_000
    for entry in receipt.stores:
        state = "done" if entry.state == "by" and entry.at <= now_ms else entry.state
        table.add_row(as_written(entry.store), state, shown_second(entry.at), as_written(entry.how))
    console.print(table)
