"""`headwater produce`: a file into a source topic: a few events to try something, or years of history."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.errors import InputError
from pipeline.runtime.kafka.doors import produce_all, topic_partitions
from pipeline.sources.files import KEPT_BYTES, CsvMapping, inspect_file, is_csv, is_parquet, read_rows
from pipeline.sources.progress import FileProgress
from pipeline.topology import TOPICS

_TAB = "\\t"
_SILENT_S = 10.0
_OWN = frozenset(topic.name for topic in TOPICS)


def command(
    file: Annotated[Path, typer.Argument(help="JSON lines, CSV or Parquet; the first two .gz as well.")],
    topic: Annotated[str | None, typer.Option(help="A source topic; the first of `sources` by default.")] = None,
    event: Annotated[str | None, typer.Option(help="CSV, Parquet: the event of rows that name none.")] = None,
    kind: Annotated[str, typer.Option("--type", help="CSV, Parquet: the type of rows that name none.")] = "track",
    column: Annotated[
        list[str] | None, typer.Option(help="CSV, Parquet: COLUMN=FIELD, as customer=userId; COLUMN= leaves it out.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="CSV: between the cells; \\t for a tabulator.")] = ",",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this file was interrupted.")] = False,
) -> None:
    """Produce the rows of a file as raw events. Producing the same file again within a day adds nothing; one that was
    interrupted goes on with --resume.

    Example: headwater produce orders.csv --event "Order Completed" --column customer=userId --column day=timestamp
    """
    settings = find_kafka(settings_module.load())
    target = topic or settings.sources[0]
    if target in _OWN and target not in settings.sources:
        raise InputError(
            f"{target} is written by Headwater alone: what a file put there would be no record of it.",
            "--topic",
            f"name one of `sources` ({', '.join(settings.sources)}), or another topic",
        )
    if not (is_csv(file) or is_parquet(file)) and (event or column):
        raise InputError(
            "--event and --column are for CSV and Parquet files.", str(file), "name the file *.csv, or leave them out"
        )
    topic_partitions(settings, [target])  # one that is not there is told now, and not when the producer gives up
    mapping = CsvMapping(kind, event, dict(map(_column, column or [])), "\t" if delimiter == _TAB else delimiter)
    facts = inspect_file(file, mapping)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with progress:
        bar = progress.add_task(file.name, total=facts.rows)
        rows = read_rows(file, facts, mapping)
        begun = FileProgress(settings.state_dir, facts.digest, settings.topic(target))
        done = begun.rows if resume else 0
        if done:
            progress.console.print(f"{done:,} rows were produced before: going on behind them.")
        count = 0
        for part in begun.parts(rows, done):
            # A broker takes no larger one: the file would end here, and could never be produced to its end.
            records = ((row.key, row.value[:KEPT_BYTES]) for row in part)
            count += produce_all(settings, target, records, shown(progress, bar, done + count))
            begun.keep(done + count)
        begun.end()
    typer.echo(f"{count:,} record{' is' if count == 1 else 's are'} in {settings.topic(target)}.")
    typer.echo("Next: headwater profile NAMESPACE:VALUE, or headwater dead-letters list")


def shown(
    progress: Progress, bar: TaskID, before: int, now_s: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """Shows how much was acknowledged, and says so when nothing is: who is waited for is not seen from the bar."""
    known, since_s, is_told = -1, now_s(), False

    def show(sent: int) -> None:
        nonlocal known, since_s, is_told
        if sent != known:
            known, since_s, is_told = sent, now_s(), False
        elif not is_told and now_s() - since_s >= _SILENT_S:
            is_told = True
            progress.console.print(
                f"Kafka has acknowledged nothing for {_SILENT_S:.0f} s: it is away, or its disk is full"
                " (headwater doctor). It is waited for."
            )
        progress.update(bar, completed=before + sent)

    return show


def _column(text: str) -> tuple[str, str]:
    name, equals, field = text.partition("=")
    if not equals or not name:
        raise InputError(f"--column {text} is not COLUMN=FIELD.", "", "write for example --column customer=userId")
    return name, field
