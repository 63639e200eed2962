"""Who may ask for what; what was asked is noted; the OpenAPI document is what the API does."""

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from pipeline.api.access import SCOPES, Token, create_token, hashed, read_tokens, revoke_token
from pipeline.api.app import operations
from pipeline.contracts import Contract, ContractsPlan, EventContract, LabelledField
from pipeline.errors import InputError, SettingsError
from tests.rooms.api.harness import World, body, world_with_ada


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_with_ada(tmp_path)


def test_without_a_token_and_with_a_wrong_one(world: World) -> None:
    for token in (None, "wrong", "", "all ", "ALL"):
        answer = world.ask("/v1/profiles/user_id:42", token)
        assert answer.status_code == (200 if token == "all " else 401)
    other = world.ask("/v1/profiles/user_id:42", None, headers={"Authorization": "Basic all"})
    assert other.status_code == 401 and other.headers["connection"] == "close"


def test_every_operation_asks_for_its_scope(world: World) -> None:
    for one in operations(world.service):
        path = one.path.replace("{profile}", "user_id:42").replace("{segment}", "a").replace("{account}", "acme")
        missing = world.ask(path, "shy" if one.scope == "profiles:read" else "web", one.method)
        assert missing.status_code == 403, one.name
        assert str(one.scope) in body(missing)["detail"]


def test_more_than_the_rate(world: World) -> None:
    assert [world.ask("/v1/profiles/user_id:42", "slow").status_code for _ in range(3)] == [200, 429, 429]
    assert int(world.ask("/v1/profiles/user_id:42", "slow").headers["retry-after"]) >= 1


def test_who_was_silent_for_long_may_not_ask_all_the_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("pipeline.api.access.time", SimpleNamespace(monotonic=lambda: now))
    token = Token(name="three", sha256=hashed("three"), scopes=("profiles:read",), per_second=3)
    world.service.access.replace([token])
    for _ in range(2):
        now += 3_600.0
        assert [world.ask("/v1/profiles/user_id:42", "three").status_code for _ in range(4)] == [200, 200, 200, 429]
    now += 0.34
    assert [world.ask("/v1/profiles/user_id:42", "three").status_code for _ in range(2)] == [200, 429]


def test_each_look_up_is_noted_and_nothing_of_the_profile_is(world: World) -> None:
    world.ask("/v1/profiles/email:ada@example.org")
    world.ask("/v1/profiles/email:ada@example.org", "shy")
    world.ask("/v1/segments/a")
    world.audit.close()
    text = world.audit_path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(one["caller"], one["operation"], one["status"]) for one in lines] == [
        ("all", "getProfile", 200),
        ("shy", "getProfile", 403),
        ("all", "getSegment", 200),
    ]
    assert "ada" not in text and lines[0]["subject"] == world.service._keys.actor("email:ada@example.org").decode()


def test_bodies_are_bounded_and_checked(world: World) -> None:
    assert world.ask("/v1/unlink", method="POST", content=b"x" * 1_000_001).status_code == 413
    for junk in (b"", b"[]", b"{}", b'{"a": 1}', b'{"a": "user_id:1", "c": 1}', b"\xff", b"[" * 100_000):
        assert world.ask("/v1/unlink", method="POST", content=junk).status_code in (400, 422), junk[:20]
    assert world.ask("/v1/unlink", method="POST", content=b'{"a":"user_id:1","b":"user_id:1"}').status_code == 422
    assert world.ask("/v1/definitions", method="POST", content=b"segment: [").status_code in (422, 503)
    assert world.ask("/v1/unlink").status_code == 405
    for junk in (
        b"",
        b"[]",
        b'{"request": "forget", "identifier": "user_id:1"}',
        b'{"request": "erase"}',
        b'{"request": "erase", "identifier": "nobody"}',
        b'{"request": "erase", "identifier": "user_id:1", "traits": {"a": 1}}',
        b'{"request": "rectify", "identifier": "user_id:1"}',
        b'{"request": "erase", "identifier": "user_id:1", "lift": true}',
        b'{"request": "erase", "identifier": "11111111-1111-5111-8111"}',
    ):
        assert world.ask("/v1/privacy", method="POST", content=junk).status_code in (400, 422), junk


