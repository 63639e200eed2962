"""The JSON Schema that editors get takes what the definitions take, and finds what stands where nothing may."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.definitions.documents import read_documents
from tests.simulation.definitions import make_segments
from tests.simulation.world import make_world

ROOT = Path(__file__).parents[3]
PAGES = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("segments", "definitions", "accounts", "contracts")]
BLOCKS = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
FILES = [path.read_text() for path in sorted((ROOT / "examples").rglob("*.yaml"))]
KINDS = ("segment", "computed", "identity", "contract", "cleaning", "source", "destination", "accounts", "alert")


@pytest.fixture(scope="module")
def schema() -> Any:
    said = CliRunner().invoke(build(), ["check", "--schema"])
    assert said.exit_code == 0
    return jsonschema_rs.Draft202012Validator(json.loads(said.stdout))


def test_what_the_pages_and_examples_define_is_taken(schema: Any) -> None:
    bodies = [document.value for text in (*BLOCKS, *FILES) for document in read_documents(text)]
    found = [body for body in bodies if next(iter(body)) in KINDS]
    assert len(found) > 30 and any(body.get("compute", {}).get("function") == "prediction" for body in found)
    for body in found:
        assert not [f"{one.instance_path}: {one.message}" for one in schema.iter_errors(body)], body


def test_what_the_simulation_makes_of_the_whole_language_is_taken(schema: Any) -> None:
    for seed in range(40):
        for body in make_world(seed, make_segments).segments:
            assert not [one.message for one in schema.iter_errors(body)], body


@pytest.mark.parametrize(
    "text",
    [
        "segmnt: a",
        "{segment: a, wehn: {all: []}}",
        "{segment: a}",
        "{segment: a, when: {performd: {event: A}}}",
        "{segment: a, when: {performed: {events: A}}}",
        "{segment: a, when: {performed: {event: A, within: 7}}}",
        "{segment: a, when: {all: {}}}",
        "{segment: a, when: {trait: {plan: {equal: free}}}}",
        "{computed: a, compute: {function: count}}",
        "{computed: a, compute: {function: prediction}}",
        "{computed: a, compute: {function: mode, event: A, of: properties.x}}",
        "{identity: {}, namespaces: {}}",
    ],
)
def test_what_is_no_definition_is_not_taken(schema: Any, text: str) -> None:
    [document] = read_documents(text)
    assert list(schema.iter_errors(document.value))
