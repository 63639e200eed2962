"""Up to when everything that was received has been read, by all tasks of a role, of this worker and of others.

Each task keeps its clock beside its positions (`KeepsTime`), in the same transaction. What it had to say by then to
other tasks has been said: so who writes into their log from now on, writes behind it. The least of the clocks is the
watermark (Akidau et al., "The Dataflow Model", 2015). It is asked for when somebody waits for it, and only then.
"""

from collections.abc import Callable

from pipeline.runtime.adapters import Clock

LOOK_AGAIN_MS = 25


class Watermark:
    """Called with an instant (ms), gives the latest watermark that is known; if that is before it, a later one is asked
    for. `ask` begins to ask at its first call, and gives None until the answer is there."""

    def __init__(self, ask: Callable[[], int | None], clock: Clock) -> None:
        self._ask = ask
        self._now = clock
        self._at = -1
        self._answered_ms = 0

    def __call__(self, wanted: int) -> int:
        if self._at < wanted and not 0 <= self._now() - self._answered_ms < LOOK_AGAIN_MS:
            answer = self._ask()
            if answer is not None:
                self._at = max(self._at, answer)
                self._answered_ms = self._now()
        return self._at
