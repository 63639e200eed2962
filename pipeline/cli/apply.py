"""`headwater apply`: validate and publish definitions."""

import getpass
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.syntax import Syntax

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.definitions.apply import ApplyPlan
from pipeline.definitions.loader import load
from pipeline.definitions.log import Readiness, apply
from pipeline.privacy import audit
from pipeline.runtime.kafka.doors import TopicReader, current_values
from pipeline.settings import Settings

# What to look at next, by what was applied.
_SHOWS = {"segment": "segments list", "destination": "destinations list"}


def command(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: segments, identity rules, destinations.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, write nothing.")] = False,
    prune: Annotated[bool, typer.Option(help="Remove what files own and these do not mention.")] = False,
    take_over: Annotated[bool, typer.Option(help="Also change what somebody else owns.")] = False,
    wait: Annotated[float, typer.Option(help="Wait at most so many seconds until it is in force.", min=0)] = 60.0,
) -> None:
    """Validate definitions and put them into force, at an exact place in the log, while everything runs.

    What is not mentioned stays as it is. Nothing is written unless everything is valid.

    Example: headwater apply segments/ --dry-run
    """
    written = load(paths)
    settings = find_kafka(settings_module.load())
    console = Console(highlight=False)
    readiness = Readiness(settings)
    try:
        planned = apply(
            settings, written, prune=prune, take_over=take_over, applied_by=getpass.getuser(), dry_run=dry_run
        )
        tell(planned, console, dry_run=dry_run)
        for line in planned.waits_for:
            console.print(line, markup=False)
        unread = settings.unread(one.body["topic"] for one in written if one.kind == "source")
        if unread:
            console.print(
                f"By these settings ingest does not read {', '.join(unread)}. Start it with "
                f"HEADWATER_SOURCES={','.join((*settings.sources, *unread))}"
            )
        if dry_run:
            for line in consequences(settings, planned):
                console.print(line)
        if planned.changes and not dry_run:
            audit.note(settings, "applied", what=", ".join(each.key for each in planned.changes)[:2_000])
        if planned.generation is not None and not dry_run and wait:
            if readiness.wait(planned.generation.number, wait):
                kinds = {change.key.partition("/")[0] for change in planned.changes}
                shows = next((one for one in _SHOWS if one in kinds), None)
                console.print(f"It is in force. Next: headwater {_SHOWS[shows]}" if shows else "It is in force.")
            else:
                console.print(f"It is not in force after {wait:g} s. It will be once identity and unify run.")
    finally:
        readiness.close()


def consequences(settings: Settings, planned: ApplyPlan) -> Iterator[str]:
    """What an apply would lead to: people resolved anew, history to be read, members who are asked again or leave."""
    generation = planned.generation
    if generation is None:
        return
    if planned.identity_changed:
        yield "By the new identity rules everybody is resolved anew, beside what comes. Who merges or parts is told."
    new = sum(born == generation.number for born in generation.leaves.values())
    if new:
        with TopicReader(settings, ["events"], from_end=True) as reader:
            positions = sum(reader.ends().values())
        yield f"Parts of rules that are new: {new}. For them {positions:,} positions of history are read again."
    else:
        yield "Nothing new has to be counted: it is in force at once."
    changed = {each.key.partition("/")[2]: each.what for each in planned.changes if each.key.startswith("segment/")}
    touched = {name for name, what in changed.items() if what in ("changed", "removed")}
    if touched:
        rows = Counter(key.partition(b"/")[0].decode() for key in current_values(settings, "segment-members"))
        for name in sorted(touched):
            what = "leave" if changed[name] == "removed" else "are judged by the new rule; who no longer matches leaves"
            yield f"{rows[name]:,} members of {name} {what}."


def tell(planned: ApplyPlan, console: Console, *, dry_run: bool) -> None:
    """Show what an apply did, or would do."""
    for change in planned.changes:
        version = f" (version {change.after})" if change.after is not None else ""
        console.print(f"[bold]{change.what}[/] {change.key}{version}")
        if change.text and dry_run:
            console.print(Syntax(change.text, "diff", background_color="default"))
    if planned.is_empty:
        console.print("Nothing changes: everything is in force as it is written.")
    elif dry_run:
        console.print("This is what would change; nothing was written. Without --dry-run it is.")
    elif planned.generation is not None:
        console.print(f"Generation {planned.generation.number} is published.")
