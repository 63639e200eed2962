"""What is told of deliveries, as events that come back."""

import json
from typing import Any

import pytest

from connectors.testing import NOW_MS, sample_delivery
from pipeline.deliver.outcomes import FAILED, SUCCEEDED, Outcomes
from pipeline.ingest import decode
from pipeline.records import IdentifierPair


def told(failed: str = "", changed: tuple[str, ...] = (), **fields: Any) -> dict[str, Any] | None:
    found = Outcomes("mails", changed).of(sample_delivery(1, **fields), NOW_MS, failed)
    return None if found is None else json.loads(found[1])


def test_a_delivery_that_succeeded_is_an_event_of_its_person_and_says_where_it_comes_from() -> None:
    event = told()
    assert event is not None
    assert (event["event"], event["userId"], event["messageId"]) == (SUCCEEDED, "ada", f"dlv_{1:032x}/succeeded")
    assert event["properties"] == {"destination": "mails", "action": "segment_entered", "segment": "trial"}
    assert event["context"]["origin"] == {"destination": "mails", "delivery_id": f"dlv_{1:032x}"}
    assert "identifiers" not in event and "anonymousId" not in event, "two identifiers would be evidence"
    assert told() == event, "a repetition is a duplicate"


def test_one_that_was_given_up_says_why() -> None:
    event = told(failed="rejected")
    assert event is not None and event["event"] == FAILED and event["properties"]["reason"] == "rejected"


def test_it_is_told_under_an_identifier_that_left_as_it_is() -> None:
    event = told(changed=("user_id",))
    assert event is not None and event["identifiers"] == {"email": "ada@example.com"} and "userId" not in event
    assert told(changed=("user_id", "email")) is None
    assert told(identifiers=[]) is None
    anonymous = told(identifiers=[IdentifierPair("anonymous_id", "a1"), IdentifierPair("email", "x@y.io")])
    assert anonymous is not None and anonymous["anonymousId"] == "a1"


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "profile_changed"},
        {"action": "profile_erased"},
        {"action": "alert"},
        {"body": {"entity": "account"}},
        {"action": "event", "segment": None, "body": {"event": SUCCEEDED}},
        {"action": "event", "segment": None, "body": {"event": FAILED}},
    ],
)
def test_nothing_is_told_that_could_go_on_forever_or_is_of_nobody(fields: dict[str, Any]) -> None:
    assert told(**fields) is None


def test_ingest_can_read_it() -> None:
    found = Outcomes("mails").of(sample_delivery(1), NOW_MS)
    assert found is not None
    raw: Any = decode(found[1])
    assert raw.event == SUCCEEDED
