"""Python functions of others, called in a process of their own: time, memory and failures are bounded.

One child per function. A call that takes too long ends the child; so does one that exits or closes its pipes. After
MOST_FAILURES in a row it is left alone for a while, and every call fails at once: one bad function must not slow down
everything by its time-out, event after event.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

MOST_FAILURES = 5
REST_S = 10.0
MAX_BYTES = 1_000_000
_START_WITHIN_S = 20.0
_LENGTH_BYTES = 4


class FunctionFailed(Exception):
    """A call came to nothing; the message is for a person."""


@dataclass(slots=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    to: int
    back: int


class Functions:
    """Functions by the names of their entry points in a group. To be used by one thread; `close` ends the children."""

    def __init__(self, group: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._clock_s = clock_s
        self._children: dict[str, _Child] = {}
        self._failures: dict[str, int] = {}
        self._rests_until: dict[str, float] = {}

    def call(self, name: str, argument: Any, timeout_ms: int) -> Any:
        """What the function returned. Raises FunctionFailed."""
        if self._clock_s() < self._rests_until.get(name, 0.0):
            raise FunctionFailed(f"{name} failed {MOST_FAILURES} times in a row and is not called for a while")
        try:
            answer = self._call(name, argument, timeout_ms / 1_000)
        except FunctionFailed:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            if failures >= MOST_FAILURES:
                self._failures[name] = 0
                self._rests_until[name] = self._clock_s() + REST_S
            raise
        self._failures[name] = 0
        return answer

    def _call(self, name: str, argument: Any, timeout_s: float) -> Any:
        child = self._children.get(name)
        if child is None:
            child = self._children[name] = self._start(name)
        try:
            _send(child.to, msgspec.json.encode(argument), time.monotonic() + timeout_s)
            status, answer = msgspec.json.decode(_receive(child.back, time.monotonic() + timeout_s))
        except TimeoutError:
            self._end(name)
            raise FunctionFailed(f"{name} did not return within {timeout_s * 1_000:.0f} ms") from None
        except (OSError, EOFError, ValueError, msgspec.MsgspecError):
            self._end(name)
            raise FunctionFailed(f"{name} ended its process") from None
        if status != "returned":
            raise FunctionFailed(f"{name} raised {answer}"[:500])
        return answer

    def _start(self, name: str) -> _Child:
        to_child, to = os.pipe()
        back, from_child = os.pipe()
        command = [sys.executable, "-m", "pipeline.runtime.function_child", self._group, name]
        try:
            process = subprocess.Popen(
                [*command, str(to_child), str(from_child)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if hasattr(sys.stderr, "fileno") and _is_file(sys.stderr) else None,
                pass_fds=(to_child, from_child),
                start_new_session=True,
            )
        finally:
            os.close(to_child)
            os.close(from_child)
        os.set_blocking(to, False)
        os.set_blocking(back, False)
        child = _Child(process, to, back)
        self._children[name] = child
        try:
            status, said = msgspec.json.decode(_receive(back, time.monotonic() + _START_WITHIN_S))
        except (TimeoutError, OSError, EOFError, ValueError, msgspec.MsgspecError):
            self._end(name)
            raise FunctionFailed(f"{name} could not be loaded") from None
        if status != "ready":
            self._end(name)
            raise FunctionFailed(f"{name} could not be loaded: {said}"[:500])
        return child

    def _end(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is None:
            return
        os.close(child.to)
        os.close(child.back)
        try:
            os.killpg(child.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself
        child.process.wait()

    def close(self) -> None:
        """End every child."""
        for name in list(self._children):
            self._end(name)


def _is_file(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _send(descriptor: int, message: bytes, until: float) -> None:
    if len(message) > MAX_BYTES:
        raise ValueError("too large")
    data = memoryview(len(message).to_bytes(_LENGTH_BYTES, "little") + message)
    while data:
        _wait(descriptor, until, select.POLLOUT)
        data = data[os.write(descriptor, data) :]


def _receive(descriptor: int, until: float) -> bytes:
    length = int.from_bytes(_exactly(descriptor, _LENGTH_BYTES, until), "little")
    if length > MAX_BYTES:
        raise ValueError("too large")
    return _exactly(descriptor, length, until)


def _exactly(descriptor: int, size: int, until: float) -> bytes:
    parts = b""
    while len(parts) < size:
        _wait(descriptor, until, select.POLLIN)
        part = os.read(descriptor, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _wait(descriptor: int, until: float, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0, until - time.monotonic()) * 1_000):
        raise TimeoutError
