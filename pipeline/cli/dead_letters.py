"""`headwater dead-letters`: what could not be used: seen, mended, and sent again."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.errors import InputError
from pipeline.letters import chosen, named, send_again
from pipeline.runtime.kafka.build import wall_clock_ms
from pipeline.shown_times import shown_second, shown_time

_SHOWN_DETAIL = 90

Id = Annotated[str, typer.Argument(help="PARTITION/OFFSET, as `list` shows it.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
Source = Annotated[str | None, typer.Option("--topic", help="Only those that came from this topic.")]

app = typer.Typer(no_args_is_help=True, help="List, show and replay what could not be used.")


@app.command("list")
def list_all(
    reason: Reason = None,
    topic: Source = None,
    limit: Annotated[int, typer.Option(help="So many of the newest.", min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for pipes.")] = False,
) -> None:
    """List the dead letters, the newest last. A replayed one stays in the list.

    Example: headwater dead-letters list --reason not_json
    """
    settings = find_kafka(settings_module.load())
    found = sorted(chosen(settings, reason, topic), key=lambda each: (each.letter.at, each.partition, each.offset))
    if as_json:
        for each in found[-limit:]:
            sys.stdout.write(msgspec.json.encode({"id": each.id, **msgspec.to_builtins(each.letter)}).decode() + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "at", "stage", "reason", "what", "came from"):
        table.add_column(heading, no_wrap=heading != "what", overflow="fold")
    for each in found[-limit:]:
        letter = each.letter
        table.add_row(
            each.id,
            shown_second(letter.at),
            letter.stage,
            letter.reason,
            escape(letter.detail if len(letter.detail) <= _SHOWN_DETAIL else f"{letter.detail[:_SHOWN_DETAIL]}…"),
            f"{letter.topic}/{letter.partition}/{letter.offset}",
        )
    console = Console(highlight=False)
    if found:
        console.print(table)
    more = f"; the newest {limit} are shown, --limit shows more" if len(found) > limit else ""
    letters = "dead letter" if len(found) == 1 else "dead letters"
    console.print(f"{len(found):,} {letters}{more}.{' Next: headwater dead-letters show ID' if found else ''}")


@app.command("show")
def show(
    id: Id,
    value: Annotated[bool, typer.Option("--value", help="Only the original bytes, for a file.")] = False,
) -> None:
    """Show a dead letter, whole, with the original record.

    Example: headwater dead-letters show 2/17 --value > letter.json
    """
    found = named(find_kafka(settings_module.load()), [id])[0]
    letter = found.letter
    if value:
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
        return
    console = Console(highlight=False, soft_wrap=True)
    at_field = f", at {letter.pointer}" if letter.pointer else ""
    console.print(f"[bold red]{escape(letter.reason)}[/] in {letter.stage}, {shown_time(letter.at)}{escape(at_field)}")
    console.print(letter.detail, markup=False)
    console.print(f"came from {letter.topic}, partition {letter.partition}, offset {letter.offset}", markup=False)
    if letter.key is not None:
        console.print(f"key: {_text(letter.key)}", markup=False)
    console.print(_text(letter.value) if letter.value is not None else "no value", markup=False)
    console.print(f"Next: headwater dead-letters replay {found.id} [--value FILE]", markup=False)


@app.command("replay")
def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="PARTITION/OFFSET, as `list` shows it; several.")] = None,
    value: Annotated[
        Path | None, typer.Option(help="Send what stands in this file instead (one dead letter).", show_default=False)
    ] = None,
    reason: Reason = None,
    topic: Source = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send dead letters again, to the topic they came from, under their key; `--value` sends a mended one instead.

    What has a messageId and was accepted within a day is recognised as a duplicate, so replaying twice adds nothing.

    Example: headwater dead-letters show 2/17 --value > letter.json; edit it; headwater dead-letters replay 2/17 --value letter.json
    """  # noqa: E501
    chosen_by = [bool(ids), reason is not None or topic is not None, everything]
    if sum(chosen_by) != 1:
        raise InputError("Which dead letters?", "", "name their ids, or give --reason or --topic, or --all")
    if value is not None and len(ids or []) != 1:
        raise InputError("--value mends one dead letter.", str(value), "name its id")
    settings = find_kafka(settings_module.load())
    letters = named(settings, ids) if ids else list(chosen(settings, reason, topic))
    mended = _read(value) if value is not None else None
    sent = send_again(settings, letters, wall_clock_ms(), mended, dry_run)
    console = Console(highlight=False, soft_wrap=True)
    for name, count in sent.items():
        said = "would be sent to" if dry_run else "sent again to"
        console.print(f"{count:,} {said} {settings.topic(name)}", markup=False)
    kept = len(letters) - sum(sent.values())
    if kept:
        console.print(
            f"{kept:,} not sent: whom they are about does not allow it any more, or is erased. "
            "`headwater explain --destination` says why."
        )
    if not letters:
        console.print("There is none of these.")
    elif not dry_run:
        console.print("Next: headwater dead-letters list (what is refused again is there anew)")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise InputError(f"The file cannot be read: {error.strerror}.", str(path)) from None


def _text(data: bytes) -> str:
    """Bytes for a person: as they are if they are UTF-8, else as Python writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return repr(data)
