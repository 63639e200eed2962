"""What stands around every request: what is refused is said alike, and answers are as fresh as was asked for."""

import asyncio
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.answers import is_named
from pipeline.api.app import operations
from pipeline.api.client import ApiClient
from pipeline.api.problems import Problem
from pipeline.api.service import Ends
from pipeline.errors import BrokerError, HeadwaterError, InputError, LookupFailed
from pipeline.identifiers import Keys
from pipeline.records import IdentifierPair, ProfileDocument, encode
from tests.rooms.api.harness import ADA, BOB, OLD, World, body, changed, event, profile, retire, show


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    found.segment("a")
    found.segment("b")
    found.follower.read(show(found, profile(ADA, "user_id:42", "email:ada@example.org", plan="pro")))
    return found


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/segments/", {}, 404),
        ("DELETE", "/v1/segments", {}, 405),
        ("HEAD", "/v1/segments/a/stream", {}, 405),
        ("GET", "/v1/profiles/user_id:42?fields=traits&fields=consents", {}, 400),
        ("GET", "/v1/profiles/user_id:%ff", {}, 400),
        ("GET", "/v1/accounts/acme%c0%80", {}, 400),
        ("GET", "/v1/accounts?begins=%ff", {}, 400),
        ("GET", "/v1/profiles/" + "x" * 9_000, {}, 414),
        ("POST", "/v1/unlink", {"data": {"a": "1"}}, 415),
        ("POST", "/v1/preview", {"content": b"x", "headers": {"Content-Type": "image/png"}}, 415),
        ("POST", "/v1/unlink", {"content": b"x" * 1_000_001}, 413),
        ("POST", "/v1/unlink", {"content": b'{"a": "user_id:\\ud800", "b": "user_id:1"}'}, 422),
        ("POST", "/v1/preview", {"content": b'segment: "\\ud800"\nwhen: {all: []}'}, 422),
        ("POST", "/v1/preview", {"content": b"a: &a [" + b"*a," * 9 + b"]"}, 422),
        ("POST", "/v1/preview", {"content": b"[" * 50_000}, 422),
    ],
)  # fmt: skip
def test_whatever_is_refused_is_a_problem(world: World, method: str, path: str, more: Any, status: int) -> None:
    answer = world.ask(path, method=method, **more)
    assert answer.status_code == status
    assert (
        answer.headers["content-type"] == "application/problem+json" and answer.headers["cache-control"] == "no-store"
    )
    if method != "HEAD":
        assert body(answer).keys() == {"type", "title", "status", "detail"} and body(answer)["status"] == status


