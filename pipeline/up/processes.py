"""The roles as processes of one machine: started together, started again when one ends, ended with their parent."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import HeadwaterError

_RESTARTS_WITHIN_S = 60.0
_MAX_RESTARTS = 10
_STOP_WITHIN_S = 20.0
_SHOWN_LOG_LINES = 15
_LOOKED_AT_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 300


class RoleFailed(HeadwaterError):
    """A role ended again and again; the pipeline cannot run on this machine as it is set up."""


@dataclass(slots=True)
class RoleProcess:
    """One role: the words after `headwater run`, its log, and the times at which it was started."""

    words: tuple[str, ...]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    starts: deque[float] = field(default_factory=deque)
    logged_before: int = 0
    environment: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The role as it is typed."""
        return " ".join(self.words)

    def why(self) -> str:
        """What its log says of why it ended: the error that it told, else the last line, else where the log is."""
        with self.log.open("rb") as log:
            log.seek(max(self.logged_before, self.log.stat().st_size - _LOOKED_AT_BYTES))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"its log says nothing: {self.log}"])[-1].removeprefix("error: ")[
            :_SHOWN_CHARACTERS
        ]


class Processes:
    """Keeps the processes of several roles running. Use it as a context manager: leaving it stops them all."""

    def __init__(
        self,
        roles: Sequence[Sequence[str]],
        environment: Mapping[str, str],
        log_dir: Path,
        metrics_port: int | None = None,
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self.roles: list[RoleProcess] = []
        for place, words in enumerate(roles):
            own = {**os.environ, **environment}
            if metrics_port:  # of 0 each has a free one
                # One port is for one role: with the same for all of them, all but one would end again and again.
                own["HEADWATER_METRICS_PORT"] = str(metrics_port + place)
            self.roles.append(RoleProcess(tuple(words), log_dir / f"{'-'.join(words)}.log", environment=own))

    def __enter__(self) -> "Processes":
        for role in self.roles:
            self._start(role)
        return self

    def __exit__(self, *_: object) -> None:
        running = [role.process for role in self.roles if role.process is not None and role.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tend(self) -> list[tuple[str, str]]:
        """Start again what has ended; returns the names of the roles that had, and why.

        Raises:
            RoleFailed: one ended too often; the end of its log is in the message.
        """
        ended = []
        for role in self.roles:
            if role.process is not None and role.process.poll() is not None:
                ended.append((role.name, role.why()))
                self._start(role)
        return ended

    def _start(self, role: RoleProcess) -> None:
        now = time.monotonic()
        while role.starts and role.starts[0] < now - _RESTARTS_WITHIN_S:
            role.starts.popleft()
        if len(role.starts) >= _MAX_RESTARTS:
            lines = role.log.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
            raise RoleFailed(
                f"`headwater run {role.name}` ended {_MAX_RESTARTS} times within {_RESTARTS_WITHIN_S:.0f} s.",
                str(role.log),
                "mend what its log says:\n    " + "\n    ".join(lines),
            )
        role.starts.append(now)
        with role.log.open("ab") as log:
            role.logged_before = log.tell()
            role.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "run", *role.words, "--end-with", str(os.getpid())],
                env=role.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for the parent, which stops the roles in order.
                start_new_session=True,
            )
