"""Subscribers who come over from another workspace hear what goes on from there, in order and once.

What is told in the messages is what a subscriber heard in the old workspace; what this world says follows it.
"""

from typing import Any

import pytest

from pipeline.records import Takeover, encode
from tests.rooms.unify.harness import DAY, HOUR, KEYS, MINUTE, NOON, SECOND, World, id_of
from tests.rooms.unify.test_accounts import ACME, joined
from tests.rooms.unify.test_cases import ANN, QUIET, RECENT

ACCOUNT_QUIET = {"segment": "calm", "entity": "account", "when": {"not": {"performed": {"event": "*", "within": "1h"}}}}
ACCOUNT_RECENT = {"segment": "busy", "entity": "account", "when": {"performed": {"event": "*", "within": "1h"}}}
Told = tuple[bool, int, int, int]


def take_over(world: World, identifier: str, clock: int, **told: Told) -> list[tuple[str, str, int, str]]:
    """What is said when it comes, at a clock that no deadline has been settled at yet: (segment, change, sequence,
    cause)."""
    before = len(world.segment_changes())
    shifted = {segment: (member, NOON + at, *rest) for segment, (member, at, *rest) in told.items()}
    message: Any = Takeover(identifier, id_of(identifier), shifted, NOON + clock)
    world.write("links", KEYS.actor(identifier), encode(message))
    world.work()
    return [(one.segment, one.change, one.sequence, one.cause) for one in world.segment_changes()[before:]]


def rows(world: World) -> dict[str, int]:
    """Members by the table, with their sequences."""
    return {key: int(data.split(b'"sequence":')[1].split(b"}")[0].split(b",")[0]) for key, data in
            world.compacted["segment-members"].items()}  # fmt: skip


SEEDS = range(5)


@pytest.fixture(params=["person", "account"])
def entity(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def visited(entity: str, seed: int) -> tuple[World, str, str, str]:
    """Somebody who has been there a second ago: the world, who, and the segments of the recent and of the quiet."""
    if entity == "person":
        world = World((RECENT, QUIET), seed)
        world.send(ANN)
        world.rest(SECOND)
        return world, ANN, "recent", "quiet"
    world = World((ACCOUNT_RECENT, ACCOUNT_QUIET), seed)
    joined(world, ANN)
    world.rest(SECOND)
    return world, "account:acme", "busy", "calm"


def come_again(world: World, entity: str, at: int) -> None:
    if entity == "person":
        world.send(ANN, at=at)
    else:
        joined(world, ANN, at=at)
    world.rest(at + SECOND)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_old_one_has_told_when_it_came_due_is_not_told_again(entity: str, seed: int) -> None:
    world, who, recent, quiet = visited(entity, seed)
    told = {recent: (False, HOUR, 4, 1), quiet: (True, HOUR, 3, 1)}
    assert take_over(world, who, HOUR + MINUTE, **told) == []
    assert rows(world) == {f"{quiet}/{ACME if entity == 'account' else id_of(who)}": 3}
    assert {name: one.sequence for name, one in world.profile(who).segments.items()} == {quiet: 3}
    count = len(world.segment_changes())
    come_again(world, entity, 2 * HOUR)
    later = [(one.segment, one.change, one.sequence) for one in world.segment_changes()[count:]]
    assert sorted(later) == sorted([(quiet, "exited", 4), (recent, "entered", 5)])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_old_one_has_not_told_goes_on_from_what_it_told(entity: str, seed: int) -> None:
    world, who, recent, quiet = visited(entity, seed)
    said = take_over(
        world, who, HOUR + MINUTE, **{recent: (True, 30 * MINUTE, 7, 1), quiet: (False, 30 * MINUTE, 2, 1)}
    )
    assert sorted(said) == sorted([(quiet, "entered", 3, "timer"), (recent, "exited", 8, "timer")])
    count = len(world.segment_changes())
    world.rest(DAY)
    assert len(world.segment_changes()) == count


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_happens_before_what_the_old_one_has_told_of_it(entity: str, seed: int) -> None:
    world, who, recent, quiet = visited(entity, seed)
    world.rest(2 * HOUR)
    told = {recent: (False, HOUR + MINUTE, 2, 1), quiet: (True, HOUR + MINUTE, 1, 1)}
    assert take_over(world, who, 2 * HOUR, **told) == []
    since = {name: one.since for name, one in world.profile(who).segments.items()}
    assert since == {quiet: NOON + HOUR + MINUTE}
    count = len(world.segment_changes())
    # A late word of the instant in between: it had been quiet, by the new one, for half a minute then.
    world.send(ANN, at=HOUR + 30 * SECOND, received=2 * HOUR)
    world.rest(2 * HOUR)
    later = [(one.segment, one.change, one.at - NOON, one.late) for one in world.segment_changes()[count:]]
    assert sorted(later) == sorted([(quiet, "exited", HOUR + MINUTE, True), (recent, "entered", HOUR + MINUTE, True)])


@pytest.mark.parametrize("seed", SEEDS)
def test_where_they_differ_it_is_told_and_where_only_the_sequence_does_the_table_has_it(entity: str, seed: int) -> None:
    world, who, recent, quiet = visited(entity, seed)
    said = take_over(world, who, MINUTE, **{recent: (True, 0, 3, 1), quiet: (True, 0, 5, 1)})
    assert said == [(quiet, "exited", 6, "backfill")]
    assert rows(world) == {f"{recent}/{ACME if entity == 'account' else id_of(who)}": 3}
