"""Transactions that were undone one after the other: one is done again at once, more of them after growing pauses, and
what is not committed within a minute does not pass by itself."""

_NEVER_MS = -(1 << 62)
_MOST_PAUSE_S = 2.0


class Undone:
    """`again` for each that was undone, `committed` for each that was not. `pause_s` is the first pause, 0 for none at
    all; `give_up_ms` how long it may go on."""

    def __init__(self, pause_s: float, give_up_ms: int) -> None:
        self._pause_s = pause_s
        self._give_up_ms = give_up_ms
        self._last_ms = self._since_ms = _NEVER_MS
        self._count = 0

    def again(self, now_ms: int) -> float | None:
        """How long to wait before it is done again, s; None if it has gone on for too long."""
        if now_ms - self._last_ms > self._give_up_ms:
            self._since_ms, self._count = now_ms, 0
        self._last_ms = now_ms
        if now_ms - self._since_ms > self._give_up_ms:
            return None
        self._count += 1
        return min(_MOST_PAUSE_S, self._pause_s * 2 ** min(self._count - 2, 20)) if self._count > 1 else 0.0

    def committed(self) -> None:
        """Whatever was undone before is past."""
        self._last_ms = _NEVER_MS
