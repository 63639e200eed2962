"""What was asked is noted: refused or not, about whom by keyed hash only, and whatever the disk does."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.audit import Audit
from pipeline.in_charge import NotInChargeError
from pipeline.records import IdentifierPair, ProfileDocument
from tests.rooms.api.harness import ADA, World, show, world_with_ada

ACME, NOBODY = "44444444-4444-5444-8444-444444444444", "55555555-5555-5555-8555-555555555555"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_with_ada(tmp_path)


def lines(world: World) -> list[dict[str, Any]]:
    world.audit.close()
    return [json.loads(line) for line in world.audit_path.read_text().splitlines()]


def test_refused_look_ups_say_whom_they_were_about(world: World) -> None:
    hashed = world.service._keys.actor("email:ada@example.org").decode()
    for token, more in (
        ("wrong", ""),
        ("shy", ""),
        ("slow", ""),
        ("slow", ""),
        ("all", "?field=x"),
        ("all", "?wait_for=x"),
        ("all", ""),
    ):
        world.ask(f"/v1/profiles/email:%20ADA@Example.org{more}", token)
    world.follower.is_ready = False
    world.ask("/v1/profiles/email:ada@example.org")
    found = lines(world)
    assert [(one["caller"], one["status"]) for one in found] == [
        ("", 401), ("shy", 403), ("slow", 200), ("slow", 429), ("all", 400), ("all", 400), ("all", 200), ("all", 503),
    ]  # fmt: skip
    assert {one["subject"] for one in found} == {hashed}  # however it was written
    assert [one.get("profile_id") for one in found if one["status"] == 200] == [ADA, ADA]


def test_who_was_refused_was_told_of_nobody(world: World) -> None:
    assert world.ask("/v1/profiles/user_id:42/why?segment=nothing").status_code == 404
    assert world.ask("/v1/profiles/user_id:42?fields=nothing").status_code == 400
    world.ask("/v1/profiles/user_id:42")
    assert [one.get("profile_id") for one in lines(world)] == [None, None, ADA]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/profiles/ada@example.org",
        "/v1/profiles/email%3Aada@example.org%0A%7B%22at%22:1",
        "/v1/profiles/ada-example-org-a-b",
        "/v1/segments/ada@example.org",
        "/v1/segments/ada@example.org/members",
        "/v1/accounts/ada@example.org",
        "/v1/definitions/segment/ada@example.org",
        "/v1/privacy/ada@example.org",
        "/v1/dead-letters/ada@example.org/1",
    ],
)
def test_what_may_be_somebodys_name_is_never_written(world: World, path: str) -> None:
    world.service.in_thread = lambda work: _nothing()  # type: ignore[method-assign, assignment]
    world.ask(path)
    [line] = lines(world)
    assert "ada" not in world.audit_path.read_text() and line["subject"]


async def _nothing() -> None:
    return None


def test_doors_that_change_something_say_whom_it_was_about(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("pipeline.api.writes.produce_all", lambda _, topic, records: told.append(topic))
    monkeypatch.setattr("pipeline.privacy.audit.produce_all", lambda _, topic, records: told.append((topic, records)))
    monkeypatch.setattr("pipeline.api.writes.refuse_decisions", lambda _: None)
    monkeypatch.setattr("pipeline.api.privacy.ask", lambda *_: "r-1")
    link = b'{"a": "user_id:42", "b": "email: ADA@example.org"}'
    assert world.ask("/v1/unlink", method="POST", content=link).status_code == 200
    world.ask("/v1/privacy", method="POST", content=b'{"request": "erase", "identifier": "user_id:42"}')
    key = world.service._keys.actor
    ends = [key("user_id:42").decode(), key("email:ada@example.org").decode()]
    assert [set(one["subject"].split()) for one in lines(world)] == [set(ends), {ends[0]}]
    # What the command would note in the topic `audit` is noted there too, in the name of the token.
    assert [one if isinstance(one, str) else one[0] for one in told] == ["audit", "audit", "identity-edges"]
    noted = b"".join(record[1] for one in told if not isinstance(one, str) for record in one[1])
    assert all(end.encode() in noted for end in ends) and b'"by":"all"' in noted and b"ada@" not in noted


@pytest.mark.parametrize("name", ["11111111-1111-5111-8111-111111111111", "account:acme", "a-b-c-d-e", "user_id:null"])
def test_a_link_is_between_identifiers_of_people(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for door in ("api.writes", "privacy.audit", "privacy.asking"):
        monkeypatch.setattr(f"pipeline.{door}.produce_all", lambda *_: pytest.fail("it was written"))
    for door in ("unlink", "relink"):
        asked = {"a": name, "b": "user_id:42"}
        assert world.ask(f"/v1/{door}", method="POST", json=asked).status_code == 422, door


@pytest.mark.parametrize("name", [ACME, "account:acme", "a-b-c-d-e", "user_id:null"])
def test_a_privacy_request_is_about_a_person_or_their_profile(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(settings: Any, kind: str, identifier: str, *_: Any) -> str:
        asked.append((kind, identifier))
        return "r-1"

    monkeypatch.setattr("pipeline.api.privacy.ask", ask)
    account = ProfileDocument(ACME, "account", [IdentifierPair("account", "acme")], 1)
    world.follower.read(show(world, account))
    refused = world.ask("/v1/privacy", method="POST", json={"request": "erase", "identifier": name})
    assert refused.status_code == 422 and not asked
    for text in (ADA, ADA.upper(), NOBODY):
        assert world.ask("/v1/privacy", method="POST", json={"request": "erase", "identifier": text}).is_success
    assert asked == [("erase", ADA), ("erase", ADA), ("erase", NOBODY)], "the role says if they are nobody's"
    assert [one["subject"] for one in lines(world)][1:] == [ADA, ADA, NOBODY]


def test_a_spelling_of_before_leads_to_whoever_is_known_by_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They came before addresses were normalised; of an erasure both are meant, and the role asks for the other."""
    asked: list[Any] = []
    monkeypatch.setattr("pipeline.api.privacy.ask", lambda _, *what: asked.append(what[:2]) or "r-1")
    before = ProfileDocument(NOBODY, "person", [IdentifierPair("email", "Eve@Example.org")], 1)
    world.follower.read(show(world, before))

    def looked_up() -> str:
        return str(world.ask("/v1/profiles/email:Eve@Example.org").json()["profile_id"])

    def erased() -> Any:
        world.ask("/v1/privacy", method="POST", json={"request": "erase", "identifier": "email:Eve@Example.org"})
        return asked[-1]

    assert looked_up() == NOBODY and erased() == ("erase", NOBODY)
    now = ProfileDocument(ACME, "person", [IdentifierPair("email", "eve@example.org")], 1)
    world.follower.read(show(world, now))
    assert looked_up() == ACME and erased() == ("erase", NOBODY)


