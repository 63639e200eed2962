"""Definitions of accounts and alerts: from YAML to the plans of a generation."""

from textwrap import dedent

import pytest

from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import Catalog, generation_plan, records
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import check, checked_leaves
from pipeline.errors import DefinitionError, HeadwaterError

TEXT = """
accounts: default
same: {acme: [acme.com, "4711"]}
people: {"email:ada@gmail.com": acme}
free_mail: [Post.example]
---
segment: warm
entity: account
when: {members: {match: {performed: {event: Page Viewed, within: 7d}}, at_least: 3}}
---
alert: call_them
enters: warm
owner: sales_owner
again_after: 7d
"""


def plan_of(text: str) -> object:
    catalog = Catalog()
    planned = plan_apply(catalog, load_text(text), leaves_of=checked_leaves, applied_at=1)
    assert planned.generation is not None
    return generation_plan(catalog.with_definitions(planned.definitions), planned.generation)


def test_a_generation_has_them() -> None:
    plan = plan_of(TEXT)
    rules = plan.accounts  # type: ignore[attr-defined]
    assert rules.email_domains and rules.same == {"acme.com": "acme", "4711": "acme"}
    assert rules.people == {"email:ada@gmail.com": "acme"} and {"gmail.com", "post.example"} <= rules.free_mail
    [alert] = rules.alerts["warm"]
    assert (alert.name, alert.owner, alert.again_after_ms) == ("call_them", "sales_owner", 7 * 86_400_000)


def test_a_table_names_people_in_any_spelling_that_events_may_have() -> None:
    table = """
    accounts: default
    people: {"email: Ada@Gmail.com": acme, "phone:0151 23456789": zoo, "loyalty_card:12-34": zoo, "email:null": zoo}
    ---
    identity: {default_region: DE, namespaces: {loyalty_card: {priority: 15, normaliser: digits}}}
    """
    rules = plan_of(dedent(table)).accounts  # type: ignore[attr-defined]
    assert rules.people == {
        "email:ada@gmail.com": "acme",
        "phone:+4915123456789": "zoo",
        "loyalty_card:1234": "zoo",
        "email:null": "zoo",
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("segment: s\nwhen: {all: []}\n---\nalert: a\nenters: s", "no segment of accounts"),
        ("accounts: default\nsame: {a: [x], b: [x]}", "two accounts"),
        ("accounts: default\npeople: {ada: acme}", "no identifier"),
        ("accounts: other", "default"),
    ],
)
def test_a_mistake_is_told(text: str, what: str) -> None:
    with pytest.raises(HeadwaterError, match=what):
        plan_of(text)


def test_an_alert_about_a_segment_that_is_not_there_stops_no_stage() -> None:
    assert plan_of("alert: a\nenters: nobody_knows").accounts.alerts.keys() == {"nobody_knows"}  # type: ignore[attr-defined]
    catalog = Catalog()
    first = plan_apply(catalog, load_text(TEXT), leaves_of=checked_leaves, applied_at=1)
    assert first.generation is not None
    for key, value in records(first.definitions, first.generation):
        catalog.add(key, value)
    removed = plan_apply(catalog, remove=["segment/warm"], leaves_of=checked_leaves, applied_at=2)
    assert removed.waits_for == ("The alert call_them hears nothing yet by warm: there is no such segment.",)
    assert removed.generation is not None
    assert generation_plan(catalog, removed.generation).segments.names == []


def test_what_no_stage_could_load_is_refused_before_it_is_written() -> None:
    with pytest.raises(DefinitionError, match="The alert a is about the segment s, which is no segment of accounts"):
        check(load_text("segment: s\nwhen: {all: []}\n---\nalert: a\nenters: s"))
