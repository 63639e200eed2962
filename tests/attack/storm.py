"""SIGKILLs at named points: every role is killed again and again, at the point it was started for, in full traffic."""

import random
import signal
import time
from collections.abc import Iterator

from pipeline.runtime.failpoints import POINTS, VARIABLE
from tests.attack.inflight import KILL_IN, MID_BACKFILL, MOMENTS
from tests.attack.world import KILLED, ROLES, Ended, World, last_words

RANDOM = "at any moment"
_WAIT_FOR_POINT_S = 20.0


def points_of(role: str) -> tuple[str, ...]:
    """The points at which a role can be killed, and what it can be killed in the middle of; a role without a store
    restores nothing."""
    points = (point for point in POINTS if role != "ingest" or point != "mid_restore")
    return (*points, RANDOM, *MOMENTS[role])


def only_at(point: str, kills: int) -> dict[str, list[str]]:
    """All kills of the stateful roles at one point."""
    return {role: [point] * (kills // 2) for role in ROLES if role != "ingest"}


def plan(seed: int, kills: int) -> dict[str, list[str]]:
    """Kills by role: all points of all roles in turn, over as many campaigns slices as it takes."""
    turns = turn_of_points()
    plans: dict[str, list[str]] = {role: [] for role in ROLES}
    for _ in range(seed * kills % 10_000):
        next(turns)
    for _ in range(kills):
        role, point = next(turns)
        plans[role].append(point)
    return plans


def turn_of_points() -> Iterator[tuple[str, str]]:
    """Every (role, point), again and again; the roles alternate."""
    rounds = max(len(points_of(role)) for role in ROLES)
    while True:
        for number in range(rounds):
            for role in ROLES:
                points = points_of(role)
                yield role, points[number % len(points)]


def storm(world: World, plans: dict[str, list[str]], seed: int) -> dict[str, int]:
    """Carry the kills out; gives how often each "role point" was hit."""
    random_ = random.Random(seed)
    left = {role: list(plans.get(role, ())) for role in ROLES}
    armed: dict[str, tuple[str, float]] = {}
    done: dict[str, int] = {}

    def arm(role: str) -> None:
        point = left[role].pop(0) if left[role] else ""
        if not point:
            armed.pop(role, None)
            world.start(role)
            return
        mark, points = MOMENTS[role].get(point, ("", ()))
        if point == MID_BACKFILL:
            world.add_segment()
        if point == RANDOM or (point in MOMENTS[role] and not points):
            world.start(role)
            armed[role] = (point, time.monotonic() + random_.uniform(0.3, 4.0))
        elif points:
            hit = random_.choice([1, 1, 2, 4])
            world.start(role, **{KILL_IN: f"{mark}@{random_.choice(points)}:{hit}"})
            armed[role] = (point, time.monotonic() + _WAIT_FOR_POINT_S)
        else:
            # In the first batches of a process at times, and at times later.
            hit = 1 if point == "mid_restore" else random_.choice([1, 2, 3, 5, 8])
            world.start(role, **{VARIABLE: f"{point}:{hit}"})
            armed[role] = (point, time.monotonic() + _WAIT_FOR_POINT_S)

    for role in ROLES:
        if left[role]:
            # The first process of a world knows no point: it goes at whatever moment this is.
            world.kill(role)
            world.hurt(f"SIGKILL {RANDOM}", role)
            done[f"{role} {RANDOM}"] = done.get(f"{role} {RANDOM}", 0) + 1
            arm(role)
    until = time.monotonic() + world.wait_s * 5
    while armed:
        assert time.monotonic() < until, f"the storm does not end: {armed}\n{world.last_lines()}"
        for role, (point, at) in list(armed.items()):
            running = world.running[role, "0"]
            code = world.exit_code(running)
            if code is None and time.monotonic() > at:
                # The random moment has come; or the point is not reached, because nothing comes by.
                if point not in MOMENTS[role] or MOMENTS[role][point][1]:
                    point = RANDOM
                world.running_signal(running, signal.SIGKILL)
                world.wait("a kill", lambda running=running: world.exit_code(running) is not None)  # type: ignore[misc]
                code = KILLED
            if code is None:
                continue
            if code == KILLED:
                world.hurt(f"SIGKILL {point}", role)
                done[f"{role} {point}"] = done.get(f"{role} {point}", 0) + 1
            else:
                world.ended.append(Ended(role, code, last_words(running.log)))
                left[role].insert(0, point)
                time.sleep(0.2)
            arm(role)
        time.sleep(0.02)
    return done
