"""`headwater archive`: what the archive has, and its records as text."""

import sys
from typing import Annotated

import typer
from rich.table import Table

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.errors import InputError

app = typer.Typer(help="The archive of events and changes.", no_args_is_help=True)


@app.command("status")
def status() -> None:
    """Which offsets of each partition the archive has, in how many files, and which are missing.

    Example: headwater archive status
    """
    from pipeline.archive.files import TOPICS
    from pipeline.archive.joined import gaps
    from pipeline.archive.role import open_archive

    archive = open_archive(settings_module.load())
    table = Table("topic", "partition", "from", "up to", "files", "missing")
    for topic in TOPICS:
        for partition in archive.partitions(topic):
            parts = archive.parts(topic, partition)
            if parts:
                end = max(part.next for part in parts)
                missing = ", ".join(f"{first} to {end}" for first, end in gaps(parts, parts[0].first, end))
                table.add_row(topic, str(partition), str(parts[0].first), str(end), str(len(parts)), missing)
    Console().print(table)


@app.command("cat")
def cat(
    topic: Annotated[str, typer.Argument(help="events, segment-changes or profile-changes.")],
    partition: Annotated[int | None, typer.Option(help="Only this partition.")] = None,
    start: Annotated[int, typer.Option("--from", help="Only from this offset on.")] = 0,
) -> None:
    """Write what the archive has of a topic to the standard output, one value a line. Sealed events are opened with the
    keys of the workspace; those of people who were erased can't be, and are left out.

    Example: headwater archive cat segment-changes | jq .segment
    """
    from pipeline.archive.files import TOPICS
    from pipeline.archive.role import open_archive
    from pipeline.runtime.kafka.unsealing import Unsealing

    if topic not in TOPICS:
        raise InputError(f"{topic} is not archived.", "", f"archived are {', '.join(TOPICS)}")
    settings = settings_module.load()
    archive = open_archive(settings)
    unsealing = Unsealing(find_kafka(settings)) if topic == "events" else None
    try:
        for number in archive.partitions(topic) if partition is None else [partition]:
            for record in archive.records(topic, number, start):
                for opened in [record] if unsealing is None else unsealing([record]):
                    sys.stdout.buffer.write((opened.value or b"") + b"\n")
    finally:
        if unsealing is not None:
            unsealing.close()
