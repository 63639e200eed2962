"""Sizes, pages and overlaps are those of the members, also when everything comes in one batch, and after reopening."""

import random
from pathlib import Path

import pytest

from pipeline.api.model import ReadModel
from pipeline.api.tables import TABLES
from pipeline.identifiers import Keys
from pipeline.runtime.memory import MemoryTables
from tests.rooms.api.harness import World, body, enter, leave


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    for name in ("a", "b"):
        found.segment(name)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_sizes_and_overlaps_whatever_the_batches(world: World, seed: int) -> None:
    rng = random.Random(seed)
    members: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    batch = []
    for _ in range(120):
        segment, who = rng.choice("abc"), f"p{rng.randrange(12)}"
        if who in members[segment]:
            members[segment].discard(who)
            batch += leave(world, segment, who)
        else:
            members[segment].add(who)
            batch += enter(world, segment, who)
        if rng.random() < 0.2:
            world.follower.read(batch)
            batch = []
    world.follower.read(batch)

    def check(model: ReadModel) -> None:
        for name, expected in members.items():
            assert model.size(name) == len(expected)
            assert [one["profile_id"] for one in model.members(name, "", 99)] == sorted(expected)
        assert model.overlap(["a", "b"]) == len(members["a"] & members["b"])
        assert model.union(["a", "b", "c"]) == len(members["a"] | members["b"] | members["c"])

    check(world.follower.model)
    positions = world.follower.model.positions()
    world.follower.model.close()
    again = ReadModel(MemoryTables(world.kept, TABLES), Keys(b"s"))
    check(again)
    assert again.positions() == positions


def test_pages_go_on_where_the_one_before_ended(world: World) -> None:
    world.follower.read([record for n in range(7) for record in enter(world, "a", f"p{n}")])
    seen, after = [], ""
    while after is not None:
        page = body(world.ask(f"/v1/segments/a/members?limit=3&after={after}"))
        seen += [one["profile_id"] for one in page["members"]]
        after = page["next"]
    assert seen == [f"p{n}" for n in range(7)] and page["size"] == 7


def test_the_list_and_one_of_it(world: World) -> None:
    world.follower.read(enter(world, "a", "p"))
    found = body(world.ask("/v1/segments"))["segments"]
    assert [(one["segment"], one["size"]) for one in found] == [("a", 1), ("b", 0)]
    assert body(world.ask("/v1/segments/a"))["definition"]["when"] == {"all": []}
    assert world.ask("/v1/segments/c").status_code == 404


@pytest.mark.parametrize(
    ("of", "status"), [("a,b", 200), ("a", 400), ("", 400), (",".join("abcdefghijklmnopqrstuv"), 400)]
)
def test_overlap_takes_two_to_twenty(world: World, of: str, status: int) -> None:
    assert world.ask(f"/v1/overlap?of={of}").status_code == status
