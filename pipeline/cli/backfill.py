"""`headwater backfill`: how far the history of new rules has been read."""

import time
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from pipeline import settings as settings_module
from pipeline.admin import refuse_other_partitions
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.definitions.log import read_catalog
from pipeline.replay.backfills import Backfill, BackfillView

app = typer.Typer(no_args_is_help=True, help="How far the history of new rules has been read.")

_LOOK_EVERY_S = 1.0


@app.command()
def status(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it until everything is in force.")] = False,
) -> None:
    """Show which rules are in force, and how much of their history each partition has read for newer ones.

    A backfill needs nobody: it goes on with unify, whoever was killed, and what it has read is kept.

    Example: headwater backfill status --follow
    """
    settings = find_kafka(settings_module.load())
    refuse_other_partitions(settings)
    latest = read_catalog(settings).latest.number
    view = BackfillView(settings)
    console = Console(highlight=False)
    try:
        found = view.look()
        if not follow:
            _tell(console, found, latest)
            return
        with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}")) as progress:
            bars: dict[int, TaskID] = {}
            while not all(one.in_force >= latest for one in found):
                for one in found:
                    bar = bars.get(one.partition)
                    if bar is None:
                        bar = bars[one.partition] = progress.add_task(f"partition {one.partition}", total=1, told="")
                    progress.update(bar, total=max(1, one.until), completed=one.read, told=_told(one, latest))
                time.sleep(_LOOK_EVERY_S)
                found = view.look()
        console.print(f"Generation {latest} is in force everywhere.")
    finally:
        view.close()


def _tell(console: Console, found: list[Backfill], latest: int) -> None:
    if all(one.in_force >= latest for one in found):
        console.print(f"Generation {latest} is in force everywhere: no history is being read.")
        return
    console.print(f"Generation {latest} is the newest.")
    for one in found:
        console.print(f"partition {one.partition}: {_told(one, latest)}")


def _told(one: Backfill, latest: int) -> str:
    if one.in_force >= latest:
        return f"generation {one.in_force} is in force"
    if not one.generation:
        waits = "waits for the other partitions" if one.marked >= latest else "has not come to the newest marker yet"
        return f"generation {one.in_force} is in force; {waits}"
    share = 100 * one.read // max(1, one.until)
    return f"generation {one.generation}: {share} %, {one.until - one.read:,} of {one.until:,} positions left"
