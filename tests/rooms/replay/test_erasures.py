"""CASE 15: a replay brings nobody back who was erased, however the erasure meets it."""

import pytest

from pipeline.records import Erased, encode
from tests.rooms.replay.shop import ANN, BOB, NOON, TAB, Shop, known, known_in
from tests.simulation.run import KEYS


@pytest.mark.parametrize("seed", range(12))
def test_what_was_erased_before_the_replay_is_nowhere_in_it(seed: int) -> None:
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    shop.send(TAB, at=1)
    shop.send(ANN, TAB, at=2)
    shop.send(BOB, at=3)
    shop.send(BOB, ANN, at=4)
    shop.rest(5)
    shop.erase(ANN, at=6)
    replay = shop.replay()
    replay.come_to_the_end()
    assert known(replay) == {BOB: 2}
    written = b"".join(record.value or b"" for record in replay.new.memory.read("events"))
    assert ANN.encode() not in written and TAB.encode() not in written
    assert b"user_id:ann" not in b"".join(record.value or b"" for record in replay.new.memory.read("identity-edges"))


@pytest.mark.parametrize("seed", range(12))
def test_who_came_back_is_somebody_new(seed: int) -> None:
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    shop.send(TAB, at=1)
    shop.send(ANN, TAB, at=2)
    shop.rest(5)
    shop.erase(ANN, at=6)
    shop.send(ANN, at=7)
    shop.send(ANN, at=8)
    shop.rest(9)
    replay = shop.replay()
    replay.come_to_the_end()
    assert known(replay) == {ANN: 2}
    assert KEYS.profile_id(ANN).encode() not in replay.new.broker.compacted("profiles"), "the id of whom was erased"


@pytest.mark.parametrize("seed", range(12))
def test_an_erasure_while_the_copy_follows_is_carried_out_there_too(seed: int) -> None:
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    replay = shop.replay()
    shop.send(TAB, at=1)
    shop.send(ANN, TAB, at=2)
    shop.send(BOB, at=3)
    shop.rest(4)
    replay.steps(40)
    shop.erase(ANN, at=5)
    shop.send(ANN, at=6)
    shop.send(ANN, at=7)
    shop.rest(8)
    replay.steps(10)
    replay.come_to_the_end()
    assert known(replay) == {ANN: 2, BOB: 1}
    pointers = replay.new.broker.compacted("identities")
    assert TAB.encode() not in pointers


@pytest.mark.parametrize("follows", [False, True], ids=["before", "while the copy follows"])
@pytest.mark.parametrize("seed", range(6))
def test_who_is_kept_out_stays_out_until_a_consent_anew(seed: int, follows: bool) -> None:
    """What an ingest accepted before it had heard of the erasure stands in the old `events`. Nobody is made of it here
    either, nobody is linked to whoever it names, and a consent anew lets in what comes from there on."""
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    shop.send(ANN, TAB, at=1)
    shop.send(BOB, at=2)
    shop.rest(3)
    replay = shop.replay() if follows else None
    if replay is not None:
        replay.steps(40)
    shop.erase(ANN, at=10, keep_out=True)
    shop.send(ANN, at=11)
    shop.send(BOB, TAB, at=12)
    shop.send(ANN, TAB, at=13, happened=9, consents=True)
    shop.rest(14)
    assert known_in(shop.old) == {BOB: 2}, "the old workspace keeps them out"
    if replay is None:
        replay = shop.replay()
    replay.steps(10)
    replay.come_to_the_end()
    assert known(replay) == {BOB: 2}
    assert TAB.encode() not in replay.new.broker.compacted("identities")

    shop.send(ANN, at=30, happened=15, consents=True)
    shop.send(ANN, at=31)
    shop.rest(32)
    assert known_in(shop.old) == {BOB: 2, ANN: 2}
    replay.come_to_the_end()
    assert known(replay) == {BOB: 2, ANN: 2}


@pytest.mark.parametrize("seed", range(6))
def test_a_consent_after_the_erasure_counts_also_where_the_copy_had_come_further(seed: int) -> None:
    """It hears of the erasure when an event names whom it was about, long after: the erasure's own time counts."""
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    shop.send(ANN, at=1)
    shop.rest(3)
    shop.erase(ANN, at=10, keep_out=True)
    replay = shop.replay()
    for number in range(8):
        shop.send(f"user_id:u{number}", at=20)
    shop.rest(21)
    replay.come_to_the_end()
    shop.send(ANN, at=30, happened=12, consents=True)
    shop.rest(31)
    replay.come_to_the_end()
    assert known_in(shop.old)[ANN] == 1
    assert known(replay) == known_in(shop.old)


@pytest.mark.parametrize("follows", [False, True], ids=["before", "while the copy follows"])
@pytest.mark.parametrize("seed", range(12))
def test_what_comes_by_another_name_after_a_consent_counts_in_the_copy_too(seed: int, follows: bool) -> None:
    """Live, seconds lie between the consent and what comes next under another identifier that it named; a copy passes
    both at once, and the one who is named may hear of the consent later than of the event."""
    shop = Shop(seed, crash_rate=0.1 if seed % 2 else 0.0)
    shop.send(ANN, TAB, at=1)
    shop.rest(3)
    replay = shop.replay() if follows else None
    if replay is not None:
        replay.steps(40)
    shop.erase(ANN, at=10, keep_out=True)
    shop.send(BOB, TAB, at=15)
    shop.rest(16)
    shop.send(ANN, TAB, at=20, consents=True)
    shop.rest(21)
    for number in range(4):
        shop.send(TAB, at=30 + number)
    shop.rest(40)
    told = known_in(shop.old)
    assert told == {ANN: 5, BOB: 1}
    if replay is None:
        replay = shop.replay()
    replay.come_to_the_end()
    assert known(replay) == told


def test_a_copy_is_at_its_end_only_once_it_knows_what_was_decided() -> None:
    shop = Shop(1)
    shop.send(ANN, TAB, at=10)
    shop.rest(20)
    replay = shop.replay()
    replay.come_to_the_end()
    copier = replay.copier
    assert copier is not None and copier.at_end and copier.is_idle
    # Nothing else tells of it yet.
    actor = KEYS.actor(ANN)
    shop.old.write("identity-decisions", b"erase\t" + actor, encode(Erased(actor.decode(), NOON + 30, 1)))
    copier.look()
    assert not (copier.at_end and copier.is_idle)
    replay.come_to_the_end()
    assert known(replay) == {}
