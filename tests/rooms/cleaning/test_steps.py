"""Each step on an event; what is not there, or of another shape, is nothing to do."""

import json
from typing import Any

import pytest

from pipeline.cleaning import CleaningPlan, Failed, Reference, Tools
from pipeline.definitions.cleaning import compile_cleaning
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.errors import DefinitionError
from pipeline.identity import builtin_rules
from pipeline.ingest import FLAGS, Checks, Emit, Refusal, ingest
from pipeline.records import Event
from pipeline.runtime.ports import Record

NOW_MS = 1_790_000_000_000


def plan(steps: str, head: str = "") -> CleaningPlan:
    [written] = load_text(
        f"cleaning: test\n{head}steps:\n" + "".join(f"  - {step}\n" for step in steps.split("\n") if step)
    )
    return compile_cleaning({"test": written.body})


def call(name: str, event: dict[str, Any], timeout_ms: int) -> Any:
    if name == "fails":
        raise Failed("fails raised ValueError: no")
    return {**event, "event": "Renamed", "properties": {"by": name, "within": timeout_ms}}


def row(reference: Reference, key: str) -> dict[str, Any] | None:
    return {"name": "Shoe", "of": reference.topic} if key == "7" else None


TOOLS = Tools(lambda text: f"hash of {text}", call, row)


