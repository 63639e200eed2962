"""Python's cyclic garbage collector in a worker that keeps millions of objects, none of them in a cycle.

Left alone, the collector walks over the cache of decoded state again and again: a sixth of a worker's CPU, and pauses
that grow with the cache. Here every object is walked over once, soon after it was made; what then lives on is never
looked at again, and is freed by its reference count when the cache lets go of it.
"""

import gc
import time
from collections.abc import Callable

_PAUSE_S = 0.2


def collecting_between(until: Callable[[], bool]) -> Callable[[], bool]:
    """`until`, as a worker asks it between its batches, with the young garbage collected now and then.

    From here on nothing is collected by itself. A cycle that lives longer than the pause stays for good: the engine
    makes none.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    collected = time.monotonic()

    def collect_and_ask() -> bool:
        nonlocal collected
        now = time.monotonic()
        if now - collected >= _PAUSE_S:
            gc.collect(0)
            gc.freeze()
            collected = now
        return until()

    return collect_and_ask
