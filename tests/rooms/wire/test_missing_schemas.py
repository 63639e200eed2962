"""A schema id that the registry does not know now may be known in a moment."""

from typing import Any

import pytest
from confluent_kafka.schema_registry.error import SchemaRegistryError

from pipeline.wire.registry import Schemas


class Registry:
    """Knows what it was told."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.asked = 0

    def get_schema(self, schema_id: int) -> Any:
        self.asked += 1
        if schema_id not in self.texts:
            raise SchemaRegistryError(404, 40403, "Schema not found")
        return type("Found", (), {"schema_str": self.texts[schema_id]})


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_an_id_that_was_named_too_early_is_asked_for_again(registry: Registry) -> None:
    """Whoever writes a zero and the next number would else have all records of that schema refused until a restart."""
    now = [0.0]
    schemas = Schemas({}, registry, clock_s=lambda: now[0])
    assert schemas(7) is None and schemas(7) is None
    assert registry.asked == 1, "a flood of such records is no flood of questions"
    registry.texts[7] = '"string"'
    assert schemas(7) is None
    now[0] = 5.0
    assert schemas(7) is not None
    assert schemas(7) is not None and registry.asked == 2


def test_what_is_kept_of_ids_that_are_not_there_is_bounded(registry: Registry) -> None:
    schemas = Schemas({}, registry, clock_s=lambda: 0.0)
    registry.texts[1] = '"string"'
    assert schemas(1) is not None
    for schema_id in range(2, 3_000):
        assert schemas(schema_id) is None
    asked = registry.asked
    assert schemas(1) is not None and registry.asked == asked, "they push out nothing that is there"
    assert len(schemas._missing) == 1_000


def test_a_schema_of_another_kind_is_asked_for_once(registry: Registry) -> None:
    now = [0.0]
    schemas = Schemas({}, registry, clock_s=lambda: now[0])
    registry.texts[7] = 'syntax = "proto3";'
    assert schemas(7) is None
    now[0] = 100.0
    assert schemas(7) is None and registry.asked == 1
