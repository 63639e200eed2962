"""Takes a rule out of this process, if the environment says so. Tests that start a process of their own import it there
first: `import tests.rules.taken_out`."""

import os
import sys

TAKEN_OUT = "TESTS_RULE_TAKEN_OUT"


def take_out(number: int) -> None:
    """Here, and in the processes that are started from here."""
    from tests.rules.engine import RULES
    from tests.simulation.faults import _Finder

    os.environ[TAKEN_OUT] = str(number)
    sys.meta_path.insert(0, _Finder(RULES[number].fault))


if TAKEN_OUT in os.environ:
    take_out(int(os.environ[TAKEN_OUT]))
