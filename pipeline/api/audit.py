"""A line for each look-up, the refused ones too: who asked what about whom, and how it ended. Nothing of a profile
stands in it.

Whom is a keyed hash of the identifier (`headwater` can compute it for a person who asks who looked them up), and the
profile_id that was found.
"""

import json
import logging
import os
import queue
import threading
import time
from pathlib import Path

_MOST_WAITING = 80_000
_MOST_AT_ONCE = 5_000
_AGAIN_AFTER_S = 1.0
_STRANGERS_A_SECOND = 100

_log = logging.getLogger(__name__)


class Audit:
    """Appends lines to a file, from a thread of its own. While the disk does not take them nothing is lost, and once
    too many wait `takes_more` is false: nothing is answered that could not be noted.

    Of callers without a token 100 lines a second are written; the next tells how many were left out (`more`).
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._strangers = 0
        self._strangers_in = 0
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    @property
    def takes_more(self) -> bool:
        """Whether what is noted can be expected to be written."""
        return self._lines.qsize() < _MOST_WAITING

    def line(self, caller: str, operation: str, subject: str, status: int, profile_id: str = "") -> None:
        """Note one request. `subject` is the keyed hash, or the name of what is no person."""
        now = time.time_ns() // 1_000_000
        line = {"at": now, "caller": caller, "operation": operation, "subject": subject, "status": status}
        if profile_id:
            line["profile_id"] = profile_id
        if not caller:
            if now // 1_000 != self._strangers_in:
                self._strangers_in, self._strangers = now // 1_000, 0
            self._strangers += 1
            if self._strangers > _STRANGERS_A_SECOND:
                self._left_out += 1
                return
            if self._left_out:
                line["more"], self._left_out = self._left_out, 0
        self._lines.put(json.dumps(line))

    def _write(self) -> None:
        is_over = False
        while not is_over:
            taken = [self._lines.get()]
            while len(taken) < _MOST_AT_ONCE and not self._lines.empty():
                taken.append(self._lines.get())
            is_over = None in taken
            self._append("".join(f"{line}\n" for line in taken if line is not None).encode())

    def _append(self, data: bytes) -> None:
        said = False
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except OSError as error:
                if not said:
                    _log.error("the audit cannot be written, and is tried again: %s", error.strerror)
                said = True
                if self._stopping.wait(_AGAIN_AFTER_S):
                    _log.error("lines of the audit were lost at the end: %d bytes", len(data))
                    return

    def close(self) -> None:
        """Write what is waiting."""
        self._lines.put(None)
        self._thread.join(10)
        self._stopping.set()
        self._thread.join(5)
        os.close(self._file)
