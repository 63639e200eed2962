"""The API on a real broker, as a process of its own, with the pipeline behind it."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.admin import create_topics
from pipeline.api.access import SCOPES, create_token
from pipeline.api.client import ApiClient, ApiError
from pipeline.api.model import ReadModel
from pipeline.api.tables import TABLES
from pipeline.identifiers import Keys
from pipeline.records import ProfileDocument
from pipeline.runtime.kafka.doors import current_values
from pipeline.runtime.rocksdb import RocksTables
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment, Role

DEFINITIONS = """
segment: readers
when: {performed: {event: Page Viewed, count: {at_least: 2}}}
"""


class Api:
    """The API process of a workspace, and how to reach it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.token = create_token(deployment.settings.state_dir / "tokens.yaml", "test", SCOPES, [], 100_000)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.role: Role

    def start(self) -> None:
        self.role = self.deployment.start("api", HEADWATER_API__PORT=str(self.port))
        self.deployment.wait_until(self.is_ready, "the API is ready")

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Any:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as found:
        for role in ("ingest", "identity", "unify"):
            found.start(role)
        found.apply(DEFINITIONS)
        yield found


def view(user: str, **more: Any) -> dict[str, Any]:
    return {"type": "page", "userId": user, "properties": {"path": "/"}, **more}


def test_look_ups_streams_and_a_killed_reader(deployment: Deployment) -> None:
    api = Api(deployment)
    api.start()
    heard: list[str] = []
    client = ApiClient(api.url, api.token)

    def listen() -> None:
        with ApiClient(api.url, api.token) as listener:
            for _, change in listener.stream_segment("readers"):
                heard.append(change.profile_id)

    threading.Thread(target=listen, daemon=True).start()
    deployment.wait_until(lambda: bool(client.list_segments()), "the segment is listed")
    time.sleep(0.5)  # the stream is open
    deployment.produce([view("ada", messageId="1"), view("ada", messageId="2"), view("bob", messageId="3")])
    deployment.wait_until(lambda: len(heard) == 1, "the entry is heard of")
    ada = client.get_profile("user_id:ada")
    assert isinstance(ada, ProfileDocument) and heard == [ada.profile_id]
    [held] = client.get_profile_segments("user_id:ada")
    assert held["segment"] == "readers" and held["why"]["cause"] == "event"
    assert [one["message_id"] for one in client.get_profile_events("user_id:ada")] == ["2", "1"]
    assert client.get_profile("user_id:nobody") is None

    # A login merges an anonymous visitor: the retired id leads on.
    deployment.produce([{"type": "page", "anonymousId": "a-1", "properties": {}, "messageId": "4"}])
    deployment.wait_until(lambda: client.get_profile("anonymous_id:a-1") is not None, "the visitor")
    visitor = client.get_profile("anonymous_id:a-1")
    assert isinstance(visitor, ProfileDocument)
    deployment.produce([{"type": "identify", "anonymousId": "a-1", "userId": "bob", "messageId": "5"}])

    def is_bob() -> bool:
        found = client.get_profile(visitor.profile_id)
        return isinstance(found, ProfileDocument) and found.identifiers_total == 2

    deployment.wait_until(is_bob, "the visitor's id leads to bob")

    # Killed in flow: it answers nothing older than before, and the stream goes on without a gap.
    for turn in range(3):
        deployment.produce([view(f"u{turn}-{n}", messageId=f"{turn}-{n}-{m}") for n in range(40) for m in range(2)])
        api.role.kill()
        api.start()
    deployment.wait_until(lambda: len(set(heard)) >= 122, "all entries")
    assert len(heard) == len(set(heard)) == 122  # ada, bob with the visitor's view, and 120 others
    members = {one.profile_id for one in client.list_members("readers")}
    assert members == deployment.members("readers")
    [segment] = client.list_segments()
    assert segment["size"] == len(members)

    # Everything the tables show is what the topics hold, kept or made anew.
    deployment.wait_until_idle()
    topics = {name: current_values(deployment.settings, name) for name in ("profiles", "identities", "segment-members")}
    deployment.wait_until(lambda: client.get_profile("user_id:u2-39") is not None, "the last one")
    assert api.role.stop() == 0
    folder = deployment.settings.state_dir / "api" / "0"
    for _ in range(2):
        model = ReadModel(RocksTables(folder, TABLES), Keys(deployment.settings.secret_bytes()))
        assert model.rows() == topics
        model.close()
        RocksTables.wipe(folder)
        api.start()
        time.sleep(0.3)
        assert api.role.stop() == 0
    client.close()


def test_ones_own_writes_through_every_door(deployment: Deployment) -> None:
    api = Api(deployment)
    api.start()
    from confluent_kafka import Producer

    places: list[str] = []
    producer = Producer({"bootstrap.servers": str(deployment.settings.bootstrap_servers), "linger.ms": 0})
    with ApiClient(api.url, api.token, timeout_s=15) as client:
        for n in range(20):
            message = b'{"type":"identify","userId":"w","traits":{"n":%d},"messageId":"w%d"}' % (n, n)
            producer.produce(
                deployment.settings.topic("raw"),
                message,
                b"w",
                on_delivery=lambda _, told: places.append(f"raw:{told.partition()}:{told.offset()}"),
            )
            producer.flush()
            found = client.get_profile("user_id:w", wait_for=places[-1], timeout_ms=10_000)
            assert isinstance(found, ProfileDocument) and found.traits == {"n": n}
        planned = client.apply_definitions("segment: all_of_them\nwhen: {all: []}\n", dry_run=True)
        assert planned["changes"][0]["what"] == "added" and len(client.list_segments()) == 1
        client.apply_definitions("segment: all_of_them\nwhen: {all: []}\n")
        for n in range(8):  # what the door has answered to is seen by the next who asks
            client.apply_definitions(f"segment: own_{n}\nwhen: {{all: []}}\n")
            assert client.get_segment(f"own_{n}") is not None, n
        deployment.wait_until(lambda: len(list(client.list_members("all_of_them"))) == 1, "the new segment is filled")
        with pytest.raises(ApiError) as refused:
            client.apply_definitions("segment: readers\nwhen: {any: []}\n")
        assert refused.value.status == 422 and "file" in str(refused.value)
        deployment.produce([{"type": "identify", "userId": "w", "anonymousId": "x", "messageId": "l"}])

        def total() -> int:
            found = client.get_profile("user_id:w")
            assert isinstance(found, ProfileDocument)
            return found.identifiers_total

        deployment.wait_until(lambda: total() == 2, "linked")
        client.unlink("user_id:w", "anonymous_id:x")
        deployment.wait_until(lambda: total() == 1, "unlinked")
        client.relink("user_id:w", "anonymous_id:x")
        deployment.wait_until(lambda: total() == 2, "linked again")
