"""A change of the records that breaks readers of a release, or the history it has written, is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import avro
from tests.rooms.schemas.compatible import (
    READ_BY_OTHERS,
    all_changes_that_do_not_fit,
    changes_that_do_not_fit,
    last_release,
)

Change = Callable[[Any], object]


def field(schema: Any, name: str) -> Any:
    return next(each for each in schema["fields"] if each["name"] == name)


def without(schema: Any, name: str) -> None:
    schema["fields"].remove(field(schema, name))


def with_field(schema: Any, **described: Any) -> None:
    schema["fields"].append({"name": "new", "type": "string", **described})


FITS: list[tuple[str, Change]] = [
    ("nothing", lambda schema: None),
    ("a field with a default", lambda schema: with_field(schema, default="")),
    ("a field that may be missing", lambda schema: with_field(schema, type=["null", "long"], default=None)),
    ("other words about it", lambda schema: schema.update(doc="something else")),
]
BREAKS: list[tuple[str, Change]] = [
    ("a field without a default", with_field),
    ("a field is gone", lambda schema: without(schema, "profile_id")),
    ("a field has another name", lambda schema: field(schema, "segment").update(name="audience")),
    ("a number becomes a text", lambda schema: field(schema, "since").update(type="string")),
    ("a record has another name", lambda schema: schema.update(name="Membership")),
]


@pytest.mark.parametrize(("name", "change"), FITS, ids=[name for name, _ in FITS])
def test_what_fits(name: str, change: Change) -> None:
    today = copy.deepcopy(avro.schema_of("segment-members"))
    change(today)
    assert changes_that_do_not_fit("segment-members", avro.schema_of("segment-members"), today) == []


@pytest.mark.parametrize(("name", "change"), BREAKS, ids=[name for name, _ in BREAKS])
def test_what_does_not(name: str, change: Change) -> None:
    today = copy.deepcopy(avro.schema_of("segment-members"))
    change(today)
    found = changes_that_do_not_fit("segment-members", avro.schema_of("segment-members"), today)
    assert found and all(each.startswith("segment-members: ") for each in found)


def test_a_kind_of_record_may_come_and_not_go() -> None:
    released = avro.schema_of("events")
    assert changes_that_do_not_fit("events", released[:-1], released) == [], "old records are read"
    assert changes_that_do_not_fit("events", released, released[:-1]) != []


def test_topics_of_our_own_may_say_more_than_released_code_reads() -> None:
    released, today = avro.schema_of("events"), copy.deepcopy(avro.schema_of("events"))
    without(today[0], "context")
    assert changes_that_do_not_fit("events", released, today) == []
    assert "segment-changes" in READ_BY_OTHERS and "events" not in READ_BY_OTHERS


def test_today_fits_the_last_release() -> None:
    assert {file.stem for file in last_release().glob("*.avsc")}, "there is one"
    assert all_changes_that_do_not_fit(last_release()) == []
