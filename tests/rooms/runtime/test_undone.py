"""How long is waited after transactions that were undone, and when nobody waits any more."""

from pipeline.runtime.undone import Undone


def test_one_is_done_again_at_once_and_more_of_them_after_growing_pauses() -> None:
    undone = Undone(0.1, 60_000)
    pauses = [undone.again(1_000 + number) for number in range(8)]
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    undone.committed()
    assert [undone.again(2_000), undone.again(2_001)] == [0.0, 0.1]


def test_what_goes_on_for_too_long_is_given_up_and_what_was_long_ago_does_not_count() -> None:
    undone = Undone(0.1, 60_000)
    assert undone.again(0) == 0.0
    assert undone.again(60_000) == 0.1
    assert undone.again(60_001) is None
    assert undone.again(120_002) == 0.0
    assert Undone(0.0, 60_000).again(5) == 0.0


def test_a_thousand_in_a_row_is_no_overflow() -> None:
    undone = Undone(0.1, 60_000)
    assert [undone.again(0) for _ in range(3_000)][-1] == 2.0
