"""Events against a contract: what passes, what is flagged, taken away, or refused, and what is said about it."""

import json
from typing import Any

import pytest

from pipeline.contracts import NO_CONTRACTS, ContractsPlan, Violation, check
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.loader import load_text
from pipeline.identity import builtin_rules
from pipeline.ingest import FLAGS, REASONS, Checks, Emit, Refusal, ingest
from pipeline.records import Event
from pipeline.runtime.ports import Record

NOW_MS = 1_790_000_000_000
SHOP = """
contract: shop
on_violation: HOW
unplanned_events: EVENTS
unplanned_properties: PROPERTIES
events:
  Order Completed:
    required: [order_id]
    properties:
      order_id: {type: string, pattern: '^o-[0-9]+$'}
      total: {type: number, minimum: 0}
      lines: {type: array, items: {type: object, required: [sku], properties: {sku: {type: string}}}}
      address: {type: object, properties: {zip: {type: string}}, additionalProperties: false}
      a/b: {type: integer}
      tags: {type: array, minItems: 1, contains: {const: shop}}
      size: {type: object, minProperties: 2}
  Identify:
    traits: {type: object, properties: {email: {type: string, format: email}, plan: {enum: [free, paid]}}}
"""
GOOD = {"order_id": "o-1", "total": 12.5, "lines": [{"sku": "x"}], "address": {"zip": "1"}, "a/b": 3}


def plan(how: str = "flag", events: str = "allow", properties: str = "allow") -> ContractsPlan:
    text = SHOP.replace("HOW", how).replace("EVENTS", events).replace("PROPERTIES", properties)
    [written] = load_text(text)
    return compile_contracts({"shop": (3, written.body)})


