"""Accounts and their people are those of the documents, whatever comes in one batch."""

import random
import time
from pathlib import Path

import pytest

from pipeline.accounts import AccountRules
from pipeline.identifiers import Keys
from pipeline.records import IdentifierPair, ProfileDocument, encode
from tests.rooms.api.harness import World, body, event, profile, show

NAMES = ("acme", "acme.example", "b/c", "ünal")


@pytest.mark.parametrize("seed", range(10))
def test_people_come_and_go(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path)
    rng = random.Random(seed)
    for name in NAMES:
        account_id = world.service.identifier(f"account:{name}")
        document = ProfileDocument(account_id, "account", [IdentifierPair("account", name)], 1)
        world.follower.read([world.record("profiles", account_id, encode(document))])
    belongs: dict[str, set[str]] = {}
    batch = []
    for _ in range(80):
        person = f"p{rng.randrange(8)}"
        if rng.random() < 0.2:
            belongs.pop(person, None)
            batch.append(world.record("profiles", person, None))
        else:
            belongs[person] = set(rng.sample(NAMES, rng.randrange(3)))
            document = profile(person, f"user_id:{person}")
            document.accounts = sorted(belongs[person])
            batch.append(world.record("profiles", person, encode(document)))
        if rng.random() < 0.3:
            world.follower.read(batch)
            batch = []
    world.follower.read(batch)
    for name in NAMES:
        expected = sorted(person for person, accounts in belongs.items() if name in accounts)
        path = f"/v1/accounts/{name.replace('/', '%2F')}"
        found = body(world.ask(path))
        assert found["people"] == len(expected) and found["account"]["entity"] == "account"
        seen, after = [], ""
        while after is not None:
            page = body(world.ask(f"{path}/people?limit=2&after={after}"))
            seen += [one["profile_id"] for one in page["people"]]
            after = page["next"]
        assert seen == expected
    assert world.ask("/v1/accounts/nobody").status_code == 404
    assert world.ask("/v1/accounts/nobody/people").status_code == 404


def test_an_account_that_has_ended_is_not_counted_and_its_name_is_kept_nowhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    account_id = world.service.identifier("account:acme")
    whole = encode(ProfileDocument(account_id, "account", [IdentifierPair("account", "acme")], 1))
    ends = [world.record("profiles", account_id, whole), world.record("profiles", account_id, None)]
    for batches in ([ends], [ends[:1], ends[1:]]):
        for batch in batches:
            world.follower.read(batch)
        assert world.follower.model.account_count() == 0
        assert b"acme" not in b"".join(key + row for rows in world.kept.values() for key, row in rows.items())
        assert body(world.ask("/v1/accounts")) == {"accounts": [], "next": None}


def test_an_account_with_the_longest_of_names_can_be_asked_for(tmp_path: Path) -> None:
    world, names = World(tmp_path), ["a" * 512, "a" * 511 + "b"]
    for name in names:
        document = ProfileDocument(
            Keys(b"s").profile_id(f"account:{name}"), "account", [IdentifierPair("account", name)], 1
        )
        world.follower.read([world.record("profiles", document.profile_id, encode(document))])
    assert world.ask(f"/v1/accounts/{names[0]}").status_code == 200
    first = body(world.ask(f"/v1/accounts?limit=1&begins={names[0]}"))
    assert [one["account"] for one in first["accounts"]] == names[:1]
    second = body(world.ask(f"/v1/accounts?limit=1&after={names[0]}"))
    assert [one["account"] for one in second["accounts"]] == names[1:]


@pytest.mark.parametrize(
    ("among", "ranked"),
    [("true", {"t"}), ("false", {"f"}), ("True", set()), ("5", {"n", "w"}), ("5,text", {"n", "w", "s"}), ("-", {"m"})],
)
def test_the_values_that_are_meant_are_written_as_in_answers(tmp_path: Path, among: str, ranked: set[str]) -> None:
    world = World(tmp_path)
    for name, paid in (("t", True), ("f", False), ("n", 5), ("w", 5.0), ("s", "text"), ("m", None)):
        traits = {} if paid is None else {"paid": paid}
        pair = [IdentifierPair("account", name)]
        account = ProfileDocument(Keys(b"s").profile_id(f"account:{name}"), "account", pair, 1, traits)
        person = profile(Keys(b"s").profile_id(f"user_id:{name}"), f"user_id:{name}")
        person.accounts.append(name)
        world.follower.read(
            [
                world.record("profiles", account.profile_id, encode(account)),
                *show(world, person),
                event(world, f"user_id:{name}", time.time_ns() // 1_000_000),
            ]
        )
    found = body(world.ask(f"/v1/ranking?trait=paid&among={among}"))["ranked"]
    assert {one["account"] for one in found} == ranked


def test_an_account_is_found_by_every_name_that_means_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.service._plan.accounts = AccountRules(same={"4711": "acme", "former": "acme"})  # type: ignore[misc]
    for name in ("acme", "former"):  # a group event named `former` before the rules said whom it means
        pair = [IdentifierPair("account", name)]
        document = ProfileDocument(Keys(b"s").profile_id(f"account:{name}"), "account", pair, 1)
        world.follower.read([world.record("profiles", document.profile_id, encode(document))])
    for asked, found in (("acme", "acme"), ("4711", "acme"), (" 4711 ", "acme"), ("former", "former")):
        for path in (f"accounts/{asked}", f"profiles/account:{asked}"):
            told = body(world.ask(f"/v1/{path}"))
            assert told.get("account", told)["identifiers"] == [{"namespace": "account", "value": found}], asked
        assert body(world.ask(f"/v1/accounts/{asked}/people"))["account"] == found
    assert world.ask("/v1/accounts/4712").status_code == 404
