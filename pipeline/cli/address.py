"""`headwater address`: where the Kafka is."""

import typer

from pipeline import settings as settings_module
from pipeline.broker import find_kafka


def command() -> None:
    """Print the address of the workspace's Kafka, for programs of your own: the configured one, or that of `up`.

    Example: export HEADWATER_BOOTSTRAP_SERVERS=$(headwater address)
    """
    typer.echo(find_kafka(settings_module.load()).bootstrap_servers)
