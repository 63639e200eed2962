"""What the read model keeps beside the truth: activity, links, origins of traits, growth, violations, alerts; bounded,
whatever the batches, and gone when a person is."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.api import histories
from pipeline.api.model import ReadModel, decoded
from pipeline.identifiers import Keys
from pipeline.records import AccountAlert, Cause, Event, IdentifierPair, ProfileDocument, encode
from tests.rooms.api.harness import ADA, World, body, enter, leave, profile, show

DAY, HOUR = 86_400_000, 3_600_000
NOW = 1_790_000_000_000


def came(world: World, ids: list[str], time: int, **more: Any) -> Any:
    """The record of an event."""
    offset = world.offsets.get(("events", 0), 0)
    made = Event(f"m-{offset}", "track", "Page Viewed", ids, time, time, source=f"raw/0/{offset}", **more)
    return world.record("events", ids[0], encode(made), 0)


@pytest.mark.parametrize("seed", range(5))
def test_days_links_and_origins_are_those_of_the_events(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path)
    rng = random.Random(seed)
    ids = ["user_id:42", "email:ada@example.org", "device_id:d1"]
    days: Counter[int] = Counter()
    links: Counter[tuple[str, str]] = Counter()
    newest: dict[str, tuple[int, int]] = {}
    batch = show(world, profile(ADA, *ids))
    for offset in range(80):
        time = NOW - rng.randrange(20 * DAY)
        chosen = sorted(rng.sample(ids, rng.randint(1, 3)), key=ids.index)
        traits = {name: 1 for name in ("plan", "city") if rng.random() < 0.3}
        batch.append(came(world, chosen, time, traits=traits))
        days[time // DAY] += 1
        links.update((a, b) for a in chosen for b in chosen if a < b)
        for name in traits:
            newest[name] = max(newest.get(name, (0, 0)), (time, offset))
        if rng.random() < 0.2:
            world.follower.read(batch)
            batch = []
    world.follower.read(batch)
    model = world.follower.model
    found = model.history(decoded(model.document("user_id:42") or b""))
    assert found.days == days
    assert {name: (one.time, one.offset) for name, one in found.traits.items()} == newest
    names = {model.digest(text): text for text in ids}
    seen = {tuple(sorted((names[one.a], names[one.b]))): one.count for one in found.links}
    assert seen == dict(links)


@pytest.mark.parametrize(
    ("later", "route", "counted"),
    [(0, "user_id:42", 1), (DAY, "user_id:42", 1), (DAY + 1, "user_id:42", 2), (0, "device_id:d1", 2)],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_message_that_came_twice_by_one_route_within_a_day_counts_once(
    tmp_path: Path, later: int, route: str, counted: int, together: bool
) -> None:
    world = World(tmp_path)
    world.follower.read(show(world, profile(ADA, "user_id:42", "device_id:d1")))
    batch = [
        world.record("events", by, encode(Event("m", "track", "Order Completed", [by], NOW, received)), 0)
        for by, received in (("user_id:42", NOW), (route, NOW + later))
    ]
    for records in [batch] if together else [[one] for one in batch]:
        world.follower.read(records)
    assert len(body(world.ask("/v1/profiles/user_id:42/events"))["events"]) == counted
    assert len(body(world.ask("/v1/profiles/user_id:42/support"))["orders"]["recent"]) == counted
    model = world.follower.model
    assert sum(model.history(decoded(model.document("user_id:42") or b"")).days.values()) == counted


def test_what_came_by_an_identifier_goes_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follower.read([came(world, ["user_id:42", "email:a@x.org"], NOW, traits={"plan": "pro"})])
    assert world.kept["routes"]
    # Within one batch: what comes after the end is a new beginning.
    gone = world.record("identities", "user_id:42", None)
    world.follower.read([gone, came(world, ["user_id:42"], NOW)])
    [row] = world.kept["routes"].values()
    assert histories._decode_route(row).traits == {} and histories._decode_route(row).days == {NOW // DAY: 1}
    world.follower.read([world.record("identities", "user_id:42", None)])
    assert world.kept["routes"] == {}


def test_no_text_of_an_identifier_and_no_value_stands_in_a_route(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follower.read([came(world, ["user_id:42", "email:ada@x.org"], NOW, traits={"phone": "+47123"})])
    [row] = world.kept["routes"].values()
    assert b"ada@" not in row and b"+47123" not in row and b"phone" in row


def test_rows_are_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    batch = [came(world, ["user_id:1", f"device_id:d{n}"], NOW - n * DAY, traits={f"t{n}": 1}) for n in range(300)]
    world.follower.read(batch)
    found = histories._decode_route(world.kept["routes"][Keys(b"s").digest("user_id:1")])
    assert len(found.days) <= 30 and len(found.links) == 60 and len(found.traits) == 200
    assert len(found.messages) == 64
    flags = [f"unplanned_property:/properties/p{n}" for n in range(900)]
    world.follower.read([came(world, ["user_id:1"], NOW, flags=[flag]) for flag in flags])
    told = world.follower.model.violations(0)
    assert sum(one[4] for one in told) == 900 and len(told) <= 501


def test_growth_counts_every_change_in_its_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    for number in range(3):
        world.follower.read([record for n in range(4) for record in enter(world, "a", f"p{number}-{n}")])
    world.follower.read(leave(world, "a", "p0-0"))
    assert world.follower.model.growth("a", 0) == [(1_001 // HOUR * HOUR, 12, 1)]
    assert world.follower.model.growth("other", 0) == []


def test_alerts_are_kept_without_people_and_bounded(tmp_path: Path) -> None:
    world = World(tmp_path)
    account_id = world.service.identifier("account:acme")
    world.follower.read(
        [world.record("profiles", account_id, encode(ProfileDocument(account_id, "account", [_acme()], 1)))]
    )
    context = {"people": 3, "matches": [{"rule": "people: any", "people": 2, "who": [{"identifiers": ["ada@x"]}]}]}
    for number in range(70):
        alert = AccountAlert(
            f"a{number}", "call", "acme", account_id, "kim", "warm", 1, number, number, number, "event", Cause(),
            context=context,
        )  # fmt: skip
        world.follower.read([world.record("account-alerts", account_id, encode(alert))])
    found = body(world.ask("/v1/accounts/acme/alerts"))["alerts"]
    assert [one["sequence"] for one in found] == list(range(69, 19, -1))
    assert found[0]["context"] == {"people": 3, "matches": [{"rule": "people: any", "people": 2}]}
    assert len(body(world.ask("/v1/alerts"))["alerts"]) == 70
    assert world.ask("/v1/accounts/nobody/alerts").status_code == 404


def _acme() -> IdentifierPair:
    return IdentifierPair("account", "acme")


def test_accounts_are_listed_ranked_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api.accounts._now_ms", lambda: NOW)
    world = World(tmp_path)
    expected: dict[str, int] = {}
    for number, (plan, events) in enumerate((("free", 5), ("team", 9), (None, 7), ("free", 0))):
        name = f"firm{number}.example"
        account_id = world.service.identifier(f"account:{name}")
        traits = {"plan": plan} if plan else {}
        document = ProfileDocument(account_id, "account", [IdentifierPair("account", name)], 1, traits)
        person = profile(f"{number}{ADA[1:]}", f"user_id:{number}")
        person.accounts = [name]
        world.follower.read([world.record("profiles", account_id, encode(document)), *show(world, person)])
        world.follower.read([came(world, [f"user_id:{number}"], NOW - n * DAY) for n in range(events)])
        world.follower.read([came(world, [f"user_id:{number}"], NOW - 60 * DAY)])
        expected[name] = events
    listed = body(world.ask("/v1/accounts?limit=3"))
    assert [one["account"] for one in listed["accounts"]] == sorted(expected)[:3]
    rest = body(world.ask(f"/v1/accounts?after={listed['next']}"))
    assert [one["account"] for one in rest["accounts"]] == sorted(expected)[3:] and rest["next"] is None
    assert body(world.ask("/v1/accounts?begins=firm2"))["accounts"][0]["account"] == "firm2.example"
    ranked = body(world.ask("/v1/ranking?trait=plan&among=free,-"))
    assert [(one["account"], one["events"]) for one in ranked["ranked"]] == [("firm2.example", 7), ("firm0.example", 5)]
    assert ranked["judged"] == 3 and ranked["all"]
    assert [one["events"] for one in body(world.ask("/v1/ranking"))["ranked"]] == [9, 7, 5]
    activity = body(world.ask("/v1/accounts/firm1.example/activity?days=4"))
    assert sum(one["events"] for one in activity["days"]) == 4 and activity["all"]
    paying = world.service.identifier("account:firm1.example")
    world.follower.read(enter(world, "paying", paying))
    assert [one["account"] for one in body(world.ask("/v1/ranking?segment=paying"))["ranked"]] == ["firm1.example"]
    assert world.ask("/v1/ranking?among=free").status_code == 400
    assert world.ask("/v1/ranking", "web").status_code == 403
    world.follower.read([world.record("profiles", paying, None)])
    assert "firm1.example" not in world.ask("/v1/accounts").text


def test_tables_of_an_older_release_are_not_read(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follower.read([came(world, ["user_id:1"], NOW)])
    world.kept["meta"][b"format"] = b"3"
    assert isinstance(world.follower.model, ReadModel) and not world.follower.model.is_readable()
