"""Nothing leaves without its label and purpose allowed, and without the person's word: random policies and people,
judged by a checker that shares no code with the pipeline. Ten thousand of them: `make leaving`."""

import pytest

from tests.leaving.case import Case


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_what_leaves_is_allowed_and_what_is_allowed_leaves(first: int) -> None:
    for seed in range(first, first + 20):
        try:
            Case(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