def cleaned(cleaning: CleaningPlan, **fields: Any) -> Event | Refusal:
    event = {"type": "track", "event": "E", "userId": "ada", **fields}
    outcome = ingest(
        Record("raw", 0, 0, None, json.dumps(event).encode()),
        NOW_MS,
        builtin_rules(),
        Checks(cleaning=cleaning, tools=TOOLS),
    )
    return outcome.event if isinstance(outcome, Emit) else outcome


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("rename: {field: properties.a, to: properties.b}", {"a": 1}, {"b": 1}),
    ("rename: {field: properties.a, to: properties.b}", {"a": 1, "b": 2}, {"b": 2}),
    ("rename: {field: properties.a, to: properties.x.y}", {"a": 1}, {"x": {"y": 1}}),
    ("rename: {field: properties.a, to: properties.x.y}", {"c": 1}, {"c": 1}),
    ("rename: {field: properties.a, to: properties.x.y}", {"a": 1, "x": {"y": None}}, {"x": {"y": None}}),
    ("rename: {field: properties.a.b, to: properties.a}", {"a": {"b": 1}}, {"a": 1}),
    ("rename: {field: properties.a.b, to: properties.a}", {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
    ("rename: {field: properties.a, to: properties.a.b}", {"a": 1}, {"a": {"b": 1}}),
    ("cast: {field: properties.a, to: number}", {"a": " 12.5 "}, {"a": 12.5}),
    ("cast: {field: properties.a, to: number}", {"a": "12"}, {"a": 12}),
    ("cast: {field: properties.a, to: number}", {"a": True}, {"a": 1}),
    ("cast: {field: properties.a, to: number}", {"a": None}, {"a": None}),
    ("cast: {field: properties.a, to: integer}", {"a": "12.0"}, {"a": 12}),
    ("cast: {field: properties.a, to: text}", {"a": 12.0}, {"a": "12"}),
    ("cast: {field: properties.a, to: text}", {"a": False}, {"a": "false"}),
    ("cast: {field: properties.a, to: boolean}", {"a": "Yes"}, {"a": True}),
    ("cast: {field: properties.a, to: boolean}", {"a": 0}, {"a": False}),
    ("cast: {field: properties.l.*.n, to: integer}", {"l": [{"n": "1"}, {"m": 1}, 3]}, {"l": [{"n": 1}, {"m": 1}, 3]}),
    ("default: {field: properties.a, value: EUR}", {}, {"a": "EUR"}),
    ("default: {field: properties.a, value: EUR}", {"a": None}, {"a": "EUR"}),
    ("default: {field: properties.a, value: EUR}", {"a": ""}, {"a": ""}),
    ("drop: properties.a", {"a": 1, "b": 2}, {"b": 2}),
    ("drop: properties.lines.*", {"lines": [1, 2, 3]}, {"lines": []}),
    ("drop: properties.lines.*.a", {"lines": [{"a": 1}, {"b": 2}]}, {"lines": [{}, {"b": 2}]}),
    ("hash: properties.a", {"a": "x"}, {"a": "hash of x"}),
    ("hash: properties.a", {"a": {"x": 1}}, {}),
    ("hash: properties.a.*", {"a": ["x", ["y"], 3]}, {"a": ["hash of x", "hash of 3"]}),
    ("mask: {field: properties.a, keep_last: 4}", {"a": "4111111111111111"}, {"a": "************1111"}),
    ("mask: {field: properties.a, keep_last: 4}", {"a": "12"}, {"a": "**"}),
    ("mask: {field: properties.a}", {"a": 12345}, {"a": "*****"}),
    ("mask: {field: properties.a}", {"a": [1]}, {}),
    ("call: {function: enrich, timeout: 50ms}", {"a": 1}, {"by": "enrich", "within": 50}),
]  # fmt: skip


@pytest.mark.parametrize(("step", "properties", "expected"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES])
def test_a_step(step: str, properties: dict[str, Any], expected: dict[str, Any]) -> None:
    event = cleaned(plan(step), properties=properties)
    assert isinstance(event, Event) and event.properties == expected
    assert event.flags == []


@pytest.mark.parametrize("value", ["twelve", "1_000", "nan", "inf", "1" * 200, [1], {}])
def test_what_is_no_number_stays_and_says_so(value: Any) -> None:
    event = cleaned(plan("cast: {field: properties.a, to: number}"), properties={"a": value})
    assert isinstance(event, Event) and event.properties == {"a": value}
    assert event.flags == ["not_cast:/properties/a"] and "not_cast:" in FLAGS


@pytest.mark.parametrize("way", ["text", 7, [{}], None])
def test_what_cannot_get_its_new_place_stays_and_says_so(way: Any) -> None:
    event = cleaned(plan("rename: {field: properties.a, to: properties.x.y}"), properties={"a": 1, "x": way})
    assert isinstance(event, Event) and event.properties == {"a": 1, "x": way}
    assert event.flags == ["not_renamed:/properties/a"] and "not_renamed:" in FLAGS


def test_steps_are_taken_in_order_and_definitions_by_name() -> None:
    first = load_text("cleaning: a\nsteps: [{rename: {field: properties.x, to: properties.y}}]")[0].body
    second = load_text("cleaning: b\nsteps: [{cast: {field: properties.y, to: number}}, {drop: properties.z}]")[0].body
    event = cleaned(compile_cleaning({"b": second, "a": first}), properties={"x": "3", "z": 1})
    assert isinstance(event, Event) and event.properties == {"y": 3}


def test_a_default_is_nobody_elses() -> None:
    cleaning = plan("default: {field: properties.a, value: {b: 1}}\nrename: {field: properties.a.b, to: properties.c}")
    for _ in range(2):
        event = cleaned(cleaning)
        assert isinstance(event, Event) and event.properties == {"a": {}, "c": 1}


def test_sources_and_events_are_told_apart() -> None:
    head = "sources: [web]\nevents: [E]\n"
    for fields, dropped in (
        ({"source": "web"}, True),
        ({}, False),
        ({"source": "web", "event": "F"}, False),
    ):
        event = cleaned(plan("drop: properties.a", head), properties={"a": 1}, **fields)
        assert isinstance(event, Event) and ("a" not in event.properties) == dropped


def test_a_renamed_event_meets_the_contract_of_its_new_name() -> None:
    contract = load_text("contract: shop\non_violation: reject\nevents: {Order Completed: {required: [total]}}")[0].body
    checks = Checks(compile_contracts({"shop": (1, contract)}), plan("rename_event: Order Completed"), tools=TOOLS)
    record = Record("raw", 0, 0, None, b'{"type":"track","event":"order_completed","userId":"a"}')
    outcome = ingest(record, NOW_MS, builtin_rules(), checks)
    assert isinstance(outcome, Refusal) and outcome.pointer == "/properties/total"


def test_identifiers_are_taken_from_what_was_cleaned() -> None:
    cleaning = plan("rename: {field: properties.mail, to: traits.email}")
    event = cleaned(cleaning, properties={"mail": "Ada@Example.org"})
    assert isinstance(event, Event) and event.identifiers == ["user_id:ada", "email:ada@example.org"]


def test_a_failure_is_passed_or_refused_as_defined() -> None:
    step = "call: {function: fails}\ndrop: properties.a"
    passed = cleaned(plan(step), properties={"a": 1})
    assert isinstance(passed, Event) and passed.properties == {} and passed.flags == ["cleaning_failed:test"]
    refused = cleaned(plan(step, "on_failure: reject\n"), properties={"a": 1})
    assert isinstance(refused, Refusal) and refused.reason == "cleaning_failed" and "fails raised" in refused.detail


IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.5 Mobile/15E148 Safari/604.1"
)


def test_the_user_agent_says_browser_system_and_device() -> None:
    context = {"userAgent": IPHONE, "device": {"id": "d-1"}}
    event = cleaned(plan("derive: user_agent"), context=context)
    assert isinstance(event, Event)
    assert event.context["browser"] == {"name": "Mobile Safari", "version": "17.5"}
    assert event.context["os"] == {"name": "iOS", "version": "17.5"}
    assert event.context["device"] == {"id": "d-1", "manufacturer": "Apple", "model": "iPhone"}
    for nothing in ({}, {"userAgent": ""}, {"userAgent": 3}, {"userAgent": "\x00" * 5_000}):
        assert isinstance(cleaned(plan("derive: user_agent"), context=nothing), Event)


