"""A table of somebody else, joined into events at ingest and followed as it changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

from pipeline.admin import admin_client, create_topics
from pipeline.cleaning import Reference
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.kafka.doors import produce_all
from pipeline.runtime.kafka.references import References
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

DEFINITIONS = """
reference: products
topic: /TOPIC
fields: [name, price]
provenance: the catalogue of the shop
---
cleaning: catalogue
events: [Product Viewed]
steps:
  - join: {reference: products, by: properties.sku, to: properties.product}
---
segment: looked_at_shoes
when: {performed: {event: Product Viewed, where: {properties.product.name: {equals: Shoe}}}}
"""


@pytest.fixture
def catalogue(new_workspace: Callable[..., Settings]) -> tuple[Settings, str]:
    """A workspace, and a topic outside of it."""
    settings = new_workspace(partitions=2)
    create_topics(settings)
    topic = f"{settings.prefix}catalogue"
    client = admin_client(settings)
    config = {"cleanup.policy": "compact"}
    for future in client.create_topics([NewTopic(topic, 2, 1, config=config)]).values():
        future.result(120)
    return settings, topic


def viewed(message: str, sku: str) -> dict[str, Any]:
    event = {"type": "track", "event": "Product Viewed", "userId": "ada", "messageId": message}
    return {**event, "properties": {"sku": sku}}


def test_events_are_joined_with_the_row_as_it_stands(catalogue: tuple[Settings, str], tmp_path: Path) -> None:
    settings, topic = catalogue
    rows = [(b"s-1", b'{"name": "Shoe", "price": 50, "cost": 20}'), (b"s-2", b'{"name": "Hat"}'), (b"s-3", b"[]")]
    produce_all(settings, f"/{topic}", rows)
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify"):
            running.start(role)
        running.apply(DEFINITIONS.replace("TOPIC", topic))

        def products() -> dict[str, Any]:
            events = (value for value in running.values("events") if value["kind"] == "event")
            return {each["message_id"]: each["properties"].get("product", each.get("flags")) for each in events}

        running.produce([viewed("m-1", "s-1"), viewed("m-2", "s-9"), viewed("m-3", "s-3")])
        running.wait_until(lambda: len(products()) == 3, "three events")
        missing = ["no_reference:products"]
        assert products() == {"m-1": {"name": "Shoe", "price": 50}, "m-2": missing, "m-3": missing}
        running.wait_until(lambda: len(running.members("looked_at_shoes")) == 1, "a segment by what was joined")

        produce_all(settings, f"/{topic}", [(b"s-1", b'{"name": "Boot"}'), (b"s-9", b'{"name": "Sock"}')])
        number = iter(range(100))

        def now(sku: str) -> Any:
            message = f"n-{next(number)}"
            running.produce([viewed(message, sku)])
            running.wait_until(lambda: message in products(), "one more event")
            return products()[message]

        running.wait_until(lambda: now("s-9") == {"name": "Sock"}, "rows that came since")
        assert now("s-1") == {"name": "Boot"}


def test_a_table_that_grows_too_large_is_loud(catalogue: tuple[Settings, str]) -> None:
    settings, topic = catalogue
    produce_all(settings, f"/{topic}", ((f"k{number}".encode(), b"{}") for number in range(20)))
    references = References(settings)
    assert references.row(Reference("rows", f"/{topic}"), "k7") == {}
    assert references.row(Reference("rows", f"/{topic}"), "k99") is None
    by_key = Reference("by", f"/{topic}", key=("id",))
    assert references.row(by_key, "k7") is None, "its rows have no such key"
    with pytest.raises(WorkerStopped, match="more than 10 rows"):
        references.row(Reference("rows", f"/{topic}", max_rows=10), "k7")
