"""`headwater watch`: follow an output topic."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.errors import InputError
from pipeline.records import UNREADABLE
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.runtime.ports import Record
from pipeline.shown_times import shown_time
from pipeline.topology import DELIVERIES, TOPICS

FOLLOWED = ("segment-changes", "profile-changes")


def command(
    topics: Annotated[list[str] | None, typer.Argument(help="Topics to follow, without the prefix.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for pipes.")] = False,
    from_beginning: Annotated[bool, typer.Option(help="Begin with what is there already.")] = False,
    limit: Annotated[int | None, typer.Option(help="Stop after so many records.", min=1)] = None,
) -> None:
    """Follow an output topic, readable; segment-changes and profile-changes by default. Ctrl-C stops it.

    Example: headwater watch segment-changes --json | jq .segment
    """
    settings = find_kafka(settings_module.load())
    names = tuple(topics or FOLLOWED)
    for name in names:
        if name not in {topic.name for topic in TOPICS} and not name.startswith(DELIVERIES.name):
            known = ", ".join(topic.name for topic in TOPICS)
            raise InputError(f"There is no topic {name}.", "", f"known are {known} and {DELIVERIES.name}<destination>")
    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    try:
        with TopicReader(settings, names, from_end=not from_beginning) as reader:
            while limit is None or shown < limit:
                for record in reader.read(1000 if limit is None else limit - shown):
                    shown += 1
                    if as_json:
                        sys.stdout.write(_json_line(record))
                    else:
                        console.print(line(record))
                sys.stdout.flush()
    except KeyboardInterrupt:
        return


def _json_line(record: Record) -> str:
    key = record.key.decode(errors="replace") if record.key is not None else None
    try:
        value = msgspec.json.decode(record.value) if record.value is not None else None
    except UNREADABLE:
        value = record.value
    if isinstance(value, dict) and record.value is not None:
        return record.value.decode() + "\n"
    return msgspec.json.encode({"key": key, "value": value}).decode() + "\n"


def line(record: Record) -> str:
    """One record as a line with markup."""
    if record.value is None:
        key = escape((record.key or b"").decode(errors="replace"))
        return f"[dim]{record.topic}[/] {key} [dim]removed[/]"
    try:
        value = msgspec.json.decode(record.value)
    except UNREADABLE:
        return f"[dim]{record.topic}[/] {escape(repr(record.value[:200]))}"
    readable = _delivery if record.topic.startswith(DELIVERIES.name) else _LINES.get(record.topic)
    if readable is not None:
        return readable(value)
    return f"[dim]{record.topic}[/] {escape(msgspec.json.encode(value).decode())}"


def _segment_change(value: dict[str, Any]) -> str:
    sign = "[green]→ entered[/]" if value["change"] == "entered" else "[yellow]← exited[/] "
    segment, cause = escape(value["segment"]), escape(value["cause"])
    if value.get("continues"):
        cause += ", goes on"
    return f"{_time(value['at'])} {sign} [bold]{segment}[/]  {_who(value)}  [dim]{cause}[/]"


def _profile_change(value: dict[str, Any]) -> str:
    parts = [
        f"{section}: {', '.join(map(str, entries)) if isinstance(entries, dict) else '…'}"
        for section, entries in value.get("set", {}).items()
        if isinstance(entries, dict | list) and entries
    ]
    into = f" into {value['into']}" if value.get("into") else ""
    return (
        f"{_time(value['at'])} [cyan]{value['change']:8}[/] {value['profile_id']}{into}"
        f"  [dim]{escape('; '.join(parts)[:120])}[/]"
    )


def _dead_letter(value: dict[str, Any]) -> str:
    origin = f"{value['topic']}/{value['partition']}/{value['offset']}"
    return f"{_time(value['at'])} [red]{escape(value['reason'])}[/] {escape(value['detail'])}  [dim]{escape(origin)}[/]"


def _delivery(value: dict[str, Any]) -> str:
    segment = f" {value['segment']}" if value.get("segment") else ""
    return f"{_time(value['at'])} [magenta]{value['destination']}[/] {value['action']}{escape(segment)}  {_who(value)}"


def _alert(value: dict[str, Any]) -> str:
    to = f" → {value['owner']}" if value.get("owner") else ""
    message = escape(value.get("message", ""))
    return f"{_time(value['at'])} [red]{escape(value['alert'])}[/] {escape(value['account'])}{escape(to)}  {message}"


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "segment-changes": _segment_change,
    "profile-changes": _profile_change,
    "dead-letters": _dead_letter,
    "account-alerts": _alert,
}


def _who(value: dict[str, Any]) -> str:
    pairs = value.get("identifiers") or []
    if not pairs:
        return str(value["profile_id"])
    more = f" +{len(pairs) - 1}" if len(pairs) > 1 else ""
    return escape(f"{pairs[0]['namespace']}:{pairs[0]['value']}") + more


def _time(time_ms: int) -> str:
    return f"[dim]{shown_time(time_ms)}[/]"
