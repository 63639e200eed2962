"""Look-ups: by any identifier, after merges, with hidden fields, and never backwards."""

import asyncio
from pathlib import Path

import pytest

from pipeline.api.model import ReadModel
from pipeline.api.tables import TABLES
from pipeline.identifiers import Keys
from pipeline.records import Suppression, encode
from pipeline.runtime.memory import MemoryTables
from tests.rooms.api.harness import (
    ADA,
    BOB,
    OLD,
    World,
    body,
    changed,
    enter,
    event,
    leave,
    profile,
    retire,
    show,
)

OLDER = "abcdefab-cdef-5abc-8def-abcdefabcdef"


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    ada = profile(
        ADA, "user_id:42", "email:ada@example.org", "path_id:a/b c%", segments={"buyers": 3}, plan="pro", phone="1"
    )
    found.follower.read(
        [*show(found, ada), *retire(found, OLD, ADA), *retire(found, OLDER, OLD), *enter(found, "buyers", ADA, 3)]
    )
    return found


@pytest.mark.parametrize(
    "asked",
    [
        "user_id:42",
        "email:ada@example.org",
        "email:%20ADA@Example.org",
        "path_id:a%2Fb%20c%25",
        ADA,
        OLD,
        OLDER,
        OLDER.upper(),
        f"%20{ADA}",
    ],
)
def test_a_profile_by_any_identifier_and_by_a_retired_id(world: World, asked: str) -> None:
    answer = world.ask(f"/v1/profiles/{asked}")
    assert answer.status_code == 200
    assert body(answer)["profile_id"] == ADA
    assert "profiles=" in answer.headers["headwater-position"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("user_id:7", 404),
        ("user_id:null", 400),
        ("nonsense", 400),
        ("a-b-c-d-e", 400),
        (ADA[:-1], 400),
        (BOB, 404),
        ("user_id:42/../..", 404),
        ("..%2F..%2Fetc%2Fpasswd", 400),
        ("user_id:" + "x" * 700, 400),
        ("user_id:42?field=traits", 400),
        ("user_id:42?fields=secrets", 400),
        ("user_id:42?timeout_ms=0", 400),
        ("user_id:42?wait_for=raw", 400),
        ("user_id:%ff%00'%22;--", 400),
        ("user_id:'%22;--", 404),
    ],
)
def test_what_is_not_there_or_not_understood(world: World, asked: str, status: int) -> None:
    answer = world.ask(f"/v1/profiles/{asked}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["", "/segments", "/events", "/support", "/stream", "/why?segment=buyers", "/provenance"]
)
def test_what_is_no_profile_id_is_told_so_at_every_door(world: World, path: str) -> None:
    answer = world.ask(f"/v1/profiles/a-b-c-d-e{path}")
    assert answer.status_code == 400 and "no identifier, and no profile_id" in body(answer)["detail"]


def test_chosen_fields(world: World) -> None:
    answer = world.ask("/v1/profiles/user_id:42?fields=traits.plan,identifiers.email,segments")
    assert body(answer) == {
        "profile_id": ADA,
        "entity": "person",
        "traits": {"plan": "pro"},
        "identifiers": [{"namespace": "email", "value": "ada@example.org"}],
        "segments": {"buyers": {"since": 1000, "sequence": 3, "version": 1}},
    }


@pytest.mark.parametrize(
    ("fields", "namespaces"),
    [
        ("identifiers,identifiers.email", ["email", "path_id", "user_id"]),
        ("identifiers.email,identifiers", ["email", "path_id", "user_id"]),
        ("identifiers,identifiers", ["email", "path_id", "user_id"]),
        ("identifiers.email,identifiers.email", ["email"]),
        ("identifiers.email,identifiers.user_id", ["email", "user_id"]),
        ("identifiers.,identifiers.phone", []),
    ],
)
@pytest.mark.timeout(10)
def test_fields_that_are_asked_for_twice_are_there_once(world: World, fields: str, namespaces: list[str]) -> None:
    found = body(world.ask(f"/v1/profiles/user_id:42?fields={fields}"))["identifiers"]
    assert sorted(one["namespace"] for one in found) == namespaces


def test_hidden_fields_are_never_there_however_they_are_asked_for(world: World) -> None:
    for path in ("", "?fields=traits,identifiers", "?fields=traits.phone,identifiers.email", "/segments"):
        text = world.ask(f"/v1/profiles/user_id:42{path}", "web").text
        assert "ada@example.org" not in text and "phone" not in text
    assert body(world.ask("/v1/profiles/user_id:42", "web"))["traits"] == {"plan": "pro"}


def test_a_copy_that_is_still_good(world: World) -> None:
    tag = world.ask("/v1/profiles/user_id:42").headers["etag"]
    same = world.ask("/v1/profiles/user_id:42", headers={"If-None-Match": tag})
    assert same.status_code == 304 and same.content == b""
    world.follower.read(show(world, profile(ADA, "user_id:42", plan="free")))
    assert world.ask("/v1/profiles/user_id:42", headers={"If-None-Match": tag}).status_code == 200


