"""docs/cleaning.md says what there is."""

import re
from pathlib import Path

from pipeline.definitions.cleaning import CleaningDefinition, ReferenceDefinition, StepDefinition
from pipeline.definitions.loader import load_text

TEXT = (Path(__file__).parents[2] / "docs" / "cleaning.md").read_text()


def test_the_example_can_be_applied_and_has_every_step() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    [reference, written] = load_text(example)
    assert reference.kind == "reference"
    assert {key for step in written.body["steps"] for key in step} == set(StepDefinition.model_fields)


def test_every_step_and_key_is_described() -> None:
    words = [
        name
        for name in (*StepDefinition.model_fields, *CleaningDefinition.model_fields, *ReferenceDefinition.model_fields)
        if name != "description"
    ]
    assert [word for word in words if word not in TEXT] == []


def test_the_function_of_the_example_is_one() -> None:
    [program] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    space: dict[str, object] = {}
    exec(program, space)
    event = {"event": "E", "properties": {"total": 101}, "traits": {}, "context": {}}
    assert space["enrich"](event)["properties"] == {"total": 101, "is_large": True}  # type: ignore[operator]
