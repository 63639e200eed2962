"""What holds for all tests of simulations."""

from collections.abc import Iterator

import pytest

from tests.simulation.wiring import lay_out_as_usual


@pytest.fixture(autouse=True)
def usual_layout() -> Iterator[None]:
    """Each world draws a layout for the whole process: tests of other rooms may follow in it."""
    yield
    lay_out_as_usual()
