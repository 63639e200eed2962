"""`headwater check`: whether definitions are valid and fit together, without a Kafka."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.definitions.loader import load
from pipeline.definitions.log import check


def command(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders: all that a workspace is to have.")],
) -> None:
    """Say whether definitions are valid and fit together. Needs no Kafka: for an editor, a commit, a build.

    What they refer to has to be among them; beside what is in force already, use headwater apply --dry-run.

    Example: headwater check definitions/
    """
    written = load(paths)
    planned = check(written)
    kinds = Counter(one.kind for one in written)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{len(written):,} definitions, valid: {', '.join(f'{kind} {kinds[kind]:,}' for kind in kinds)}.")
    for line in planned.waits_for:
        console.print(line, markup=False)
