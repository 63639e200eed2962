"""Kills while something is under way that the engine knows nothing of: a fragment between its holders, a backfill.

`ATTACK_KILL_IN=recall@after_commit:2` kills the process with SIGKILL when it comes to that point of the commit order
with a Recall in the running batch, for the second time. The marks are `recall`, `absorb`, `history`, `tick` (unify) and
`assign` (identity). A batch that was committed with a Recall in it has sent the Absorb, which nobody has read yet: the
fragment is in `links` and nowhere else. With a tick in it, it has settled deadlines.
"""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pipeline.identity.turn import Turn
from pipeline.runtime.failpoints import Failpoints
from pipeline.unify import UnifyStage, history, transfer

KILL_IN = "ATTACK_KILL_IN"
_WHERE: dict[str, tuple[ModuleType | type, str]] = {
    "recall": (transfer, "on_recall"),
    "absorb": (transfer, "on_absorb"),
    "history": (history, "fold_slice"),
    "tick": (UnifyStage, "_tick"),
    "assign": (Turn, "send"),
}

# What a role can be killed in the middle of: the mark, and the points at which it is.
MID_BACKFILL = "mid-backfill"
MOMENTS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "unify": {
        MID_BACKFILL: ("history", ("after_begin", "before_offsets", "after_offsets", "after_commit", "after_write")),
        "between Recall and Absorb": ("recall", ("after_commit", "after_write")),
        "giving a fragment away": ("recall", ("before_offsets", "after_offsets", "commit_in_flight")),
        "taking a fragment in": ("absorb", ("before_offsets", "after_offsets", "commit_in_flight", "after_commit")),
    },
    "identity": {
        MID_BACKFILL: ("", ()),
        "between Assign and Recall": ("assign", ("after_commit", "after_write")),
        "deciding who is who": ("assign", ("before_offsets", "after_offsets", "commit_in_flight")),
    },
    "ingest": {},
}


def killing_in(environment: Mapping[str, str], inner: Failpoints) -> Failpoints:
    """`inner`, and the kill that the environment asks for."""
    text = environment.get(KILL_IN, "")
    if not text:
        return inner
    mark, _, rest = text.partition("@")
    point, _, hits = rest.partition(":")
    marked = _watch(*_WHERE[mark])
    left = int(hits or 1)

    def reached(name: str) -> None:
        nonlocal left
        if name == point and marked():
            left -= 1
            if left == 0:
                if name == "commit_in_flight":
                    threading.Thread(target=_kill_soon, daemon=True).start()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
        if name == "after_write":
            marked(False)
        inner(name)

    return reached


def _kill_soon() -> None:
    time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(place: ModuleType | type, name: str) -> Callable[..., bool]:
    """Notice calls of a function: gives what tells whether there was one, and forgets it when told False."""
    called = False
    original = getattr(place, name)

    @functools.wraps(original)
    def noticed(*arguments: Any, **named: Any) -> Any:
        nonlocal called
        called = True
        return original(*arguments, **named)

    setattr(place, name, noticed)

    def tell(keep: bool = True) -> bool:
        nonlocal called
        was, called = called, called and keep
        return was

    return tell
