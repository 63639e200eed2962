"""What a stream's client has missed: nothing twice, nothing left out; ids of what is not there are refused."""

from types import TracebackType
from typing import Any

import pytest

from pipeline.api import missed
from pipeline.api.missed import read_missed
from pipeline.api.problems import Problem
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

ZERO, ONE = ("segment-changes", 0), ("segment-changes", 1)


class Topics:
    """Stands where the topics are read: partition 0 has records 10 to 19, partition 1 has 0 to 5,999."""

    ends = {ZERO: (10, 20), ONE: (0, 6_000)}

    def __init__(self, settings: Settings, topics: list[str], only: dict[tuple[str, int], int]) -> None:
        self.positions = dict(only)

    def __enter__(self) -> "Topics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        return self.ends

    def read(self, most: int, wait_s: float) -> list[Record]:
        """To the end of everything at once: what lies behind the wanted range comes too."""
        found = [
            Record(topic, number, offset, None, b"%d" % offset, 0)
            for (topic, number), at in self.positions.items()
            for offset in range(at, self.ends[topic, number][1])
        ]
        self.positions = {place: self.ends[place][1] for place in self.positions}
        return found


@pytest.fixture(autouse=True)
def _topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "TopicReader", Topics)


def asked(since: dict[tuple[str, int], int], until: dict[tuple[str, int], int]) -> Any:
    found, is_all = read_missed(Settings(), since, until, lambda change: True)
    return [(change.partition, change.offset) for change in found], is_all


def test_the_changes_between_two_cursors_are_told_once_each() -> None:
    assert asked({ZERO: 12, ONE: 5}, {ZERO: 15, ONE: 7}) == ([(0, 12), (0, 13), (0, 14), (1, 5), (1, 6)], True)
    assert asked({ZERO: 15}, {ZERO: 15}) == ([], True)


def test_a_place_that_another_process_has_read_further_tells_nothing() -> None:
    assert asked({ZERO: 18, ONE: 5}, {ZERO: 15, ONE: 6}) == ([(1, 5)], True)


def test_more_than_5000_are_said_not_to_be_all() -> None:
    found, is_all = asked({ONE: 0}, {ONE: 6_000})
    assert len(found) == 5_000 and found[-1] == (1, 4_999) and not is_all


@pytest.mark.parametrize(
    ("since", "why"),
    [
        ({ZERO: 21}, "made anew"),
        ({ZERO: 9}, "no longer has"),
        ({ZERO: -300_000}, "too long ago"),
    ],
)
def test_ids_of_what_is_not_there_any_more_are_410(since: dict[tuple[str, int], int], why: str) -> None:
    with pytest.raises(Problem, match=why) as refused:
        asked(since, {ZERO: 15})
    assert refused.value.status == 410
