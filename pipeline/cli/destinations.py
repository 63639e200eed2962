"""`headwater destinations`: the destinations in force, and what waits for each."""

from pipeline.cli._definitions import build
from pipeline.definitions.log import read_catalog
from pipeline.runtime.kafka.doors import GroupPositions
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES


def _waiting(settings: Settings) -> dict[str, str]:
    catalog = read_catalog(settings)
    names = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
    positions = GroupPositions(settings)({f"deliver-{name}": [DELIVERIES.name + name] for name in names})
    return {
        group.removeprefix("deliver-"): f"{max(0, end - reached):,}" for group, (reached, end) in positions.items()
    }


app = build("destination", "destinations", "waiting", _waiting)