def order(**properties: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": "ada", "properties": {**GOOD, **properties}}


def outcome(event: dict[str, Any], contracts: ContractsPlan, told: list[Any] | None = None) -> Event | Refusal:
    def tell(version: str, name: str, violations: tuple[Violation, ...]) -> None:
        if told is not None:
            told.append((version, name, [(each.pointer, each.rule) for each in violations]))

    record = Record("raw", 0, 7, None, json.dumps(event).encode())
    found = ingest(record, NOW_MS, builtin_rules(), Checks(contracts, told=tell))
    return found.event if isinstance(found, Emit) else found


def test_an_event_as_planned_says_which_version_it_met() -> None:
    told: list[Any] = []
    for how in ("flag", "strip", "reject"):
        event = outcome(order(), plan(how, "reject", "reject"), told)
        assert isinstance(event, Event) and event.contract == "shop/3" and event.flags == []
        assert event.properties == GOOD
    assert told == []
    event = outcome(order(), NO_CONTRACTS)
    assert isinstance(event, Event) and event.contract is None


# What is wrong with the order: the change, the pointers and rules told, what is left after stripping (None: refused).
VIOLATIONS: list[tuple[dict[str, Any], list[tuple[str, str]], dict[str, Any] | None]] = [
    ({"total": -1}, [("/properties/total", "minimum")], {"total": ...}),
    ({"total": "12"}, [("/properties/total", "type")], {"total": ...}),
    ({"order_id": "7"}, [("/properties/order_id", "pattern")], None),
    ({"order_id": ...}, [("/properties/order_id", "required")], None),
    ({"lines": [{"sku": "a"}, {"sku": 3}, {"sku": "c"}]}, [("/properties/lines/1/sku", "type")], None),
    ({"lines": [1, {"sku": "a"}, 2]}, [("/properties/lines/0", "type"), ("/properties/lines/2", "type")],
     {"lines": [{"sku": "a"}]}),
    ({"address": {"zip": "1", "town": "x"}}, [("/properties/address/town", "additionalProperties")],
     {"address": {"zip": "1"}}),
    ({"a/b": "x"}, [("/properties/a~1b", "type")], {"a/b": ...}),
    ({"total": -1, "a/b": 1.5}, [("/properties/total", "minimum"), ("/properties/a~1b", "type")],
     {"total": ..., "a/b": ...}),
    ({"tags": ["b"], "size": {"x": 1}}, [("/properties/tags", "contains"), ("/properties/size", "minProperties")], {}),
    ({"tags": []}, [("/properties/tags", "contains"), ("/properties/tags", "minItems")], {}),
]  # fmt: skip


def without_dots(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not ...}


@pytest.mark.parametrize(("change", "violated", "stripped"), VIOLATIONS, ids=[str(case[0]) for case in VIOLATIONS])
def test_a_violation_is_flagged_stripped_or_refused_and_always_told(
    change: dict[str, Any], violated: list[tuple[str, str]], stripped: dict[str, Any] | None
) -> None:
    event = {**order(), "properties": without_dots({**GOOD, **change})}
    told: list[Any] = []
    flagged = outcome(event, plan("flag"), told)
    assert isinstance(flagged, Event) and flagged.properties == event["properties"]
    assert sorted(flagged.flags) == sorted(f"contract_violation:{pointer}" for pointer, _ in violated)

    refused = outcome(event, plan("reject"), told)
    assert isinstance(refused, Refusal) and refused.reason == "contract_violation"
    assert refused.pointer in [pointer for pointer, _ in violated]
    assert "shop/3" in refused.detail and refused.pointer in refused.detail

    kept = outcome(event, plan("strip"), told)
    if stripped is None:
        assert isinstance(kept, Refusal) and kept.reason == "contract_violation"
        assert kept == refused, "what was wrong, and not that it is missing once it is taken away"
    else:
        assert isinstance(kept, Event) and kept.properties == without_dots({**GOOD, **stripped})
        assert sorted(kept.flags) == sorted(f"stripped:{pointer}" for pointer, _ in violated)
    for version, name, what in told:
        assert (version, name, sorted(what)) == ("shop/3", "Order Completed", sorted(violated))


def test_no_value_stands_in_what_is_said() -> None:
    refused = outcome(order(order_id="secret-4711"), plan("reject"))
    assert isinstance(refused, Refusal) and "4711" not in refused.detail


def test_more_than_is_looked_at_once_is_stripped_and_what_that_leaves_too_short() -> None:
    text = """
contract: c
on_violation: strip
events:
  E:
    properties:
      prices: {type: array, items: {type: number}}
      tags: {type: array, minItems: 1, items: {type: string}}
"""
    [written] = load_text(text)
    contract = compile_contracts({"c": (1, written.body)}).of_source("web")
    assert contract is not None
    prices = [*(str(number) for number in range(350)), 1.5, 2]
    sections: dict[str, dict[str, Any]] = {"properties": {"prices": prices, "tags": [7]}, "traits": {}, "context": {}}
    checked = check(contract, "E", sections)
    assert checked.rejected == "" and sections["properties"] == {"prices": [1.5, 2]}
    assert "stripped:/properties/prices/0" in checked.flags


def test_what_is_stripped_is_no_identifier_either() -> None:
    identify = {"type": "identify", "userId": "ada", "traits": {"email": "not an address", "plan": "free"}}
    flagged, stripped = outcome(identify, plan("flag")), outcome(identify, plan("strip"))
    assert isinstance(flagged, Event) and isinstance(stripped, Event)
    assert stripped.traits == {"plan": "free"} and stripped.identifiers == ["user_id:ada"]
    assert stripped.flags == ["stripped:/traits/email"]


@pytest.mark.parametrize("how", ["allow", "flag", "reject"])
def test_events_that_are_not_planned(how: str) -> None:
    told: list[Any] = []
    found = outcome({"type": "track", "event": "Dance", "userId": "ada"}, plan(events=how), told)
    if how == "reject":
        assert isinstance(found, Refusal) and (found.reason, found.pointer) == ("unplanned_event", "/event")
    else:
        assert isinstance(found, Event) and found.contract == "shop/3"
        assert found.flags == (["unplanned_event"] if how == "flag" else [])
    assert [what for _, _, what in told] == ([] if how == "allow" else [[("/event", "unplanned_event")]])


@pytest.mark.parametrize("how", ["allow", "flag", "strip", "reject"])
def test_properties_and_traits_that_are_not_planned(how: str) -> None:
    for event, pointer in (
        (order(coupon="x"), "/properties/coupon"),
        ({"type": "identify", "userId": "ada", "traits": {"shoe/size": 3}}, "/traits/shoe~1size"),
    ):
        found = outcome(event, plan(properties=how))
        if how == "reject":
            assert isinstance(found, Refusal) and (found.reason, found.pointer) == ("unplanned_property", pointer)
            continue
        assert isinstance(found, Event)
        kept = "coupon" in found.properties or "shoe/size" in found.traits
        assert kept == (how != "strip")
        word = {"flag": "unplanned_property", "strip": "stripped", "allow": ""}[how]
        assert found.flags == ([f"{word}:{pointer}"] if word else [])


def test_context_is_never_complete() -> None:
    found = outcome({**order(), "context": {"anything": 1}}, plan(properties="reject"))
    assert isinstance(found, Event)


def test_the_contract_is_that_of_the_source() -> None:
    [shop] = load_text(SHOP.replace("contract: shop", "contract: shop\nsources: [web]").replace("HOW", "reject")
                       .replace("EVENTS", "allow").replace("PROPERTIES", "allow"))  # fmt: skip
    contracts = compile_contracts({"shop": (1, shop.body)})
    bad = order(total=-1)
    assert isinstance(outcome(bad, contracts), Event), "raw has none"
    assert isinstance(outcome({**bad, "source": "web"}, contracts), Refusal)
    other = outcome({**bad, "source": "billing"}, contracts)
    assert isinstance(other, Event) and (other.contract, other.origin) == (None, "billing")


def test_thousands_of_violations_are_bounded() -> None:
    found = outcome(order(lines=[1] * 5_000), plan("flag"))
    assert isinstance(found, Event) and len(found.flags) <= 10
    many = order(**{f"p{number}": 1 for number in range(3_000)})
    found = outcome(many, plan(properties="flag"))
    assert isinstance(found, Event) and len(found.flags) <= 10
    stripped = outcome(many, plan(properties="strip"))
    assert isinstance(stripped, Event) and stripped.properties == GOOD


def test_reasons_and_flags_stand_in_the_catalogue() -> None:
    assert {"unplanned_event", "unplanned_property", "contract_violation"} <= set(REASONS)
    assert {"unplanned_event", "unplanned_property:", "contract_violation:", "stripped:"} <= set(FLAGS)


def test_a_member_that_no_schema_has_looked_at_is_taken_alone() -> None:
    only_a = "{properties: {a: {}}, unevaluatedProperties: false}"
    text = f"contract: c\non_violation: strip\nevents: {{E: {{properties: {{o: {only_a}}}}}}}"
    [written] = load_text(text)
    [contract] = compile_contracts({"c": (1, written.body)}).contracts
    sections: dict[str, dict[str, Any]] = {"properties": {"o": {"a": 1, "b": 2}}, "traits": {}, "context": {}}
    checked = check(contract, "E", sections)
    assert (checked.rejected, checked.flags) == ("", ("stripped:/properties/o/b",))
    assert sections["properties"] == {"o": {"a": 1}}
