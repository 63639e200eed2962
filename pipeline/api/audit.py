"""A line for each look-up: who asked what about whom, and how it ended. Nothing of a profile stands in it.

Whom is a keyed hash of the identifier (`headwater` can compute it for a person who asks who looked them up).
"""

import json
import queue
import threading
import time
from pathlib import Path

_MAX_WAITING = 100_000


class Audit:
    """Appends lines to a file, from a thread of its own. When the disk cannot keep up, requests wait for it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._file = path.open("a", encoding="utf-8")
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def line(self, caller: str, operation: str, subject: str, status: int) -> None:
        """Note one request. `subject` is the keyed hash, or the name of what is no person."""
        now = time.time_ns() // 1_000_000
        self._lines.put(
            json.dumps({"at": now, "caller": caller, "operation": operation, "subject": subject, "status": status})
        )

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._file.write(line + "\n")
            if self._lines.empty():
                self._file.flush()

    def close(self) -> None:
        """Write what is waiting."""
        self._lines.put(None)
        self._thread.join(10)
        self._file.close()
