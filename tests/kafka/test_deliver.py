"""The deliver role on a real broker, to real HTTP servers and files."""

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from pipeline.admin import create_topics
from pipeline.definitions.loader import Written
from pipeline.definitions.log import apply
from pipeline.deliver import run_deliver
from pipeline.deliver.health import health_in_notes
from pipeline.deliver.resync import resync
from pipeline.deliver.worker import DestinationWorker
from pipeline.doctor.facts import KafkaFacts
from pipeline.errors import InputError, LookupFailed
from pipeline.records import DeadLetter, Delivery, IdentifierPair, ProfileDocument, SegmentMember, encode
from pipeline.runtime.kafka.doors import GroupPositions, TopicReader, produce_all, waiting
from pipeline.settings import Settings
from tests.contracts.webhook_receiver import Request, WebhookReceiver

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@pytest.fixture
def ready(workspace: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    create_topics(workspace)
    return workspace


@pytest.fixture
def receivers() -> Iterator[Callable[..., WebhookReceiver]]:
    opened: list[WebhookReceiver] = []

    def make(answer: Any = None) -> WebhookReceiver:
        opened.append(WebhookReceiver(answer))
        return opened[-1]

    yield make
    for receiver in opened:
        receiver.close()


def hook(name: str, url: str, **more: Any) -> Written:
    body = {
        "destination": name,
        "kind": "webhook",
        "url": url,
        "secret": {"env": "HOOK_SECRET"},
        "allow_private": True,
        **more,
    }
    return Written("destination", name, body)


def decide(
    settings: Settings, destination: str, count: int, profiles: int = 10, first: int = 0, at: int = 0
) -> list[str]:
    """Put deliveries on a destination's topic, as unify does; their ids."""
    now_ms = time.time_ns() // 1_000_000
    deliveries = [
        Delivery(
            delivery_id=f"dlv_{destination}_{number}",
            destination=destination,
            profile_id=f"p{number % profiles}",
            action="segment_entered",
            at=now_ms,
            decided_at=now_ms,
            identifiers=[IdentifierPair("user_id", f"u{number % profiles}")],
            segment="trial",
            body={"sequence": number},
        )
        for number in range(first, first + count)
    ]
    produce_all(settings, f"deliveries.{destination}", ((d.profile_id.encode(), encode(d)) for d in deliveries))
    return [delivery.delivery_id for delivery in deliveries]


@contextmanager
def delivering(settings: Settings, destination: str | None = None) -> Iterator[None]:
    stop = threading.Event()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            run_deliver(settings, destination, stop.is_set)
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            failed.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(180)
    assert not thread.is_alive()
    assert not failed, failed


def wait_for(reached: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def assert_in_order(requests: list[Request]) -> None:
    """The first arrivals of each profile's deliveries stand in their order."""
    known: set[str] = set()
    seen: dict[str, list[int]] = defaultdict(list)
    for request in list(requests):
        if request.delivery_id not in known:
            known.add(request.delivery_id)
            seen[request.data["profile_id"]].append(request.data["sequence"])
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def dead_letters(settings: Settings) -> list[DeadLetter]:
    with TopicReader(settings, ["dead-letters"]) as reader:
        return [msgspec.json.decode(record.value or b"", type=DeadLetter) for record in reader.read_to_end()]


def arrived(receiver: WebhookReceiver) -> set[str]:
    return {request.delivery_id for request in list(receiver.requests)}


def test_signed_webhooks_arrive_in_order(ready: Settings, receivers: Callable[..., WebhookReceiver]) -> None:
    receiver = receivers()
    apply(ready, [hook("mails", receiver.url)])
    with delivering(ready):
        ids = decide(ready, "mails", 300)
        wait_for(lambda: len(receiver.requests) >= 300)
    assert [len(receiver.requests), arrived(receiver)] == [300, set(ids)]
    assert_in_order(receiver.requests)
    for request in receiver.requests:
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"
    # The role ended in order: nothing comes twice.
    with delivering(ready):
        more = decide(ready, "mails", 10, first=300)
        wait_for(lambda: set(more) <= arrived(receiver))
        time.sleep(0.5)
    assert len(receiver.requests) == 310


def test_what_waits_is_told_without_the_ends_of_transactions(ready: Settings, tmp_path: Path) -> None:
    apply(
        ready, [Written("destination", "notes", {"destination": "notes", "kind": "file", "path": str(tmp_path / "a")})]
    )
    asked = {"deliver-notes": "deliveries.notes"}
    with delivering(ready):
        wait_for(lambda: "deliver-notes" in waiting(ready, asked))
    producer = Producer({"bootstrap.servers": ready.bootstrap_servers, "transactional.id": "unify"})
    producer.init_transactions(120)
    for number in range(3):
        producer.begin_transaction()
        delivery = Delivery(f"dlv_{number}", "notes", "p1", "segment_entered", 1, 1, [], "trial", body={"sequence": 1})
        producer.produce(ready.topic("deliveries.notes"), encode(delivery), b"p1", on_delivery=lambda *_: None)
        producer.commit_transaction(120)
    assert waiting(ready, asked) == {"deliver-notes": 3}
    with delivering(ready):
        wait_for(lambda: (tmp_path / "a").exists() and len((tmp_path / "a").read_text().splitlines()) == 3)
    # At rest its position is before the end of the last transaction.
    ((committed, end),) = GroupPositions(ready)({"deliver-notes": ["deliveries.notes"]}).values()
    assert end - committed == 1 and waiting(ready, asked) == {"deliver-notes": 0}


def said_of(settings: Settings, destination: str) -> str | None:
    """What the API sees of a destination that its worker, on another machine, holds for ill."""
    facts = KafkaFacts(settings)
    facts.positions({f"deliver-{destination}": (f"deliveries.{destination}",)})
    found = health_in_notes(destination, facts.notes()[f"deliver-{destination}"])
    return found.failure if found is not None else None


def test_case_57_a_dead_destination_beside_healthy_ones(
    ready: Settings, receivers: Callable[..., WebhookReceiver], tmp_path: Path
) -> None:
    alive = threading.Event()
    dead = receivers(lambda request: (204, {}, b"") if alive.is_set() else (503, {}, b""))
    healthy, slow = receivers(), receivers(lambda request: time.sleep(0.2) or (204, {}, b""))
    file = tmp_path / "out.jsonl"
    apply(
        ready,
        [
            hook("dead", dead.url),
            hook("healthy", healthy.url),
            hook("slow", slow.url),
            Written("destination", "archive", {"destination": "archive", "kind": "file", "path": str(file)}),
        ],
    )
    ids = {name: decide(ready, name, 500) for name in ("dead", "healthy", "slow", "archive")}
    with delivering(ready):
        wait_for(lambda: len(healthy.requests) >= 500 and file.exists() and file.read_bytes().count(b"\n") >= 500)
        assert not dead.requests and len(dead.refused) < 100
        wait_for(lambda: said_of(ready, "dead") == "HTTP 503")  # by who knows no more than the Kafka
        assert said_of(ready, "healthy") is None
        alive.set()
        wait_for(lambda: arrived(dead) == set(ids["dead"]))
        wait_for(lambda: said_of(ready, "dead") is None)
        wait_for(lambda: arrived(slow) == set(ids["slow"]))
    for receiver, name in ((healthy, "healthy"), (dead, "dead"), (slow, "slow")):
        assert arrived(receiver) == set(ids[name])
        assert_in_order(receiver.requests)
    assert {json.loads(line)["delivery_id"] for line in file.read_text().splitlines()} == set(ids["archive"])
    assert dead_letters(ready) == []


def test_case_58_a_destination_that_accepts_and_then_times_out(
    ready: Settings, receivers: Callable[..., WebhookReceiver]
) -> None:
    counts: dict[str, int] = defaultdict(int)

    def answer(request: Request) -> Any:
        counts[request.delivery_id] += 1
        return None if counts[request.delivery_id] == 1 else (204, {}, b"")

    receiver = receivers(answer)
    delivery = {"first_retry": "50ms", "concurrency": 4}
    apply(ready, [hook("deaf", receiver.url, timeout_seconds=0.3, delivery=delivery)])
    ids = decide(ready, "deaf", 8, profiles=4)
    with delivering(ready):
        wait_for(lambda: all(counts[each] >= 2 for each in ids))
        time.sleep(0.5)
    assert set(counts) == set(ids)
    assert set(counts.values()) == {2}  # each twice, under the same id, and then no more
    assert_in_order(receiver.requests)
    assert dead_letters(ready) == []


def test_what_cannot_be_delivered_ends_as_a_dead_letter(
    ready: Settings, receivers: Callable[..., WebhookReceiver]
) -> None:
    def answer(request: Request) -> Any:
        if request.data["sequence"] == 1:
            return 422, {}, b"no such customer"
        return (500, {}, b"oops") if request.data["sequence"] == 2 else (204, {}, b"")

    receiver = receivers(answer)
    apply(ready, [hook("picky", receiver.url, delivery={"attempts": 2, "first_retry": "50ms"})])
    produce_all(ready, "deliveries.picky", [(b"p9", b"not json"), (b"p9", b"\xff\xfe")])
    ids = decide(ready, "picky", 6, profiles=1)
    with delivering(ready):
        wait_for(lambda: arrived(receiver) == {ids[0], *ids[3:]})
        wait_for(lambda: len(dead_letters(ready)) == 4)
    letters = {letter.reason: letter for letter in dead_letters(ready)}
    assert set(letters) == {"not a delivery", "rejected", "attempts used up"}
    rejected = letters["rejected"]
    assert rejected.stage == "deliver" and rejected.topic == "deliveries.picky"
    assert rejected.detail.startswith("HTTP 422: no such customer")
    assert json.loads(rejected.value or b"")["delivery_id"] == ids[1]
    assert "HTTP 500: oops (attempt 2)" in letters["attempts used up"].detail
    with delivering(ready):
        more = decide(ready, "picky", 1, profiles=1, first=10)
        wait_for(lambda: set(more) <= arrived(receiver))
    assert len(dead_letters(ready)) == 4


def test_pause_resume_and_a_new_address(
    ready: Settings, receivers: Callable[..., WebhookReceiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[DestinationWorker] = []

    def made(*given: Any, **more: Any) -> DestinationWorker:
        workers.append(DestinationWorker(*given, **more))
        return workers[-1]

    monkeypatch.setattr("pipeline.deliver.role.DestinationWorker", made)
    old, new = receivers(), receivers()
    apply(ready, [hook("mails", old.url)])
    with delivering(ready):
        first = decide(ready, "mails", 20)
        wait_for(lambda: arrived(old) == set(first))
        apply(ready, pause=["destination/mails"])
        wait_for(lambda: workers[-1].paused)
        second = decide(ready, "mails", 20, first=20)
        time.sleep(1)
        assert arrived(old) == set(first)
        apply(ready, [hook("mails", new.url)])
        wait_for(lambda: len(workers) == 2)
        time.sleep(1)
        assert not new.requests
        apply(ready, resume=["destination/mails"])
        wait_for(lambda: arrived(new) == set(second))
        assert len(old.requests) == 20 and len(new.requests) == 20
        # What a trigger missed in a pause longer than its max_age is not sent on resuming; nor is it lost.
        apply(ready, [hook("mails", new.url, max_age="1s")], pause=["destination/mails"])
        wait_for(lambda: len(workers) == 3)
        stale = decide(ready, "mails", 3, first=40)
        time.sleep(1.1)
        apply(ready, resume=["destination/mails"])
        fresh = decide(ready, "mails", 3, first=50)
        wait_for(lambda: set(fresh) <= arrived(new))
        wait_for(lambda: len(dead_letters(ready)) == 3)
    assert {letter.reason for letter in dead_letters(ready)} == {"too old"}
    assert not set(stale) & arrived(new)


def test_a_destination_that_cannot_be_opened_stops_no_other(
    ready: Settings,
    receivers: Callable[..., WebhookReceiver],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    receiver = receivers()
    nowhere = {"destination": "files", "kind": "file", "path": str(tmp_path / "no folder" / "x.jsonl")}
    locked = hook("locked", receiver.url, secret={"env": "NOT_THERE"})
    apply(ready, [locked, hook("mails", receiver.url), Written("destination", "files", {**nowhere, "segments": ["x"]})])

    def refuse(*_: object) -> None:
        raise OSError("the disk is gone")  # no ValueError, as with a client of others

    monkeypatch.setattr("connectors.file.FileConnector.__init__", refuse)
    with delivering(ready):
        ids = decide(ready, "mails", 20)
        wait_for(lambda: arrived(receiver) == set(ids))
    assert "NOT_THERE" in caplog.text and "the disk is gone" in caplog.text
    assert SECRET not in caplog.text


def test_an_audience_learns_of_what_was_before_it(ready: Settings, tmp_path: Path) -> None:
    file = tmp_path / "audience.jsonl"
    body = {"destination": "crm", "kind": "file", "path": str(file), "segments": ["trial"], "traits": ["plan"]}
    mirrored = tmp_path / "mirrored.jsonl"
    mirror = {"destination": "mirror", "kind": "file", "path": str(mirrored), "profiles": ["traits"]}
    written = [Written("destination", "crm", body), Written("destination", "mirror", mirror)]
    apply(ready, [*written, hook("mails", "https://x.io")])
    members = [
        SegmentMember(segment, f"p{n}", "person", 1, since=n, sequence=n)
        for n in range(50)
        for segment in ("trial", "x")
    ]
    profiles = [
        ProfileDocument(f"p{n}", "person", [IdentifierPair("user_id", f"u{n}")], 1, traits={"plan": n})
        for n in range(50)
    ]
    produce_all(ready, "segment-members", ((f"{m.segment}/{m.profile_id}".encode(), encode(m)) for m in members))
    produce_all(ready, "profiles", ((p.profile_id.encode(), encode(p)) for p in profiles))
    assert resync(ready, "crm") == 50
    with delivering(ready, "crm"):
        wait_for(lambda: file.exists() and file.read_bytes().count(b"\n") == 50)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {(line["profile_id"], line["body"]["traits"]["plan"], line["body"]["sequence"]) for line in lines} == {
        (f"p{n}", n, n) for n in range(50)
    }
    assert resync(ready, "mirror") == 50
    with delivering(ready, "mirror"):
        wait_for(lambda: mirrored.exists() and mirrored.read_bytes().count(b"\n") == 50)
    whole = [json.loads(line) for line in mirrored.read_text().splitlines()]
    assert {(one["profile_id"], one["body"]["set"]["traits"]["plan"], one["cause"]) for one in whole} == {
        (f"p{n}", n, "sync") for n in range(50)
    }
    with pytest.raises(InputError, match="acts on a moment"):
        resync(ready, "mails")
    with pytest.raises(LookupFailed, match="there are: crm, mails, mirror"):
        resync(ready, "absent")


def test_a_change_that_is_not_committed_yet_when_an_audience_is_told_anew_has_the_last_word(
    ready: Settings, tmp_path: Path
) -> None:
    body = {"destination": "mirror", "kind": "file", "path": str(tmp_path / "mirror.jsonl"), "profiles": ["traits"]}
    apply(ready, [Written("destination", "mirror", body)])

    def person(name: str, plan: str) -> bytes:
        return encode(ProfileDocument(name, "person", [IdentifierPair("user_id", name)], 1, traits={"plan": plan}))

    def told(name: str, plan: str) -> bytes:
        changed = {"change": "updated", "set": {"traits": {"plan": plan}}}
        return encode(Delivery(f"d-{name}", "mirror", name, "profile_changed", 1, 1, [], body=changed))

    produce_all(ready, "profiles", [(name.encode(), person(name, "free")) for name in ("ada", "ben", "cleo")])
    unify = Producer({"bootstrap.servers": str(ready.bootstrap_servers), "transactional.id": ready.prefix})
    unify.init_transactions(60)
    unify.begin_transaction()
    for name in ("ada", "ben"):
        unify.produce(ready.topic("deliveries.mirror"), told(name, "gold"), name)
        unify.produce(ready.topic("profiles"), person(name, "gold"), name)
    unify.flush(60)
    later = threading.Timer(3.0, lambda: unify.commit_transaction(60))
    later.start()
    sent = resync(ready, "mirror")
    later.join()
    with TopicReader(ready, ["deliveries.mirror"]) as reader:
        said = [msgspec.json.decode(record.value or b"", type=Delivery) for record in reader.read_to_end()]
    last = {one.profile_id: one.body["set"]["traits"]["plan"] for one in said}
    assert last == {"ada": "gold", "ben": "gold", "cleo": "free"}
    assert sent == 5, "nobody is told again who has not changed"


def role(settings: Settings, slot: str) -> "subprocess.Popen[bytes]":
    """`headwater run deliver` as a process of its own."""
    environment = {
        **os.environ,
        "HEADWATER_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "HEADWATER_PREFIX": settings.prefix,
        "HEADWATER_PARTITIONS": str(settings.partitions),
        "HEADWATER_STATE_DIR": str(settings.state_dir),
        "HEADWATER_SECRET": settings.secret_bytes().decode(),
        "HEADWATER_SLOT": slot,
    }
    code = "from pipeline.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, "run", "deliver"], env=environment)


def test_killed_again_and_again_nothing_is_lost_and_order_holds(
    ready: Settings, receivers: Callable[..., WebhookReceiver]
) -> None:
    receiver = receivers(lambda request: time.sleep(0.005) or (204, {}, b""))
    apply(ready, [hook("mails", receiver.url)])
    ids = decide(ready, "mails", 4_000, profiles=200)
    for kills in range(3):
        process = role(ready, "0")
        try:
            target = (kills + 1) * 900
            wait_for(lambda target=target: len(arrived(receiver)) >= target)  # type: ignore[misc]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    process = role(ready, "0")
    try:
        wait_for(lambda: arrived(receiver) == set(ids))
    finally:
        process.terminate()
        assert process.wait(120) == 0
    assert_in_order(receiver.requests)
    repeated = len(receiver.requests) - len(ids)
    print("repeated after three kills:", repeated)
    assert repeated < 3 * 900  # at most what half a second brings, each time
    assert dead_letters(ready) == []


def test_two_workers_share_and_one_takes_over(ready: Settings, receivers: Callable[..., WebhookReceiver]) -> None:
    receiver = receivers(lambda request: time.sleep(0.01) or (204, {}, b""))
    apply(ready, [hook("mails", receiver.url)])
    first = role(ready, "a")
    second = role(ready, "b")
    try:
        ids = decide(ready, "mails", 1_000, profiles=100)
        wait_for(lambda: len(arrived(receiver)) >= 200)
        second.terminate()
        assert second.wait(120) == 0
        ids += decide(ready, "mails", 1_000, profiles=100, first=1_000)
        wait_for(lambda: arrived(receiver) == set(ids))
    finally:
        for process in (first, second):
            process.terminate()
            process.wait(120)
    assert_in_order(receiver.requests)
