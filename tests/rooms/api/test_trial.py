"""A rule tried before it is in force says what the language says; and the definitions, their history and vocabulary."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.api.trial import trial_of
from pipeline.definitions.segments import SegmentDefinition
from pipeline.records import Definition, Event, Generation, ProfileDocument, Total, encode
from tests.oracle.segments import Facts, consents, member
from tests.rooms.api.harness import ADA, BOB, World, body, enter, event, profile, show
from tests.simulation.definitions import Author
from tests.simulation.vocabulary import CITIES, EVENT_NAMES, PATHS, PLANS

NOW = 1_790_000_000_000
DAY = 86_400_000


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("pipeline.api.definitions._now_ms", lambda: NOW)
    # However busy the machine is.
    monkeypatch.setattr("pipeline.api.trial._LONGEST_S", 60)
    return World(tmp_path)


def preview(world: World, definition: dict[str, Any], token: str = "all") -> Any:
    answer = world.ask("/v1/preview", token, "POST", content=json.dumps(definition))
    assert answer.status_code == 200, answer.text
    return body(answer)


def _life(rng: random.Random, number: int) -> list[Event]:
    made = []
    for place in range(rng.randint(0, 12)):
        at = NOW - rng.choice((0, 500, 3_600_000, DAY, 7 * DAY, 30 * DAY)) - rng.randint(0, 2_000)
        properties: dict[str, Any] = {"path": rng.choice(PATHS), "amount": rng.choice((1, 5, "5")), "cart_id": "c1"}
        traits = {"plan": rng.choice(PLANS), "city": rng.choice(CITIES)} if rng.random() < 0.4 else {}
        context = {"consent": {"marketing": rng.random() < 0.5}} if rng.random() < 0.2 else {}
        name = rng.choice(EVENT_NAMES)
        made.append(
            Event(f"m{number}-{place}", "track", name, [f"user_id:{number}"], at, at, source=f"raw/0/{place}",
                  properties=properties, traits=traits, context=context)
        )  # fmt: skip
    return made


def _document(profile_id: str, number: int, events: list[Event]) -> ProfileDocument:
    facts = Facts(events, profile_id, [], NOW)
    found = profile(profile_id, f"user_id:{number}", **facts.traits)
    found.consents = {purpose: said == "granted" for purpose, said in consents(events).items()}
    found.totals = {}
    for one in events:
        total = found.totals.setdefault(one.event, Total(0, one.time, one.time))
        total.count += 1
    return found


def test_a_rule_tried_is_what_the_language_says_of_whom_everything_is_known(world: World) -> None:
    rng = random.Random(20261126)
    lives: dict[str, list[Event]] = {}
    records = []
    for number in range(60):
        profile_id = f"{rng.getrandbits(32):08x}-1111-5111-8111-{number:012x}"
        lives[profile_id] = _life(rng, number)
        records += show(world, _document(profile_id, number, lives[profile_id]))
        records += [world.record("events", one.identifiers[0], encode(one), 0) for one in lives[profile_id]]
    world.follower.read(records)
    author, tried, some = Author(rng, NOW - 10 * DAY), 0, 0
    while tried < 150:
        definition = {"segment": "s", "when": author.rule(0)}
        expected = {who for who, life in lives.items() if member(definition, Facts(life, who, [definition], NOW))}
        found = preview(world, definition)
        assert found["judged"] == found["people"] == found["whole"] == len(lives) and found["all"]
        assert found["matching"] == found["estimate"] == len(expected), definition
        assert [one["profile_id"] for one in found["members"]] == sorted(expected)[:10]
        assert all(one["whole"] and one["why"]["true"] for one in found["members"])
        tried += 1
        some += 0 < len(expected) < len(lives)
    assert some > 40


def test_what_takes_too_long_is_judged_in_part_and_estimated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        profile_id = f"{number * 2**32 // 60:08x}-1111-5111-8111-{number:012x}"
        world.follower.read(show(world, _document(profile_id, number, [])))
    # Begun; before the first, the twenty-first and the forty-first. 39 sixtieths of all ids come before the fortieth.
    seconds = iter((0.0, 20.0, 40.0, 61.0))
    monkeypatch.setattr("pipeline.api.trial.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    found = preview(world, {"segment": "s", "when": {"not": {"performed": {"event": "*", "within": "30d"}}}})
    assert (found["judged"], found["people"], found["all"]) == (40, 62, False)
    assert (found["matching"], found["estimate"]) == (40, 62)


def test_who_has_more_events_than_are_kept_is_not_judged_on_everything(world: World) -> None:
    ada = profile(ADA, "user_id:1", plan="pro")
    ada.totals = {"Page Viewed": Total(21, 1, 2)}
    world.follower.read([*show(world, ada), *(event(world, "user_id:1", NOW - n) for n in range(20))])
    found = preview(world, {"segment": "s", "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 20}}}})
    assert (found["judged"], found["matching"], found["whole"]) == (1, 1, 0)


def test_who_has_more_identifiers_than_are_listed_is_not_judged_on_everything(world: World) -> None:
    ada = profile(ADA, "user_id:1", plan="pro")
    ada.totals = {}
    for known, whole in ((1, 1), (2, 0)):
        ada.identifiers_total = known
        world.follower.read(show(world, ada))
        found = preview(world, {"segment": "s", "when": {"trait": {"plan": {"equals": "pro"}}}})
        assert (found["matching"], found["whole"]) == (1, whole)


def test_memberships_and_computed_traits_are_those_of_the_document(world: World) -> None:
    ada, bob = profile(ADA, "user_id:1", segments={"buyers": 1}), profile(BOB, "user_id:2")
    bob.computed = {"orders": 3}
    world.follower.read([*show(world, ada), *show(world, bob)])
    rule = {"any": [{"in_segment": "buyers"}, {"computed": {"orders": {"at_least": 3}}}]}
    found = preview(world, {"segment": "s", "when": rule})
    assert [one["profile_id"] for one in found["members"]] == [ADA, BOB] and found["overlap"] == {"buyers": 1}
    assert [part["rule"] for part in found["members"][0]["why"]["parts"]] == [
        "in segment buyers",
        "computed orders ≥ 3",
    ]
    assert "~" not in json.dumps(found)


def test_what_is_hidden_from_a_token_is_not_told_by_trying_rules_either(world: World) -> None:
    world.service.access.replace(
        [
            *(caller._token for caller in world.service.access._callers.values()),
            world_token("narrow", ("events:read",), ("traits.phone", "properties.total", "segments")),
        ]
    )
    ada = profile(ADA, "user_id:1", phone="123", segments={"buyers": 1})
    world.follower.read([*show(world, ada), event(world, "user_id:1", NOW - 5, "Order Completed", total=9)])
    for rule in (
        {"trait": {"phone": {"starts_with": "1"}}},
        {"performed": {"event": "Order Completed", "where": {"properties.total": 9}}},
        {"in_segment": "buyers"},
    ):
        assert preview(world, {"segment": "s", "when": rule})["matching"] == 1
        assert preview(world, {"segment": "s", "when": rule}, "narrow")["matching"] == 0
    told = json.dumps(body(world.ask("/v1/vocabulary", "narrow")))
    assert "phone" not in told and "total" not in told and "Order Completed" in told


def world_token(name: str, scopes: Any, hide: tuple[str, ...]) -> Any:
    from pipeline.api.access import Token, hashed

    return Token(name=name, sha256=hashed(name), scopes=scopes, hide=hide)


@pytest.mark.parametrize(
    ("definition", "what"),
    [
        ({"segment": "s", "when": {"performed": {}}}, "event"),
        ({"destination": "d", "kind": "file", "path": "x"}, "one segment"),
    ],
)
def test_what_cannot_be_tried_is_told(world: World, definition: dict[str, Any], what: str) -> None:
    answer = world.ask("/v1/preview", method="POST", content=json.dumps(definition))
    assert answer.status_code == 422 and what in body(answer)["detail"]


@pytest.mark.parametrize(
    ("entity", "when", "matching"),
    [
        ("person", {"account": {"in_segment": "warm"}}, {"user_id:0", "user_id:1"}),
        ("person", {"account": {"trait": {"plan": {"equals": "team"}}}}, {"user_id:2"}),
        ("person", {"account": {"trait": {"plan": {"equals": "free"}}, "in_segment": "cold"}}, set()),
        ("account", {"members": {"match": {"performed": {"event": "A"}}, "at_least": 2}}, {"acme"}),
        ("account", {"members": {"match": {"performed": {"event": "A"}}, "none": True}}, {"globex"}),
        ("account", {"members": {"match": {"trait": {"n": {"at_least": 1}}}, "all": True}}, {"globex"}),
        (
            "account",
            {
                "all": [
                    {"members": {"match": {"all": [{"performed": {"event": "A"}}]}, "at_least": 2}},
                    {"members": {"match": {"all": [{"performed": {"event": "B"}}]}, "none": True}},
                ]
            },
            {"acme"},
        ),
        ("account", {"performed": {"event": "A", "count": {"exactly": 2}}}, {"acme"}),
        ("account", {"all": [{"trait": {"plan": {"equals": "free"}}}, {"in_segment": "warm"}]}, {"acme"}),
    ],
)
def test_rules_between_people_and_accounts_are_tried(world: World, entity: str, when: Any, matching: set[str]) -> None:
    for name, plan, segments in (("acme", "free", {"warm": 1}), ("globex", "team", {})):
        account_id = world.service.identifier(f"account:{name}")
        account = profile(account_id, f"account:{name}", segments=segments, plan=plan)
        account.entity = "account"
        world.follower.read(show(world, account))
    for number in range(3):
        person = profile(f"{number}{ADA[1:]}", f"user_id:{number}", n=number)
        person.accounts = ["globex" if number == 2 else "acme"]
        person.totals = {}
        world.follower.read(show(world, person))
        if number < 2:
            world.follower.read([event(world, f"user_id:{number}", NOW - 5, "A")])
    found = preview(world, {"segment": "s", "entity": entity, "when": when})
    assert found["all"] and found["people"] == (2 if entity == "account" else 3)
    names = {
        f"{one['namespace']}:{one['value']}".removeprefix("account:")
        for member in found["members"]
        for one in member["identifiers"]
    }
    assert names == matching and found["matching"] == len(matching)
    assert all("~" not in json.dumps(member["why"]) for member in found["members"])


def test_why_somebody_is_in_a_segment(world: World) -> None:
    ada = profile(ADA, "user_id:1", segments={"buyers": 1})
    ada.totals = {"Order Completed": Total(1, NOW - 9, NOW - 9)}
    world.follower.read(
        [*show(world, ada), *enter(world, "buyers", ADA), event(world, "user_id:1", NOW - 9, "Order Completed")]
    )
    _put(world, "buyers", 1, {"performed": {"event": "Order Completed", "within": "1d", "count": {"at_least": 2}}})
    found = body(world.ask("/v1/profiles/user_id:1/why?segment=buyers"))
    assert (found["member"], found["whole"], found["why"]["true"]) == (True, True, False)
    assert found["why"]["needed"] == "1 more Order Completed within 1d"
    assert world.ask("/v1/profiles/user_id:9/why?segment=buyers").status_code == 404
    assert world.ask("/v1/profiles/user_id:1/why?segment=other").status_code == 404
    assert world.ask("/v1/profiles/user_id:1/why").status_code == 400
    _put(world, "warm", 1, {"all": []}, entity="account")
    of_accounts = world.ask("/v1/profiles/user_id:1/why?segment=warm")
    assert of_accounts.status_code == 422 and "one of accounts" in body(of_accounts)["detail"]


def _put(world: World, name: str, version: int, rule: Any, by: str = "ui.ada", entity: str = "person") -> None:
    latest = world.catalog.latest
    made = Definition("segment", name, version, {"segment": name, "when": rule, "entity": entity}, "ui", 5, by)
    world.catalog.add(f"segment/{name}/{version}".encode(), encode(made))
    members = {**latest.members, f"segment/{name}": version}
    world.catalog.add(b"generation/x", encode(Generation(latest.number + 1, members)))


def test_the_history_of_a_definition(world: World) -> None:
    _put(world, "buyers", 1, {"all": []})
    _put(world, "buyers", 2, {"any": []}, "ui.bob")
    [one] = body(world.ask("/v1/definitions"))["definitions"]
    assert (one["kind"], one["name"], one["version"], one["applied_by"]) == ("segment", "buyers", 2, "ui.bob")
    found = body(world.ask("/v1/definitions/segment/buyers"))
    assert [(one["version"], one["applied_by"]) for one in found["versions"]] == [(2, "ui.bob"), (1, "ui.ada")]
    assert found["in_force"] == 2 and found["versions"][1]["definition"]["when"] == {"all": []}
    assert world.ask("/v1/definitions/segment/nothing").status_code == 404


def test_changes_name_definitions(world: World) -> None:
    for junk in (
        b"{}",
        b'{"drop": []}',
        b'{"remove": []}',
        json.dumps({"pause": ["segment/a"] * 101}).encode(),
        b"\xff",
    ):
        assert world.ask("/v1/definitions/change", method="POST", content=junk).status_code == 422, junk[:30]
    assert world.ask("/v1/definitions/change", "web", "POST", content=b'{"pause": ["segment/a"]}').status_code == 403


def test_the_vocabulary_is_what_people_and_events_have(world: World) -> None:
    ada = profile(ADA, "user_id:1", plan="pro", address={"city": "Oslo"})
    ada.totals = {"Page Viewed": Total(2, 1, 2), "Order Completed": Total(1, 1, 2)}
    ada.consents = {"marketing": True}
    world.follower.read([*show(world, ada), *(event(world, "user_id:1", NOW - n, path=p) for n, p in enumerate("aab"))])
    _put(world, "buyers", 1, {"all": []})
    found = body(world.ask("/v1/vocabulary"))
    assert found["events"] == ["Page Viewed", "Order Completed"]
    assert found["paths"] == {"properties.path": ["a", "b"]}
    assert found["traits"] == {"plan": ["pro"], "address.city": ["Oslo"]}
    assert (found["purposes"], found["segments"]) == (["marketing"], ["buyers"])


def test_two_questions_that_read_alike_are_two() -> None:
    long = [{"trait": {"plan": {"not_equals": "x" * 300}}}, {"trait": {"plan": {"not_equals": "y" * 300}}}]
    asked = [{"members": {"match": {"all": [*long, {"trait": {"n": n}}]}, "exactly": n}} for n in (1, 2)]
    definition = SegmentDefinition.model_validate({"segment": "s", "entity": "account", "when": {"all": asked}})
    names = [named for named, _, _ in trial_of(definition).people]
    assert len(names) == len(set(names)) == 2
