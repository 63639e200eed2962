"""`headwater apply`: validate and publish definitions."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.syntax import Syntax

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.definitions.apply import ApplyPlan
from pipeline.definitions.loader import load
from pipeline.definitions.log import Readiness, apply


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
        if planned.generation is not None and not dry_run and wait:
            if readiness.wait(planned.generation.number, wait):
                console.print("It is in force. Next: headwater segments list")
            else:
                console.print(f"It is not in force after {wait:g} s. It will be once identity and unify run.")
    finally:
        readiness.close()


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
