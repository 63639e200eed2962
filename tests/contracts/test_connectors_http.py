"""Templates: what is filled in, what is left out, what is refused; and the shapes of well-known receivers."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from connectors.answers import outcome_of
from connectors.base import Unsaid
from connectors.http import HttpConnector, HttpOptions
from connectors.outbound import Answer
from connectors.template import MissingValueError, fill, fill_text, values_of
from connectors.testing import ERASED, NOW_MS, sample_delivery
from pipeline.records import Delivery, IdentifierPair
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


TOGETHER = {"body": {"data": "{each}"}, "each": ["{identifiers.user_id}", "{sha256:traits.email}"]}


def together(receiver: WebhookReceiver, *deliveries: Delivery, **options: Any) -> list[str]:
    made = HttpOptions.model_validate({"url": receiver.url, "allow_private": True, **TOGETHER, **options})
    assert HttpConnector.takes_at_once(made) == 1_000
    connector = HttpConnector("tested", made)
    outcomes = connector.deliver(deliveries)
    connector.close()
    return [one.status for one in outcomes]


def person(n: int, email: str | None = "", action: str = "segment_entered") -> Delivery:
    traits = {} if email is None else {"email": email or f"P{n}@example.org"}
    named = [IdentifierPair("user_id", f"p{n}")]
    return sample_delivery(n, f"p{n}", action=action, identifiers=named, body={"sequence": 1, "traits": traits})


def data_of(receiver: WebhookReceiver) -> list[list[str]]:
    return [[item[0] for item in json.loads(one.body)["data"]] for one in receiver.requests]


def test_one_request_tells_of_many(receiver: WebhookReceiver) -> None:
    assert together(receiver, person(1), person(2, None), person(3)) == ["delivered", "rejected", "delivered"]
    hashes = [hashlib.sha256(f"p{n}@example.org".encode()).hexdigest() for n in (1, 3)]
    assert [json.loads(one.body) for one in receiver.requests] == [{"data": [["p1", hashes[0]], ["p3", hashes[1]]]}]


def test_what_differs_elsewhere_is_another_request(receiver: WebhookReceiver) -> None:
    left = person(2, action="segment_exited")
    url = receiver.url + "/{change}"
    assert together(receiver, person(1), left, person(3), url=url) == ["delivered"] * 3
    kinds = [one.path.rsplit("/", 1)[1] for one in receiver.requests]
    assert list(zip(kinds, data_of(receiver), strict=True)) == [("entered", ["p1", "p3"]), ("exited", ["p2"])]


def test_what_is_refused_together_is_sent_alone(receiver: WebhookReceiver) -> None:
    receiver.answer = lambda request: (422 if b"p2" in request.body else 200, {}, b"")
    assert together(receiver, *map(person, (1, 2, 3))) == ["delivered", "rejected", "delivered"]
    assert [len(json.loads(one.body)["data"]) for one in receiver.refused] == [3, 1]
    assert data_of(receiver) == [["p1"], ["p3"]]
    keys = [one.headers["idempotency-key"] for one in (*receiver.requests, receiver.refused[1], receiver.refused[0])]
    assert keys[:3] == [person(n).delivery_id for n in (1, 3, 2)] and len(set(keys)) == 4
    receiver.answer = lambda request: (503, {}, b"")
    assert together(receiver, *map(person, (1, 2))) == ["retry", "retry"]


def test_who_is_erased_stands_among_no_others(receiver: WebhookReceiver) -> None:
    erased = sample_delivery(9, action="profile_erased", segment=None, body=ERASED)
    assert together(receiver, person(1), erased, person(2)) == ["delivered", "rejected", "delivered"]
    assert data_of(receiver) == [["p1", "p2"]]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"body": {"data": "{each}"}}, "there is nothing called {each}"),
        ({"body": {"data": "x"}, "each": "{at}"}, "is what a body holds many of"),
        ({"body": {"data": "all of {each}"}, "each": "{at}"}, "is what a body holds many of"),
        ({"body": {"data": "{each}"}, "each": "{each}"}, "there is nothing called {each}"),
        ({**TOGETHER, "url": "https://ads.example.com/{each}"}, "there is nothing called {each}"),
    ],
)
def test_each_stands_where_a_list_can(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        HttpOptions.model_validate({"url": "https://ads.example.com", **options})


SECRET_PLACES = [
    "https://{env}.example.com/T0/B0/s3cr3t",
    "ftp://chat.example.com/s3cr3t",
    "https://u:s3cr3t@chat.example.com",
]


def test_an_address_that_is_a_secret_is_read_from_its_place(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_URL", f"{receiver.url}/T0/B0/s3cr3t")
    assert sent(receiver, url={"env": "CHAT_URL"}, body={"text": "{segment}"})[0] == "delivered"
    assert receiver.requests[0].path.endswith("/T0/B0/s3cr3t")
    unsaid = Unsaid(HttpOptions.model_validate({"url": {"env": "CHAT_URL"}, "body": {}, "allow_private": True}))
    assert "s3cr3t" not in unsaid("HTTP 404: nothing at /hook/T0/B0/s3cr3t")


@pytest.mark.parametrize(
    "address", [*SECRET_PLACES, "http://chat.example.com/s3cr3t", "https://chat.example.com:s3cr3t/"]
)
def test_an_address_that_is_a_secret_is_not_repeated(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_URL", address)
    with pytest.raises(ValueError, match="CHAT_URL") as raised:
        HttpConnector("chat", HttpOptions.model_validate({"url": {"env": "CHAT_URL"}, "body": {}}))
    assert "s3cr3t" not in str(raised.value)


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