def test_a_workspace_that_is_not_in_charge_takes_no_links(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise NotInChargeError("w. goes on in v.", "w.", "ask it of v.")

    monkeypatch.setattr("pipeline.api.writes.refuse_decisions", refuse)
    for door in ("api.writes", "privacy.audit"):
        monkeypatch.setattr(f"pipeline.{door}.produce_all", lambda *_: pytest.fail("it was written"))
    answer = world.ask("/v1/unlink", method="POST", json={"a": "user_id:42", "b": "email:ada@example.org"})
    assert answer.status_code == 409 and "ask it of v." in answer.text


def test_a_link_is_the_same_whichever_end_is_named_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, Any]] = []
    monkeypatch.setattr("pipeline.api.writes.refuse_decisions", lambda _: None)
    monkeypatch.setattr("pipeline.privacy.audit.produce_all", lambda *_: None)
    monkeypatch.setattr(
        "pipeline.api.writes.produce_all", lambda _, __, records: written.extend(json.loads(one[1]) for one in records)
    )
    for a, b in (("user_id:42", "email:ada@example.org"), ("email:ADA@example.org", "user_id:42")):
        for door in ("unlink", "relink"):
            assert world.ask(f"/v1/{door}", method="POST", json={"a": a, "b": b}).status_code == 200
    lasting = {"a": "user_id:42", "b": "email:ada@example.org", "forever": True}
    assert world.ask("/v1/relink", method="POST", json=lasting).status_code == 422, "only an unlink lasts"
    assert len(written) == 4 and len({(one["a"], one["b"]) for one in written}) == 1


def test_a_full_disk_loses_no_line_and_stops_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write, full = os.write, True

    def written(file: int, data: bytes) -> int:
        if full and file == world.audit._file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: max(1, len(data) // 2)])

    monkeypatch.setattr("pipeline.api.audit.os.write", written)
    monkeypatch.setattr("pipeline.api.audit._AGAIN_AFTER_S", 0.05)
    monkeypatch.setattr("pipeline.api.audit._MOST_WAITING", 3)
    statuses = []
    for _ in range(6):
        statuses.append(world.ask("/v1/profiles/user_id:42").status_code)
        time.sleep(0.02)
    assert statuses[:3] == [200] * 3 and statuses[-1] == 503
    full = False
    assert len(lines(world)) == 6


def test_who_has_no_token_does_not_fill_the_disk(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    begin = time.time()
    for _ in range(1_000):
        audit.line("", "getProfile", "s", 401)
        audit.line("web", "getProfile", "s", 200)
    time.sleep(max(0.0, int(begin) + 2.01 - time.time()))
    audit.line("", "getProfile", "s", 401)
    audit.close()
    found = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    strangers = [one for one in found if not one["caller"]]
    assert len(found) - len(strangers) == 1_000
    assert len(strangers) <= 301 and len(strangers) + sum(one.get("more", 0) for one in strangers) == 1_001
