"""Faults of long work that rests, while all else goes on."""

from tests.simulation.fault_kinds import Fault

RESTING_FAULTS: tuple[Fault, ...] = (
    Fault(
        "what_stands_behind_what_rests_goes_on",
        "pipeline.runtime.rest",
        (
            (
                "begin = {record[1]: -1 for record in self._left}\n",
                "begin: dict[int, int] = {}\n",
            ),
        ),
        "real",
        (1151,),
    ),
    Fault(
        "what_rests_is_passed_by_an_abort",
        "pipeline.runtime.rest",
        (
            (
                "self._left, self.suspects = self._records + self._left, [], [], 0",
                "self._left, self.suspects = self._records, [], [], 0",
            ),
        ),
        "real",
    ),
)
