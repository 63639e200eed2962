"""Any HTTP interface, by a template: a method, an address, headers and a body with places to fill in.

    destination: sales_chat
    kind: http
    traits: [email]
    url: https://chat.example.com/hooks/sales
    headers: {Authorization: {env: CHAT_TOKEN}}
    body:
      text: "{traits.email} entered {segment}"

A place is `{path}` in a text; the paths lead into the delivery: `{profile_id}`, `{segment}`, `{change}` (entered or
exited), `{action}`, `{at}`, `{at_iso}`, `{delivery_id}`, `{identifiers.email}` (the first of a namespace),
`{traits.plan}`, `{properties.total}`, `{body.sequence}`. A text that is one place and nothing else becomes the value
itself, a number or a list too. `{sha256:identifiers.email}` is the hash of the trimmed, lower-cased value, as
advertising audiences want it. `{{` and `}}` are braces.

`erase` is the request that deletes a person, with places of its own (`method`, `url`, `body`, and `headers` beside the
others; DELETE if nothing else is said). It is sent once for each value, if the person has several in a namespace that
it names. Without it the receipt of an erasure says that this destination was not asked.

With `each` one request tells of many deliveries, up to a thousand or as many as `delivery.batch` says: `{each}` in the
body is the list of them. Those for which all the rest is the same share a request, so `{change}` in the url makes two
of entries and exits. What is refused together is sent alone, so that one at fault stops no other. `per_second` counts
all of that once.

    method: PUT
    url: https://ads.example.com/audiences/42/{change}
    body: {schema: [EMAIL_SHA256], data: "{each}"}
    each: ["{sha256:traits.email}"]

Where the url is a secret itself, as that of most chats, it is `{env: NAME}` or `{file: path}`, and has no places.

A place that leads to nothing: an entry of a mapping whose whole value it is, is left out; anywhere else the delivery
is rejected, because half a message is worse than none. Inside the url, values are escaped. Of somebody whose first
event it is, `identifiers` may lack the e-mail address that stands in that event; the trait is there.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import msgspec
from pydantic import Field, field_validator, model_validator

from connectors.answers import ask
from connectors.base import Connector, Options, Outcome, SecretReference, rejected
from connectors.outbound import Client
from connectors.template import (
    EraseRequest,
    MissingValueError,
    check_address,
    check_fixed,
    check_places,
    check_request,
    check_together,
    erased_values,
    fill,
    filled_url,
    shown,
    values_of,
    worst,
)
from connectors.webhook import check_headers, check_reference, read_headers, read_url
from pipeline.records import Delivery

_MOST_TOGETHER = 1_000


class HttpOptions(Options):
    """`method`, `url`, `headers` and `body` are the template. `body` is JSON, or with `form: true` a form; `each` what
    its `{each}` is a list of.

    `delivered_on` names the statuses that mean success (2xx by default), `rejected_on` further ones that mean that
    this very delivery will never be taken. `idempotency_header` carries the delivery_id.
    """

    url: str | SecretReference
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str | SecretReference] = {}
    body: dict[str, Any] | list[Any] | None = None
    each: dict[str, Any] | list[Any] | str | None = None
    form: bool = False
    idempotency_header: str = "Idempotency-Key"
    delivered_on: list[int] = []
    rejected_on: list[int] = []
    allow_private: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    erase: EraseRequest | None = None

    _checked_url = field_validator("url")(check_reference)
    _checked_headers = field_validator("headers")(check_headers)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if isinstance(self.url, str):
            check_address(self.url, self.allow_private)
        if self.each is None:
            check_places(self.body)
        else:
            check_together(self.body, self.each)
        if self.erase is not None:
            check_request(self.erase.url, self.erase.body, self.allow_private)
        if self.form and not isinstance(self.body, dict):
            raise ValueError("a form needs a body that is a mapping")
        return self


class _Place(NamedTuple):
    """A delivery in a request that tells of many: which it was, and what stands there of it."""

    n: int
    item: Any
    values: dict[str, Any]


def _lacks(error: MissingValueError) -> Outcome:
    return rejected(f"the template needs {error}, which this delivery has not")


class HttpConnector(Connector):
    """One templated request for each delivery, or for many with `each`."""

    kind = "http"
    mode = "trigger"
    options_model = HttpOptions

    def __init__(self, destination: str, options: HttpOptions) -> None:
        super().__init__(destination, options)
        self._options = options
        self._url = read_url(destination, options.url, lambda url: check_fixed(url, options.allow_private))
        self._headers = {
            "content-type": "application/x-www-form-urlencoded" if options.form else "application/json",
            "user-agent": "headwater",
            **read_headers(destination, options.headers),
        }
        self._erase_headers = read_headers(destination, options.erase.headers) if options.erase is not None else {}
        self._client = Client(allow_private=options.allow_private, timeout_s=options.timeout_seconds, connections=64)

    @classmethod
    def takes_at_once(cls, options: HttpOptions) -> int:
        """One for each request, or many that share one."""
        return cls.max_batch if options.each is None else _MOST_TOGETHER

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Send each delivery in turn, or those together that may share a request."""
        if self._options.each is None:
            return [self._send(delivery) for delivery in deliveries]
        return self._send_together(self._options.each, deliveries)

    def _send(self, delivery: Delivery) -> Outcome:
        options = self._options
        if delivery.action != "profile_erased":
            return self._request(self._url, options, delivery.delivery_id, values_of(delivery))
        request = options.erase
        if request is None:
            return rejected("the destination has no `erase` request: delete the person there yourself")
        return worst(
            self._request(request.url, request, delivery.delivery_id + (f"-{time}" if time else ""), values)
            for time, values in enumerate(erased_values(request, delivery))
        )

    def _send_together(self, each: Any, deliveries: Sequence[Delivery]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        alike: dict[tuple[str, bytes], list[_Place]] = {}
        for n, delivery in enumerate(deliveries):
            if delivery.action == "profile_erased":
                outcomes[n] = self._send(delivery)
                continue
            values = values_of(delivery)
            try:
                place = _Place(n, fill(each, values), values)
                rest = filled_url(self._url, values), self._content(self._options.body, {**values, "each": []})
            except MissingValueError as error:
                outcomes[n] = _lacks(error)
            else:
                alike.setdefault(rest, []).append(place)
        for places in alike.values():
            outcomes |= self._ask_together(places)
        return [outcomes[n] for n in range(len(deliveries))]

    def _ask_together(self, places: list[_Place]) -> dict[int, Outcome]:
        ids = [place.values["delivery_id"] for place in places]
        key = ids[0] if len(ids) == 1 else "dlv_" + blake2b("".join(ids).encode(), digest_size=16).hexdigest()
        values = {**places[0].values, "each": [place.item for place in places]}
        outcome = self._request(self._url, self._options, key, values)
        if outcome.status == "rejected" and len(places) > 1:
            return {n: found for place in places for n, found in self._ask_together([place]).items()}
        return dict.fromkeys((place.n for place in places), outcome)

    def _request(self, to: str, request: HttpOptions | EraseRequest, key: str, values: Mapping[str, Any]) -> Outcome:
        options = self._options
        try:
            url = filled_url(to, values)
            content = self._content(request.body, values)
        except MissingValueError as error:
            return _lacks(error)
        own = self._erase_headers if request is not options else {}
        headers = {**self._headers, **own, options.idempotency_header.lower(): key}
        return ask(self._client, request.method, url, headers, content, options.delivered_on, options.rejected_on)

    def _content(self, body: Any, values: Mapping[str, Any]) -> bytes:
        if body is None:
            return b""
        filled = fill(body, values)
        if not (self._options.form and isinstance(filled, dict)):
            return msgspec.json.encode(filled)
        pairs = (f"{quote(str(name))}={quote(shown(value))}" for name, value in filled.items())
        return "&".join(pairs).encode()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
