"""The faults that are put in on purpose are where their rules live now: each text stands there once, and what comes
instead is a program. That each is found is seen on demand: `python -m tests.simulation.faults`."""

import importlib.util
from pathlib import Path

import pytest

from tests.simulation.fault_kinds import Fault
from tests.simulation.fault_list import FAULTS
from tests.simulation.fault_list_accounts import ACCOUNT_FAULTS
from tests.simulation.fault_list_erasures import ERASURE_FAULTS
from tests.simulation.fault_list_resting import RESTING_FAULTS

EVERY = (*FAULTS, *ACCOUNT_FAULTS, *ERASURE_FAULTS, *RESTING_FAULTS)


@pytest.mark.parametrize("fault", EVERY, ids=[fault.name for fault in EVERY])
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    spec = importlib.util.find_spec(fault.module)
    assert spec is not None and spec.origin is not None
    # A module that was compiled lies beside its source.
    source = (Path(spec.origin).parent / f"{fault.module.rpartition('.')[2]}.py").read_text()
    for old, new in fault.changes:
        assert source.count(old) == 1, f"{fault.module} holds {source.count(old)} times: {old}"
        source = source.replace(old, new)
    compile(source, fault.module, "exec")


def test_no_two_faults_have_one_name() -> None:
    assert len({fault.name for fault in EVERY}) == len(EVERY)
