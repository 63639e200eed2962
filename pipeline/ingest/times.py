"""Times as producers write them, and when an event happened.

    came      when the broker took the raw record in, if its topic says so (LogAppendTime) and it is past, else now
    received  receivedAt if it is a time and not after it came, else when it came
    arrival   receivedAt, else the raw record's own timestamp, else now: what the sender's clock is compared with
    time      arrival - (sentAt - timestamp) if both are there, else timestamp, else received; never after received

None is before the second millisecond of 1970: 0 stands for "never" in states and profiles, and an event at 0 would be
seen by nobody.

An event that waited three hours in the raw topic while nobody read it was received when it came there: what was due in
those hours is settled in their order (docs/decisions/received-is-when-the-log-took-it-in.md). Where a topic's records
are stamped by their producers, no stamp proves that, and `arrival` alone goes by it.
"""

from datetime import UTC, datetime
from typing import NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
FIRST_MS = 1
LATEST_MS = 253_402_300_799_999
# Less than this in milliseconds is 1973 or before; in seconds it is any day of our lives.
_LEAST_PLAUSIBLE_MS = 100_000_000_000

RawTime = str | int | float | None


def to_ms(raw: str | int | float) -> int | str:
    """Milliseconds since the epoch of an ISO 8601 text (UTC if it names no zone) or a number of milliseconds; or a
    sentence that says what is wrong."""
    if isinstance(raw, str):
        text = raw.strip()
        if not text.isdecimal() or len(text) < 10:
            return _from_iso(text)
        if len(text) > 15:
            return f"{text[:20]!r} is too large for milliseconds since 1970"
        raw = int(text)
    if not 0 <= raw <= LATEST_MS:
        return "a time must lie between 1970 and 9999, in milliseconds since 1970"
    if 0 < raw < _LEAST_PLAUSIBLE_MS:
        return f"{raw} looks like seconds since 1970; give milliseconds, or ISO 8601"
    return int(raw)


def _from_iso(text: str) -> int | str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        # RFC 3339 allows a small t and z; a few formatters write them.
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            return f"{text[:40]!r} is not a time in ISO 8601, like 2025-03-01T12:00:00Z"
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    since_ms = since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000
    return since_ms if 0 <= since_ms <= LATEST_MS else "a time must lie between 1970 and 9999"


class Times(NamedTuple):
    """When an event happened and was received (ms), and what had to be said about it."""

    time: int
    received: int
    flags: tuple[str, ...] = ()


def came(appended_ms: int, now_ms: int) -> int:
    """When a raw record came, by the rules above; `appended_ms` is 0 if its topic does not say so."""
    return min(appended_ms, now_ms) if appended_ms > 0 else now_ms


def when(timestamp: RawTime, sent_at: RawTime, received_at: RawTime, record_ms: int, came_ms: int) -> Times | str:
    """The times of an event by the rules above; or a sentence that says what is wrong with its timestamp.

    `record_ms` is the timestamp of the raw record, 0 if it has none; `came_ms` when it came.
    """
    flags: tuple[str, ...] = ()
    received = came_ms
    vouched = False
    if received_at is not None:
        stated = to_ms(received_at)
        if isinstance(stated, str):
            flags += ("bad_received_at",)
        else:
            received, vouched = max(min(stated, came_ms), FIRST_MS), True
    if timestamp is None:
        return Times(received, received, flags)
    happened = to_ms(timestamp)
    if isinstance(happened, str):
        return happened
    if sent_at is not None:
        sent = to_ms(sent_at)
        if isinstance(sent, str):
            flags += ("bad_sent_at",)
        else:
            arrival = received if vouched or not 0 < record_ms < came_ms else record_ms
            if vouched or abs(arrival - sent) <= DAY_MS:
                happened += arrival - sent
            else:
                flags += ("clock_not_corrected",)
    if happened < 0:
        return "by the difference of sentAt and timestamp the event lies before 1970"
    if happened > received:
        return Times(received, received, (*flags, "future_timestamp"))
    return Times(max(happened, FIRST_MS), received, flags)
