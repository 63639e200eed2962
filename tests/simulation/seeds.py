"""A check that is run seed by seed: its command line, and its loop in tests."""

import argparse
import time
from collections.abc import Callable, Iterable
from types import ModuleType


def none_fails(simulation: ModuleType, seeds: Iterable[int]) -> None:
    """Play these seeds; the first that fails is told with the command that plays it again."""
    for seed in seeds:
        failure = simulation.try_seed(seed)
        assert failure is None, f"{failure}\n  python -m {simulation.__name__} --seeds 1 --first {seed}"


def main(
    module: str, text: str | None, attempt: Callable[[int], str | None], seeds: int = 1000, most_failures: int = 5
) -> int:
    """Try seed after seed until enough have failed, each with the command that replays it. The exit code.

    `attempt` gives what went wrong at a seed, or None; `seeds` and `most_failures` are what holds when nobody says.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most-failures", type=int, default=most_failures)
    arguments = parser.parse_args()
    started, failed, done = time.monotonic(), 0, 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        done += 1
        if done % 500 == 0:
            print(f"{done} seeds, {failed} failed, {time.monotonic() - started:.0f} s", flush=True)
        detail = attempt(seed)
        if detail is not None:
            failed += 1
            print(f"seed {seed}: {detail}\n    python -m {module} --seeds 1 --first {seed}", flush=True)
            if failed >= arguments.most_failures:
                break
    print(f"{done} seeds, {failed} failed, {time.monotonic() - started:.1f} s")
    return 1 if failed else 0
