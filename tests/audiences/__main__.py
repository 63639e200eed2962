"""`python -m tests.audiences --members 100000 --logins 10000`: ends with 1 if a trigger hears what it should not, or an
audience does not have exactly the members."""

import argparse
import sys
import time
from contextlib import ExitStack

from pipeline.admin import create_topics
from tests.audiences.campaign import FILE, POSTGRES, TRIGGER, Size, campaign
from tests.campaigns import if_here, workspace
from tests.contracts.servers import postgres
from tests.kafka.deployment import Deployment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100_000)
    parser.add_argument("--logins", type=int, default=10_000)
    parser.add_argument("--step-seconds", type=float, default=300)
    given = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        settings, folder = stack.enter_context(workspace("audiences.", 4))
        database = if_here(stack, postgres())
        create_topics(settings, [TRIGGER, FILE, POSTGRES])
        running = stack.enter_context(Deployment(settings, folder))

        def say(text: str) -> None:
            print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)

        try:
            size = Size(given.members, given.logins, step_s=given.step_seconds)
            causes = campaign(running, size, database, say)
        except AssertionError as error:
            print(f"WRONG: {error}", flush=True)
            return 1
    for what, count in sorted(causes.items()):
        print(f"{count:9,} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