def test_why_somebody_is_in_a_segment(world: World) -> None:
    [held] = body(world.ask("/v1/profiles/user_id:42/segments"))["segments"]
    assert (held["segment"], held["since"], held["why"]["cause"], held["why"]["evidence"]["offset"]) == (
        "buyers",
        1000,
        "event",
        7,
    )
    world.follower.read([*leave(world, "buyers", ADA, 4), *enter(world, "buyers", ADA, 5, "backfill")])
    [held] = body(world.ask("/v1/profiles/user_id:42/segments"))["segments"]
    assert held["why"] is None  # the document is behind: what is known is the reason of another entry


def test_recent_events_are_the_newest_of_all_identifiers_and_go_with_an_erasure(world: World) -> None:
    records = [event(world, "user_id:42", 1_000 + n) for n in range(50)]
    records += [event(world, "email:ada@example.org", 5_000, "Order Completed", total=3)]
    for record in records:
        world.follower.read([record])
    found = body(world.ask("/v1/profiles/user_id:42/events?limit=3"))["events"]
    assert [one["time"] for one in found] == [5_000, 1_049, 1_048]
    assert found[0]["position"] == {"partition": 0, "offset": 50}
    assert len(body(world.ask("/v1/profiles/user_id:42/events?limit=100"))["events"]) == 21
    hidden = body(world.ask("/v1/profiles/user_id:42/events?limit=1", "shy"))["events"]
    assert hidden[0]["properties"] == {}
    world.follower.read([world.record("identities", "email:ada@example.org", None)])
    assert len(body(world.ask("/v1/profiles/user_id:42/events?limit=100"))["events"]) == 20
    assert sum(1 for _ in world.kept["recent"]) < 20 + 8


def test_what_an_agent_sees(world: World) -> None:
    world.follower.read(
        [
            event(world, "user_id:42", 10, "Ticket Opened", ticket_id=1),
            event(world, "user_id:42", 11, "Ticket Opened", ticket_id=2),
            event(world, "user_id:42", 12, "Ticket Closed", ticket_id=1),
            event(world, "user_id:42", 13, "Order Completed", total=9),
        ]
    )
    view = body(world.ask("/v1/profiles/user_id:42/support"))
    assert view["orders"]["count"] == 2 and view["orders"]["recent"][0]["properties"] == {"total": 9}
    assert [one["properties"]["ticket_id"] for one in view["open_questions"]] == [2]
    assert view["who"]["traits"]["plan"] == "pro" and view["segments"][0]["segment"] == "buyers"


def test_reading_ones_own_write(world: World) -> None:
    """An answer waits for the event behind a raw record, for the change it made, and for the whole transaction."""

    async def play() -> None:
        async with world.client() as client:
            world.service.begin()
            asked = asyncio.create_task(client.get("/v1/profiles/user_id:42?wait_for=raw:0:0&timeout_ms=5000"))
            await asyncio.sleep(0.02)
            world.follower.read([event(world, "user_id:42", 9)])
            await asyncio.sleep(0.02)
            assert not asked.done()
            end = world.offsets["profiles", _partition(world)]
            world.follower.uncommitted = {("profiles", _partition(world)): end + 1}
            world.follower.read([changed(world, ADA, (0, 0))])
            await asyncio.sleep(0.05)
            assert not asked.done()  # the change was read, the document of the same transaction was not
            world.follower.read(show(world, profile(ADA, "user_id:42", plan="new"))[:1])
            assert body(await asked)["traits"] == {"plan": "new"}
            late = await client.get("/v1/profiles/user_id:42?wait_for=raw:0:99&timeout_ms=20")
            assert late.status_code == 409

    asyncio.run(play())


def test_an_answer_is_not_older_than_the_one_before(world: World) -> None:
    first = world.ask("/v1/profiles/user_id:42")
    ahead = first.headers["headwater-position"].replace("profiles=", "profiles=9")
    headers = {"Headwater-Position": first.headers["headwater-position"]}
    assert world.ask("/v1/profiles/user_id:42", headers=headers).status_code == 200
    behind = world.ask("/v1/profiles/user_id:42?timeout_ms=10", headers={"Headwater-Position": ahead})
    assert behind.status_code == 409
    for junk in ("x", "profiles=1.-1", "profiles=" + "9" * 40, "=1", "profiles=²"):
        bad = world.ask("/v1/profiles/user_id:42", headers={"Headwater-Position": junk.encode()})
        assert bad.status_code == 400, junk


def test_nothing_is_answered_before_everything_was_read(world: World) -> None:
    world.follower.is_ready = False
    answer = world.ask("/v1/profiles/user_id:42")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert world.ask("/readyz", None).status_code == 503
    assert world.ask("/livez", None).status_code == 200


def _partition(world: World) -> int:
    return next(record.partition for record in world.log if record.topic == "profiles")


ERASED = "44444444-4444-5444-8444-444444444444"


