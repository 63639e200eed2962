"""Pages ask an API in the same process, without a Kafka: what it would note in the topic `audit` goes nowhere."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def nothing_noted() -> Iterator[None]:
    """For the towns of whole modules too, and for nobody else's tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.api.writes.audit.note", lambda *_, **__: None)
        yield
