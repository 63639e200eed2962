"""`headwater doctor`: say what is wrong with a set-up."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pipeline.doctor import examine
from pipeline.settings import load

_SIGNS = {"good": "[green]✓[/]", "warning": "[yellow]![/]", "wrong": "[bold red]✗[/]"}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for pipes.")] = False,
    strict: Annotated[bool, typer.Option(help="Warnings count as failures.")] = False,
) -> None:
    """Say what is wrong with this set-up, and what to do: Kafka, topics, lag, folders, disk, clocks, settings.

    Ends with 1 if something is wrong.

    Example: headwater doctor --json | jq 'select(.verdict != "good")'
    """
    console = Console(highlight=False, soft_wrap=True)
    verdicts = []
    for finding in examine(load()):
        verdicts.append(finding.verdict)
        if as_json:
            sys.stdout.write(json.dumps(asdict(finding)) + "\n")
            continue
        console.print(_SIGNS[finding.verdict], end=" ")
        console.print(f"{finding.subject}: {finding.detail}", markup=False)
        if finding.what_to_do:
            console.print(f"    what to do: {finding.what_to_do}", markup=False)
    failed = "wrong" in verdicts or (strict and "warning" in verdicts)
    if not as_json and not failed:
        warnings = verdicts.count("warning")
        console.print(f"This set-up works{f', with {warnings} remarks' if warnings else ''}.")
    raise typer.Exit(1 if failed else 0)
