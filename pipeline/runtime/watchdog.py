"""Ends the process when a call hangs: a worker that does not come back holds its partitions for ever.

It is not only for what nobody foresaw: `send_offsets_to_transaction` of librdkafka 2.16 pays no heed to its time-out
while it waits for a group coordinator, and may never return after a connection was lost.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable

EXIT_CODE = 70
_LOOKS = 20


class Watchdog:
    """Watches a counter that its owner raises; ends the process if it stands still for as long as `stuck_s` says.

    It is asked at every look: a call whose own time-out is known may be given less than the rest. Only time in which
    the process runs counts: one that was paused is not stuck.
    """

    def __init__(self, beats: Callable[[], int], stuck_s: Callable[[], float], what: str) -> None:
        self._beats = beats
        self._stuck_s = stuck_s
        self._what = what
        self._look_s = stuck_s() / _LOOKS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        seen, looks = self._beats(), 0
        while not self._over.wait(self._look_s):
            now = self._beats()
            looks = looks + 1 if now == seen else 0
            limit_s = self._stuck_s()
            if looks * self._look_s >= limit_s:
                sys.stderr.write(f"{self._what}: a call has not come back for {limit_s:g} s; ending\n")
                faulthandler.dump_traceback(file=sys.stderr)
                sys.stderr.flush()
                os._exit(EXIT_CODE)
            seen = now
