"""One source that is pulled: bounded, kept before it is told, asked again from the same place whatever fails."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from connectors.sources import Pulled, Source
from pipeline.ingest import MAX_RAW_BYTES, decode
from pipeline.sources.pulling import Puller, PullMetrics, Row


class Numbers(Source):
    """Numbers from 1 on, up to `there`."""

    kind = "numbers"

    def __init__(self, there: int) -> None:
        super().__init__("numbers", None)
        self.there = there
        self.fails: Exception | None = None
        self.deaf: Exception | None = None
        self.asked: list[tuple[str | None, int]] = []
        self.told: list[str] = []
        self.value: Callable[[int], Any] = lambda number: {"type": "track", "event": "E", "userId": str(number)}

    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        self.asked.append((position, limit))
        if self.fails is not None:
            raise self.fails
        begin = int(position or 0) + 1
        return [Pulled(str(n), self.value(n)) for n in range(begin, min(self.there + 1, begin + limit))]

    def acknowledged(self, position: str) -> None:
        if self.deaf is not None:
            raise self.deaf
        self.told.append(position)


class MemoryLog:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.kept: str | None = None
        self.writes = 0
        self.fails = False

    def position(self) -> str | None:
        return self.kept

    def write(self, records: Sequence[Row], position: str) -> None:
        if self.fails:
            raise OSError("the broker is away")
        self.writes += 1
        self.rows += records
        self.kept = position


REGISTRY = CollectorRegistry()
METRICS = PullMetrics(REGISTRY)


def puller(source: Source, log: MemoryLog, limit: int = 3, stamped: bool = True) -> Puller:
    return Puller("shop", source, log, limit, 5.0, METRICS, stamped)


def values(log: MemoryLog) -> list[Any]:
    return [json.loads(value) for _, value in log.rows]


def test_what_is_there_is_kept_in_bounded_batches_and_told() -> None:
    source, log = Numbers(7), MemoryLog()
    one = puller(source, log)
    assert [one.turn() for _ in range(4)] == [0.0, 0.0, 0.0, 5.0], "at once while something comes, then after a while"
    assert source.asked == [(None, 3), ("3", 3), ("6", 3), ("7", 3)]
    assert source.told == ["3", "6", "7"]
    assert [each["userId"] for each in values(log)] == list("1234567")
    assert {each["source"] for each in values(log)} == {"shop"}, "an event says where it is from"
    assert REGISTRY.get_sample_value("headwater_source_records_total", {"source": "shop"}) == 7


def test_a_mapped_record_is_left_as_it_is() -> None:
    source, log = Numbers(1), MemoryLog()
    source.value = lambda _: {"source": "theirs"}
    puller(source, log, stamped=False).turn()
    assert values(log) == [{"source": "theirs"}]


def test_a_new_process_goes_on_where_records_are_kept() -> None:
    source, log = Numbers(4), MemoryLog()
    puller(source, log).turn()
    source.there = 6
    puller(source, log).turn()
    assert [each["userId"] for each in values(log)] == list("123456")


def test_nothing_is_told_that_is_not_kept() -> None:
    source, log = Numbers(3), MemoryLog()
    log.fails = True
    with pytest.raises(OSError, match="broker"):
        puller(source, log).turn()
    assert source.told == [] and log.kept is None


def test_a_source_that_fails_is_asked_again_later_and_later() -> None:
    source, log = Numbers(3), MemoryLog()
    one = puller(source, log)
    source.fails = ConnectionError("refused")
    assert [one.turn() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert REGISTRY.get_sample_value("headwater_source_up", {"source": "shop"}) == 0
    source.fails = None
    assert one.turn() == 0.0
    assert [each["userId"] for each in values(log)] == list("123")
    source.fails = ConnectionError("refused")
    assert one.turn() == 1.0, "it begins anew"


def test_what_a_source_was_not_told_it_is_told_with_what_comes_next() -> None:
    source, log = Numbers(6), MemoryLog()
    one = puller(source, log)
    source.deaf = TimeoutError("no answer")
    assert one.turn() == 1.0
    source.deaf = None
    one.turn()
    assert source.told == ["6"] and [each["userId"] for each in values(log)] == list("123456"), "and nothing twice"


def test_a_record_without_a_value_is_passed() -> None:
    source, log = Numbers(3), MemoryLog()
    source.value = lambda number: None if number != 2 else b"raw bytes"
    puller(source, log).turn()
    assert (log.rows, log.kept) == ([(None, b"raw bytes")], "3")


def test_a_transaction_is_bounded_in_bytes() -> None:
    source, log = Numbers(100), MemoryLog()
    source.value = lambda _: b"x" * 400_000
    puller(source, log, limit=100).turn()
    assert log.writes == 10 and len(log.rows) == 100 and log.kept == "100"


def test_a_value_that_is_too_large_is_cut_so_that_ingest_refuses_it() -> None:
    source, log = Numbers(1), MemoryLog()
    source.value = lambda _: {"x": "y" * 5_000_000}
    puller(source, log).turn()
    [(_, value)] = log.rows
    assert MAX_RAW_BYTES < len(value) <= 2 * MAX_RAW_BYTES


class _Greedy(Numbers):
    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        return super().poll(position, limit + 1)


class _Shapeless(Numbers):
    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        return [Pulled(7, b"x")]  # type: ignore[arg-type]


class _Endless(Numbers):
    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        return [Pulled("p" * 5_000, b"x")]


@pytest.mark.parametrize("kind", [_Greedy, _Shapeless, _Endless])
def test_a_source_that_breaks_its_contract_fails_and_nothing_of_it_is_kept(kind: type[Numbers]) -> None:
    log = MemoryLog()
    assert puller(kind(9), log).turn() == 1.0
    assert log.rows == [] and log.kept is None


def test_what_is_no_json_fails_and_nothing_of_the_batch_is_kept() -> None:
    source, log = Numbers(3), MemoryLog()
    source.value = lambda number: {"x": object()} if number == 3 else {"x": 1}
    assert puller(source, log).turn() == 1.0
    assert log.rows == []


@pytest.mark.parametrize("key", ["text", 7, ["a"]])
def test_a_key_that_is_none_is_the_sources_own_trouble(key: Any) -> None:
    """What the log cannot write would end the role, and with it every other source."""
    source, log = Numbers(1), MemoryLog()
    source.poll = lambda position, limit: [Pulled("1", {"type": "track"}, key)]  # type: ignore[method-assign]
    assert puller(source, log).turn() > 0
    assert log.writes == 0


def test_half_of_a_surrogate_pair_does_not_stop_a_source() -> None:
    source, log = Numbers(1), MemoryLog()
    source.value = lambda _: {"type": "track", "event": "Sale! \ud83d", "userId": "ada"}  # as json.loads gives it
    assert puller(source, log).turn() == 0.0
    [(_, value)] = log.rows
    assert decode(value).event == "Sale! \ufffd"  # type: ignore[union-attr]
