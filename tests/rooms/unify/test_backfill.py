"""A rule that is added, edited or removed while everything runs ends with the members it would always have had."""

from typing import Any

import msgspec
import pytest

from pipeline.identifiers import partition_of
from pipeline.records import BackfillDone, EraseRequest, SegmentChange, Unlink
from tests.rooms.unify.harness import DAY, HOUR, KEYS, MINUTE, NOON, SECOND, World, id_of
from tests.rooms.unify.test_accounts import joined
from tests.rooms.unify.test_cases import ANN, BOB, MAIL, PHONE, QUIET, RECENT, SEEDS, TAB

# Of another event than the rules that come to it: one that counts the same already would leave them no history to read.
OLD = {"segment": "old", "when": {"performed": {"event": "Signed Up"}}}


def counted(number: int, event: str = "Page Viewed", name: str = "new") -> dict[str, Any]:
    """Exactly so many times: one too many or too few is seen."""
    return {"segment": name, "when": {"performed": {"event": event, "count": {"exactly": number}}}}


def change(world: World, *segments: dict[str, Any], at: int) -> int:
    before = world.generations[-1].segments.leaves.keys()
    generation = world.define(segments)
    assert world.generations[-1].segments.leaves.keys() != before, "what counts the same already has no history to read"
    world.mark(generation, at)
    return generation


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_rule_has_the_members_it_would_have_had_from_the_start(seed: int) -> None:
    world = World((OLD,), seed)
    for number in range(3):
        world.send(ANN, at=number * SECOND)
    world.send(BOB)
    for one in (ANN, BOB):
        world.send(one, event="Signed Up", at=3 * SECOND)
    world.rest(MINUTE)
    change(world, OLD, counted(3), at=MINUTE)
    world.rest(2 * MINUTE)
    assert world.members("new") == {id_of(ANN)}
    assert [(one.cause, one.change, one.profile_id) for one in world.segment_changes("new")] == [
        ("backfill", "entered", id_of(ANN))
    ]
    assert world.members("old") == {id_of(ANN), id_of(BOB)}
    assert len(world.segment_changes("old")) == 2
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_history_has_the_same_duplicates_as_live(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(ANN, message_id="twice")
    world.send(ANN, at=SECOND, message_id="twice")
    world.send(ANN, at=2 * DAY, message_id="twice")
    world.work(seed % 5)
    change(world, OLD, counted(2), at=2 * DAY)
    world.send(ANN, at=2 * DAY + SECOND, message_id="twice")
    world.rest(3 * DAY)
    assert world.counts()["duplicates"] == 2
    assert world.members("new") == {id_of(ANN)}
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_history_finds_fragments_that_have_moved_or_are_moving(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(TAB)
    world.send(PHONE, at=1)
    world.send(MAIL, at=2)
    world.work(seed % 7)
    world.send(ANN, TAB, at=SECOND)
    world.send(MAIL, PHONE, at=SECOND)
    world.work(seed % 11)
    change(world, OLD, counted(7), counted(0, name="none"), at=2 * SECOND)
    world.work(seed % 13)
    world.send(ANN, MAIL, at=3 * SECOND)
    world.send(TAB, at=4 * SECOND)
    world.rest(MINUTE)
    assert world.identifiers(ANN) == {ANN, TAB, MAIL, PHONE}
    assert world.members("new") == {id_of(ANN)}
    assert world.members("none") == set()
    world.check()


@pytest.mark.parametrize("seed", range(40))
def test_a_split_after_a_backfill_parts_what_history_brought(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(TAB)
    world.send(TAB, at=1)
    world.send(ANN, TAB, at=SECOND)
    world.rest(MINUTE)
    change(world, OLD, counted(2), counted(1, name="one"), at=MINUTE)
    world.work(seed % 9)
    world.operate(Unlink(TAB, NOON + MINUTE, ANN))
    world.rest(2 * MINUTE)
    assert world.members("new") == {id_of(TAB)}
    assert world.members("one") == {id_of(ANN)}
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_history_of_a_fragment_that_is_on_its_way_back_is_joined_with_it(seed: int) -> None:
    world = World((OLD,), seed)
    behind = 1 + partition_of(KEYS.actor(TAB), world.partitions)
    world.send(ANN, TAB)
    _all_but(world, behind)
    world.operate(Unlink(TAB, NOON + SECOND, ANN))
    _all_but(world, behind)
    world.send(TAB, at=2 * SECOND)
    change(world, OLD, counted(1), at=3 * SECOND)
    world.rest(MINUTE)
    assert world.members("new") == {id_of(ANN), id_of(TAB)}
    world.check()


def _all_but(world: World, behind: int) -> None:
    """Everybody works until nothing waits, but for one task."""
    while ready := [number for number, task in enumerate(world.tasks) if number != behind and world._ready(task[2])]:
        world._batch(ready[0])


@pytest.mark.parametrize("seed", range(40))
def test_case_15_history_read_again_does_not_bring_back_what_was_erased(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(TAB)
    world.send(ANN, TAB, at=SECOND)
    world.send(BOB, at=SECOND)
    world.rest(MINUTE)
    world.operate(EraseRequest(ANN, NOON + MINUTE, "r1"))
    world.rest(2 * MINUTE)
    world.send(TAB, at=3 * MINUTE)
    world.work(seed % 5)
    change(world, OLD, counted(1), at=4 * MINUTE)
    world.rest(5 * MINUTE)
    assert world.members("new") == {world.profile(TAB).profile_id, id_of(BOB)}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_erasure_in_mid_backfill_takes_what_history_brought(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(TAB)
    world.send(ANN, TAB, at=SECOND)
    world.rest(MINUTE)
    change(world, OLD, counted(2), counted(1, name="one"), at=MINUTE)
    world.work(seed % 9)
    world.operate(EraseRequest(ANN, NOON + MINUTE, "r1"))
    world.rest(2 * MINUTE)
    assert world.profiles() == {}
    world.send(TAB, at=3 * MINUTE)
    world.rest(4 * MINUTE)
    assert world.members("new") == set()
    assert world.members("one") == {world.profile(TAB).profile_id}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_expired_is_not_in_the_history(seed: int) -> None:
    world = World((OLD,), seed, expire_after_days=1)
    phone = "device_id:d1"
    world.send(TAB)
    world.send(phone, TAB, at=SECOND)
    world.rest(MINUTE)
    world.rest(3 * DAY)
    assert world.profiles() == {}
    world.send(TAB, at=3 * DAY + 1)
    world.send(phone, at=3 * DAY + 2)
    world.work(seed % 5)
    change(world, OLD, counted(2), counted(1, name="one"), at=3 * DAY + 3)
    world.rest(3 * DAY + HOUR)
    assert len(world.profiles()) == 1
    assert world.members("new") == set(world.profiles())
    assert world.members("one") == set()
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_case_39_a_rule_deleted_in_mid_backfill(seed: int) -> None:
    world = World((OLD,), seed)
    for number in range(5):
        world.send(ANN, at=number)
        world.send(BOB, at=number)
    world.rest(MINUTE)
    change(world, OLD, counted(5), at=MINUTE)
    world.work(seed % 9)
    change(world, OLD, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert world.members("new") == set()
    for _, state, _ in world.tasks[1:]:
        assert state.get(b"g").jobs == []
        for key, actor in state.scan(b"a"):
            known = world.generations[-1].segments.leaves.keys()
            assert actor.own is None or actor.own.leaves.keys() <= known, key
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_case_40_a_rule_edited_and_edited_back(seed: int) -> None:
    world = World((OLD, counted(2)), seed)
    world.send(ANN)
    world.send(ANN, at=1)
    world.send(BOB, at=2)
    world.rest(MINUTE)
    change(world, OLD, {**counted(1, "Login"), "version": 2}, at=MINUTE)
    world.work(seed % 9)
    change(world, OLD, {**counted(2), "version": 3}, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert world.members("new") == {id_of(ANN)}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_case_44_members_of_an_edited_rule_that_no_longer_match_leave_it(seed: int) -> None:
    world = World((OLD, counted(1)), seed)
    world.send(ANN)
    world.send(BOB, at=1)
    world.send(BOB, event="Login", at=2)
    world.rest(MINUTE)
    assert world.members("new") == {id_of(ANN), id_of(BOB)}
    change(world, OLD, {**counted(1, "Login"), "version": 2}, at=MINUTE)
    world.rest(2 * MINUTE)
    # Bob was a member of the former version and is one of this: nothing is told of him.
    assert world.members("new") == {id_of(BOB)}
    changes = [(one.profile_id, one.change, one.cause, one.version) for one in world.segment_changes("new")[2:]]
    assert changes == [(id_of(ANN), "exited", "backfill", 2)]
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rule_removed_and_added_again_has_its_whole_history(seed: int) -> None:
    world = World((OLD, counted(3)), seed)
    world.send(ANN)
    world.rest(SECOND)
    change(world, OLD, at=SECOND)
    world.send(ANN, at=2 * SECOND)
    world.work(seed % 9)
    change(world, OLD, counted(3), at=3 * SECOND)
    world.send(ANN, at=4 * SECOND)
    world.rest(MINUTE)
    assert world.members("new") == {id_of(ANN)}
    world.check()


@pytest.mark.parametrize("seed", range(40))
def test_several_changes_one_after_the_other(seed: int) -> None:
    world = World((), seed)
    world.send(ANN)
    world.send(TAB)
    segments: list[dict[str, Any]] = []
    for number in range(1, 5):
        events = ["Page Viewed", f"Other {number}"]  # each a leaf of its own, with a history to read
        rule = {"performed": {"event": events, "count": {"exactly": 6}}}
        segments.append({"segment": f"s{number}", "when": rule})
        change(world, *segments, at=number * SECOND)
        world.work(seed % (number * 3))
        world.send(*((ANN, TAB) if number == 2 else (ANN,)), at=number * SECOND)
    world.rest(MINUTE)
    for number in range(1, 5):
        assert world.members(f"s{number}") == {id_of(ANN)}
    world.check()


def test_a_computed_trait_has_its_history() -> None:
    world = World((OLD,))
    world.send(ANN)
    world.send(ANN, at=1)
    world.rest(MINUTE)
    change(world, OLD, {"computed": "visits", "compute": {"function": "count", "event": "Page Viewed"}}, at=MINUTE)
    world.rest(2 * MINUTE)
    assert world.profile(ANN).computed == {"visits": 2}
    world.check()


def test_nothing_is_ready_before_every_partition_has_sent_its_history() -> None:
    world = World((OLD,), partitions=3)
    world.send(ANN)
    world.rest(SECOND)
    change(world, OLD, counted(1), at=SECOND)
    world.work()
    assert len(world.said.get("identity-edges", [])) in (0, 3)
    world.rest(MINUTE)
    done = [msgspec.json.decode(one, type=BackfillDone) for one in world.said["identity-edges"]]
    assert sorted(one.partition for one in done) == [0, 1, 2]


@pytest.mark.parametrize("name", ['a "quoted" name', "Größe\\n", "*", ".*", "line\nbreak"])
def test_history_knows_an_event_by_any_name(name: str) -> None:
    world = World((OLD,))
    world.send(ANN, event=name)
    world.send(BOB, event="other", properties={"event": name})
    world.rest(SECOND)
    change(world, OLD, counted(1, name), at=SECOND)
    world.rest(MINUTE)
    assert world.members("new") == ({id_of(ANN), id_of(BOB)} if name == "*" else {id_of(ANN)})
    world.check()


@pytest.mark.parametrize("seed", range(40))
def test_case_19_an_unlink_during_a_backfill(seed: int) -> None:
    world = World((OLD,), seed)
    world.send(TAB)
    world.send(TAB, at=SECOND)
    world.send(ANN, TAB, at=2 * SECOND)
    world.rest(MINUTE)
    change(world, OLD, counted(1, name="one"), counted(2, name="two"), counted(3, name="three"), at=MINUTE)
    world.work(seed % 13)
    world.operate(Unlink(TAB, NOON + MINUTE, ANN, forever=True))
    world.rest(2 * MINUTE)
    assert (world.totals(TAB), world.totals(ANN)) == ({"Page Viewed": 2}, {"Page Viewed": 1})
    assert world.members("one") == {id_of(ANN)}
    assert world.members("two") == {id_of(TAB)}
    assert world.members("three") == set()
    world.check()


def said_past_the_hour(world: World, topic: str, kind: bytes) -> list[SegmentChange]:
    """What is said of segments when an hour is over that was not when such a record was written."""
    while not any(b'"kind":"%b"' % kind in (value or b"") for _, value in world._log(topic)[0]):
        assert world.work(1) or world._read_history(most_slices=1)
    before = len(world.segment_changes())
    world.send(BOB, at=HOUR + MINUTE)
    world.rest(HOUR + 2 * MINUTE)
    return world.segment_changes()[before:]


@pytest.mark.parametrize("seed", range(60))
def test_what_comes_due_before_a_sweep_is_there_has_its_own_instant(seed: int) -> None:
    world = World((RECENT, QUIET), seed, partitions=1)
    world.send(ANN)
    world.send(BOB)
    world.rest(MINUTE)
    change(world, RECENT, QUIET, counted(1), at=HOUR - MINUTE)
    said = said_past_the_hour(world, "events", b"ready")
    due = [(one.segment, one.cause, one.at) for one in said if one.profile_id == id_of(ANN) and one.segment != "new"]
    assert sorted(due) == [("quiet", "timer", NOON + HOUR), ("recent", "timer", NOON + HOUR)]
    assert world.members("new") == {id_of(ANN)}
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_so_has_what_comes_due_of_an_account(seed: int) -> None:
    busy = {"segment": "busy", "entity": "account", "when": {"performed": {"event": "*", "within": "1h"}}}
    calm = {"segment": "calm", "entity": "account", "when": {"not": {"performed": {"event": "*", "within": "1h"}}}}
    more = {"segment": "more", "entity": "account", "when": {"performed": {"event": "*", "count": {"at_least": 1}}}}
    world = World((busy, calm), seed, partitions=1)
    joined(world, ANN)
    world.send(BOB)
    world.rest(MINUTE)
    change(world, busy, calm, more, at=HOUR - MINUTE)
    said = said_past_the_hour(world, "links", b"people_swept")
    due = [(one.segment, one.cause, one.at) for one in said if one.segment != "more"]
    assert sorted(due) == [("busy", "timer", NOON + HOUR), ("calm", "timer", NOON + HOUR)]
    assert [one.cause for one in said if one.segment == "more"] == ["backfill"]
    world.check()
