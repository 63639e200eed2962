"""`headwater doctor`: say what is wrong with a set-up."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli._console import Console
from pipeline.doctor import examine
from pipeline.errors import InputError
from pipeline.rights import rights
from pipeline.settings import Settings, load

_SIGNS = {"good": "[green]✓[/]", "warning": "[yellow]![/]", "wrong": "[bold red]✗[/]"}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for pipes.")] = False,
    role: Annotated[
        str | None, typer.Option(help="Hold the user of these settings to the rights that this role needs.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Warnings count as failures.")] = False,
) -> None:
    """Say what is wrong with this set-up, and what to do: Kafka, topics, copies, lag, members, folders, disk,
    clocks, certificates, rights, settings.

    Ends with 1 if something is wrong.

    Example: headwater doctor --json | jq 'select(.verdict != "good")'
    """
    if role is not None and role not in (known := sorted({each.role for each in rights(Settings())})):
        raise InputError(f"There is no role {role} with rights.", "--role", f"they are {', '.join(known)}")
    console = Console(highlight=False, soft_wrap=True)
    verdicts = []
    for finding in examine(load(), role=role):
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
        remarks = f", with {warnings} remark{'s' if warnings > 1 else ''}" if warnings else ""
        console.print(f"This set-up works{remarks}.")
    raise typer.Exit(1 if failed else 0)
