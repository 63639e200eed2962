"""`headwater sources`: what came from where, when last, with which fields, and how much of it was refused."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console, spelled
from pipeline.definitions.catalog import sources_plan
from pipeline.definitions.log import read_catalog
from pipeline.records import DeadLetter, Event, read_events_record, source_name
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings
from pipeline.shown_times import shown_second

_SHOWN = 8
_MOST_NAMES = 5_000

_decode_letter = msgspec.json.Decoder(DeadLetter).decode


@dataclass
class Source:
    """What was seen of one source. `fields` count events that had them, by "section.name"."""

    events: int = 0
    refused: int = 0
    first_ms: int = 0
    last_ms: int = 0
    names: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        """See an event."""
        self.events += 1
        self.seen(event.received)
        _count(self.names, event.event)
        for section, values in (("properties", event.properties), ("traits", event.traits)):
            for name in values:
                _count(self.fields, f"{section}.{name}")
        for flag in event.flags:
            self.flagged[flag.partition(":")[0]] += 1

    def seen(self, at_ms: int) -> None:
        """Something came at a time."""
        self.first_ms = min(self.first_ms or at_ms, at_ms)
        self.last_ms = max(self.last_ms, at_ms)


def _count(counter: Counter[str], name: str) -> None:
    # Producers invent names without end.
    if name in counter or len(counter) < _MOST_NAMES:
        counter[name] += 1


def command(
    newest: Annotated[
        int, typer.Option(help="Look at so many of the newest records of each partition.", min=1)
    ] = 50_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for pipes.")] = False,
) -> None:
    """What came lately, by source: a topic, or what a write key stands for, or a mapping.

    Example: headwater sources --newest 10000
    """
    found = statistics(find_kafka(settings_module.load()), newest)
    if as_json:
        for name, source in sorted(found.items()):
            sys.stdout.write(msgspec.json.encode({"source": name, **_plain(source)}).decode() + "\n")
        return
    console = Console(highlight=False)
    for name, source in sorted(found.items()):
        console.print(_shown(name, source))
    console.print(f"of the newest {newest:,} records of each partition of events and dead-letters")


def _shown(name: str, source: Source) -> Group:
    """A source in a few lines, whatever the width: names of fields are long."""
    last = f", last {shown_second(source.last_ms)}" if source.last_ms else ""
    told = Table.grid(padding=(0, 2, 0, 0))
    told.add_column(no_wrap=True)
    told.add_column(overflow="fold")
    for heading, line in (
        ("  events", _told(source.names)),
        ("  fields", _told(source.fields, source.events)),
        ("  refused", _told(source.reasons)),
    ):
        if line:
            told.add_row(heading, line)
    return Group(
        Text.assemble((spelled(name), "bold"), f": {source.events:,} events, {source.refused:,} refused{last}"), told
    )


def _told(counter: Counter[str], of: int = 0) -> Text:
    """The most frequent, with their counts, or their share of so many."""
    shown = (f"{name} {count / of:.0%}" if of else f"{name} {count:,}" for name, count in counter.most_common(_SHOWN))
    return Text(spelled(", ".join(shown)))


def _plain(source: Source) -> dict[str, Any]:
    return {name: getattr(source, name) for name in Source.__dataclass_fields__}


def statistics(settings: Settings, newest: int) -> dict[str, Source]:
    """What the newest records of each partition say, by the name of the source."""
    found: dict[str, Source] = {}
    catalog = read_catalog(settings)
    mapped = {topic: mapping.source for topic, mapping in sources_plan(catalog, catalog.latest).by_topic.items()}
    with _newest(settings, "events", newest) as reader:
        for record in reader.read_to_end():
            message = read_events_record(record.value)
            if isinstance(message, Event):
                found.setdefault(source_name(message.origin, message.source), Source()).take(message)
    with _newest(settings, "dead-letters", newest) as reader:
        for record in reader.read_to_end():
            letter = _decode_letter(record.value) if record.value is not None else None
            if letter is not None and letter.stage == "ingest":
                source = found.setdefault(mapped.get(letter.topic) or _origin(letter), Source())
                source.refused += 1
                source.seen(letter.at)
                _count(source.reasons, letter.reason)
    return found


def _newest(settings: Settings, topic: str, newest: int) -> TopicReader:
    with TopicReader(settings, [topic], from_end=True) as reader:
        ends = {(topic, number): end for (_, number), end in reader.ends().items()}
    return TopicReader(settings, [topic], start_at={place: max(0, end - newest) for place, end in ends.items()})


class _Stated(msgspec.Struct):
    source: Any = None


_decode_stated = msgspec.json.Decoder(_Stated).decode


def _origin(letter: DeadLetter) -> str:
    """The source of a refused record, if it still says one; else its topic."""
    try:
        stated = _decode_stated(letter.value or b"").source
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        stated = None
    return stated[:100] if isinstance(stated, str) and stated else letter.topic.removeprefix("/")