def test_addresses_are_bounded(world: World) -> None:
    assert world.ask("/v1/profiles/user_id:1?fields=" + "x" * 9_000).status_code == 414
    assert world.ask("/../../etc/passwd").status_code == 404


def test_the_document_has_every_operation_and_its_examples_fit(world: World) -> None:
    document = body(world.ask("/openapi.json", None))
    found = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert found == {(one.path, one.method.lower()) for one in operations(world.service)}
    assert {one.scope for one in operations(world.service)} <= set(SCOPES)
    text = msgspec.json.encode(document).decode()
    for name in document["components"]["schemas"]:
        assert text.count(f'"#/components/schemas/{name}"') or name in ("Problem",)


def test_tokens_are_kept_as_hashes_and_revoked(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    token = create_token(path, "web", ["profiles:read"], ["traits.email"], 10)
    assert token not in path.read_text() and hashed(token) in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in read_tokens(path)] == ["web"]
    for name, scope in (("web", "profiles:read"), ("other", "everything"), ("Ü", "profiles:read")):
        with pytest.raises(InputError):
            create_token(path, name, [scope], [], 10)
    revoke_token(path, "web")
    assert read_tokens(path) == []
    path.write_text("tokens: 3")
    with pytest.raises(SettingsError):
        read_tokens(path)


def test_what_a_contract_labels_is_hidden_from_who_may_not_see_it(world: World) -> None:
    fields = (
        LabelledField("traits", ("email",), frozenset({"pii"})),
        LabelledField("properties", ("card", "number"), frozenset({"pii", "sensitive"})),
    )
    event = EventContract("Identify", "shop/1", None, "flag", "allow", {}, fields=fields)
    contracts = ContractsPlan((Contract("shop", 1, None, "allow", {"Identify": event}),))
    world.service.access.replace(
        [
            Token(name="a", sha256=hashed("a"), scopes=("profiles:read",), hide_labels=("pii",)),
            Token(name="b", sha256=hashed("b"), scopes=("profiles:read",), hide_labels=("sensitive",)),
        ]
    )
    assert "ada@example.org" in world.ask("/v1/profiles/user_id:42", "a").text
    world.service.access.look_at_contracts(contracts)
    assert "ada@example.org" not in world.ask("/v1/profiles/user_id:42", "a").text
    assert "ada@example.org" in world.ask("/v1/profiles/user_id:42", "b").text
    later = Token(name="c", sha256=hashed("c"), scopes=("profiles:read",), hide_labels=("pii",))
    world.service.access.replace([*(one._token for one in world.service.access._callers.values()), later])
    assert "ada@example.org" not in world.ask("/v1/profiles/user_id:42", "c").text, "nor from who got a token since"
    shown = world.service.access.caller("a").hide.strip({"properties": {"card": {"number": 1}, "total": 2}})  # type: ignore[union-attr]
    assert shown == {"properties": {"total": 2}}


def test_a_label_of_a_whole_event_hides_what_the_contract_plans_of_it(world: World) -> None:
    planned = {"properties": frozenset({"total", "sku"})}
    event = EventContract("Order", "shop/1", None, "flag", "allow", planned, labels=frozenset({"sensitive"}))
    tokens = [Token(name="b", sha256=hashed("b"), scopes=("profiles:read",), hide_labels=("sensitive",))]
    world.service.access.replace(tokens)
    world.service.access.look_at_contracts(ContractsPlan((Contract("shop", 1, None, "allow", {"Order": event}),)))
    caller = world.service.access.caller("b")
    assert caller is not None
    assert caller.hide.strip({"properties": {"total": 2, "sku": 1, "path": "/"}}) == {"properties": {"path": "/"}}