def test_the_address_says_the_campaign() -> None:
    url = "https://shop.example/x?utm_source=news&utm_medium=mail&utm_campaign=spring%20sale&other=1#frag"
    event = cleaned(plan("derive: campaign"), context={"page": {"url": url}, "campaign": {"source": "kept"}})
    assert isinstance(event, Event)
    assert event.context["campaign"] == {"source": "kept", "medium": "mail", "name": "spring sale"}
    of_page = cleaned(plan("derive: campaign"), properties={"search": "?utm_source=a"})
    assert isinstance(of_page, Event) and of_page.context["campaign"] == {"source": "a"}
    for url in ("http://[", "x" * 50_000, "https://x/?" + "utm_source=a&" * 5_000, None, 7):
        assert isinstance(cleaned(plan("derive: campaign"), context={"page": {"url": url}}), Event)


REFERRERS = [
    ("https://www.google.com/search?q=x", {"domain": "google.com", "type": "search", "name": "google"}),
    ("https://www.google.co.uk/", {"domain": "google.co.uk", "type": "search", "name": "google"}),
    ("https://t.co/abc", {"domain": "t.co", "type": "social", "name": "x"}),
    ("https://l.facebook.com/", {"domain": "l.facebook.com", "type": "social", "name": "facebook"}),
    ("https://mail.example.org/", {"domain": "mail.example.org", "type": "mail"}),
    ("https://shop.example/cart", {"domain": "shop.example", "type": "internal"}),
    ("https://blog.example.org/", {"domain": "blog.example.org", "type": "other"}),
    ("", {"type": "direct"}),
]


@pytest.mark.parametrize(("referrer", "expected"), REFERRERS)
def test_the_referrer_says_where_the_visitor_came_from(referrer: str, expected: dict[str, str]) -> None:
    page = {"url": "https://www.shop.example/pricing", "referrer": referrer}
    event = cleaned(plan("derive: referrer"), context={"page": page})
    assert isinstance(event, Event) and event.context["referrer"] == expected


PRODUCTS = {"products": {"reference": "products", "topic": "/catalogue", "provenance": "the shop's own"}}
JOIN = {
    "cleaning": "t",
    "steps": [{"join": {"reference": "products", "by": "properties.sku", "to": "properties.product"}}],
}


def test_a_row_of_a_reference_is_joined_with_where_it_is_from() -> None:
    cleaning = compile_cleaning({"t": JOIN}, PRODUCTS)
    event = cleaned(cleaning, properties={"sku": 7})
    assert isinstance(event, Event)
    assert event.properties == {"sku": 7, "product": {"name": "Shoe", "of": "/catalogue"}}
    said = {"reference": "products", "provenance": "the shop's own"}
    assert event.context == {"references": {"properties.product": said}} and event.flags == []
    missed = cleaned(cleaning, properties={"sku": 8})
    assert isinstance(missed, Event) and missed.properties == {"sku": 8}
    assert missed.flags == ["no_reference:products"] and "no_reference:" in FLAGS
    for nothing in ({}, {"sku": None}, {"sku": [7]}):
        event = cleaned(cleaning, properties=nothing)
        assert isinstance(event, Event) and event.flags == []


def test_a_reference_that_is_not_there_is_told() -> None:
    with pytest.raises(DefinitionError, match="no reference products"):
        compile_cleaning({"t": JOIN})


@pytest.mark.parametrize(
    ("step", "what"),
    [
        ("drop: userId", "no path"),
        ("drop: properties", "no path"),
        ("rename: {field: properties.*.a, to: properties.b}", "no \\* here"),
        ("cast: {field: properties.a, to: date}", "'text', 'number'"),
        ("derive: weather", "'user_agent', 'campaign'"),
        ("{drop: properties.a, hash: properties.b}", "one of the keys"),
        ("call: {function: f, timeout: 1h}", "a number of at most"),
        ("run: rm", "no key `run`"),
    ],
)
def test_what_is_no_step_is_told(step: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match=what):
        plan(step)


def test_what_is_brought_in_is_held_to_the_bounds_of_what_came() -> None:
    """Whoever reads events relies on them: a number that no state can hold would be refused by unify, half done."""
    deep: Any = 1
    for _ in range(40):
        deep = {"x": deep}
    [written] = load_text("cleaning: test\nsteps: [{join: {reference: p, by: properties.sku, to: properties.product}}]")
    joins = compile_cleaning({"test": written.body}, {"p": {"reference": "p", "topic": "/p"}})
    event = {"type": "track", "event": "E", "userId": "ada", "properties": {"sku": "7"}}
    for brought, reason in (({"n": 2**63}, "number_out_of_range"), (deep, "too_deep"), ({"n": 2**63 - 1}, "")):
        checks = Checks(cleaning=joins, tools=Tools(row=lambda _, __, brought=brought: brought))
        outcome = ingest(Record("raw", 0, 0, None, json.dumps(event).encode()), NOW_MS, builtin_rules(), checks)
        assert (outcome.reason if isinstance(outcome, Refusal) else "") == reason