def test_what_is_no_text_names_nobody(world: World) -> None:
    world.follower.read(show(world, profile(BOB, "user_id:\ufffd")))
    assert world.ask("/v1/profiles/user_id:%ef%bf%bd").status_code == 200
    assert world.ask("/v1/profiles/user_id:%ff").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/segments", "GET, HEAD"),
        ("PUT", "/v1/definitions", "GET, HEAD, POST"),
        ("GET", "/v1/unlink", "POST"),
        ("HEAD", "/v1/segments/a/stream", "GET"),
    ],
)
def test_who_used_the_wrong_method_is_told_all_that_work(world: World, method: str, path: str, allowed: str) -> None:
    answer = world.ask(path, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_body_that_says_what_it_is_in_any_usual_way_is_taken(world: World) -> None:
    for said in ("application/yaml", "text/plain; charset=utf-8", "application/json", "text/x-yaml"):
        answer = world.ask(
            "/v1/preview", method="POST", content=b"segment: s\nwhen: {all: []}\n", headers={"Content-Type": said}
        )
        assert answer.status_code == 200, said


def test_a_failure_of_ours_is_a_problem_too_and_repeats_nobodys_data(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: str) -> bytes:
        raise KeyError("ada@example.org")

    world.follower.model.document = failing  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        answer = world.ask("/v1/profiles/user_id:42")
    assert answer.status_code == 500 and answer.headers["content-type"] == "application/problem+json"
    assert "ada" not in answer.text and "ada" not in caplog.text and "getProfile failed: KeyError" in caplog.text
    world.audit.close()
    assert '"status": 500' in world.audit_path.read_text()


def test_letters_beyond_ascii_are_taken_as_bytes_or_escaped(world: World) -> None:
    world.follower.read(show(world, profile(BOB, "user_id:jürgen")))
    for path in ("/v1/profiles/user_id:j%C3%BCrgen", "/v1/profiles/user_id:jürgen"):
        assert body(world.ask(path))["profile_id"] == BOB


def test_tags_come_with_every_answer_from_the_tables_and_are_compared_as_lists(world: World) -> None:
    assert is_named('"a", W/"b"', '"b"') and is_named("*", '"b"') and not is_named("", '"b"')
    paths = ("profiles/user_id:42", "profiles/user_id:42/support", "segments", "segments/a", "segments/a/members",
             "overlap?of=a,b", "accounts", "alerts")  # fmt: skip
    for path in paths:
        tag = world.ask(f"/v1/{path}").headers["etag"]
        same = world.ask(f"/v1/{path}", headers={"If-None-Match": f'"x", W/{tag}'})
        assert same.status_code == 304 and same.content == b"" and same.headers["headwater-position"], path


def test_every_operation_on_the_tables_answers_nothing_older(world: World) -> None:
    at = world.ask("/v1/profiles/user_id:42").headers["headwater-position"]
    ahead = at.replace("profiles=", "profiles=9")
    fill = {"{profile}": "user_id:42", "{segment}": "a", "{account}": "acme"}
    asked = 0
    for one in operations(world.service):
        if not one.waits:
            continue
        path = one.path
        for name, value in fill.items():
            path = path.replace(name, value)
        path += {"getOverlap": "?of=a,b&", "getWhy": "?segment=a&"}.get(one.name, "?") + "timeout_ms=1"
        assert world.ask(path, headers={"Headwater-Position": ahead}).status_code == 409, one.name
        assert world.ask(path, headers={"Headwater-Position": at}).status_code != 409, one.name
        asked += 1
    assert asked >= 19


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("profiles=1.1.1", 400),
        ("nonsense=0", 400),
        (";".join(f"t{n}=1" for n in range(900)), 400),
        ("profiles=0.0", 200),
    ],
)
def test_a_position_of_what_is_not_there_is_refused_at_once(world: World, header: str, status: int) -> None:
    answer = world.ask("/v1/profiles/user_id:42?timeout_ms=10000", headers={"Headwater-Position": header})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("raw:7:0", 400),
        ("nothing:0:0", 400),
        ("profiles:9:0", 400),
        ("raw:0:99999", 409),
        ("profiles:0:99999", 409),
        ("events:0:99999", 409),
        ("raw:0:-1", 400),
        ("raw:0:" + "9" * 30, 400),
    ],
)
def test_waiting_for_what_cannot_come_and_for_what_has_not(world: World, place: str, status: int) -> None:
    assert world.ask(f"/v1/profiles/user_id:42?timeout_ms=20&wait_for={place}").status_code == status


def test_not_everybody_can_wait_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api.service._MAX_WAITING", 2)

    async def play() -> list[int]:
        async with world.client() as client:
            path = "/v1/profiles/user_id:42?timeout_ms=300&wait_for=profiles:0:99"
            return sorted(one.status_code for one in await asyncio.gather(*(client.get(path) for _ in range(5))))

    assert asyncio.run(play()) == [409, 409, 503, 503, 503]
    assert asyncio.run(play()) == [409, 409, 503, 503, 503], "who has waited makes room"


def test_what_had_its_effect_before_the_process_began_can_be_waited_for(world: World) -> None:
    seen, told = event(world, "user_id:42", 5), changed(world, ADA, (0, 0))
    visible = world.follower.visible
    visible.recall([seen, told])
    assert world.ask("/v1/profiles/user_id:42?timeout_ms=2000&wait_for=raw:0:0").status_code == 200
    assert not visible.latencies.minutes() and not visible.newest.tail(1)  # it is not news


