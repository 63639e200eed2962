"""`headwater cleanings`: what is changed about events before anything is made of them."""

from pipeline.cli._definitions import build
from pipeline.definitions.log import read_catalog
from pipeline.settings import Settings


def _steps(settings: Settings) -> dict[str, str]:
    catalog = read_catalog(settings)
    return {each.name: f"{len(each.body['steps']):,}" for each in catalog.of_kind(catalog.latest, "cleaning")}


app = build("cleaning", "cleanings", "steps", _steps)
