"""Any HTTP interface, by a template: a method, an address, headers and a body with places to fill in.

    destination: sales_chat
    kind: http
    url: https://chat.example.com/hooks/sales
    headers: {Authorization: {env: CHAT_TOKEN}}
    body:
      text: "{identifiers.email} entered {segment}"

A place is `{path}` in a text; the paths lead into the delivery: `{profile_id}`, `{segment}`, `{change}` (entered or
exited), `{action}`, `{at}`, `{at_iso}`, `{delivery_id}`, `{identifiers.email}` (the first of a namespace),
`{traits.plan}`, `{properties.total}`, `{body.sequence}`. A text that is one place and nothing else becomes the value
itself, a number or a list too. `{sha256:identifiers.email}` is the hash of the trimmed, lower-cased value, as
advertising audiences want it. `{{` and `}}` are braces.

`erase` is the request that deletes a person, with places of its own (`method`, `url`, `body`; DELETE if nothing else
is said). Without it the receipt of an erasure says that this destination was not asked.

A place that leads to nothing: an entry of a mapping whose whole value it is, is left out; anywhere else the delivery
is rejected, because half a message is worse than none. Inside the url, values are escaped.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

import httpcore
import msgspec
from pydantic import Field, field_validator, model_validator

from connectors.answers import outcome_of
from connectors.base import Connector, Options, Outcome, SecretReference, rejected, retry
from connectors.outbound import AddressRefusedError, Client
from connectors.webhook import check_headers, check_url, read_headers
from pipeline.records import Delivery

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PATH = re.compile(r"(sha256:)?[a-z_]+(\.[^.{}]+)*")
_ROOTS = frozenset(
    {
        "profile_id",
        "segment",
        "change",
        "action",
        "at",
        "at_iso",
        "decided_at",
        "delivery_id",
        "cause",
        "destination",
        "identifiers",
        "traits",
        "properties",
        "body",
    }
)
_CHANGES = {"segment_entered": "entered", "segment_exited": "exited"}
_MISSING: Any = object()


class MissingValueError(Exception):
    """A place of the template leads to nothing in this delivery."""


class EraseRequest(Options):
    """The request that deletes a person; `{body.profile_ids}` are all the ids they ever had."""

    url: str
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "DELETE"
    body: dict[str, Any] | list[Any] | None = None

    _checked_url = field_validator("url")(check_url)


class HttpOptions(Options):
    """`method`, `url`, `headers` and `body` are the template. `body` is JSON, or with `form: true` a form.

    `delivered_on` names the statuses that mean success (2xx by default), `rejected_on` further ones that mean that
    this very delivery will never be taken. `idempotency_header` carries the delivery_id.
    """

    url: str
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str | SecretReference] = {}
    body: dict[str, Any] | list[Any] | None = None
    form: bool = False
    idempotency_header: str = "Idempotency-Key"
    delivered_on: list[int] = []
    rejected_on: list[int] = []
    allow_private: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    erase: EraseRequest | None = None

    _checked_url = field_validator("url")(check_url)
    _checked_headers = field_validator("headers")(check_headers)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        requests: list[HttpOptions | EraseRequest] = [self, self.erase] if self.erase is not None else [self]
        for parts in (urlsplit(one.url) for one in requests):
            if "{" in parts.netloc:
                raise ValueError("the host of the url is fixed: data must not choose where data goes")
            if parts.scheme == "http" and not self.allow_private:
                raise ValueError(
                    "http:// sends personal data in the clear; use https://, or allow_private on your machine"
                )
        if self.form and not isinstance(self.body, dict):
            raise ValueError("a form needs a body that is a mapping")
        for text in _texts([[one.url, one.body] for one in requests]):
            for found in _PLACE.finditer(text):
                _check_place(found, text)
        return self


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def _check_place(found: re.Match[str], text: str) -> None:
    path = found[1]
    if found[0] in ("{{", "}}"):
        return
    if path is None:
        raise ValueError(f"a brace in {text!r} stands alone; write it twice to mean the brace itself")
    if not _PATH.fullmatch(path) or path.removeprefix("sha256:").split(".")[0] not in _ROOTS:
        raise ValueError(f"there is nothing called {{{path}}}; places begin with {', '.join(sorted(_ROOTS))}")


def values_of(delivery: Delivery) -> dict[str, Any]:
    """What the places of a template lead into."""
    namespaces: dict[str, str] = {}
    for pair in delivery.identifiers:
        namespaces.setdefault(pair.namespace, pair.value)
    changed = delivery.body.get("set")
    traits = changed.get("traits", {}) if isinstance(changed, Mapping) else {}
    return {
        "profile_id": delivery.profile_id,
        "segment": delivery.segment,
        "change": _CHANGES.get(delivery.action),
        "action": delivery.action,
        "at": delivery.at,
        "at_iso": datetime.fromtimestamp(delivery.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "decided_at": delivery.decided_at,
        "delivery_id": delivery.delivery_id,
        "cause": delivery.cause,
        "destination": delivery.destination,
        "identifiers": namespaces,
        "traits": {**traits, **(delivery.body.get("traits") or {})},
        "properties": delivery.body.get("properties") or {},
        "body": delivery.body,
    }


def _value(path: str, values: Mapping[str, Any]) -> Any:
    hashed = path.startswith("sha256:")
    found: Any = values
    for step in path.removeprefix("sha256:").split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            return _MISSING
    return hashlib.sha256(_shown(found).strip().lower().encode()).hexdigest() if hashed else found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def fill_text(text: str, values: Mapping[str, Any], escape: Callable[[str], str] = str) -> str:
    """The text with its places filled in. Raises MissingValueError."""

    def put(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        value = _value(found[1], values)
        if value is _MISSING:
            raise MissingValueError(found[1])
        return escape(_shown(value))

    return _PLACE.sub(put, text)


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its places filled in. Raises MissingValueError where what is missing cannot be left out."""
    if isinstance(template, str):
        whole = _PLACE.fullmatch(template)
        if whole is None or whole[1] is None:
            return fill_text(template, values)
        value = _value(whole[1], values)
        if value is _MISSING:
            raise MissingValueError(whole[1])
        return value
    if isinstance(template, Mapping):
        filled = {}
        for name, part in template.items():
            try:
                filled[name] = fill(part, values)
            except MissingValueError:
                if not (isinstance(part, str) and (whole := _PLACE.fullmatch(part)) and whole[1]):
                    raise
        return filled
    return [fill(part, values) for part in template] if isinstance(template, list) else template


