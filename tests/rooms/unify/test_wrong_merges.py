"""A wrong merge: what shows it, and what taking it back restores."""

from typing import Any

import pytest

from pipeline.records import EraseRequest, Relink, Unlink
from tests.rooms.unify.harness import DAY, MINUTE, NOON, SECOND, State, World, id_of
from tests.rooms.unify.test_cases import ALL, ANN, BOB, PHONE, SEEDS, TAB


def shown(world: World, identifier: str) -> set[tuple[str, str, str]]:
    """(own identifier, the other one, why) of what a profile shows."""
    return {
        (
            f"{link.identifier.namespace}:{link.identifier.value}",
            f"{link.other.namespace}:{link.other.value}",
            link.reason,
        )
        for link in world.profile(identifier).unfollowed
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_evidence_that_is_not_followed_is_shown_on_the_profiles_of_both_its_ends(seed: int) -> None:
    world = World(ALL, seed)
    world.send(ANN, TAB, at=SECOND)
    world.send(BOB, TAB, at=2 * SECOND)
    world.rest(MINUTE)
    assert world.identifiers(ANN) == {ANN, TAB}
    assert shown(world, ANN) == {(TAB, BOB, "limits")}
    assert shown(world, BOB) == {(BOB, TAB, "limits")}
    world.check()

    # It moves with its identifier, and goes when it is followed after all.
    world.operate(Unlink(ANN, NOON + MINUTE, TAB))
    world.rest(2 * MINUTE)
    assert world.identifiers(BOB) == {BOB, TAB}
    assert shown(world, ANN) == shown(world, BOB) == set()
    world.operate(Relink(ANN, NOON + 2 * MINUTE, TAB))
    world.rest(3 * MINUTE)
    assert shown(world, ANN) == {(TAB, BOB, "limits")}
    world.check()

    # What is shown of a person who is erased goes from everybody.
    world.operate(EraseRequest(BOB, NOON + 3 * MINUTE))
    world.rest(4 * MINUTE)
    assert shown(world, ANN) == set()
    bob = BOB.encode()
    for _, state, _ in world.tasks[1:]:
        kept = [state.stage.encode(key, value) for key, value in state.values.items() if key[:1] in b"ru"]
        assert not any(bob in data for data in kept)
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_links_that_are_not_followed_are_looked_for_once_and_again_when_there_are_some(seed: int) -> None:
    world = World(ALL, seed)
    asked: list[bytes] = []

    def noting(state: State) -> None:
        get = state.get

        def get_and_note(key: bytes) -> Any:
            asked.extend([key] if key[:1] == b"u" else [])
            return get(key)

        state.get = get_and_note  # type: ignore[method-assign]

    def looked_for(at: int) -> int:
        """How often they were looked for when somebody has been away and comes."""
        for _, state, _ in world.tasks:
            state.lose_caches()
        asked.clear()
        world.send(ANN, at=at)
        world.rest(at)
        return len(asked)

    for _, state, _ in world.tasks[1:]:
        noting(state)
    assert looked_for(SECOND) > 0
    assert looked_for(2 * SECOND) == 0
    world.send(ANN, TAB, at=3 * SECOND)
    world.send(BOB, TAB, at=4 * SECOND)
    world.rest(MINUTE)
    assert looked_for(2 * MINUTE) > 0
    assert shown(world, ANN) == {(TAB, BOB, "limits")}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_unlink_after_a_wrong_merge_restores_the_memberships_and_counts_both_people_would_have_had(
    seed: int,
) -> None:
    def lives(merged: bool) -> World:
        world = World(ALL, seed)
        for number in range(3):
            world.send(PHONE, at=number * SECOND)
        world.send(TAB, event="Order Completed", at=4 * SECOND)
        world.send(TAB, at=5 * SECOND)
        world.rest(10 * SECOND)
        if merged:
            world.send(PHONE, TAB, event="Login", at=20 * SECOND)
        else:
            world.send(PHONE, event="Login", at=20 * SECOND)
        world.rest(MINUTE)
        assert (world.identifiers(PHONE) == {PHONE, TAB}) is merged
        # Each goes on while they are taken for one, and by the same identifiers as before.
        world.send(PHONE, at=2 * MINUTE)
        world.send(TAB, event="Order Completed", at=3 * MINUTE)
        world.rest(4 * MINUTE)
        if merged:
            assert world.totals(PHONE)["Order Completed"] == 2
            world.operate(Unlink(PHONE, NOON + 4 * MINUTE, TAB))
        for until in (5 * MINUTE, DAY, 40 * DAY):
            world.rest(until)
            ends.setdefault(until, []).append(
                (
                    world.totals(PHONE),
                    world.totals(TAB),
                    {one["segment"]: world.members(one["segment"]) for one in ALL if "segment" in one},
                )
            )
        world.check()
        return world

    ends: dict[int, list[object]] = {}
    world = lives(merged=True)
    lives(merged=False)
    for until, (parted, never) in ends.items():
        assert parted == never, until
    assert {one.change for one in world.profile_changes() if one.profile_id == id_of(TAB)} >= {"merged", "split"}
