"""Python's cyclic garbage collector in a worker that keeps millions of objects, none of them in a cycle.

Left alone, the collector walks over the cache of decoded state again and again: a sixth of a worker's CPU, and pauses
that grow with the cache. Here an object is walked over at most once, after it has lived for a while; what then lives on
is never looked at again, and is freed by its reference count when the cache lets go of it. Most objects of a batch are
gone by then, and never walked over at all.

Where nearly every event finds a profile that is not in memory, even the one walk is an eighth of the CPU. So while no
walk finds anything, what comes in great numbers is set aside unseen; every few seconds the latest are walked over, less
often where that takes long.
"""

import gc
import time
from collections.abc import Callable

_PAUSE_S = 5.0
# A walk takes a hundredth of the time at most: a large batch leaves a million young objects.
_PAUSE_OF_WALKS = 100
# Walking over so many takes a few milliseconds: a pause that a batch does not feel.
_MOST_OBJECTS = 100_000


def hold() -> None:
    """Collect nothing until `begin`: while a process reads what there is, which is much and in no cycle, a full walk
    comes several times a second, and stops everything else."""
    gc.disable()


def begin() -> None:
    """From here on collect as usual, but never again walk over what is there by now."""
    gc.collect()
    gc.freeze()
    gc.enable()


def collecting_between(until: Callable[[], bool]) -> Callable[[], bool]:
    """`until`, as a worker asks it between its batches, with the young garbage collected now and then.

    From here on nothing is collected by itself. A cycle that lives longer than the pause stays for good, and so does
    one among a hundred thousand objects that are set aside: the engine makes none. Once the walk after a pause has
    found some, all objects are walked over until a whole pause has passed in which no walk found any.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    walked, pause_s = time.monotonic(), _PAUSE_S
    found = found_since = 0

    def collect_and_ask() -> bool:
        nonlocal walked, pause_s, found, found_since
        now = time.monotonic()
        is_time = now - walked >= pause_s
        # The first count is of objects made since then that are still there.
        if is_time or gc.get_count()[0] > _MOST_OBJECTS:
            if is_time:
                found, found_since = found_since + gc.collect(0), 0
                walked = time.monotonic()
                pause_s = max(_PAUSE_S, (walked - now) * _PAUSE_OF_WALKS)
            elif found:
                found_since += gc.collect(0)
            gc.freeze()
        return until()

    return collect_and_ask
