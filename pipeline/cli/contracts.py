"""`headwater contracts`: the contracts in force; one from what was seen; a file of events against one."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import JustifyMethod
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cleaning import Tools
from pipeline.cli._console import Console, as_written
from pipeline.cli._definitions import build
from pipeline.contracts import ContractsPlan, Violation, infer
from pipeline.definitions.cleaning import compile_cleaning
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.export import as_yaml
from pipeline.definitions.identity import identity_rules
from pipeline.definitions.keys import name_near
from pipeline.definitions.loader import Written, load
from pipeline.definitions.log import read_catalog
from pipeline.errors import InputError
from pipeline.identity import IdentityRules, builtin_rules
from pipeline.ingest import Checks, Emit, Refusal, ingest
from pipeline.records import Event, read_events_record, source_name
from pipeline.runtime.kafka.build import wall_clock_ms
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.sources.files import inspect_file, read_rows

_MOST_SHOWN = 100


def _events(settings: Settings) -> dict[str, str]:
    catalog = read_catalog(settings)
    return {each.name: f"{len(each.body['events']):,}" for each in catalog.of_kind(catalog.latest, "contract")}


app = build("contract", "contracts", "events", _events)


@app.command("infer")
def infer_contract(
    events: Annotated[Path | None, typer.Option(help="From a file of events (JSON lines or CSV).")] = None,
    source: Annotated[str, typer.Option(help="Only what came from this source; else from all.")] = "",
    name: Annotated[str, typer.Option(help="The name of the contract.")] = "",
    limit: Annotated[int, typer.Option(help="Look at no more events than this.", min=1)] = 200_000,
) -> None:
    """Write a contract from events that were seen: of a file, or of the workspace's own topic.

    What it prints only flags. Read it, add labels, decide what may be refused, and apply it.

    Example: headwater contracts infer --source web > contracts/web.yaml
    """
    found = _of_file(events, source) if events is not None else _of_topic(source)
    seen = ((event.event, event.properties, event.traits) for event in islice(found, limit))
    body = infer(name or name_near(source) or "inferred", seen)
    if not body["events"]:
        raise InputError("No event was seen.", str(events or source), "name another file or source, or wait for events")
    if source:
        body = {"contract": body.pop("contract"), "sources": [source], **body}
    typer.echo(as_yaml(body), nl=False)


@app.command("check")
def check_events(
    definitions: Annotated[list[Path], typer.Argument(help="Files and folders of definitions.")],
    events: Annotated[Path | None, typer.Option(help="A file of events (JSON lines or CSV) to check.")] = None,
    source: Annotated[
        str, typer.Option(help="The source that events of the file come from, where they do not say.")
    ] = "raw",
) -> None:
    """Check contracts, and events against them, without any Kafka: for CI. Ends with 1 if anything was violated.

    Example: headwater contracts check contracts/ --events tests/events.jsonl --source web
    """
    written = load(definitions)
    plan = _plan(written)
    console = Console(highlight=False, soft_wrap=True)
    if events is None:
        console.print(f"{len(plan.contracts)} contracts are valid.")
        return
    counts: Counter[tuple[str, str, str]] = Counter()
    first: dict[tuple[str, str, str], tuple[int, str]] = {}
    checked, bad = 0, 0
    line = 0

    def told(_: str, event: str, violations: Sequence[Violation]) -> None:
        for each in violations:
            place = event, each.pointer, each.rule
            counts[place] += 1
            first.setdefault(place, (line, each.detail))

    rules = _rules(written)
    cleaning = compile_cleaning(
        *({each.name: each.body for each in written if each.kind == k} for k in ("cleaning", "reference"))
    )
    checks = Checks(plan, cleaning, told, Tools(hashed=lambda text: hashlib.sha256(text.encode()).hexdigest()))
    for row in read_rows(events, inspect_file(events)):
        line, before = row.line, counts.total()
        outcome = ingest(Record(source, 0, row.line, None, row.value), wall_clock_ms(), rules, checks)
        checked += 1
        if isinstance(outcome, Refusal) and counts.total() == before:
            place = "", outcome.pointer, outcome.reason
            counts[place] += 1
            first.setdefault(place, (row.line, outcome.detail))
        bad += counts.total() > before
    if counts:
        table = Table(box=None, pad_edge=False)
        for heading in ("event", "field", "rule", "times", "first in line", "what"):
            justify: JustifyMethod = "right" if heading in ("times", "first in line") else "left"
            table.add_column(heading, justify=justify, overflow="fold")
        for place, times in counts.most_common(_MOST_SHOWN):
            where, detail = first[place]
            event, field, rule, what = map(as_written, (place[0] or "–", place[1] or "–", place[2], detail))
            table.add_row(event, field, rule, f"{times:,}", str(where), what)
        console.print(table)
    console.print(f"{checked:,} events, {bad:,} not as their contract says")
    if bad:
        raise typer.Exit(1)


def _plan(written: Sequence[Written]) -> ContractsPlan:
    bodies: dict[str, tuple[int, dict[str, Any]]] = {
        each.name: (1, each.body) for each in written if each.kind == "contract"
    }
    if not bodies:
        raise InputError("There is no contract here.", "", "name a file with a `contract:`")
    return compile_contracts(bodies)


def _rules(written: Sequence[Written]) -> IdentityRules:
    bodies = [each.body for each in written if each.kind == "identity"]
    return identity_rules(bodies[0]) if bodies else builtin_rules()


def _of_file(path: Path, source: str) -> Iterator[Event]:
    rules = builtin_rules()
    for row in read_rows(path, inspect_file(path)):
        outcome = ingest(Record(source or "raw", 0, row.line, None, row.value), wall_clock_ms(), rules)
        if isinstance(outcome, Emit):
            yield outcome.event


def _of_topic(source: str) -> Iterator[Event]:
    wanted = source.removeprefix("/")
    with TopicReader(find_kafka(settings_module.load()), ["events"]) as reader:
        for record in reader.read_to_end():
            message = read_events_record(record.value)
            if isinstance(message, Event) and wanted in ("", source_name(message.origin, message.source)):
                yield message
