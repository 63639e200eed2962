"""docs/contracts.md says what there is."""

import re
from pathlib import Path

from pipeline.definitions.contracts import ContractDefinition, EventDefinition
from pipeline.definitions.loader import load_text
from pipeline.ingest import FLAGS, REASONS

TEXT = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()


def test_the_example_can_be_applied() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    [written] = load_text(example)
    assert written.kind == "contract"


def test_every_key_is_described() -> None:
    fields = {**ContractDefinition.model_fields, **EventDefinition.model_fields}
    names = {field.alias or name for name, field in fields.items()}
    assert [name for name in sorted(names) if f"`{name}`" not in TEXT] == []


def test_every_outcome_is_described() -> None:
    words = [word for word in (*REASONS, *FLAGS) if word.startswith(("contract", "unplanned", "stripped"))]
    assert len(words) == 7
    assert [word for word in words if word.rstrip(":") not in TEXT] == []
