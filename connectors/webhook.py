"""Webhooks: one signed POST for each delivery, after the Standard Webhooks convention.

Headers: `webhook-id` (the delivery_id: the same at every repetition), `webhook-timestamp` (seconds), and
`webhook-signature` (`v1,` and the base64 of HMAC-SHA256 over "id.timestamp.body"; several, separated by spaces, while
a secret is being changed). The body is `{"type", "timestamp", "data"}`.

    answer                                       outcome
    2xx                                          delivered
    408, 425, 429, 5xx, time-out, no connection  retry, after Retry-After where it is given
    3xx, 401, 403, 404, 405, 407, 410            retry: the set-up is wrong, and somebody can mend it
    any other 4xx                                rejected: this very delivery
"""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import httpcore
import msgspec
from pydantic import BeforeValidator, Field, field_validator, model_validator

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from connectors.outbound import AddressRefusedError, Answer, Client
from pipeline.records import Delivery

SECRET_PREFIX = "whsec_"
_LONGEST_RETRY_AFTER_MS = 86_400_000
_MENDABLE = frozenset({401, 403, 404, 405, 407, 408, 410, 421, 425, 429})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"})
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_encode = msgspec.json.encode


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class WebhookOptions(Options):
    """`url` is called for each delivery. `secret` signs; a list of two, while it is being changed, signs twice.

    `headers` are sent along; the value of one that holds a secret is a reference. `unsigned: true` does without a
    signature. `allow_private` allows private addresses and loopback, and plain http to them.
    """

    url: str
    secret: Annotated[list[SecretReference], BeforeValidator(_as_list)] = []
    unsigned: bool = False
    headers: dict[str, str | SecretReference] = {}
    allow_private: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url must begin with https:// (or http://, with allow_private) and name a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a user or password in the url would stand in topics; put it into `headers` by reference")
        return url

    @field_validator("headers")
    @classmethod
    def _no_literal_secrets(cls, headers: dict[str, str | SecretReference]) -> dict[str, str | SecretReference]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name) or name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
                raise ValueError(f"{name!r} is not a header that can be set here")
            if isinstance(value, str) and name.lower() in _SECRET_HEADERS:
                raise ValueError(f"the header {name} holds a secret: write {{env: NAME}} or {{file: path}}")
            if isinstance(value, str) and ("\n" in value or "\r" in value):
                raise ValueError(f"the header {name} holds a line break")
        return headers

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.secret and not self.unsigned:
            raise ValueError("name the signing secret: `secret: {env: NAME}`; or write `unsigned: true`")
        if self.secret and self.unsigned:
            raise ValueError("`secret` and `unsigned: true` exclude each other")
        if urlsplit(self.url).scheme == "http" and not self.allow_private:
            raise ValueError("http:// sends personal data in the clear; use https://, or allow_private on your machine")
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


def retry_after_ms(text: str | None, now_s: float) -> int | None:
    """A Retry-After header in milliseconds: seconds or a date, at most a day; None if absent or senseless."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_ms = int(text[:10]) * 1000
    else:
        try:
            wait_ms = int((parsedate_to_datetime(text).timestamp() - now_s) * 1000)
        except (ValueError, OverflowError):
            return None
    return max(0, min(wait_ms, _LONGEST_RETRY_AFTER_MS))


def outcome_of(answer: Answer, now_s: float) -> Outcome:
    """What an answer means: the table at the head of this file."""
    status = answer.status
    if 200 <= status < 300:
        return delivered()
    detail = f"HTTP {status}"
    if 300 <= status < 400:
        return retry(f"{detail}: redirects are not followed; put the final address into the definition")
    said = "".join(c for c in answer.body[:200].decode("utf-8", "replace") if c.isprintable()).strip()
    if said:
        detail = f"{detail}: {said}"
    if status >= 500 or status in _MENDABLE:
        return retry(detail, retry_after_ms(answer.headers.get("retry-after"), now_s))
    return rejected(detail)


class WebhookConnector(Connector):
    """One signed POST for each delivery."""

    kind = "webhook"
    mode = "trigger"
    options_model = WebhookOptions

    def __init__(self, destination: str, options: WebhookOptions) -> None:
        super().__init__(destination, options)
        self._url = options.url
        self._keys = [signing_key(reference.read()) for reference in options.secret]
        self._headers = {"content-type": "application/json", "user-agent": "headwater"} | {
            name.lower(): value if isinstance(value, str) else value.read() for name, value in options.headers.items()
        }
        for name, value in self._headers.items():
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"the header {name} of destination {destination} has characters a header cannot hold")
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
        try:
            answer = self._client.request("POST", self._url, headers, body)
        except AddressRefusedError as error:
            return retry(str(error))
        except httpcore.TimeoutException as error:
            return retry(f"no answer in time ({type(error).__name__})")
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            return retry(f"no connection, or one that broke ({type(error).__name__}: {error})")
        return outcome_of(answer, now_s)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
