"""`headwater up`: everything on this machine."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from pipeline import settings as settings_module
from pipeline.cli._console import Console
from pipeline.up.session import Session

SAMPLE = Path("deploy/sample")


def command(
    definitions: Annotated[list[Path] | None, typer.Argument(help="Definitions to apply first.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help=f"Play the sample shop, from {SAMPLE}.")] = False,
    sample_folder: Annotated[Path, typer.Option(help="Where the sample shop is.")] = SAMPLE,
    exit_when_idle: Annotated[
        float | None, typer.Option(help="Stop when nothing has happened for so many seconds.", min=1.0)
    ] = None,
) -> None:
    """Run everything on this machine: a Kafka if none is configured, the topics, all roles. Ctrl-C stops it.

    Logs of the roles are in the state folder (.headwater/logs). Other commands find the Kafka by themselves.

    Example: headwater up segments/ --exit-when-idle 15
    """
    settings = settings_module.load()

    def interrupted(*_: object) -> None:
        # Once is enough: another one would break off the orderly end of what was started.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupted)
    paths = [*settings.definitions, *(definitions or [])]
    session = Session(settings, Console(), paths, sample_folder if sample else None, exit_when_idle)
    try:
        session.run()
    except KeyboardInterrupt:
        pass  # the way everybody stops it
    session.end()
