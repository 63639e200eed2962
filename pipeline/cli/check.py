"""`headwater check`: whether definitions are valid and fit together, without a Kafka."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli._console import Console
from pipeline.definitions.loader import load
from pipeline.definitions.log import check
from pipeline.definitions.schema import json_schema
from pipeline.errors import InputError


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files and folders: all that a workspace is to have.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of definitions instead, for an editor.")
    ] = False,
) -> None:
    """Say whether definitions are valid and fit together. Needs no Kafka: for an editor, a commit, a build.

    What they refer to has to be among them; beside what is in force already, use headwater apply --dry-run.

    Example: headwater check definitions/
    """
    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if not paths:
        raise InputError("Say what is to be checked.", "", "name files or folders of definitions")
    written = load(paths)
    planned = check(written)
    kinds = Counter(one.kind for one in written)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{len(written):,} definitions, valid: {', '.join(f'{kind} {kinds[kind]:,}' for kind in kinds)}.")
    for line in planned.waits_for:
        console.print(line, markup=False)
