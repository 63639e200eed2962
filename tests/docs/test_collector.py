"""docs/collector.md says what there is."""

import re
from pathlib import Path

import yaml

from pipeline.collector.app import BATCH_PATHS, SINGLE_PATHS
from pipeline.collector.settings import CollectorSettings

TEXT = (Path(__file__).parents[2] / "docs" / "collector.md").read_text()


def test_every_path_is_described() -> None:
    assert [path for path in (*SINGLE_PATHS, *BATCH_PATHS) if f"{path}`" not in TEXT] == []


def test_every_setting_is_described_with_its_default() -> None:
    for name, field in CollectorSettings.model_fields.items():
        assert f"`{name}`" in TEXT, name
        if isinstance(field.default, int | float) and field.default > 1:
            assert f"{field.default:,.0f}".removesuffix(".0") in TEXT or str(field.default) in TEXT, name


def test_the_example_can_be_used() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert CollectorSettings.model_validate(yaml.safe_load(example)["collector"]).port == 8088


def test_every_refusal_is_described() -> None:
    sources = Path(__file__).parents[2].joinpath("pipeline", "collector").glob("*.py")
    code = "".join(source.read_text() for source in sources)
    codes = set(re.findall(r'(?:Refused\(\s*\d+|Rejection\(\s*index), "([a-z_]+)"', code))
    assert len(codes) > 10
    assert [each for each in sorted(codes - {"not_found"}) if f"`{each}`" not in TEXT] == []