def test_the_ends_are_asked_once_for_all_who_wait_and_never_before_they_did() -> None:
    asked: list[int] = []

    def ask() -> dict[tuple[str, int], int]:
        import time

        time.sleep(0.05)
        asked.append(len(asked))
        return {("profiles", 0): len(asked)}

    async def play() -> None:
        ends = Ends(ask)
        first = asyncio.create_task(ends())
        await asyncio.sleep(0.01)
        later = [asyncio.create_task(ends()) for _ in range(50)]
        assert (await first)["profiles", 0] == 1
        assert {(await one)["profiles", 0] for one in later} == {2}
        assert len(asked) == 2

    asyncio.run(play())


def test_a_retired_id_leads_on_through_many_steps_and_never_in_circles(world: World) -> None:
    ids = [f"{n:08x}-1111-5111-8111-111111111111" for n in range(40)]
    for old, new in zip(ids, [*ids[1:], ADA], strict=True):
        world.follower.read(retire(world, old, new))
    assert all(body(world.ask(f"/v1/profiles/{one}"))["profile_id"] == ADA for one in (ids[0], ids[20], ids[-1]))
    world.follower.read([*retire(world, OLD, BOB), *retire(world, BOB, OLD)])
    assert world.ask(f"/v1/profiles/{OLD}").status_code == 404


def test_a_page_from_which_somebody_has_gone_is_not_the_last(world: World) -> None:
    account = ProfileDocument(Keys(b"s").profile_id("account:acme"), "account", [IdentifierPair("account", "acme")], 1)
    people = [f"{n:08x}-1111-5111-8111-111111111111" for n in range(6)]
    records = [world.record("profiles", account.profile_id, encode(account))]
    for one in people:
        document = ProfileDocument(one, "person", [IdentifierPair("user_id", one)], 1, accounts=["acme"])
        records.append(world.record("profiles", one, encode(document)))
    world.follower.read(records)
    # As if they went between the moment the page was begun and the one at which they were looked up.
    del world.kept["profiles"][people[1].encode()]
    first = body(world.ask("/v1/accounts/acme/people?limit=3"))
    assert [one["profile_id"] for one in first["people"]] == [people[0], people[2]] and first["next"] == people[2]
    second = body(world.ask(f"/v1/accounts/acme/people?limit=3&after={first['next']}"))
    assert [one["profile_id"] for one in second["people"]] == people[3:]
    assert body(world.ask("/v1/accounts/%20acme%20"))["people"] == 6  # named as ingest would clean it


def test_openapi_says_of_every_number_how_small_and_how_large_it_may_be(world: World) -> None:
    bounds = [
        (one.name, each.name, each.document()["schema"])
        for one in operations(world.service)
        for each in one.parameters
        if each.schema["type"] == "integer"
    ]
    assert bounds and not [one for one in bounds if not {"minimum", "maximum"} <= one[2].keys()]


def test_the_client_has_every_operation_by_its_name(world: World) -> None:
    # The alerts of one account are list_alerts(account).
    names = {re.sub(r"(?=[A-Z])", "_", one.name).lower() for one in operations(world.service)}
    assert {name for name in names if not hasattr(ApiClient, name)} == {"list_alerts_of_account"}


def test_what_is_not_there_is_no_failure_of_ours(world: World) -> None:
    """Only a Kafka that does not answer is: who pauses a segment that is not there has asked wrongly."""

    def work(error: HeadwaterError) -> None:
        raise error

    async def status(error: HeadwaterError) -> int:
        with pytest.raises(Problem) as problem:
            await world.service.in_thread(lambda: work(error))
        return problem.value.status

    wrong = (LookupFailed("There is no segment x."), InputError("It is not valid."), BrokerError("It is away."))
    assert [asyncio.run(status(error)) for error in wrong] == [422, 422, 503]


def test_an_answer_says_how_old_it_is(world: World) -> None:
    def age_ms() -> int:
        return int(world.ask("/v1/profiles/user_id:42").headers["Headwater-Age-Ms"])

    world.follower.fresh_at_ms = time.time_ns() // 1_000_000
    assert age_ms() < 60_000
    world.follower.fresh_at_ms -= 3_600_000
    assert 3_600_000 <= age_ms() < 3_660_000
    world.follower.fresh_at_ms += 7_200_000  # a clock that was put back
    assert age_ms() == 0
