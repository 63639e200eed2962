"""Every key of the identity rules is described where people look for it, and every field that becomes an identifier."""

from pathlib import Path

from pipeline.definitions.identity import IdentityDefinition, NamespaceDefinition
from pipeline.identity import BUILT_IN

PAGE = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text()
SECTION = PAGE.partition("## Identity rules")[2].partition("\n## ")[0]


def test_every_key_has_a_row() -> None:
    rows = [line.split("|")[1].strip() for line in SECTION.splitlines() if line.startswith("|")]
    for key in (*NamespaceDefinition.model_fields, *IdentityDefinition.model_fields):
        assert f"`{key}`" in rows or key == "namespaces", key


def test_the_built_in_namespaces_and_their_order() -> None:
    assert ", ".join(f"`{one.name}` {one.priority}" for one in BUILT_IN) in SECTION
