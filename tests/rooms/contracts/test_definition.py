"""What a contract says, and what is said about one that says it wrongly."""

from typing import Any

import pytest

from pipeline.cleaning import NO_TOOLS, Draft
from pipeline.contracts import LabelledField
from pipeline.definitions.catalog import Catalog, contracts_plan
from pipeline.definitions.cleaning import compile_cleaning
from pipeline.definitions.contracts import ContractDefinition, compile_contracts
from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.errors import DefinitionError
from pipeline.records import Definition, Generation, source_name

SHOP = """
contract: shop
sources: [web]
purposes: [analytics]
retention: 400d
unplanned_properties: strip
events:
  Order Completed:
    on_violation: reject
    required: [order_id]
    properties:
      order_id: {type: string}
      email: {type: string, labels: [pii], purposes: [receipts], retention: 30d}
      address:
        type: object
        properties: {street: {type: string, labels: [pii, sensitive]}}
      lines: {type: array, items: {type: object, properties: {note: {labels: [free_text]}}}}
    labels: [revenue]
    purposes: []
  Identify:
    traits: {type: object, properties: {phone: {type: string, labels: [pii]}}}
    retention: 10d
  Page Viewed:
"""


def body(text: str) -> dict[str, Any]:
    [written] = load_text(text)
    assert written.kind == "contract"
    return written.body


def test_labels_purposes_and_retention_are_in_the_plan() -> None:
    contract = ContractDefinition.model_validate(body(SHOP)).compiled(3)
    assert contract.version == "shop/3" and contract.sources == {"web"}
    order = contract.events["Order Completed"]
    assert (order.version, order.labels, order.purposes) == ("shop/3", {"revenue"}, ())
    assert order.retention_ms == 400 * 86_400_000
    assert order.fields == (
        LabelledField("properties", ("email",), frozenset({"pii"}), ("receipts",), 30 * 86_400_000),
        LabelledField("properties", ("address", "street"), frozenset({"pii", "sensitive"})),
        LabelledField("properties", ("lines", "*", "note"), frozenset({"free_text"})),
    )
    assert contract.events["Identify"].fields == (LabelledField("traits", ("phone",), frozenset({"pii"})),)
    assert contract.events["Identify"].retention_ms == 10 * 86_400_000
    assert contract.events["Page Viewed"].purposes == ("analytics",)


SCATTERED = """
contract: shop
events:
  E:
    properties:
      home: {anyOf: [{type: 'null'}, {type: object, properties: {street: {labels: [pii]}}}]}
      mail: {oneOf: [{type: string, labels: [pii]}, {type: 'null'}]}
      pair: {type: array, prefixItems: [{labels: [pii]}, {}]}
      answers: {type: object, additionalProperties: {type: string, labels: [free_text]}}
      numbers: {type: object, patternProperties: {'^n': {labels: [sensitive]}}}
      labels: {type: string}
    traits: {allOf: [{properties: {phone: {labels: [pii], retention: 30d}}}]}
    schema:
      if: {properties: {context: {properties: {ip: {labels: [pii]}}}}}
      properties: {properties: {properties: {note: {purposes: [care]}}}}
"""


def test_a_label_is_heard_wherever_it_stands_in_a_schema() -> None:
    contract = ContractDefinition.model_validate(body(SCATTERED)).compiled()
    found = {(one.section, *one.path): one for one in contract.events["E"].fields}
    assert {place: set(one.labels) for place, one in found.items()} == {
        ("properties", "home", "street"): {"pii"},
        ("properties", "mail"): {"pii"},
        ("properties", "pair", "*"): {"pii"},
        ("properties", "answers"): {"free_text"},
        ("properties", "numbers"): {"sensitive"},
        ("properties", "note"): set(),
        ("traits", "phone"): {"pii"},
        ("context", "ip"): {"pii"},
    }
    assert found["traits", "phone"].retention_ms == 30 * 86_400_000
    assert found["properties", "note"].purposes == ("care",)


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ("E: {traits: {labels: [pii]}}", "`labels` of all traits is heard by nobody"),
        ("E: {context: {allOf: [{retention: 1d}]}}", "`retention` of all context"),
        ("E: {traits: {additionalProperties: {purposes: [a]}}}", "`purposes` of all traits"),
        ("E: {schema: {properties: {properties: {labels: [pii]}}}}", "`labels` of all properties"),
        ("E: {required: [a, b, a]}", "a stands twice"),
        ("'*': {retention: 1d}", "stands for no other event"),
    ],
)
def test_what_nobody_would_hear_is_refused(event: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match=what) as caught:
        load_text(f"contract: shop\nevents:\n  {event}")
    assert caught.value.problems[0].line == 3