def test_who_was_erased_is_in_no_table_and_their_rows_are_to_go_from_the_files(world: World) -> None:
    zanthia, bob = profile(ERASED, "user_id:zanthia"), profile(BOB, "user_id:bob")
    view = event(world, "user_id:zanthia", 1_000)
    world.follower.read([*show(world, zanthia), *show(world, bob), view])
    model, keys = world.follower.model, Keys(b"s")
    assert not model.wants_scrub
    erased = world.record("suppressions", keys.actor("user_id:zanthia").decode(), encode(Suppression(5_000, "r1")), 0)
    world.follower.read([erased])
    assert model.wants_scrub
    model.begin_scrub()()
    model.end_scrub()
    assert not model.wants_scrub
    # The topics come in no order: the profile last, and an event that stood in the history before the erasure.
    world.follower.read([world.record("identities", "user_id:zanthia", None), event(world, "user_id:zanthia", 2_000)])
    assert model.wants_scrub
    model.begin_scrub()()
    world.follower.read([world.record("profiles", ERASED, None)])
    assert model.wants_scrub
    model.begin_scrub()()
    model.end_scrub()
    kept = [(name, key, value) for name, rows in world.kept.items() for key, value in rows.items()]
    assert not [row for row in kept if b"zanthia" in row[1] + row[2]]
    assert world.ask("/v1/profiles/user_id:zanthia").status_code == 404
    assert world.ask("/v1/profiles/user_id:bob").status_code == 200
    # Bob's end is no erasure, and costs no rewriting.
    world.follower.read([world.record("identities", "user_id:bob", None), world.record("profiles", BOB, None)])
    assert not model.wants_scrub
    world.follower.read([event(world, "user_id:zanthia", 6_000)])
    back = Suppression(5_000, "r1", 1, 6_000)
    world.follower.read([world.record("suppressions", keys.actor("user_id:zanthia").decode(), encode(back), 0)])
    world.follower.read(show(world, profile(OLD, "user_id:zanthia")))
    assert len(body(world.ask("/v1/profiles/user_id:zanthia/events"))["events"]) == 1


def test_after_a_restart_too_an_erased_person_comes_back_by_no_old_event_and_goes_from_the_files(world: World) -> None:
    def restart() -> None:
        world.follower.model.close()
        world.follower.model = ReadModel(MemoryTables(world.kept, TABLES), Keys(b"s"), recent_events=20)

    world.follower.read([*show(world, profile(ERASED, "user_id:zanthia")), event(world, "user_id:zanthia", 1_000)])
    key = Keys(b"s").actor("user_id:zanthia").decode()
    world.follower.read([world.record("suppressions", key, encode(Suppression(5_000, "r1")), 0)])
    restart()
    assert world.follower.model.wants_scrub, "the files were not written anew before it ended"
    world.follower.read([world.record("identities", "user_id:zanthia", None), world.record("profiles", ERASED, None)])
    world.follower.model.begin_scrub()()
    world.follower.model.end_scrub()
    restart()
    assert not world.follower.model.wants_scrub
    world.follower.read([event(world, "user_id:zanthia", 2_000)])
    assert not [key for name, rows in world.kept.items() for key, row in rows.items() if b"zanthia" in key + row]


def test_whoever_was_only_taken_for_somebody_erased_is_known_as_before(world: World) -> None:
    """Listed as kept out before it was decided who they are, and let go again."""
    world.follower.read(show(world, profile(ERASED, "user_id:zanthia")))
    key = Keys(b"s").actor("user_id:zanthia").decode()
    listed = world.record("suppressions", key, encode(Suppression(5_000, "r1")), 0)
    world.follower.model.forget_missed({key.encode(): encode(Suppression(5_000, "r1"))})
    assert world.ask("/v1/profiles/user_id:zanthia").status_code == 200, "a process that begins meanwhile"
    world.follower.read([listed, world.record("suppressions", key, None, 0)])
    world.follower.read([event(world, "user_id:zanthia", 2_000)])
    assert len(body(world.ask("/v1/profiles/user_id:zanthia/events"))["events"]) == 1
    world.follower.model.forget_missed({key.encode(): encode(Suppression(5_000, "r1", 7))})
    assert world.ask("/v1/profiles/user_id:zanthia").status_code == 404


def test_a_record_is_waited_for_until_it_was_read_and_an_event_until_it_had_its_effect(world: World) -> None:
    def status(place: str) -> int:
        return world.ask(f"/v1/profiles/user_id:42?timeout_ms=20&wait_for={place}").status_code

    world.follower.read(show(world, profile(ADA, "user_id:42")))
    at = [one for one in world.log if one.topic == "profiles"][-1]
    assert status(f"profiles:{at.partition}:{at.offset}") == 200
    assert status(f"profiles:{at.partition}:{at.offset + 1}") == 409, "the next has not come"
    world.follower.read([event(world, "user_id:42", 5)])
    assert status("events:0:0") == status("raw:0:0") == 409, "it was read, and unify has not taken it in"
    world.follower.read([changed(world, ADA, (0, 0))])
    assert world.ask("/v1/profiles/user_id:42?timeout_ms=2000&wait_for=events:0:0").status_code == 200
