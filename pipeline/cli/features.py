"""`headwater features`: what profiles looked like at a past time, for those who train models."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._explained import instant
from pipeline.errors import InputError
from pipeline.shown_times import shown_time

app = typer.Typer(no_args_is_help=True, help="Features of profiles as of a past time.")


class Entity(StrEnum):
    """Whose features."""

    person = "person"
    account = "account"


@app.callback()
def _group() -> None:
    """Features of profiles as of a past time."""


@app.command()
def export(
    as_of: Annotated[str, typer.Option("--as-of", help="The instant: ISO 8601, or ms.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("features.parquet"),
    entity: Annotated[Entity, typer.Option(help="Features of people, or of accounts.")] = Entity.person,
) -> None:
    """Write the features of all profiles as they were at an instant: nothing of what was received later is in them.

    The history is read from the archive, if there is one, and from `events`, and played again in memory, by the
    definitions in force now: a computed trait that is new has a past too. Needs the extra `parquet`.

    Example: headwater features export --as-of 2026-03-01T00:00:00Z --out march.parquet
    """
    from pipeline.features.export import check_parquet, features_at, write_parquet

    at = instant(as_of, "--as-of")
    if at > time.time_ns() // 1_000_000:
        # What falls due until then would be told as if nothing were to come any more.
        raise InputError("That instant has not come.", f"--as-of {as_of}", "name a past one")
    check_parquet(out)
    found = features_at(find_kafka(settings_module.load()), at, entity.value)
    write_parquet(found, out)
    typer.echo(f"{found.rows:,} profiles as of {shown_time(at)}, {len(found.columns)} columns: {out}")
