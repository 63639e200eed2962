"""Streams: everything once and in order, after coming back too; who is too slow, or one too many, is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.api.access import SCOPES, Token, hashed
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.streams import Hub
from pipeline.identifiers import partition_of
from pipeline.records import Cause, ProfileChange, encode
from pipeline.runtime.ports import Record
from tests.rooms.api.harness import ADA, BOB, World, changed, enter, leave, profile, retire, show

encode_json = msgspec.json.Encoder().encode


async def opened(world: World, path: str, last: str | None = None, token: str = "all") -> AsyncIterator[bytes]:
    """The body of a stream, piece by piece (the test client would wait for its end)."""
    kind, name = path.split("/")
    caller = world.service.access.caller(token)
    assert caller is not None
    from pipeline.api.live import Live

    call = Call(caller, {kind: name, "Last-Event-ID": last}, None)  # type: ignore[arg-type]
    response: Any = await getattr(Live(world.service), kind)(call)
    return response.body_iterator


async def next_event(stream: AsyncIterator[bytes]) -> tuple[str, Any]:
    """The id and the data of the next event."""
    piece = await asyncio.wait_for(anext(stream), 2)
    lines = dict(line.split(": ", 1) for line in piece.decode().strip().split("\n") if not line.startswith(":"))
    return lines.get("id", ""), msgspec.json.decode(lines["data"]) if "data" in lines else None


def seen_so_far(world: World) -> None:
    world.service.begin()
    for name in ("a", "b"):
        world.segment(name)
    world.follower.read([*show(world, profile(ADA, "user_id:1")), *show(world, profile(BOB, "user_id:2"))])


def test_a_profile_hears_its_own_changes_only(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "profile/user_id:1")
        assert (await next_event(stream))[1] is None
        world.follower.read([changed(world, BOB, (0, 0)), changed(world, ADA, (0, 1)), *enter(world, "a", ADA)])
        assert (await next_event(stream))[1]["change"] == "updated"
        assert (await next_event(stream))[1]["segment"] == "a"
        assert world.hub.count == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert world.hub.count == 0

    asyncio.run(play())


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 5])
def test_who_comes_back_hears_what_was_missed_and_nothing_twice(tmp_path: Path, stop_after: int) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "segment/a")
        last, _ = await next_event(stream)
        heard = []
        people = [ADA, BOB]
        for turn in range(6):
            world.follower.read((enter if turn % 4 < 2 else leave)(world, "a", people[turn % 2], turn + 1))
            await asyncio.sleep(0)
            if turn < stop_after:
                last, data = await next_event(stream)
                heard.append(data["sequence"])
        await stream.aclose()  # type: ignore[attr-defined]
        again = await opened(world, "segment/a", last)
        await next_event(again)
        world.follower.read(enter(world, "a", ADA, 7))
        while len(heard) < 7:
            heard.append((await next_event(again))[1]["sequence"])
        assert sorted(heard) == [1, 2, 3, 4, 5, 6, 7]
        assert [one for one in heard if one % 2] == [1, 3, 5, 7]  # each person's in order

    asyncio.run(play())


@pytest.mark.parametrize("name", ["profile/user_id:1", "segment/a"])
def test_an_id_of_a_former_release_leads_on(name: str, tmp_path: Path) -> None:
    """It has places alone, and not who was followed."""

    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        reached = sorted(world.hub.reached.items())
        former = ".".join(f"{topic[0]}{number}-{at}" for (topic, number), at in reached)
        world.follower.read([changed(world, BOB, (0, 0)), *enter(world, "a", ADA), *leave(world, "a", ADA, 2)])
        again = await opened(world, name, former)
        await next_event(again)
        assert [(await next_event(again))[1]["change"] for _ in range(2)] == ["entered", "exited"]
        await again.aclose()  # type: ignore[attr-defined]

    asyncio.run(play())


def test_who_is_too_slow_is_sent_away_to_come_back(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path, most_waiting=3)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "segment/a")
        await next_event(stream)
        world.follower.read([record for n in range(6) for record in enter(world, "a", f"p{n}")])
        await asyncio.sleep(0)
        heard = [await next_event(stream) for _ in range(3)]
        assert (await next_event(stream))[1] is None
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        again = await opened(world, "segment/a", heard[-1][0])
        await next_event(again)
        more = [(await next_event(again))[1]["profile_id"] for _ in range(3)]
        assert len({one[1]["profile_id"] for one in heard} | set(more)) == 6

    asyncio.run(play())


def test_hidden_fields_are_hidden_in_streams(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        world.service.access.caller("shy").hide.keys["traits"] = {"phone"}  # type: ignore[union-attr]
        stream = await opened(world, "profile/user_id:1", token="shy")
        await next_event(stream)
        world.follower.read([changed(world, ADA, (0, 1))])
        assert (await next_event(stream))[1]["set"] == {"traits": {"plan": "pro"}}

    asyncio.run(play())


def test_one_too_many_and_ids_of_other_streams(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path, streams=1)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "segment/a")
        with pytest.raises(Problem) as many:
            await opened(world, "segment/b")
        assert many.value.status == 503
        await next_event(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        ids = {"s0-1.s1-x": 400, "s0--1.s1-1": 400, "x" * 5_000: 400, "s0-1.s1-²": 400, "p0-1": 410, "s0-1": 410}
        for junk, status in ids.items():
            with pytest.raises(Problem) as bad:
                await opened(world, "segment/a", junk)
            assert bad.value.status == status
        with pytest.raises(Problem) as nowhere:
            await opened(world, "profile/user_id:1", f"w-{ADA}")
        assert nowhere.value.status == 400
        with pytest.raises(Problem) as unknown:
            await opened(world, "segment/c")
        assert unknown.value.status == 404
        with pytest.raises(Problem) as nobody:
            await opened(world, "profile/user_id:9")
        assert nobody.value.status == 404

    asyncio.run(play())


def merged(world: World, old: str, new: str) -> list[Record]:
    """The records by which a profile ends in another."""
    change = ProfileChange(old, "person", "merged", 1, 1, "merge", Cause("m", 0, 1), into=new)
    return [world.record("profile-changes", old, encode(change)), *retire(world, old, new)]


def test_a_stream_of_somebody_goes_on_with_who_they_are_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of the successor between the merge and its being read is told, once; a way back leads on too."""

    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        before = dict(world.hub.reached)
        monkeypatch.setattr(
            "pipeline.api.live.places_at", lambda _, places, __: {place: before.get(place, 0) for place in places}
        )
        world.service.in_thread = _at_once  # type: ignore[method-assign, assignment]
        stream = await opened(world, "profile/user_id:1")
        await next_event(stream)
        # The successor's change is read before the merge that led to it.
        world.follower.read([changed(world, BOB, (0, 5)), *enter(world, "a", BOB)])
        world.follower.read(merged(world, ADA, BOB))
        await asyncio.sleep(0)
        told = [await next_event(stream) for _ in range(3)]
        assert told[0][1]["into"] == BOB
        assert {one.get("segment", one["change"]) for _, one in told[1:]} == {"a", "updated"}
        world.follower.read([changed(world, BOB, (0, 6))])
        last, more = await next_event(stream)
        assert more["evidence"]["offset"] == 6
        await stream.aclose()  # type: ignore[attr-defined]
        assert world.hub.count == 0 and not world.hub._listeners
        world.follower.read([changed(world, BOB, (0, 7))])
        await asyncio.sleep(0)
        again = await opened(world, "profile/user_id:1", last)
        await next_event(again)
        assert (await next_event(again))[1]["evidence"]["offset"] == 7

    asyncio.run(play())


