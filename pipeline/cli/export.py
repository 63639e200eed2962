"""`headwater export`: what is in force, as YAML."""

import sys

from pipeline import settings as settings_module
from pipeline.broker import find_kafka
from pipeline.definitions.export import export
from pipeline.definitions.log import read_catalog


def command() -> None:
    """Write every definition in force as YAML, as `headwater apply` reads it.

    Example: headwater export > definitions.yaml
    """
    catalog = read_catalog(find_kafka(settings_module.load()))
    kinds = (
        "identity",
        "contract",
        "reference",
        "cleaning",
        "source",
        "trait",
        "segment",
        "accounts",
        "alert",
        "consent",
        "destination",
    )
    sys.stdout.write(export(each for kind in kinds for each in catalog.of_kind(catalog.latest, kind)))
