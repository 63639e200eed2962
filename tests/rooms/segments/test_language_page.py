"""docs/segments.md against the models: its examples are valid, and it names every key."""

import re
from pathlib import Path

import pytest

from pipeline.definitions import comparisons, event_rules, segments, traits
from pipeline.definitions.loader import load_text
from tests.rooms.segments.helpers import plan_of

PAGE = (Path(__file__).parents[3] / "docs" / "segments.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_valid(block: str) -> None:
    if not block.startswith(("segment:", "computed:")):
        block = "segment: s\nwhen:\n" + "".join(f"  {line}\n" for line in block.splitlines())
    [written] = load_text(block)
    others = "\n---\nsegment: newsletter\nwhen: {consent: newsletter}"
    assert plan_of(block + others).leaves or written.kind == "trait"


@pytest.mark.parametrize(
    "model",
    [
        segments.SegmentDefinition,
        event_rules.Performed,
        event_rules.SequenceOfSteps,
        event_rules.EventStep,
        event_rules.DecayingScore,
        event_rules.WeightedEvents,
        segments.Bucket,
        segments.Consent,
        traits.TraitDefinition,
        traits.Compute,
        comparisons.Comparison,
        comparisons.NumberComparison,
        comparisons.CalendarUnits,
        comparisons.BetweenDates,
    ],
)
def test_every_key_is_on_the_page(model: type[comparisons.Model]) -> None:
    for name, field in model.model_fields.items():
        assert re.search(rf"[`{{ ,\n]{field.alias or name}\b", PAGE), name


def test_every_rule_and_function_is_on_the_page() -> None:
    for key in segments._KEYS:
        assert f"`{key}: " in PAGE or f"{key}:" in PAGE, key
    for function in traits.Function.__args__:  # type: ignore[attr-defined]
        assert f"`{function}`" in PAGE, function
