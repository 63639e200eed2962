"""Records that are put aside leave no trace, live or in history, at every seed."""

import pytest

from pipeline.compiled import compiled_modules
from pipeline.unify import UnifyStage
from tests.simulation import put_aside
from tests.simulation.seeds import none_fails

# Their stage is derived from the real one.
pytestmark = pytest.mark.skipif(bool(compiled_modules()), reason="Python derives no class from a compiled one")

BLOCK = 20


@pytest.mark.parametrize("first", range(0, 40, BLOCK))
def test_what_is_put_aside_leaves_no_trace_live_or_in_history(first: int) -> None:
    none_fails(put_aside, range(first, first + BLOCK))


def test_it_is_found_when_history_takes_in_what_was_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnifyStage, "put_aside", lambda self, record, state, out: None)
    assert any(put_aside.try_seed(seed) for seed in range(BLOCK))
