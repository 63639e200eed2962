"""How a profile stands is kept with its actor: what becomes of it under another release."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.segments import zones
from pipeline.segments.windows import compile_window
from pipeline.unify import UnifyStage
from pipeline.unify.actor import ACTORS
from tests.rooms.unify.harness import DAY, HOUR, KEYS, MINUTE, NOON, SECOND, Definition, World, compiled, id_of
from tests.rooms.unify.test_accounts import joined
from tests.rooms.unify.test_cases import ANN, BOB, RECENT, SEEDS


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_kept_by_another_release_is_judged_anew_and_may_be_due_before_its_entry_in_the_time_index(
    seed: int,
) -> None:
    one = World((RECENT,), seed)
    one.send(ANN)
    one.rest(1)
    for _, state, _ in one.tasks[1:]:
        state.lose_caches()
        for key in [key for key in state.values if key.startswith(ACTORS)]:
            state.values[key].standing = b"of another release"
            state.values[key].wake = state.wakes[key] = NOON + 30 * DAY
    one.send(ANN, at=2 * HOUR, event="Searched")
    one.rest(3 * HOUR)
    assert [(told.change, told.at, told.cause) for told in one.segment_changes("recent")] == [
        ("entered", NOON, "event"),
        ("exited", NOON + HOUR, "timer"),
    ]
    one.check()


TODAY = {
    "segment": "today",
    "when": {"performed": {"event": "Page Viewed", "calendar": {"unit": "day", "time_zone": "Europe/Berlin"}}},
}
# NOON is at 22:13:20 UTC.
MIDNIGHT, MIDNIGHT_IN_BERLIN = 6_400 * SECOND, 2_800 * SECOND


@pytest.fixture
def new_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Berlin's days are those of UTC, until this is called: then they are its own."""
    data_of, of_berlin = zones._data_of, ["UTC"]
    monkeypatch.setattr(zones, "_data_of", lambda name: data_of(of_berlin[0] if name == "Europe/Berlin" else name))
    forget_zones()

    def install() -> None:
        of_berlin[0] = "Europe/Berlin"
        forget_zones()

    yield install
    forget_zones()


@pytest.mark.parametrize("looked_at", [0, HOUR], ids=["before the day ends", "when the day has ended by the new data"])
def test_what_was_kept_under_other_data_of_time_zones_is_judged_anew(
    new_data: Callable[[], None], looked_at: int
) -> None:
    one = World((TODAY,))
    one.send(ANN)
    one.send(ANN, at=looked_at, event="Searched")
    one.rest(looked_at)
    new_data()
    restart(one, (TODAY,))
    one.send(ANN, at=HOUR + MINUTE, event="Searched")
    one.rest(HOUR + MINUTE)
    [_, left] = one.segment_changes("today")
    due = (NOON + HOUR + MINUTE, "definition") if looked_at else (NOON + MIDNIGHT_IN_BERLIN, "timer")
    assert (left.change, left.at, left.cause) == ("exited", *due)
    one.check()


def test_who_is_not_seen_again_hears_of_other_data_of_time_zones_when_they_were_due(
    new_data: Callable[[], None],
) -> None:
    one = World((TODAY,))
    one.send(ANN)
    one.send(ANN, at=HOUR, event="Searched")
    one.rest(HOUR)
    new_data()
    restart(one, (TODAY,))
    one.rest(MIDNIGHT)
    [_, left] = one.segment_changes("today")
    assert (left.change, left.at, left.cause) == ("exited", NOON + MIDNIGHT, "definition")
    one.check()


def test_an_account_hears_of_other_data_of_time_zones_when_it_was_due(new_data: Callable[[], None]) -> None:
    busy = {**TODAY, "segment": "busy", "entity": "account"}
    one = World((busy,))
    joined(one, ANN)
    one.send(ANN)
    # It is looked at when the day has ended by the new data.
    joined(one, BOB, at=HOUR)
    one.rest(HOUR)
    new_data()
    restart(one, (busy,))
    one.rest(MIDNIGHT)
    [_, left] = one.segment_changes("busy")
    assert (left.change, left.at, left.cause) == ("exited", NOON + MIDNIGHT, "definition")
    one.check()


BETWEEN = {
    "segment": "in_winter",
    "when": {
        "performed": {
            "event": "Page Viewed",
            "count": {"at_least": 3},
            "between": {"from": "2023-11-01", "to": "2024-03-01", "time_zone": "Europe/Berlin"},
        }
    },
}


def test_what_was_counted_between_dates_goes_on_under_other_data_of_time_zones(new_data: Callable[[], None]) -> None:
    one = World((BETWEEN,))
    one.send(ANN)
    one.send(ANN, at=SECOND)
    one.rest(HOUR)
    new_data()
    restart(one, (BETWEEN,))
    one.send(ANN, at=HOUR)
    one.rest(2 * HOUR)
    assert one.members("in_winter") == {id_of(ANN)}
    one.check()


def test_who_counts_for_an_account_still_does_under_other_data_of_time_zones(new_data: Callable[[], None]) -> None:
    two = {"segment": "two", "entity": "account", "when": {"members": {"match": BETWEEN["when"], "at_least": 2}}}
    one = World((two,))
    joined(one, ANN)
    joined(one, BOB)
    for at in range(3):
        one.send(ANN, at=at)
    one.rest(HOUR)
    new_data()
    restart(one, (two,))
    for at in range(3):
        one.send(BOB, at=HOUR + at)
    one.rest(2 * HOUR)
    assert [change.change for change in one.segment_changes("two")] == ["entered"]


def forget_zones() -> None:
    zones.zone_of.cache_clear()
    compile_window.cache_clear()


def restart(world: World, definitions: tuple[Definition, ...]) -> None:
    """Every process is another one, of the same definitions."""
    world.generations[0] = world._plan(0, compiled(definitions, 0, None), None)
    for number, (stage, state, positions) in enumerate(world.tasks):
        if isinstance(stage, UnifyStage):
            state.lose_caches()
            state.stage = UnifyStage(stage._task.partition, KEYS, world.generations.__getitem__, 90, world.partitions)
            world.tasks[number] = (state.stage, state, positions)