class HttpConnector(Connector):
    """One templated request for each delivery."""

    kind = "http"
    mode = "trigger"
    options_model = HttpOptions

    def __init__(self, destination: str, options: HttpOptions) -> None:
        super().__init__(destination, options)
        self._options = options
        self._headers = {
            "content-type": "application/x-www-form-urlencoded" if options.form else "application/json",
            "user-agent": "headwater",
            **read_headers(destination, options.headers),
        }
        self._client = Client(allow_private=options.allow_private, timeout_s=options.timeout_seconds, connections=64)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Send each delivery in turn."""
        return [self._send(delivery) for delivery in deliveries]

    def _send(self, delivery: Delivery) -> Outcome:
        options, values = self._options, values_of(delivery)
        request: HttpOptions | EraseRequest = options
        if delivery.action == "profile_erased":
            if options.erase is None:
                return rejected("the destination has no `erase` request: delete the person there yourself")
            request = options.erase
        try:
            url = fill_text(request.url, values, lambda text: quote(text, safe=""))
            content = self._content(request.body, values)
        except MissingValueError as error:
            return rejected(f"the template needs {error}, which this delivery has not")
        headers = {**self._headers, options.idempotency_header.lower(): delivery.delivery_id}
        try:
            answer = self._client.request(request.method, url, headers, content)
        except AddressRefusedError as error:
            return retry(str(error))
        except httpcore.TimeoutException as error:
            return retry(f"no answer in time ({type(error).__name__})")
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            return retry(f"no connection, or one that broke ({type(error).__name__}: {error})")
        return outcome_of(answer, time.time(), options.delivered_on, options.rejected_on)

    def _content(self, body: Any, values: Mapping[str, Any]) -> bytes:
        if body is None:
            return b""
        filled = fill(body, values)
        if not (self._options.form and isinstance(filled, dict)):
            return msgspec.json.encode(filled)
        pairs = (f"{quote(str(name))}={quote(_shown(value))}" for name, value in filled.items())
        return "&".join(pairs).encode()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
