"""The API on a real broker, as a process of its own, with the pipeline behind it."""

import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.admin import create_topics
from pipeline.api.access import SCOPES, create_token, read_tokens
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


KILLS = int(os.environ.get("HEADWATER_API_KILLS", "4"))


class Api:
    """The API process of a workspace, and how to reach it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        tokens = deployment.settings.state_dir / "tokens.yaml"
        self.token = create_token(
            tokens, f"test-{len(read_tokens(tokens)) if tokens.is_file() else 0}", SCOPES, [], 1e5
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.role: Role

    def start(self, slot: str = "0") -> None:
        self.role = self.deployment.start("api", slot=slot, HEADWATER_API__PORT=str(self.port))
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


def test_two_processes_that_are_killed_never_answer_backwards(deployment: Deployment) -> None:
    """Readers go from one process to the other, with the position of their last answer; both are killed again and again
    while traits rise and visitors log in. What was written before a kill can be waited for behind it."""
    apis = [Api(deployment), Api(deployment)]
    for slot, api in enumerate(apis):
        api.start(str(slot))
    people, over = 12, threading.Event()
    backwards: list[str] = []
    counts = {"answers": 0, "lost": 0, 409: 0, 503: 0}

    def write() -> None:
        for turn in itertools.count(1):
            events = [
                {"type": "identify", "userId": f"w{n}", "traits": {"n": turn}, "messageId": f"{turn}-{n}"}
                for n in range(people)
            ]
            visitor = {"type": "page", "anonymousId": f"a{turn}", "properties": {}, "messageId": f"a-{turn}"}
            login = {"type": "identify", "anonymousId": f"a{turn - 3}", "userId": f"w{turn % people}"}
            deployment.produce([*events, visitor, {**login, "messageId": f"l-{turn}"}])
            if over.wait(0.03):
                return

    def read(seed: int) -> None:
        rng, position, seen = random.Random(seed), "", dict[int, int]()
        with httpx.Client(timeout=10) as client:
            while not over.is_set():
                api, who = rng.choice(apis), rng.randrange(people)
                headers = {"Authorization": f"Bearer {api.token}"} | (
                    {"Headwater-Position": position} if position else {}
                )
                url = f"{api.url}/v1/profiles/user_id:w{who}?timeout_ms=3000&fields=traits"
                try:
                    answer = client.get(url, headers=headers)
                except httpx.TransportError:
                    counts["lost"] += 1
                    time.sleep(0.02)
                    continue
                if answer.status_code in (409, 503):
                    counts[answer.status_code] += 1
                    continue
                n = answer.json()["traits"]["n"] if answer.status_code == 200 else 0
                if n < seen.get(who, 0):
                    backwards.append(f"w{who}: {n} after {seen[who]}, {answer.status_code}, {position}")
                seen[who], counts["answers"] = max(n, seen.get(who, 0)), counts["answers"] + 1
                position = answer.headers.get("headwater-position", position)

    threads = [threading.Thread(target=write), *(threading.Thread(target=read, args=(seed,)) for seed in range(4))]
    for thread in threads:
        thread.start()
    try:
        for kill in range(KILLS):
            time.sleep(1.0)
            place = written_at(deployment, f"k{kill}")
            api = apis[kill % 2]
            with ApiClient(api.url, api.token, timeout_s=15) as client:
                assert client.get_profile(f"user_id:k{kill}", wait_for=place, timeout_ms=10_000) is not None
            api.role.kill()
            api.start(str(kill % 2))
            with ApiClient(api.url, api.token, timeout_s=15) as client:
                assert client.get_profile(f"user_id:k{kill}", wait_for=place, timeout_ms=5_000) is not None
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not backwards, backwards[:5]
    assert counts["answers"] > 50 * KILLS and counts["lost"] > 0, counts
    deployment.wait_until_idle()
    topics = {name: current_values(deployment.settings, name) for name in ("profiles", "identities", "segment-members")}
    for slot, api in enumerate(apis):
        with ApiClient(api.url, api.token) as client:
            deployment.wait_until(lambda client=client: bool(client.list_segments()), "it answers")  # type: ignore[misc]
        time.sleep(0.5)
        assert api.role.stop() == 0
        folder = deployment.settings.state_dir / "api" / str(slot)
        model = ReadModel(RocksTables(folder, TABLES), Keys(deployment.settings.secret_bytes()))
        assert model.rows() == topics
        model.close()


def written_at(deployment: Deployment, user: str) -> str:
    """Write an event of somebody; where it stands."""
    from confluent_kafka import Producer

    places: list[str] = []
    producer = Producer({"bootstrap.servers": str(deployment.settings.bootstrap_servers), "linger.ms": 0})
    producer.produce(
        deployment.settings.topic("raw"),
        b'{"type":"identify","userId":"%s","traits":{},"messageId":"%s"}' % (user.encode(), user.encode()),
        user.encode(),
        on_delivery=lambda _, told: places.append(f"raw:{told.partition()}:{told.offset()}"),
    )
    producer.flush()
    return places[0]
