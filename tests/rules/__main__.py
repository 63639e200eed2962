"""`python -m tests.rules [TEXT …]`: take the rules of the engine out, one at a time; each test named for one must fail.

With words: only rules that have one of them in what they say. Rules that take a broker are seen on one of their own.
"""

import argparse
import subprocess
import sys
import time

import pytest

from tests.rules.engine import RULES, Rule
from tests.rules.taken_out import take_out

# pytest's own: tests were run and some failed.
_FAILED = 1


def inside(number: int, test: str) -> int:
    """In a process of its own: run a test with a rule taken out."""
    take_out(number)
    return pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--no-header", test])


def misses(number: int, rule: Rule) -> list[str]:
    """The tests that do not fail without the rule, or cannot be run."""
    missed = []
    for test in rule.tests:
        command = [sys.executable, "-m", "tests.rules", "--inside", str(number), "--test", test]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != _FAILED:
            missed.append(f"{test} ({done.returncode}): {(done.stdout + done.stderr).strip()[-300:]}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rules", description=__doc__.split("\n\n")[0])
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--test", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        return inside(options.inside, options.test)
    tried = failed = 0
    for number, rule in enumerate(RULES):
        if options.texts and not any(text in rule.says for text in options.texts):
            continue
        began = time.monotonic()
        missed = misses(number, rule)
        tried, failed = tried + 1, failed + bool(missed)
        print(f"{'NOT SEEN' if missed else 'seen':<9} {time.monotonic() - began:5.1f} s  {rule.says}", flush=True)
        for each in missed:
            print(f"          {each}", flush=True)
    print(f"{tried} rules taken out, {failed} not seen by a test that should")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
