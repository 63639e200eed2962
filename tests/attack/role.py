"""One role of the pipeline as a process of the campaign.

It is what `headwater run` runs, but for what the environment may ask for: a shorter session, so that a takeover need
not be waited for; a stop (SIGSTOP) at a named point of the commit order; a kill with something under way; and a rule
broken on purpose.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping

from pipeline import settings as settings_module
from pipeline.roles import run_stage
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.failpoints import Failpoints, failpoints_from
from tests.attack import broken, disk, inflight, rests, sessions

STOP_AT = "ATTACK_STOP_AT"
STOPPED = 3


def stopping_at(environment: Mapping[str, str], inner: Failpoints) -> Failpoints:
    """`inner`, and a SIGSTOP to this process when a point is reached for the n-th time: `ATTACK_STOP_AT=point:n`."""
    text = environment.get(STOP_AT, "")
    if not text:
        return inner
    point, _, hits = text.partition(":")
    left = int(hits or 1)

    def reached(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
        inner(name)

    return reached


def run(name: str) -> int:
    """Run a role until SIGTERM; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    sessions.apply(os.environ)
    disk.apply(os.environ)
    broken.apply(os.environ)
    rests.apply(os.environ)
    until: Callable[[], bool] = lambda: bool(asked)  # noqa: E731 - a name for the two uses below
    try:
        points = inflight.killing_in(os.environ, stopping_at(os.environ, failpoints_from(os.environ)))
        run_stage(name, settings_module.load(), until, points)
    except WorkerStopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr, flush=True)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
