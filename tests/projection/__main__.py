"""`python -m tests.projection --rounds 30 --events 1000`: ends with 1 if a destination holds something else than the
projection of the profiles."""

import argparse
import sys
import time
from contextlib import ExitStack

from pipeline.admin import create_topics
from tests.campaigns import if_here, workspace
from tests.contracts.servers import postgres, redis_server
from tests.kafka.deployment import Deployment
from tests.projection.day import NAMES, Day, Places

PASSWORD = "a word"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="each with a fault")
    parser.add_argument("--events", type=int, default=1_000, help="in each round")
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        settings, folder = stack.enter_context(workspace("day.", 3))
        places = open_places(stack)
        create_topics(settings, list(NAMES))
        running = stack.enter_context(Deployment(settings, folder))
        try:
            Day(running, places, given.people, given.seed).run(given.rounds, given.events)
        except AssertionError as error:
            print(f"WRONG: {error}", flush=True)
            return 1
    print(f"{(given.rounds + 1) * given.events:,} events in {time.monotonic() - began:.0f} s")
    return 0


def open_places(stack: ExitStack) -> Places:
    """The servers of this machine, for as long as the stack is open."""
    database = if_here(stack, postgres())
    port = if_here(stack, redis_server(PASSWORD))
    cache = None if port is None else f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    return Places(database, cache)


if __name__ == "__main__":
    sys.exit(main())
