"""Starts role processes by forking one that has everything loaded: a start costs milliseconds, not a second of CPU.

`python -m tests.attack.launcher` reads orders, one JSON object per line: {"role", "environment", "log", "nice"}; it
answers {"started": pid} in their order, and {"ended": pid, "code": code} (negative: the signal) as processes end. Its
children end with it.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1


def _child(order: dict[str, object]) -> None:
    from tests.attack.role import run

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    environment = order["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    code = 70
    try:
        code = run(str(order["role"]))
    except BaseException:  # noqa: BLE001 - the child must not return into its parent's loop
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until standard input is closed."""
    import tests.rules.taken_out  # noqa: I001 - before what a rule may be taken out of
    import tests.attack.role  # noqa: F401 - loaded once, for all children

    children: set[int] = set()
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], _POLL_S)
        if readable:
            data = os.read(0, 65_536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    _child(json.loads(line))
                children.add(pid)
                print(json.dumps({"started": pid}), flush=True)
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                print(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}), flush=True)


class Launcher:
    """The launcher as its user sees it."""

    def __init__(self) -> None:
        self.ended: dict[int, tuple[int, float]] = {}
        self._started: list[int] = []
        self._news = threading.Condition()
        self._order = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attack.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._news:
                if "started" in told:
                    self._started.append(told["started"])
                else:
                    self.ended[told["ended"]] = (told["code"], time.monotonic())
                self._news.notify_all()

    def start(self, role: str, environment: Mapping[str, str], log: Path) -> int:
        """Start a role; its process id."""
        order = json.dumps({"role": role, "environment": dict(environment), "log": str(log)})
        with self._order:
            assert self._process.stdin is not None
            before = len(self._started)
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()
            with self._news:
                assert self._news.wait_for(lambda: len(self._started) > before, 60), "the launcher does not answer"
                return self._started[before]

    def close(self) -> None:
        """End the launcher and every process of it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)


if __name__ == "__main__":
    main()
