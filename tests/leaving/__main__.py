"""`python -m tests.leaving --cases 10000`: so many random policies and profiles; ends with 1 at the first leak."""

import argparse
import sys
import time
from collections import Counter

from tests.leaving.case import Case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.cases):
        case = Case(seed)
        try:
            case.run()
        except AssertionError as error:
            print(f"seed {seed}: {error}", flush=True)
            return 1
        counts.update(deliveries=case.deliveries, left=case.left, kept=case.kept, refused=case.refused)
        counts["segments"] += case.refused_segments
    took = time.monotonic() - began
    print(
        f"{arguments.cases:,} policies and profiles in {took:.0f} s: {counts['deliveries']:,} deliveries with "
        f"{counts['left']:,} values, each allowed; {counts['kept']:,} parts of events held back; {counts['refused']:,} "
        f"destinations and {counts['segments']:,} segments refused, each with reason"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
