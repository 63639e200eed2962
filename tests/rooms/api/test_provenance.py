"""Where traits and links came from; what is hidden from a token does not come in by its history."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.access import Token, hashed
from pipeline.records import Erased, Event, IdentifierPair, Relink, UnfollowedLink, Unlink, encode
from tests.rooms.api.harness import ADA, World, body, profile, show

NOW = 1_790_000_000_000
IDS = ["user_id:42", "email:ada@x.org", "device_id:d1"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    ada = profile(ADA, *IDS, plan="pro", phone="+47")
    ada.unfollowed = [
        UnfollowedLink(IdentifierPair("user_id", "42"), IdentifierPair("device_id", "kiosk"), "crowded", 7)
    ]
    found.follower.read(show(found, ada))
    lives: list[tuple[list[str], int, dict[str, Any]]] = [
        (IDS[:2], 10, {"plan": "free", "phone": "+47"}), (IDS, 30, {"plan": "pro"}), ([IDS[0]], 20, {"gone": 1}),
    ]  # fmt: skip
    for offset, (ids, at, traits) in enumerate(lives):
        made = Event(f"m{offset}", "identify", "Identify", ids, NOW + at, NOW + at, f"web/0/{offset}", traits=traits)
        found.follower.read([found.record("events", ids[0], encode(made), 0)])
    return found


def came(world: World, token: str = "all") -> Any:
    answer = world.ask("/v1/profiles/user_id:42/provenance", token)
    assert answer.status_code == 200, answer.text
    return body(answer)


def test_each_trait_and_link_has_its_events(world: World) -> None:
    found = came(world)
    assert {name: (one["at"] - NOW, one["source"]) for name, one in found["traits"].items()} == {
        "plan": (30, "web"), "phone": (10, "web"),
    }  # fmt: skip
    links = {
        frozenset((one["a"], one["b"])): (one["first"] - NOW, one["last"] - NOW, one["count"]) for one in found["links"]
    }
    assert links == {
        frozenset(IDS[:2]): (10, 30, 2), frozenset((IDS[0], IDS[2])): (30, 30, 1), frozenset(IDS[1:]): (30, 30, 1),
    }  # fmt: skip
    assert found["unfollowed"] == [{"a": "user_id:42", "b": "device_id:kiosk", "reason": "crowded", "since": 7}]
    assert found["trouble"] == "" and sum(one["events"] for one in found["days"]) == 3
    assert world.ask("/v1/profiles/user_id:7/provenance").status_code == 404


def test_links_taken_back_are_told_until_they_are_linked_again(world: World) -> None:
    a, b = sorted(IDS[:2])
    world.decisions += [
        encode(Unlink(a=a, b=b, received=5, forever=True, actor="ui.kim")),
        encode(Unlink(a="user_id:1", b="user_id:2", received=6)),
        encode(Erased(actor="x", received=1, epoch=2)),
    ]
    assert came(world)["taken_back"] == [{"a": a, "b": b, "at": 5, "forever": True, "by": "ui.kim"}]
    world.decisions.append(encode(Relink(a=a, b=b, received=9)))
    assert came(world)["taken_back"] == []


def test_what_is_hidden_stays_hidden(world: World) -> None:
    world.decisions.append(encode(Unlink(a="device_id:kiosk", b="user_id:42", received=5)))
    hide = ("traits.phone", "identifiers.device_id")
    tokens = [Token(name=name, sha256=hashed(name), scopes=("events:read",), hide=of) for name, of in _hides(hide)]
    world.service.access.replace(tokens)
    told = json.dumps(came(world, "some"))
    assert "phone" not in told and "device_id" not in told and "email:ada@x.org" in told
    none = came(world, "none")
    assert (none["links"], none["unfollowed"], none["taken_back"]) == ([], [], [])


def _hides(some: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [("some", some), ("none", ("identifiers",))]
