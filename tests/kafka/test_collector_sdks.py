"""SDKs that people have installed already, with only their host changed: every event arrives whole, and makes one
profile."""

import math
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pipeline.admin import create_topics
from pipeline.broker import Kafka
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka import sdks
from tests.kafka.deployment import Deployment

KEYS = {"python": "key-of-the-python-sdks", "node": "key-of-the-node-sdk", "web": "key-of-the-browser-sdk"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def identifiers(profile: dict[str, Any]) -> set[tuple[str, ...]]:
    return {(pair["namespace"], pair["value"]) for pair in profile["identifiers"]}


class Shop(Deployment):
    """A deployment with a collector."""

    collector = ""

    def open(self) -> None:
        port = free_port()
        self.collector = f"http://127.0.0.1:{port}"
        for role in ("ingest", "identity", "unify"):
            self.start(role)
        sources = msgspec.json.encode({key: source for source, key in KEYS.items()}).decode()
        told = {"HEADWATER_COLLECTOR__WRITE_KEYS": sources, "HEADWATER_COLLECTOR__PORT": str(port)}
        self.start("collector", **told)
        self.wait_until(self.is_ready, "the collector is ready")

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.collector}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def events(self, source: str, count: int) -> list[dict[str, Any]]:
        """The clean events of an SDK, when so many have come."""

        def found() -> list[dict[str, Any]]:
            return [value for value in self.values("events") if value.get("origin") == source]

        self.wait_until(lambda: len(found()) >= count, f"{count} events")
        assert self.values("dead-letters") == []
        return found()

    def the_profile(self, user: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        """The profile of a user, when it is the only one that holds any identifier of these events."""
        wanted = Keys(self.settings.secret_bytes()).profile_id(f"user_id:{user}")
        seen = {tuple(text.split(":", 1)) for event in events for text in event["identifiers"]}

        def holders() -> set[str]:
            return {key for key, profile in self.table("profiles").items() if identifiers(profile) & seen}

        self.wait_until(lambda: holders() == {wanted}, "one profile, and no other")
        self.wait_until(lambda: identifiers(self.table("profiles")[wanted]) >= seen, "all identifiers in it")
        profile: dict[str, Any] = self.table("profiles")[wanted]
        return profile


@pytest.fixture(scope="module")
def shop(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    settings = Settings.model_validate(
        {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": f"shop{secrets.token_hex(4)}.",
            "state_dir": folder,
            "secret": "the secret of a test",
            "partitions": 2,
        }
    )
    create_topics(settings)
    with Shop(settings, folder) as running:
        running.open()
        yield running


def test_the_python_sdks(shop: Shop) -> None:
    import rudderstack.analytics.client as rudder
    import segment.analytics.client as segment

    failures: list[Any] = []

    def failed(error: Any, _: Any) -> None:
        failures.append(error)

    clients = [
        segment.Client(KEYS["python"], host=shop.collector, on_error=failed, gzip=True),
        segment.Client(KEYS["python"], host=shop.collector, on_error=failed, gzip=False),
        rudder.Client(KEYS["python"], host=shop.collector, on_error=failed),
    ]
    for number, client in enumerate(clients):
        client.identify("petra", {"email": "Petra@Example.org", "plan": "free"}, anonymous_id="p-1")
        # What is no number fails none of the batch.
        bought = {"total": 12.5, "number": number, "lines": [{"sku": "ä-1"}], "margin": math.nan}
        client.track("petra", "Order Completed", bought)
        client.page("petra", "Docs", "Pricing", {"path": "/pricing"})
        client.screen("petra", "Docs", "Home")
        client.group("petra", "acme", {"seats": 5})
        client.alias("old-petra", "petra")
    for client in clients:
        client.flush()
        client.join()
    assert failures == []
    events = shop.events("python", 18)
    assert len(events) == 18 and len({event["message_id"] for event in events}) == 18
    orders = [event["properties"] for event in events if event["event"] == "Order Completed"]
    assert sorted(orders, key=lambda order: order["number"]) == [
        {"total": 12.5, "number": number, "lines": [{"sku": "ä-1"}], "margin": None} for number in range(3)
    ]
    profile = shop.the_profile("petra", events)
    assert profile["traits"]["plan"] == "free"
    assert identifiers(profile) == {
        ("user_id", "petra"),
        ("anonymous_id", "p-1"),
        ("anonymous_id", "old-petra"),
        ("email", "petra@example.org"),
    }
    assert {name: total["count"] for name, total in profile["totals"].items()} == dict.fromkeys(
        ("Identify", "Order Completed", "Page Viewed", "Screen Viewed", "Group", "Alias"), 3
    )


@pytest.mark.skipif(not sdks.node_is_here(), reason="node and npm are not installed")
def test_the_sdk_for_node(shop: Shop) -> None:
    sdks.run_node(shop.collector, KEYS["node"])
    events = {event["event"]: event for event in shop.events("node", 6)}
    assert set(events) == {"Identify", "Order Completed", "Page Viewed", "Screen Viewed", "Group", "Alias"}
    assert events["Order Completed"]["properties"] == {"total": 12.5, "lines": [{"sku": "ä-1"}]}
    assert abs(events["Order Completed"]["time"] - 1_772_355_600_000) < 60_000
    assert events["Page Viewed"]["properties"] == {"path": "/pricing", "name": "Pricing", "category": "Docs"}
    assert events["Group"]["group_id"] == "acme"
    profile = shop.the_profile("nora", list(events.values()))
    assert profile["traits"]["email"] == "Nora@Example.org"
    assert {("user_id", "nora"), ("anonymous_id", "node-1"), ("anonymous_id", "old-nora")} <= identifiers(profile)


@pytest.mark.debian
@pytest.mark.skipif(not sdks.node_is_here(), reason="npm is not installed")
@pytest.mark.skipif(sdks.browser() is None, reason="there is no Chromium")
def test_the_browser_sdk_and_a_login_after_anonymous_browsing(shop: Shop, tmp_path: Path) -> None:
    sdks.browse(shop.collector, KEYS["web"], tmp_path / "browser")
    events = {event["event"]: event for event in shop.events("web", 5)}
    assert set(events) == {"Page Viewed", "Product Viewed", "Identify", "Order Completed", "Group"}
    viewed = events["Product Viewed"]
    assert viewed["properties"] == {"sku": "ä-1", "price": 12.5, "tags": ["a", "b"]}
    assert [each.partition(":")[0] for each in viewed["identifiers"]] == ["anonymous_id"], "nobody is known yet"
    assert "Chrome" in viewed["context"]["userAgent"] and "ip" not in viewed["context"]
    assert viewed["flags"] == ["bot"], "a browser without a window says so in its user agent"
    assert events["Page Viewed"]["properties"]["path"] == "/pricing"
    profile = shop.the_profile("wilma", list(events.values()))
    assert {name for name, _ in identifiers(profile)} == {"user_id", "email", "anonymous_id"}
    assert profile["totals"]["Product Viewed"]["count"] == 1
