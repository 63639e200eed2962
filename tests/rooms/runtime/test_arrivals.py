"""Taking records of a client: all that has come, in its order, and nothing lost where it raises."""

from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, KafkaError, KafkaException

from pipeline.runtime.kafka import arrivals
from pipeline.runtime.kafka.arrivals import take_records
from pipeline.runtime.ports import Record

NAMES = {"ws.events": "events"}


class Said:
    """A message as the client gives it."""

    def __init__(self, offset: int, fault: KafkaError | None = None) -> None:
        self._offset, self._fault = offset, fault

    def topic(self) -> str:
        return "ws.events"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"%d" % self._offset

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_CREATE_TIME, 7

    def headers(self) -> None:
        return None

    def error(self) -> KafkaError | None:
        return self._fault


class Client:
    """A consumer in which messages wait; a fault among them is raised when it is met first. None: what is behind it has
    not come yet when it is asked for."""

    def __init__(self, *waiting: Said | KafkaException | None) -> None:
        self.waiting: list[Said | KafkaException | None] = list(waiting)
        self.asked: list[tuple[int, float]] = []

    def consume(self, limit: int, timeout_s: float) -> list[Said]:
        self.asked.append((limit, timeout_s))
        found: list[Said] = []
        while self.waiting and len(found) < limit:
            one = self.waiting[0]
            if isinstance(one, KafkaException):
                if found:
                    break
                self.waiting.pop(0)
                raise one
            self.waiting.pop(0)
            if one is None:
                break
            found.append(one)
        return found


def taken(client: Client, limit: int, timeout_s: float = 0.5) -> tuple[list[int], list[Any]]:
    """The offsets of what is taken, and what is no record."""
    others: list[Any] = []
    opened: list[list[Record]] = []

    def seen(records: list[Record]) -> list[Record]:
        opened.append(records)
        return records

    records = take_records(client, limit, timeout_s, NAMES, seen, others)  # type: ignore[arg-type]
    assert records == [one for some in opened for one in some]
    assert all(one == Record("events", 3, one.offset, b"k", b"%d" % one.offset, 7) for one in records)
    return [one.offset for one in records], others


@pytest.mark.parametrize("waiting", [0, 1, 4, 5, 6, 10, 13])
@pytest.mark.parametrize("limit", [1, 4, 5, 7, 10, 100])
def test_all_that_waits_is_taken_up_to_the_limit(waiting: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_AT_ONCE", 5)
    client = Client(*(Said(offset) for offset in range(waiting)))
    assert taken(client, limit) == (list(range(min(waiting, limit))), [])
    # Only for the first is it waited, where there is none.
    assert sum(timeout_s for _, timeout_s in client.asked) == (0 if waiting else 0.5)


def test_what_is_no_record_is_handed_on() -> None:
    fault = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    offsets, others = taken(Client(Said(0), Said(1, fault), Said(2)), 10)
    assert offsets == [0, 2] and [one.error() for one in others] == [fault]


def test_what_was_taken_before_the_client_raised_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_AT_ONCE", 2)
    client = Client(Said(0), Said(1), KafkaException(KafkaError(KafkaError._STATE)), Said(2))
    assert taken(client, 10) == ([0, 1], [])
    assert taken(client, 10) == ([2], [])
    awaited = Client(None, Said(0), KafkaException(KafkaError(KafkaError._STATE)), Said(1))
    assert (taken(awaited, 10), taken(awaited, 10)) == (([0], []), ([1], []))
    with pytest.raises(KafkaException):
        taken(Client(KafkaException(KafkaError(KafkaError._STATE)), Said(0)), 10)
