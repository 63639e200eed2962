"""Webhooks: one signed POST for each delivery, after the Standard Webhooks convention.

Headers: `webhook-id` (the delivery_id: the same at every repetition), `webhook-timestamp` (seconds), and
`webhook-signature` (`v1,` and the base64 of HMAC-SHA256 over "id.timestamp.body"; several, separated by spaces, while
a secret is being changed). The body is `{"type", "timestamp", "data"}`.

`answers.py` says what each answer of the receiver means.
"""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import BeforeValidator, Field, field_validator, model_validator

from connectors.answers import ask
from connectors.base import Connector, Options, Outcome, SecretReference
from connectors.outbound import Client
from pipeline.records import Delivery

SECRET_PREFIX = "whsec_"
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_encode = msgspec.json.encode


def check_url(url: str) -> str:
    """Refuse an address that is none, or that would carry a password into topics."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the url holds a character that no address has: write names as xn--…, others as %C3%BC")
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError if there can be none
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the url must begin with https:// (or http://, with allow_private) and name a host")
    try:
        parts.hostname.encode("idna")  # as the look-up of the name does it
    except UnicodeError:
        raise ValueError("no host can be called so: a part of its name is empty, or longer than 63 letters") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user or password in the url would stand in topics; put it into `headers` by reference")
    return url


def check_reference(url: str | SecretReference) -> str | SecretReference:
    """The same of an address that stands in the definition: one by reference is looked at when it is read."""
    return check_url(url) if isinstance(url, str) else url


def check_scheme(url: str, allow_private: bool) -> None:
    """Refuse what anybody on the way could read."""
    if urlsplit(url).scheme == "http" and not allow_private:
        raise ValueError("http:// sends personal data in the clear; use https://, or allow_private on your machine")


def read_url(destination: str, url: str | SecretReference, check: Callable[[str], None]) -> str:
    """The address. Raises ValueError, and never repeats one that was given by reference: it is a secret itself."""
    if isinstance(url, str):
        return url
    text = url.read()
    try:
        check(check_url(text))
    except ValueError:
        place = f"{{env: {url.env}}}" if url.env is not None else f"{{file: {url.file}}}"
        raise ValueError(
            f"the url of destination {destination}, in {place}, is none that can be asked: it begins with https:// "
            "(http:// with allow_private), names a host, and has no user, password or brace"
        ) from None
    return text


def check_headers(headers: dict[str, str | SecretReference]) -> dict[str, str | SecretReference]:
    """Refuse headers that would carry a secret into topics, or are not the definition's to set."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
            raise ValueError(f"{name!r} is not a header that can be set here")
        if isinstance(value, str) and name.lower() in _SECRET_HEADERS:
            raise ValueError(f"the header {name} holds a secret: write {{env: NAME}} or {{file: path}}")
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise ValueError(f"the header {name} holds a line break")
    return headers


def read_headers(destination: str, headers: Mapping[str, str | SecretReference]) -> dict[str, str]:
    """The headers with their secrets, names in lower case. Raises ValueError for a value that no header can hold."""
    read = {name.lower(): value if isinstance(value, str) else value.read() for name, value in headers.items()}
    for name, value in read.items():
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the header {name} of destination {destination} has characters a header cannot hold")
    return read


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class WebhookOptions(Options):
    """`url` is called for each delivery; where it is a secret itself, it is a reference. `secret` signs; a list of two,
    while it is being changed, signs twice.

    `headers` are sent along; the value of one that holds a secret is a reference. `unsigned: true` does without a
    signature. `allow_private` allows private addresses and loopback, and plain http to them.
    """

    url: str | SecretReference
    secret: Annotated[list[SecretReference], BeforeValidator(_as_list)] = []
    unsigned: bool = False
    headers: dict[str, str | SecretReference] = {}
    allow_private: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)

    _checked_url = field_validator("url")(check_reference)
    _checked_headers = field_validator("headers")(check_headers)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.secret and not self.unsigned:
            raise ValueError("name the signing secret: `secret: {env: NAME}`; or write `unsigned: true`")
        if self.secret and self.unsigned:
            raise ValueError("`secret` and `unsigned: true` exclude each other")
        if isinstance(self.url, str):
            check_scheme(self.url, self.allow_private)
        return self


def signing_key(secret: str) -> bytes:
    """The key in a secret `whsec_<base64>`. Raises ValueError, never showing the secret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(
            "a webhook secret is whsec_ and 24 to 64 bytes in base64; make one: "
            "echo whsec_$(head -c 32 /dev/urandom | base64)"
        )
    return key


def signature(key: bytes, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of one signature: `v1,<base64>`."""
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def payload(delivery: Delivery) -> bytes:
    """The body of the request: the same bytes at every repetition."""
    data: dict[str, Any] = {
        "delivery_id": delivery.delivery_id,
        "profile_id": delivery.profile_id,
        "identifiers": delivery.identifiers,
        "segment": delivery.segment,
        "at": delivery.at,
        "decided_at": delivery.decided_at,
        "cause": delivery.cause,
        **delivery.body,
    }
    if delivery.segment is None:
        del data["segment"]
    moment = datetime.fromtimestamp(delivery.at / 1000, UTC).isoformat(timespec="milliseconds")
    return _encode(
        {
            "type": delivery.action.replace("_", "."),
            "timestamp": moment.replace("+00:00", "Z"),
            "data": data,
        }
    )


class WebhookConnector(Connector):
    """One signed POST for each delivery."""

    kind = "webhook"
    mode = "trigger"
    options_model = WebhookOptions

    def __init__(self, destination: str, options: WebhookOptions) -> None:
        super().__init__(destination, options)
        self._url = read_url(destination, options.url, lambda url: check_scheme(url, options.allow_private))
        self._keys = [signing_key(reference.read()) for reference in options.secret]
        self._headers = {
            "content-type": "application/json",
            "user-agent": "headwater",
            **read_headers(destination, options.headers),
        }
        self._client = Client(allow_private=options.allow_private, timeout_s=options.timeout_seconds, connections=64)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Post each delivery in turn."""
        return [self._post(delivery) for delivery in deliveries]

    def _post(self, delivery: Delivery) -> Outcome:
        body = payload(delivery)
        now_s = time.time()
        headers = {**self._headers, "webhook-id": delivery.delivery_id, "webhook-timestamp": str(int(now_s))}
        if self._keys:
            signatures = (signature(key, delivery.delivery_id, int(now_s), body) for key in self._keys)
            headers["webhook-signature"] = " ".join(signatures)
        return ask(self._client, "POST", self._url, headers, body)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