def test_what_is_not_to_be_kept_at_all_is_not_kept_for_ever() -> None:
    contract = ContractDefinition.model_validate(body("contract: c\nevents: {E: {properties: {a: {retention: 0s}}}}"))
    assert contract.compiled().events["E"].fields[0].retention_ms == 1


PROPERTY = "contract: shop\nevents:\n  E:\n    properties:\n      a: {PROPERTY}\n"
WRONG = [
    ("type: texxt", "no JSON Schema"),
    ("pattern: '(?=a)'", "regex"),
    ("pattern: 'a{1000}{1000}{1000}'", "regex"),
    ("$ref: 'http://127.0.0.1/x'", "write out"),
    ("$ref: '#'", "write out"),
    ("labels: [PII]", "small letters"),
    ("labels: pii", "list of words"),
    ("retention: soon", "length of time"),
    ("properties: {b: {retention: 3}}", "b: 3 is not a length of time"),
    ("not: " * 1 + "{" + "not: {" * 60 + "}" * 60 + "}", "nested deeper"),
]


@pytest.mark.parametrize(("schema", "what"), WRONG, ids=[schema[:20] for schema, _ in WRONG])
def test_a_wrong_schema_is_told_with_its_place(schema: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match=what) as caught:
        load_text(PROPERTY.replace("PROPERTY", schema))
    assert {problem.line for problem in caught.value.problems} == {5}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("on_violation: drop", "'reject', 'strip' or 'flag'"),
        ("unplanned_events: strip", "'allow', 'flag' or 'reject'"),
        ("sources: [a, a]", "twice"),
        ("retention: 3", "length of time"),
        ("nonsense: 1", "no key `nonsense`"),
    ],
)
def test_a_wrong_key_is_told(line: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match=what):
        load_text(f"contract: shop\n{line}\nevents: {{}}\n")


def test_a_source_has_one_contract_and_another_takes_the_rest() -> None:
    rest = {"contract": "rest", "events": {}}
    shop = {"contract": "shop", "sources": ["web"], "events": {}}
    plan = compile_contracts({"shop": (2, shop), "rest": (1, rest)})
    found = plan.of_source("web"), plan.of_source("raw")
    assert [contract.version for contract in found if contract] == ["shop/2", "rest/1"]
    assert compile_contracts({"shop": (2, shop)}).of_source("raw") is None
    with pytest.raises(DefinitionError, match="both speak of the source web"):
        compile_contracts({"shop": (1, shop), "again": (1, {**shop, "contract": "again"})})
    with pytest.raises(DefinitionError, match="all sources that no other"):
        compile_contracts({"rest": (1, rest), "again": (1, {"contract": "again", "events": {}})})


def test_a_paused_contract_is_as_if_it_were_not_there() -> None:
    catalog = Catalog().with_definitions(
        [Definition(kind="contract", name="rest", version=1, body={"contract": "rest", "events": {}})]
    )
    generation = Generation(number=1, members={"contract/rest": 1})
    assert contracts_plan(catalog, generation).of_source("raw") is not None
    generation.paused = ["contract/rest"]
    assert contracts_plan(catalog, generation).of_source("raw") is None


def test_a_topic_outside_of_the_workspace_may_be_written_with_its_slash() -> None:
    plan = compile_contracts({"crm": (1, body("contract: crm\nsources: [/crm.orders]\nevents: {}"))})
    assert plan.of_source(source_name("", "/crm.orders/0/7")) is plan.contracts[0]
    [written] = load_text("cleaning: crm\nsources: [/crm.orders]\nsteps: [{drop: properties.x}]")
    draft = Draft("E", {"properties": {"x": 1}, "traits": {}, "context": {}})
    compile_cleaning({"crm": written.body}).apply(source_name("", "/crm.orders/0/7"), draft, NO_TOOLS)
    assert draft.sections["properties"] == {}
