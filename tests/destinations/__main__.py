"""`python -m tests.destinations --kills 30`: five destinations, one dead, one slow, one flapping, and a worker that is
killed again and again; ends with 1 if a delivery is lost or out of order."""

import argparse
import sys
import time

from tests.campaigns import workspace
from tests.destinations.campaign import campaign


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per-life", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    with workspace("destinations.", 4) as (settings, folder):
        try:
            campaign(settings, folder, options.kills, options.per_life, options.seed)
        except AssertionError as error:
            print(f"WRONG: {error}", flush=True)
            return 1
    print(f"{options.kills} kills in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
