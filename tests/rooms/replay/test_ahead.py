"""How many records of a copy are on their way in the new workspace at once."""

from dataclasses import replace

import msgspec
import pytest

from pipeline.records import Marker, encode
from pipeline.replay.ports import CopySettings
from tests.rooms.replay.shop import ANN, BOB, TAB, Shop, known, known_in
from tests.simulation.replays import Replay


def on_their_way(replay: Replay) -> int:
    """The copied events that unify of the new workspace has not taken in."""
    memory, found = replay.new.memory, 0
    for number, log in enumerate(memory.topics["events"]):
        committed = memory.groups["unify"].offsets.get(("events", number))
        entries, _ = log.read(committed.position if committed is not None else 0, 1_000_000)
        found += sum(msgspec.json.decode(one.value or b"")["kind"] == "event" for one in entries)
    return found


@pytest.mark.parametrize("batch", [1, 4_000])
@pytest.mark.parametrize("ahead", [1, 2, 5, 20, 4_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_more_than_ahead_are_on_their_way_at_once_and_nothing_is_lost(seed: int, ahead: int, batch: int) -> None:
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    for number in range(90):
        shop.send(f"user_id:u{number % 9}", *([f"{TAB}{number % 9}"] if number % 4 == 0 else ()), at=10 * number)
    shop.rest(1_000)
    replay = shop.replay(CopySettings(batch=batch, ahead=ahead, at_hand=40, read=40))
    seen, copy = [], replay.copy

    def watched() -> int:
        moved = copy()
        seen.append(on_their_way(replay))
        return moved

    replay.copy = watched  # type: ignore[method-assign]
    for _ in range(30):
        replay.copy()  # and nobody takes anything in
    replay.come_to_the_end()
    assert max(seen) <= ahead
    assert max(seen) >= min(batch, ahead // 2, 40), "what may be is made use of"
    assert known(replay) == known_in(shop.old) and sum(known(replay).values()) == 90


@pytest.mark.parametrize("ahead", [1, 3])
def test_what_ends_transactions_keeps_no_copy_waiting_for_good(ahead: int) -> None:
    """On a Kafka it is counted with what is on its way, and stays so where everybody is at rest."""
    shop = Shop(3)
    for number in range(20):
        shop.send(f"user_id:u{number % 3}", at=10 * number)
    shop.rest(300)
    replay = shop.replay(CopySettings(ahead=ahead))
    replay.ports = replace(replay.ports, in_flight=lambda: replay.in_flight() + 7)
    replay.come_to_the_end()
    assert known(replay) == known_in(shop.old)


DAY = 86_400_000


@pytest.mark.parametrize("seed", range(20))
def test_a_history_of_few_events_does_not_pass_by_while_they_are_on_their_way(seed: int) -> None:
    """However few they are: who had logged in long before would have expired as a browser of nobody's."""
    shop = Shop(seed, days=2)
    shop.send(TAB, at=0)
    shop.send(ANN, TAB, at=1_000)
    shop.rest(2_000)
    for day in range(1, 12):
        for number in range(3):
            shop.send(f"{BOB}{number}", at=day * DAY)
        shop.rest(day * DAY)
    assert known_in(shop.old)[ANN] == 2
    replay = shop.replay(CopySettings())
    for _ in range(shop.rng.choice((1, 5, 30))):
        replay.copy()
    replay.come_to_the_end()
    assert known(replay) == known_in(shop.old)


def test_what_is_marked_now_leaves_a_copy_in_the_past() -> None:
    """A marker tells no time. New identity rules do, to the identity stage, so definitions are not applied in a copy
    that has not come to the present (pipeline/in_charge.py)."""
    shop = Shop(1, days=2)
    shop.send(TAB, at=0)
    shop.send(ANN, TAB, at=1_000)
    shop.rest(2_000)
    shop.rest(9 * DAY)
    replay = shop.replay(CopySettings())
    for partition in range(replay.new.partitions):
        replay.new.write("events", None, encode(Marker(1, shop.old.now)), partition)
    replay.come_to_the_end()
    assert known(replay)[ANN] == known_in(shop.old)[ANN] == 2