BESIDE = next(
    one
    for one in (f"44444444-4444-5444-8444-{number:012}" for number in range(100))
    if partition_of(one.encode(), 2) == partition_of(ADA.encode(), 2)
)
"""A profile whose changes stand in the partitions of ada's."""


@pytest.mark.parametrize("asked", ["user_id:1", ADA])
@pytest.mark.parametrize("into", [BOB, BESIDE])
def test_who_comes_back_after_a_merge_hears_what_came_before_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, into: str
) -> None:
    """Who was away while a browser became somebody's hears what the browser did last, that it is somebody else now, and
    what they did; wherever it is cut off in that, it hears the rest, once."""

    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        world.follower.read(show(world, profile(BESIDE, "user_id:3")))
        await asyncio.sleep(0)
        world.service.in_thread = _at_once  # type: ignore[method-assign, assignment]
        stream = await opened(world, f"profile/{asked}")
        last, _ = await next_event(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        world.follower.read([changed(world, into, (0, 4)), changed(world, ADA, (0, 5)), *enter(world, "a", ADA)])
        await asyncio.sleep(0)
        before = dict(world.hub.reached)
        monkeypatch.setattr(
            "pipeline.api.live.places_at", lambda _, places, __: {place: before.get(place, 0) for place in places}
        )
        # The successor's changes stand before those by which the browser ends.
        world.follower.read([changed(world, into, (0, 6)), *enter(world, "b", into)])
        world.follower.read([*merged(world, ADA, into), *leave(world, "a", ADA)])
        await asyncio.sleep(0)
        again = await opened(world, f"profile/{asked}", last)
        await next_event(again)
        told = [await next_event(again) for _ in range(6)]
        said = [(one["profile_id"], one.get("segment", "") + one["change"]) for _, one in told]
        of_ada = [(ADA, one) for one in ("aentered", "aexited", "merged", "updated")]
        assert sorted(said) == sorted([*of_ada, (into, "bentered"), (into, "updated")])
        world.follower.read([changed(world, into, (0, 7))])
        await asyncio.sleep(0)
        for at, (seen_last, _) in enumerate(told):
            once_more = await opened(world, f"profile/{asked}", seen_last)
            await next_event(once_more)
            more = [encode_json((await next_event(once_more))[1]) for _ in told[at:]]
            assert sorted(more[:-1]) == sorted(encode_json(one) for _, one in told[at + 1 :])
            assert msgspec.json.decode(more[-1])["evidence"]["offset"] == 7
            await once_more.aclose()  # type: ignore[attr-defined]

    asyncio.run(play())


def test_who_is_cut_off_while_told_of_a_successor_comes_back_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        numbers = [partition_of(one.encode(), 2) for one in (ADA, BOB)]
        assert numbers[0] != numbers[1], "else nothing is shown"
        before = dict(world.hub.reached)
        monkeypatch.setattr(
            "pipeline.api.live.places_at", lambda _, places, __: {place: before.get(place, 0) for place in places}
        )
        world.service.in_thread = _at_once  # type: ignore[method-assign, assignment]
        stream = await opened(world, "profile/user_id:1")
        await next_event(stream)
        world.follower.read([changed(world, BOB, (0, at)) for at in (5, 6, 7)])
        world.follower.read(merged(world, ADA, BOB))
        await asyncio.sleep(0)
        assert (await next_event(stream))[1]["into"] == BOB
        last, first = await next_event(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        again = await opened(world, "profile/user_id:1", last)
        await next_event(again)
        rest = [(await next_event(again))[1] for _ in range(2)]
        assert [one["evidence"]["offset"] for one in (first, *rest)] == [5, 6, 7]

    asyncio.run(play())


def test_who_hears_nothing_for_long_has_an_id_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes of others went on, and an id from before 200,000 of them is too long ago: 410."""
    monkeypatch.setattr("pipeline.api.live._SILENCE_S", 0.05)

    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "profile/user_id:1")
        first, _ = await next_event(stream)
        world.follower.read([changed(world, one, (0, 1)) for one in [BOB, *map(str, range(20))]])
        await asyncio.sleep(0)
        later, nothing = await next_event(stream)
        assert nothing is None and later != first
        await stream.aclose()  # type: ignore[attr-defined]
        again = await opened(world, "profile/user_id:1", later)
        assert (await next_event(again))[0] == later
        world.follower.read([changed(world, ADA, (0, 9))])
        assert (await next_event(again))[1]["evidence"]["offset"] == 9

    asyncio.run(play())


def test_who_goes_on_with_another_is_not_taken_to_have_heard_what_waits_for_them() -> None:
    async def play() -> None:
        hub = Hub(1, 100)
        own, other = ("profile-changes", 0), ("profile-changes", 1)
        hub.reached = {own: 5, other: 7}
        stream = hub.join("profile", ADA, [own])
        assert stream is not None
        # Read, and put into the queue, but not sent yet: with the id they have, they would come back to it.
        hub.tell([], {own: 9, other: 8})
        assert hub.also(stream, BOB, [own, other]) == {own: 9, other: 8}
        assert stream.cursors == {ADA: {own: 5}, BOB: {own: 9, other: 8}}

    asyncio.run(play())


def test_a_stream_of_who_has_ended_tells_what_they_left_by_that(tmp_path: Path) -> None:
    """Of one transaction, in two topics: the end may be read first."""

    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "profile/user_id:1")
        await next_event(stream)
        end = ProfileChange(ADA, "person", "erased", 1, 1, "erase", Cause("m", 0, 1))
        world.follower.read([world.record("profile-changes", ADA, encode(end))])
        assert (await next_event(stream))[1]["change"] == "erased"
        left = asyncio.create_task(next_event(stream))
        await asyncio.sleep(0.05)
        world.follower.read(leave(world, "a", ADA, 2))
        assert (await left)[1]["segment"] == "a"
        assert b"ended" in await anext(stream)

    asyncio.run(play())


def test_a_stream_of_who_has_ended_ends(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream = await opened(world, "profile/user_id:1")
        await next_event(stream)
        erased = ProfileChange(ADA, "person", "erased", 1, 1, "erase", Cause("m", 0, 1))
        world.follower.read([world.record("profile-changes", ADA, encode(erased))])
        assert (await next_event(stream))[1]["change"] == "erased"
        assert (await next_event(stream))[1] is None
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert world.hub.count == 0

    asyncio.run(play())


@pytest.mark.parametrize("how", ["revoked", "other scopes", "more is hidden"])
def test_a_token_that_is_changed_ends_its_streams(tmp_path: Path, how: str) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        stream, other = await opened(world, "segment/a", token="shy"), await opened(world, "segment/a")
        await next_event(stream)
        await next_event(other)
        kept = Token(name="all", sha256=hashed("all"), scopes=SCOPES)  # type: ignore[arg-type]
        shy = Token(
            name="shy", sha256=hashed("shy"), scopes=("streams:read", "events:read"), hide=("properties.total",)
        )
        changes = {"other scopes": {"scopes": ("events:read",)}, "more is hidden": {"hide": ("identifiers",)}}
        now = [] if how == "revoked" else [shy.model_copy(update=changes[how])]
        world.service.access.replace([kept, *now])
        world.follower.read(enter(world, "a", ADA))
        assert (await next_event(stream))[1] is None
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert (await next_event(other))[1]["segment"] == "a"

    asyncio.run(play())


def test_nothing_comes_twice_from_a_process_that_is_behind(tmp_path: Path) -> None:
    """The id came from a process that had read further than this one."""

    async def play() -> None:
        world = World(tmp_path, most_waiting=10)
        seen_so_far(world)
        await asyncio.sleep(0)
        records = [record for turn in range(1, 5) for record in enter(world, "a", ADA, turn)]
        changes = [one for one in records if one.topic == "segment-changes"]
        place = changes[1]
        positions = dict.fromkeys(range(2), 0) | {place.partition: place.offset + 1}
        last = ".".join(f"s{number}-{at}" for number, at in positions.items())
        stream = await opened(world, "segment/a", last)
        assert (await next_event(stream))[0] == last
        world.follower.read(records)
        assert [(await next_event(stream))[1]["sequence"] for _ in range(2)] == [3, 4]

    asyncio.run(play())


def test_who_missed_very_much_is_told_some_and_comes_back_for_more(tmp_path: Path) -> None:
    async def play() -> None:
        world = World(tmp_path)
        seen_so_far(world)
        await asyncio.sleep(0)
        whole = world.service._missed

        def some(since: Any, until: Any, concerns: Any) -> Any:
            found, _ = whole(since, until, concerns)
            return found[:2], len(found) <= 2

        world.service._missed = some  # type: ignore[method-assign]
        last, heard = "s0-0.s1-0", []
        world.follower.read([record for turn in range(1, 6) for record in enter(world, "a", ADA, turn)])
        await asyncio.sleep(0)
        for _ in range(3):
            stream = await opened(world, "segment/a", last)
            await next_event(stream)
            try:
                while True:
                    at, told = await next_event(stream)
                    if told is None:
                        break
                    last = at
                    heard.append(told["sequence"])
            except TimeoutError:
                pass
            await stream.aclose()  # type: ignore[attr-defined]
        assert heard == [1, 2, 3, 4, 5]

    asyncio.run(play())


async def _at_once(work: Any) -> Any:
    return work()
