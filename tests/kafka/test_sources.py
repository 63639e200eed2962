"""A topic of another system, changes of a table as Debezium writes them, feeds profiles; and what came is told."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka.admin import NewTopic

from pipeline.admin import admin_client, create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.registry import running_registry

CRM = """
source: crm
topic: /TOPIC
envelope: debezium
event:
  type: identify
  userId: {from: row.id, as: text}
  messageId: {text: 'crm-{source.lsn}-{row.id}'}
  traits: {from: row, without: [id]}
"""


def change(op: str, lsn: int, before: Any, after: Any) -> bytes:
    at_ms = 1_790_000_000_000 + lsn
    source = {"connector": "postgresql", "ts_ms": at_ms, "lsn": lsn, "table": "customers"}
    return json.dumps(
        {"payload": {"op": op, "before": before, "after": after, "source": source}, "schema": {}}
    ).encode()


def test_a_table_feeds_profiles(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace(partitions=2)
    topic = f"{settings.prefix}crm.public.customers"
    settings = settings.model_copy(update={"sources": ("raw", f"/{topic}")})
    create_topics(settings.model_copy(update={"sources": ("raw",)}))
    client = admin_client(settings)
    for future in client.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(120)
    with Deployment(settings, tmp_path) as running:
        sources = {"HEADWATER_SOURCES": ",".join(settings.sources)}
        running.start("ingest", **sources)
        running.start("identity")
        running.start("unify")
        running.apply(CRM.replace("TOPIC", topic))
        first = {"id": 7, "email": "ada@example.org", "plan": "free"}
        rows = [
            change("r", 1, None, first),
            change("u", 5, first, {**first, "plan": "paid"}),
            change("u", 3, first, {**first, "plan": "trial"}),  # late: an earlier change of the row
            change("u", 5, first, {**first, "plan": "paid"}),  # a connector that starts anew repeats some
            change("d", 6, {**first, "plan": "gone"}, None),
            b"{broken",
        ]
        running.produce([*rows, b""], f"/{topic}")
        running.produce([{"type": "page", "userId": "7", "messageId": "p-1"}])
        running.wait_until(lambda: len(running.values("dead-letters")) == 2, "what is broken is put aside")
        running.wait_until(
            lambda: [profile["totals"].get("Page Viewed") for profile in running.table("profiles").values()] != [None],
            "the page view",
        )
        running.wait_until(
            lambda: [p["totals"]["Identify"]["count"] for p in running.table("profiles").values()] == [3], "the changes"
        )
        [profile] = running.table("profiles").values()
        assert profile["traits"]["plan"] == "paid", "the newest change in the database, not the one that came last"
        assert ("email", "ada@example.org") in {(each["namespace"], each["value"]) for each in profile["identifiers"]}

        told = running.command("sources", "--json", **sources).stdout.splitlines()
        by_name = {each["source"]: each for each in map(json.loads, told)}
        assert (by_name["crm"]["events"], by_name["crm"]["names"]) == (4, {"Identify": 4})
        assert by_name["crm"]["fields"]["traits.plan"] == 4
        assert by_name["crm"]["reasons"] == {"not_json": 2} and set(by_name) == {"crm", "raw"}
        assert (by_name["raw"]["events"], by_name["raw"]["refused"]) == (1, 0)
        assert "crm" in running.command("sources", "--newest", "100", **sources).stdout


def test_a_topic_that_is_added_to_the_sources_is_read_after_a_restart_and_one_that_is_taken_away_is_not(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings.model_copy(update={"sources": ("raw", "shop")}))

    def names() -> list[str]:
        return [each["message_id"] for each in running.values("events") if each["kind"] == "event"]

    with Deployment(settings, tmp_path) as running:
        for number, sources in enumerate(("raw", "raw,shop", "raw")):
            # At once: as far as the group knows, the worker was never away.
            ingest = running.start("ingest", HEADWATER_SOURCES=sources)
            pages = [{"type": "page", "userId": f"u{n}", "messageId": f"shop-{number}-{n}"} for n in range(4)]
            running.produce(pages, "shop")
            running.produce([{"type": "page", "userId": "u1", "messageId": f"raw-{number}"}])
            running.wait_until(lambda n=number: f"raw-{n}" in names(), "what came into the topic that was always read")
            if "shop" in sources:
                running.wait_until(lambda: len(names()) == 2 + 8, "what came into the topic that was added")
            assert ingest.stop() == 0
        assert len(names()) == 3 + 8


ORDERS = """
source: orders
topic: /TOPIC
encoding: avro
event:
  type: track
  event: Order Completed
  userId: {from: value.customer.number, as: text}
  messageId: {text: 'order-{value.id}'}
  timestamp: {from: value.at, as: time_ms}
  properties: {total: {from: value.total}}
"""
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": {"type": "record", "name": "Who", "fields": [{"name": "number", "type": "int"}]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "type": ["null", "double"]},
    ],
}


def test_a_topic_in_avro_feeds_profiles(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace(partitions=2)
    topic = f"{settings.prefix}shop.orders"
    create_topics(settings)
    client = admin_client(settings)
    for future in client.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(120)
    with running_registry() as registry, Deployment(settings, tmp_path) as running:
        status, told = registry.answer("POST", f"/subjects/{topic}-value/versions", {"schema": json.dumps(ORDER)}, "")
        assert status == 200
        head = b"\x00" + told["id"].to_bytes(4, "big")
        parsed = fastavro.parse_schema(ORDER)

        def order(number: int) -> bytes:
            buffer = io.BytesIO()
            datum = {"id": number, "customer": {"number": 7}, "at": 1_790_000_000_000 + number, "total": number / 4}
            fastavro.schemaless_writer(buffer, parsed, datum)
            return head + buffer.getvalue()

        running.apply(ORDERS.replace("TOPIC", topic))
        given = {"HEADWATER_SOURCES": f"raw,/{topic}", "HEADWATER_SCHEMA_REGISTRY__URL": registry.url}
        for role in ("ingest", "identity", "unify"):
            running.start(role, **given)
        unknown = b"\x00" + (4711).to_bytes(4, "big") + b"x"
        running.produce([*map(order, range(1, 9)), order(8), unknown, head, b'{"no": "avro"}'], f"/{topic}")
        running.wait_until(lambda: len(running.values("dead-letters")) == 3, "what is no datum is put aside")
        running.wait_until(
            lambda: [p["totals"]["Order Completed"]["count"] for p in running.table("profiles").values()] == [8],
            "eight orders of one customer",
        )
        reasons = sorted(letter["reason"] for letter in running.values("dead-letters"))
        assert reasons == ["not_avro", "not_avro", "unknown_schema"]
        assert registry.asked.count(f"GET /schemas/ids/{told['id']}") == 1, "asked for once"
