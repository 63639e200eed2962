"""`headwater dead-letters`: what could not be used: seen, mended, and sent again."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._explained import shown_time
from pipeline.errors import InputError, LookupFailed
from pipeline.ingest.stage import MAX_KEPT_BYTES
from pipeline.records import DeadLetter
from pipeline.runtime.kafka.build import wall_clock_ms
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings
from pipeline.topology import DAY_MS

TOPIC = "dead-letters"
_SHOWN_DETAIL = 90

_decode = msgspec.json.Decoder(DeadLetter).decode

Id = Annotated[str, typer.Argument(help="PARTITION/OFFSET, as `list` shows it.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
Source = Annotated[str | None, typer.Option("--topic", help="Only those that came from this topic.")]

app = typer.Typer(no_args_is_help=True, help="List, show and replay what could not be used.")


class Letter(NamedTuple):
    """A dead letter and where it stands in `dead-letters`."""

    partition: int
    offset: int
    letter: DeadLetter

    @property
    def id(self) -> str:
        """As people type it."""
        return f"{self.partition}/{self.offset}"


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
    found = sorted(_chosen(settings, reason, topic), key=lambda each: (each.letter.at, each.partition, each.offset))
    if as_json:
        for each in found[-limit:]:
            sys.stdout.write(msgspec.json.encode({"id": each.id, **msgspec.to_builtins(each.letter)}).decode() + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "at", "stage", "reason", "what", "came from"):
        table.add_column(heading, no_wrap=heading != "what")
    for each in found[-limit:]:
        letter = each.letter
        table.add_row(
            each.id,
            shown_time(letter.at)[:-4],
            letter.stage,
            letter.reason,
            escape(letter.detail[:_SHOWN_DETAIL]),
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
    found = _one(find_kafka(settings_module.load()), id)
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
    letters = [_one(settings, id) for id in ids] if ids else list(_chosen(settings, reason, topic))
    mended = _read(value) if value is not None else None
    by_topic: dict[str, list[tuple[bytes | None, bytes, int]]] = {}
    now_ms = wall_clock_ms()
    for each in letters:
        body = mended if mended is not None else _whole(each)
        by_topic.setdefault(each.letter.topic, []).append((each.letter.key, body, _arrival(each.letter, now_ms)))
    console = Console(highlight=False, soft_wrap=True)
    for name, records in by_topic.items():
        count = len(records) if dry_run else produce_all(settings, name, records)
        said = "would be sent to" if dry_run else "sent again to"
        console.print(f"{count:,} {said} {settings.topic(name)}", markup=False)
    if not letters:
        console.print("There is none of these.")
    elif not dry_run:
        console.print("Next: headwater dead-letters list (what is refused again is there anew)")


def _arrival(letter: DeadLetter, now_ms: int) -> int:
    """The time its record shall have again: a sender's clock is put right by comparing it with the arrival. After a day
    that is not done any more, and a record from long ago might not be kept."""
    return letter.at if 0 < now_ms - letter.at < DAY_MS else 0


def _chosen(settings: Settings, reason: str | None, topic: str | None) -> Iterator[Letter]:
    with TopicReader(settings, [TOPIC]) as reader:
        for record in reader.read_to_end():
            if record.value is None:
                continue
            letter = _decode(record.value)
            if (reason is None or letter.reason == reason) and (topic is None or letter.topic == topic):
                yield Letter(record.partition, record.offset, letter)


def _one(settings: Settings, id: str) -> Letter:
    partition, slash, offset = id.partition("/")
    if not slash or not partition.isdigit() or not offset.isdigit():
        raise InputError(f"{id} is no id of a dead letter.", "", "write PARTITION/OFFSET, as `dead-letters list` shows")
    for each in _chosen(settings, None, None):
        if (each.partition, each.offset) == (int(partition), int(offset)):
            return each
    raise LookupFailed(f"There is no dead letter {id}.", settings.topic(TOPIC), "see `headwater dead-letters list`")


def _whole(each: Letter) -> bytes:
    body = each.letter.value
    if body is None:
        raise InputError(
            "The record had no value, and would be refused again.", each.id, "give one: --value FILE, or leave it out"
        )
    # One of this size may have been longer.
    if len(body) == MAX_KEPT_BYTES:
        origin = f"{each.letter.topic}/{each.letter.partition}/{each.letter.offset}"
        raise InputError(
            "Only the beginning of this record is kept.",
            each.id,
            f"take the whole from {origin}, and give --value FILE",
        )
    return body


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
