"""What docs/definitions.md shows is what is read."""

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from connectors.template import fill, values_of
from connectors.testing import sample_delivery
from connectors.webhook import payload, signature, signing_key
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.destinations import DeliveryDefinition, DestinationDefinition
from pipeline.definitions.loader import load_text
from pipeline.records import IdentifierPair

TEXT = (Path(__file__).parents[3] / "docs" / "definitions.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_can_be_applied(example: str) -> None:
    assert load_text(example)


def test_every_key_of_a_destination_is_described() -> None:
    for name in (*DestinationDefinition.model_fields, *DeliveryDefinition.model_fields):
        assert name == "description" or f"`{name}`" in TEXT, name


def test_the_receiver_of_the_example_verifies_what_is_sent() -> None:
    space: dict[str, Any] = {}
    exec(PROGRAMS[0], space)
    import time

    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    body, now = payload(sample_delivery(1)), int(time.time())
    headers = {
        "webhook-id": "dlv_1",
        "webhook-timestamp": str(now),
        "webhook-signature": "v1,other " + signature(signing_key(secret), "dlv_1", now, body),
    }
    assert space["verified"](secret, headers, body)
    assert not space["verified"](secret, headers, body + b" ")
    assert not space["verified"](secret, {**headers, "webhook-timestamp": str(now - 1_000)}, body)


def test_the_templates_have_an_address_also_when_identity_has_not_decided_yet() -> None:
    templates = [one for example in EXAMPLES for one in load_text(example) if one.body.get("kind") == "http"]
    assert len(templates) == 3
    for written in templates:
        options = DestinationDefinition.model_validate(written.body).options
        told = {name: f"{name}@example.org" for name in written.body["traits"]}
        newcomer = sample_delivery(1, identifiers=[IdentifierPair("user_id", "ada")], body={"traits": told})
        values = values_of(newcomer)
        filled = fill([options.each or [], options.body], {**values, "each": []})
        hashed = sha256(b"email@example.org").hexdigest()
        assert any(address in repr(filled) for address in ("email@example.org", hashed)), written.name


def test_the_reaction_of_the_example_is_one() -> None:
    pytest.importorskip("faust")
    space: dict[str, Any] = {"__name__": "reactions"}
    exec(PROGRAMS[1], space)
    assert [agent.name for agent in space["app"].agents.values()] == ["reactions.greet"]


def test_a_new_workspace_has_nothing_in_force() -> None:
    assert Catalog().latest.members == {}
