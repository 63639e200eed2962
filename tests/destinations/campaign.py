"""Kills of a deliver worker while it serves destinations that are well, slow, flapping and dead."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.settings import Settings
from tests.destinations.receiver import is_refused
from tests.destinations.world import Verdict, World

_ENDS_S = 120.0


def campaign(
    settings: Settings, folder: Path, kills: int, per_life: int, seed: int, say: Callable[[str], None] = print
) -> dict[str, Verdict]:
    """So many lives of a worker, each ended by SIGKILL, with `per_life` deliveries more for each destination; then one
    that has time, and ends in order. AssertionError with what was lost or came out of order."""
    rng = random.Random(seed)
    with World(settings, folder) as world:
        for life in range(1, kills + 1):
            # Half of it waits for the worker, half comes while it runs.
            world.decide(per_life // 2)
            world.start()
            done, left = world.receivers.count("first"), world.decided
            world.decide(per_life - per_life // 2)
            target = done + int((left - done) * rng.uniform(0.05, 0.95))
            _until(lambda target=target: world.receivers.count("first") > target, "the worker works")  # type: ignore[misc]
            world.kill()
            _check(world.judge())
            say(f"life {life}: nothing lost, all in order")
        world.start()
        well = ("first", "second")
        _until(lambda: all(_settled(world, name) for name in well), "those that are well have everything")
        time.sleep(4)  # the slow and the flapping one go on a while
        world.stop()
        verdicts = world.judge()
        _check(verdicts)
        for name, verdict in verdicts.items():
            say(f"{name:10} {verdict}")
        total = kills * per_life
        refused = sum(map(is_refused, range(total)))
        for name in well:
            told = verdicts[name]
            assert (told.decided, told.pending) == (total, 0), f"{name}: {told}"
            assert told.dead_letters == refused, f"{name}: {told.dead_letters} dead letters, and {refused} refused"
        dead = verdicts["dead"]
        assert (dead.delivered, dead.dead_letters + dead.pending) == (0, total), f"dead: {dead}"
        slow, flapping = verdicts["slow"], verdicts["flapping"]
        assert slow.delivered > 0 and flapping.delivered > 0, f"slow: {slow}; flapping: {flapping}"
        return verdicts


def _settled(world: World, name: str) -> bool:
    arrived = world.receivers.arrivals(name)
    return len({one.delivery_id for one in arrived}) >= world.decided


def _check(verdicts: dict[str, Verdict]) -> None:
    for name, verdict in verdicts.items():
        assert not verdict.lost, f"{name}: {len(verdict.lost)} are nowhere: {verdict.lost[:5]}"
        assert not verdict.disordered, f"{name}: out of order: {verdict.disordered[:5]}"
        parts = verdict.delivered + verdict.dead_letters + verdict.pending - verdict.both
        assert parts == verdict.decided, f"{name}: {verdict}"


def _until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + _ENDS_S
    while not true():
        assert time.monotonic() < give_up, f"not within {_ENDS_S:.0f} s: {what}"
        time.sleep(0.05)
