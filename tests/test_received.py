"""When what unify has consumed was received: from it is told how long events took, after they were committed."""

from pipeline.records import CaughtUp, Event, Forward, encode
from pipeline.roles import received_ms
from pipeline.runtime.ports import Record

EVENT = Event("m1", "track", "Seen", ["user_id:1"], 5, 7)


def record(value: bytes | None, topic: str = "events") -> Record:
    return Record(topic, 0, 0, b"k", value, 9)


def test_when_an_event_was_received_is_told_wherever_it_stands() -> None:
    forward = Forward("user_id:2", "user_id:1", EVENT, (0, 0), 1, 7, 0, 0)
    assert received_ms(record(encode(EVENT))) == received_ms(record(encode(forward), "links")) == 7
    assert received_ms(record(b"\x01sealed")) == 9
    assert received_ms(record(encode(CaughtUp(8)))) == received_ms(record(None)) == 0
