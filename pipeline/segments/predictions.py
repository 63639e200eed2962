"""A model's score as a trait: the newest one by event time, until it is no longer valid."""

from typing import Any

from pipeline.segments.leaves import Exact
from pipeline.segments.values import event_getter, instant_of, json_text, of_json_text

_value = event_getter(("properties", "value"))
_until = event_getter(("properties", "valid_until"))


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


def valid_score(state: Any, now_ms: int) -> tuple[Any, int]:
    """(the value, until when), over LatestScore: missing from `valid_until` on; an older score does not come back."""
    if state is None:
        return None, 0
    _, text, until_ms = state
    if until_ms and now_ms >= until_ms:
        return None, 0
    return of_json_text(text), until_ms
