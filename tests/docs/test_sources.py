"""docs/sources.md says what there is."""

import re
from pathlib import Path

import pytest

from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.definitions.sources import _KINDS, _ROOTS, PullDefinition, SourceDefinition

TEXT = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()


def test_the_example_can_be_applied() -> None:
    example, pulled = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert [written.name for written in load_text(example)] == ["crm", "orders"]
    # Its kind comes with the example: tests/docs/test_source_template.py has it installed.
    with pytest.raises(InvalidDefinitionsError, match="no kind of source 'sqlite_rows'"):
        load_text(pulled)


def test_every_key_root_and_conversion_is_described() -> None:
    words = {*SourceDefinition.model_fields, *PullDefinition.model_fields, *_KINDS, *_ROOTS["debezium"]} - {
        "description"
    }
    assert [word for word in sorted(words) if f"`{word}`" not in TEXT] == []
