"""Keeps one server process of a caller, and ends it with the caller, however the caller ends.

Run as a program of its own (standard library only, so that it starts at once). It holds the server while three things
are true: the pipe from the caller is open, the caller is still its parent, and nobody said `stop`. The pipe alone is
not enough, because a child of the caller may have inherited it; the parent alone is looked at twice a second. If the
supervisor itself is killed, Linux kills the server in the same moment.

Its argument is one JSON object: `parent` (process id of the caller), `command`, `log` (file for the server's output),
`grace_s` (between asking to end and killing) and `remove` (a folder to delete if the caller has died, or null). It
writes one line, the server's process id, and ends with the server's exit code.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.5


def _die_with_the_supervisor() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_a_reason_to_end(server: "subprocess.Popen[bytes]", parent: int) -> None:
    """Return when the server has ended, the caller has, or the caller said so or closed the pipe."""
    descriptor = sys.stdin.fileno()
    while server.poll() is None and os.getppid() == parent:
        readable, _, _ = select.select([descriptor], [], [], _LOOK_EVERY_S)
        if readable:
            return  # `stop`, or the end of the pipe


def main() -> int:
    order = json.loads(sys.argv[1])
    # A Ctrl-C in the caller's terminal is for the caller, which still has transactions to end.
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)

    def ask(_number: int, _frame: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGTERM, ask)
    with open(order["log"], "ab") as log:
        server = subprocess.Popen(
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_the_supervisor if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread
        )
    try:
        sys.stdout.write(f"{server.pid}\n")
        sys.stdout.flush()
        os.close(sys.stdout.fileno())
        _wait_for_a_reason_to_end(server, order["parent"])
    except (InterruptedError, OSError):
        pass  # asked to end, or nobody is left to be told the process id
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if server.poll() is None:
        server.send_signal(signal.SIGCONT)  # a stopped process would not hear that it shall end
        server.terminate()
        abandoned = os.getppid() != order["parent"]
        if abandoned and order["remove"]:
            server.kill()  # nobody will read these data again
        deadline = time.monotonic() + order["grace_s"]
        while server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if server.poll() is None:
            server.kill()
    code = server.wait()
    if order["remove"] and os.getppid() != order["parent"]:
        shutil.rmtree(order["remove"], ignore_errors=True)
    return 0 if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
