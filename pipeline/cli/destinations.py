"""`headwater destinations`: the destinations in force, and what waits for each."""

from typing import Annotated

import typer

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.cli._console import Console
from pipeline.cli._definitions import build
from pipeline.definitions.log import read_catalog
from pipeline.runtime.kafka.doors import waiting
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES


def _waiting(settings: Settings) -> dict[str, str]:
    catalog = read_catalog(settings)
    names = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
    counts = waiting(settings, {f"deliver-{name}": DELIVERIES.name + name for name in names})
    return {group.removeprefix("deliver-"): f"{count:,}" for group, count in counts.items()}


app = build("destination", "destinations", "waiting", _waiting)


@app.command("resync")
def resync(name: Annotated[str, typer.Argument(help="As `list` shows it; an audience.")]) -> None:
    """Send an audience every present membership again, and every profile if it mirrors them, beside what happens
    meanwhile.

    Example: headwater destinations resync crm
    """
    from pipeline.deliver.resync import resync as send_again

    sent = send_again(find_kafka(settings_module.load()), name)
    Console(highlight=False).print(
        f"{sent:,} memberships and profiles wait for {name}. `headwater destinations list` shows them going out."
    )
