"""Named points of the commit order at which a test, or an attack, can end the process.

From outside: `HEADWATER_FAILPOINT=name[:hit]` kills the process with SIGKILL when the point is reached for the
`hit`-th time (default 1); several are separated by commas. `name:~seed:share` kills with probability `share` at
every hit, drawn from `seed`. At `commit_in_flight` the kill comes a moment later, from another thread, while the
commit is on its way.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping

POINTS = (
    "after_consume",
    "after_step",
    "after_begin",
    "after_produce",
    "before_offsets",
    "after_offsets",
    "commit_in_flight",
    "after_commit",
    "after_write",
    "mid_restore",
)
MID_HISTORY = "mid_history"
"""Reached only where a rule's history is being read."""
VARIABLE = "HEADWATER_FAILPOINT"

Failpoints = Callable[[str], None]
"""Called with the name of each point as it is reached; may end the process or raise."""


def no_failpoints(name: str) -> None:
    """Nothing happens at any point."""


def failpoints_from(environment: Mapping[str, str]) -> Failpoints:
    """The failpoints that `HEADWATER_FAILPOINT` asks for. ValueError names an unknown point."""
    text = environment.get(VARIABLE, "")
    if not text:
        return no_failpoints
    decisions: dict[str, Callable[[], bool]] = {}
    for part in text.split(","):
        name, _, when = part.strip().partition(":")
        if name not in (*POINTS, MID_HISTORY):
            raise ValueError(f"{VARIABLE}: no failpoint {name!r}; there are {', '.join(POINTS)}")
        decisions[name] = _by_chance(when) if when.startswith("~") else _at_hit(int(when or 1))

    def reached(name: str) -> None:
        decide = decisions.get(name)
        if decide is not None and decide():
            if name == "commit_in_flight":
                threading.Thread(target=_kill_soon, daemon=True).start()
            else:
                _kill()

    return reached


def _at_hit(hit: int) -> Callable[[], bool]:
    left = hit

    def decide() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    return decide


def _by_chance(text: str) -> Callable[[], bool]:
    seed, _, share = text[1:].partition(":")
    generator = random.Random(seed)
    probability = float(share or 0.01)
    return lambda: generator.random() < probability


def _kill_soon() -> None:
    time.sleep(random.uniform(0.0, 0.004))
    _kill()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
