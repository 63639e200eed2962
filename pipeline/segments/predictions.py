"""A model's score as a trait: the newest one by event time, until it is no longer valid, or may be kept no longer."""

from typing import Any

from pipeline.segments.leaves import Exact
from pipeline.segments.measures import Value, sooner
from pipeline.segments.values import event_getter, instant_of, json_text, of_json_text

VALUE, UNTIL = ("properties", "value"), ("properties", "valid_until")
_value, _until = event_getter(VALUE), event_getter(UNTIL)


class LatestScore(Exact):
    """[time, JSON text of the value, valid until (ms; 0: for ever)] of the newest score; of two at the same instant the
    greater."""

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        text = json_text(_value(event))
        if text is None:
            return None
        until_ms = instant_of(_until(event))
        # 0 says for ever: what was over by the epoch is over a millisecond later.
        entry = [time_ms, text, 0 if until_ms is None else max(1, until_ms)]
        return entry if state is None or entry > state else None

    def join(self, a: Any, b: Any) -> Any:
        return list(max(a, b))

    def copy(self, state: Any) -> Any:
        return state[:]


def valid_score(kept_ms: int) -> Value:
    """(the value, until when), over LatestScore: missing from `valid_until` on, and when it was kept for `kept_ms`
    (0: for ever); an older score does not come back."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        time_ms, text, until_ms = state
        if kept_ms:
            until_ms = sooner(until_ms, time_ms + kept_ms)
        if until_ms and now_ms >= until_ms:
            return None, 0
        return of_json_text(text), until_ms

    return value
