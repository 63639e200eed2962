"""Templates: what is filled in, what is left out, what is refused; and the shapes of well-known receivers."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from connectors.answers import outcome_of
from connectors.http import HttpConnector, HttpOptions
from connectors.outbound import Answer
from connectors.template import MissingValueError, fill, fill_text, values_of
from connectors.testing import ERASED, NOW_MS, sample_delivery
from pipeline.records import IdentifierPair
from tests.contracts.webhook_receiver import WebhookReceiver

ADA = sample_delivery(
    7,
    identifiers=[
        IdentifierPair("user_id", "ada"),
        IdentifierPair("email", " Ada@Example.com"),
        IdentifierPair("email", "second@example.com"),
    ],
    body={"traits": {"plan": "pro", "tags": ["a", "b"], "empty": None, "deep": {"x": 1}}, "sequence": 7},
)

FILLED = [
    ("{segment}", "trial"),
    ("{change}", "entered"),
    ("{at}", NOW_MS + 7),
    ("{at_iso}", "2027-01-15T08:00:00.007+00:00"),
    ("{identifiers.user_id}", "ada"),
    ("{body.sequence}", 7),
    ("{traits.tags}", ["a", "b"]),
    ("{traits.deep.x}", 1),
    ("n: {body.sequence}, {traits.tags}", 'n: 7, ["a","b"]'),
    ("{{not a place}} {segment}", "{not a place} trial"),
    ("{sha256:identifiers.email}", hashlib.sha256(b"ada@example.com").hexdigest()),
    ({"a": "{traits.absent}", "b": "{traits.empty}", "c": 1}, {"c": 1}),
    ([{"x": ["{segment}"]}, None, True], [{"x": ["trial"]}, None, True]),
]


@pytest.mark.parametrize(("template", "expected"), FILLED)
def test_filled(template: Any, expected: Any) -> None:
    assert fill(template, values_of(ADA)) == expected


@pytest.mark.parametrize(
    "template", ["{traits.absent}", "hello {traits.absent}", {"a": "hello {traits.absent}"}, ["{traits.x}"]]
)
def test_half_a_message_is_worse_than_none(template: Any) -> None:
    with pytest.raises(MissingValueError):
        fill(template, values_of(ADA))


def test_values_in_the_url_are_escaped() -> None:
    values = values_of(sample_delivery(1, identifiers=[IdentifierPair("user_id", "../a?b#c/ü")]))
    from urllib.parse import quote

    filled = fill_text("https://x.io/u/{identifiers.user_id}", values, lambda text: quote(text, safe=""))
    assert filled == "https://x.io/u/..%2Fa%3Fb%23c%2F%C3%BC"


@pytest.mark.parametrize("value", ["", ".", "..", "%2e%2e"])
def test_no_value_turns_the_url_into_another_one(value: str) -> None:
    from connectors.template import filled_url

    values = values_of(sample_delivery(1, body={"traits": {"id": value}}))
    if value == "%2e%2e":
        assert filled_url("https://x.io/people/{traits.id}", values) == "https://x.io/people/%252e%252e"
        return
    for url in ("https://x.io/people/{traits.id}", "https://x.io/people/{traits.id}/orders"):
        with pytest.raises(MissingValueError):
            filled_url(url, values)
    if not value:
        with pytest.raises(MissingValueError):
            filled_url("https://x.io/people?id={traits.id}", values)


def test_whoever_has_no_id_there_deletes_nobody_else() -> None:
    receiver = WebhookReceiver()
    erase = {"url": f"{receiver.url}/people/{{body.crm_id}}"}
    options = {"url": receiver.url, "body": {}, "allow_private": True, "erase": erase}
    connector = HttpConnector("crm", HttpOptions.model_validate(options))
    try:
        for crm_id in ("", ".."):
            gone = sample_delivery(3, segment=None, action="profile_erased", body={**ERASED, "crm_id": crm_id})
            [outcome] = connector.deliver([gone])
            assert outcome.status == "rejected" and "url" in outcome.detail
        assert not receiver.requests
    finally:
        connector.close()
        receiver.close()


REFUSED = [
    ({"url": "https://{identifiers.email}/"}, "host of the url is fixed"),
    ({"url": "https://x.io/", "body": {"a": "{emial}"}}, "nothing called {emial}"),
    ({"url": "https://x.io/", "body": {"a": "{segment"}}, "brace"),
    ({"url": "https://x.io/", "body": {"a": "{segment.__class__!r}"}}, None),
    ({"url": "http://x.io/"}, "in the clear"),
    ({"url": "https://x.io/", "form": True}, "mapping"),
    ({"url": "https://x.io/", "headers": {"Authorization": "Bearer x"}}, "holds a secret"),
    ({"url": "https://x.io/", "method": "GET"}, "POST"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_templates_that_are_refused(options: dict[str, Any], message: str | None) -> None:
    if message is None:  # a path is only ever looked up in mappings: there is nothing to reach through it
        HttpOptions.model_validate(options)
        with pytest.raises(MissingValueError):
            fill(options["body"]["a"], values_of(ADA))
        return
    with pytest.raises(ValidationError, match=message):
        HttpOptions.model_validate(options)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    server = WebhookReceiver()
    yield server
    server.close()


def sent(receiver: WebhookReceiver, **options: Any) -> tuple[str, dict[str, str], bytes]:
    connector = HttpConnector(
        "tested", HttpOptions.model_validate({"url": receiver.url, "allow_private": True, **options})
    )
    [outcome] = connector.deliver([ADA])
    connector.close()
    if not receiver.requests:
        return outcome.status, {}, outcome.detail.encode()
    return outcome.status, receiver.requests[0].headers, receiver.requests[0].body


def test_a_chat_alert(receiver: WebhookReceiver) -> None:
    status, _, body = sent(receiver, body={"text": "*{identifiers.user_id}* {change} {segment} ({traits.plan})"})
    assert status == "delivered"
    assert json.loads(body) == {"text": "*ada* entered trial (pro)"}


def test_a_mail_service_takes_a_form(receiver: WebhookReceiver) -> None:
    status, headers, body = sent(
        receiver, form=True, body={"email": "{identifiers.email}", "list": "trial & more", "name": "{traits.absent}"}
    )
    assert status == "delivered"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode()) == {"email": [" Ada@Example.com"], "list": ["trial & more"]}


def test_an_advertising_audience_gets_hashes_only(receiver: WebhookReceiver) -> None:
    body = {"payload": {"schema": ["EMAIL_SHA256"], "data": [["{sha256:identifiers.email}"]]}}
    status, _, received = sent(receiver, body=body)
    assert status == "delivered" and b"xample" not in received
    hashed = hashlib.sha256(b"ada@example.com").hexdigest()
    assert json.loads(received)["payload"]["data"] == [[hashed]]


def test_what_the_template_needs_and_the_person_lacks_is_rejected(receiver: WebhookReceiver) -> None:
    status, _, detail = sent(receiver, body={"to": "tel:{identifiers.phone}"})
    assert status == "rejected" and b"identifiers.phone" in detail


RULES = [
    (200, [], [], "delivered"),
    (202, [200], [], "retry"),
    (409, [409], [], "delivered"),
    (404, [], [404], "rejected"),
    (500, [], [500], "rejected"),
    (200, [], [200], "rejected"),
    (500, [], [], "retry"),
]


@pytest.mark.parametrize(("status", "delivered_on", "rejected_on", "expected"), RULES)
def test_response_rules(status: int, delivered_on: list[int], rejected_on: list[int], expected: str) -> None:
    assert outcome_of(Answer(status, {}, b""), 0, delivered_on, rejected_on).status == expected


@pytest.mark.parametrize(("place", "values"), [("identifiers.email", 3), ("sha256:identifiers.email", 3), ("at", 1)])
def test_an_erasure_is_sent_for_each_value_that_the_person_has(
    receiver: WebhookReceiver, place: str, values: int
) -> None:
    pairs = [IdentifierPair("user_id", "ada")] + [IdentifierPair("email", f"ada{n}@example.org") for n in range(3)]
    erased = sample_delivery(1, action="profile_erased", segment=None, identifiers=pairs, body=ERASED)
    erase = {"url": f"{receiver.url}/{{identifiers.user_id}}", "body": {"who": f"{{{place}}}"}}
    options = {"url": receiver.url, "body": {}, "allow_private": True, "erase": erase}
    connector = HttpConnector("tested", HttpOptions.model_validate(options))
    try:
        assert [one.status for one in connector.deliver([erased])] == ["delivered"]
        assert len({json.loads(one.body)["who"] for one in receiver.requests}) == len(receiver.requests) == values
        keys = [one.headers["idempotency-key"] for one in receiver.requests]
        assert len(set(keys)) == values and keys[0] == erased.delivery_id
        receiver.answer = lambda request: (503 if request.headers["idempotency-key"] == keys[0] else 400, {}, b"")
        assert [one.status for one in connector.deliver([erased])] == ["retry"], "until nothing is left to be tried"
        assert len(receiver.refused) == values
    finally:
        connector.close()


def test_an_erasure_goes_by_a_request_of_its_own_or_is_refused(receiver: WebhookReceiver) -> None:
    erased = sample_delivery(1, "p1", action="profile_erased", segment=None, body=ERASED)
    options = {"url": receiver.url, "body": {"text": "{segment}"}, "allow_private": True}
    plain = HttpConnector("tested", HttpOptions.model_validate(options))
    [refused] = plain.deliver([erased])
    assert refused.status == "rejected" and "erase" in refused.detail and not receiver.requests
    erase = {"url": f"{receiver.url}/people/{{identifiers.email}}", "body": {"ids": "{body.profile_ids}"}}
    able = HttpConnector("tested", HttpOptions.model_validate({**options, "erase": erase}))
    assert [outcome.status for outcome in able.deliver([erased])] == ["delivered"]
    [request] = receiver.requests
    assert request.method == "DELETE" and request.path.endswith("/people/ada%40example.com")
    assert json.loads(request.body) == {"ids": ["p1", "p2"]}
    with pytest.raises(ValidationError, match="host of the url is fixed"):
        HttpOptions.model_validate({**options, "erase": {"url": "https://{identifiers.email}.example.com"}})
