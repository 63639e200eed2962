"""A replay into another workspace, as a user would do it: other partitions, the copier killed, the switch."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.admin import admin_client, create_topics
from pipeline.identifiers import Keys
from pipeline.records import EraseRequest, Event, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings
from pipeline.workspace_view import view_of
from pipeline.workspaces import Successor
from tests.kafka.deployment import Deployment

RULES = """
segment: readers
when: {performed: {event: Page Viewed, count: {at_least: 4}}}
---
segment: quiet
when: {not: {performed: {event: Page Viewed, count: {at_least: 6}}}}
"""
PEOPLE = 60


@pytest.fixture
def old(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=3)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        yield running


class Visits:
    """Events of people on two devices each, some sent twice, some late."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.number = 0

    def some(self, count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            self.number += 1
            person = self.rng.randrange(PEOPLE)
            visit: dict[str, Any] = {"type": "page", "messageId": f"m-{self.number}", "properties": {"path": "/"}}
            draw = self.rng.random()
            if draw < 0.2:
                visit |= {"type": "identify", "traits": {"n": draw}}
                visit |= {"userId": f"u{person}", "anonymousId": f"a{person}"}
            elif draw < 0.6:
                visit |= {"userId": f"u{person}"}
            else:
                visit |= {"anonymousId": f"a{person}"}
            yield visit
            if draw > 0.95:
                yield visit


def with_history(old: Deployment, visits: Visits) -> None:
    """A running system with people, an unlink, a release that changes nothing, and somebody who was erased."""
    for role in ("ingest", "identity", "unify"):
        old.start(role)
    old.apply(RULES)
    assert "in force everywhere" in old.command("backfill", "status").stdout
    old.produce(visits.some(500))
    old.wait_until_idle()
    old.command("identity", "unlink", "user_id:u1", "anonymous_id:a1")
    erase = EraseRequest("user_id:u2", int(time.time() * 1000), "r1")
    produce_all(old.settings, "identity-edges", [(None, encode(erase))])
    old.wait_until_idle()
    old.produce(visits.some(200))
    old.wait_until_idle()


def replayed(old: Deployment, name: str, partitions: int) -> Deployment:
    """The new workspace, with its identity and unify running."""
    prefix = f"{name}{old.settings.prefix}"
    folder = old.folder / name
    words = ("--partitions", str(partitions), "--state-dir", str(folder), "--file", str(old.folder / f"{name}.yaml"))
    old.command("replay", "begin", prefix, *words)
    settings = old.settings.model_copy(
        update={
            "prefix": prefix,
            "partitions": partitions,
            "state_dir": folder,
            "sources_prefix": old.settings.prefix,
        }
    )
    return Deployment(settings, old.folder)


def copier(new: Deployment, *words: str) -> "subprocess.Popen[bytes]":
    with (new.folder / "copier.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "replay", "run", *words],
            env=new.environment(),
            stdout=log,
            stderr=log,
        )


def contents(deployment: Deployment) -> dict[str, Any]:
    """What each profile is and where it is a member, without what depends on the way to it. Who returned after an
    erasure is somebody new, in each workspace by an id of its own."""
    found = {}
    for profile_id, document in deployment.table("profiles").items():
        names = {f"{pair['namespace']}:{pair['value']}" for pair in document["identifiers"]}
        erased = names & {"user_id:u2", "anonymous_id:a2"}
        shown = {**document, "segments": sorted(document.get("segments", {}))}
        found[min(erased) if erased else profile_id] = {**shown, "profile_id": "" if erased else profile_id}
    return found


def same(one: Deployment, other: Deployment) -> str:
    """What is different, or nothing."""
    ours, theirs = contents(one), contents(other)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            return f"{key}: {ours.get(key)} and {theirs.get(key)}"
    return ""


class Subscriber:
    """Whoever follows `segment-changes`: the old to its end, and then the new from where the switch says."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], dict[str, Any]] = {}

    def hear(self, deployment: Deployment, successor: Successor | None = None) -> None:
        starts = successor.starts["segment-changes"] if successor is not None else None
        for record in deployment.read("segment-changes"):
            if starts is not None and record.offset < starts[record.partition]:
                continue
            change = json.loads(record.value or b"")
            pair = change["segment"], change["profile_id"]
            before = self.known.get(pair, {"change": "exited", "sequence": 0})
            assert (before["change"], change["change"]) in {("exited", "entered"), ("entered", "exited")}
            assert change["sequence"] > before["sequence"]
            self.known[pair] = change

    def members(self) -> set[str]:
        return {f"{pair[0]}/{pair[1]}" for pair, change in self.known.items() if change["change"] == "entered"}


def total(document: dict[str, Any]) -> int:
    return sum(int(one["count"]) for one in document["totals"].values())


def events_in(workspace: Deployment) -> int:
    return sum(map(total, workspace.table("profiles").values()))


@pytest.mark.slow
def test_from_three_partitions_to_seven_with_the_copier_killed_on_its_way_and_the_switch(old: Deployment) -> None:
    visits = Visits(1)
    with_history(old, visits)
    with replayed(old, "seven", 7) as new:
        new.start("identity")
        new.start("unify")
        for wait_s in (2.0, 0.6):
            running = copier(new, "--ahead", "50")
            time.sleep(wait_s)
            running.kill()
            running.wait()
        running = copier(new)
        old.produce(visits.some(200))
        old.wait_until_idle()
        until_s = time.monotonic() + 180
        while difference := same(new, old):
            assert time.monotonic() < until_s, f"{difference}\n{(new.folder / 'copier.log').read_text()[-2000:]}"
            time.sleep(0.3)
        assert new.members("readers")
        # Who returned after an erasure is somebody new, in each by an id of its own: that is told, and nothing else.
        with pytest.raises(AssertionError, match="the same identifiers have another profile_id") as told:
            new.command("replay", "compare", old.settings.prefix, new.settings.prefix)
        readers = len(new.members("readers"))
        assert re.search(rf"readers +{readers} +0 +0", str(told.value)), told.value
        assert not any(why in str(told.value) for why in ("other identifiers", "other totals", "the same facts"))
        # What was erased did not come along; who returned after it did.
        position = view_of(new.settings).position
        assert position is not None and position.erased > 0 and position.refused == 0

        new.start("ingest")
        old.produce(visits.some(100))
        subscriber = Subscriber()
        new.command("replay", "switch", "--yes", "--wait", "150")
        assert running.wait(120) == 0, "the switch takes the copier's place"
        old.produce(visits.some(200))
        new.wait_until(lambda: events_in(new) > events_in(old), "what came after the switch, in the new one only")
        new.wait_until_idle()
        subscriber.hear(old)
        subscriber.hear(new, view_of(old.settings).successor)
        assert subscriber.members() == set(new.table("segment-members"))


NAMED = """
source: orders
topic: orders
event: {type: track, event: Order Completed, userId: {from: value.who}}
---
contract: planned
sources: [raw]
on_violation: reject
events:
  Seen: {required: [where]}
"""


def test_sources_and_contracts_go_by_the_same_names_after_the_switch(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2).model_copy(update={"sources": ("raw", "orders")})
    create_topics(settings)
    with Deployment(settings, tmp_path) as old:
        for role in ("ingest", "identity", "unify"):
            old.start(role)
        old.apply(NAMED)
        old.produce([b'{"who": "ada"}'], "orders")
        old.produce([{"type": "track", "event": "Seen", "userId": "ada"}])
        old.wait_until(lambda: (events_in(old), len(old.read("dead-letters"))) == (1, 1), "both were taken")
        with replayed(old, "named", 3) as new:
            written = yaml.safe_load((tmp_path / "named.yaml").read_text())
            assert (written["sources"], written["sources_prefix"]) == (["raw", "orders"], settings.prefix)
            new.start("identity")
            new.start("unify")
            running = copier(new)
            new.wait_until(lambda: events_in(new) == 1, "the copy")
            new.start("ingest")
            new.command("replay", "switch", "--yes", "--wait", "150")
            assert running.wait(120) == 0
            new.produce([b'{"who": "ada"}'], "orders")
            new.produce([{"type": "track", "event": "Seen", "userId": "ada"}])
            new.wait_until(lambda: events_in(new) == 2, "an order that was mapped")
            new.wait_until(lambda: bool(new.read("dead-letters")), "an event that its contract refuses")
            [letter] = new.values("dead-letters")
            assert (letter["reason"], letter["topic"]) == ("contract_violation", "raw")
            there = admin_client(settings).list_topics(timeout=120).topics
            assert not {f"{new.settings.prefix}raw", f"{new.settings.prefix}orders"} & set(there)


def past_the_door(old: Deployment, *identifiers: str) -> None:
    """What an ingest had taken for an event before it heard of the erasure, and writes only now."""
    now = int(time.time() * 1000)
    event = Event(f"late {identifiers}", "track", "Seen", list(identifiers), now, now)
    actor = Keys(old.settings.secret_bytes()).actor(identifiers[0])
    produce_all(old.settings, "events", [(actor, encode(event))])


def seen_by(deployment: Deployment) -> dict[str, int]:
    """How often each was seen, by the strongest identifier."""
    profiles = deployment.table("profiles").values()
    return {f"{one['identifiers'][0]['namespace']}:{one['identifiers'][0]['value']}": total(one) for one in profiles}


def test_who_is_kept_out_stays_out_of_the_copy_until_they_consent_anew(old: Deployment) -> None:
    both = ("ada", "eve")
    for role in ("ingest", "identity", "unify", "privacy"):
        old.start(role)
    old.produce(
        {"type": "track", "event": "Seen", "userId": who, "anonymousId": f"{who}-tab"} for who in ("ada", "eve")
    )
    old.produce([{"type": "track", "event": "Seen", "userId": "bob"}])
    old.wait_until(lambda: len(old.table("identities")) == 5, "who is who")
    for who in both:
        old.command("privacy", "erase", f"user_id:{who}", "--wait", "150")
    for who in both:
        past_the_door(old, f"user_id:{who}", f"anonymous_id:{who}-tab")
        past_the_door(old, "user_id:bob", f"anonymous_id:{who}-tab")
    old.wait_until_idle()
    assert seen_by(old) == {"user_id:bob": 3}
    ada = {"type": "track", "event": "Seen", "userId": "ada", "anonymousId": "ada-tab"}
    old.produce([ada | {"context": {"consent": {"marketing": True}}}])
    old.wait_until(lambda: "anonymous_id:ada-tab" in old.table("identities"), "she is welcome again")
    old.wait_until_idle()
    old.produce({"type": "track", "event": "Seen", "anonymousId": "ada-tab", "messageId": f"t{n}"} for n in range(20))
    old.wait_until_idle()
    assert seen_by(old) == {"user_id:bob": 3, "user_id:ada": 21}
    with replayed(old, "kept", 5) as new:
        new.start("identity")
        new.start("unify")
        running = copier(new)
        try:
            until_s = time.monotonic() + 180
            while seen_by(new) != seen_by(old):
                assert time.monotonic() < until_s, f"{seen_by(new)}, and not {seen_by(old)}"
                time.sleep(0.3)
            past_the_door(old, "user_id:eve")
            past_the_door(old, "user_id:bob")
            new.wait_until(lambda: seen_by(new).get("user_id:bob") == 4, "the copy follows")
            new.wait_until_idle()
            assert seen_by(new) == {"user_id:bob": 4, "user_id:ada": 21}
            known = new.table("identities")
            assert not [key for key in known if "eve" in key]
            assert known["anonymous_id:ada-tab"]["profile_id"] == known["user_id:ada"]["profile_id"]
        finally:
            running.terminate()
            running.wait(120)
