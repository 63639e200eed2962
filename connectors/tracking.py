"""Any collector that speaks the tracking spec (`/v1/batch` with a write key): another platform, or another Headwater.

    destination: analytics
    kind: tracking
    events: "*"
    url: https://collector.example.com/v1/batch
    write_key: {env: ANALYTICS_WRITE_KEY}
    erase:                                     # the spec has no call for it, but most platforms have one
      method: POST
      url: https://api.example.com/regulations
      headers: {Authorization: {env: ANALYTICS_DELETES}}
      body: {type: suppress_and_delete, userId: "{identifiers.user_id}"}

    delivery                          message
    an event                          as it was, under its own type and name; an alias of which one side is missing
                                      is an identify
    an alert                          track, under the name of the alert, with all it says
    a segment entered, exited         track "Segment Entered", "Segment Exited" with segment and profile_id
    a profile change                  identify with the traits that changed; null for one that was removed
    a profile that was deleted        track "Profile Deleted"
    a person who is erased            the request `erase` (as of kind `http`); without one it is refused, and the
                                      receipt says to ask there yourself. It never carries the write key

`messageId` is the delivery_id, so that a repetition is told from news. `userId` and `anonymousId` are the strongest
identifiers of these kinds; a person who has neither goes by the profile_id.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, field_validator, model_validator

from connectors.answers import ask
from connectors.base import Connector, Options, Outcome, SecretReference, rejected
from connectors.outbound import Client
from connectors.template import EraseRequest, MissingValueError, check_request, erased_values, fill, filled_url, worst
from connectors.webhook import check_url, read_headers
from pipeline.records import Delivery

_MAX_BATCH_BYTES = 450_000
# 200, and yet not all was taken. Which of a batch is told when each is sent alone.
_REFUSES = re.compile(rb'"rejected"\s*:\s*[1-9]')
_encode = msgspec.json.Encoder().encode


class TrackingOptions(Options):
    """`url` takes batches; `write_key` is sent as the user of Basic authentication, as the spec's clients do. `erase`
    is the request that deletes a person."""

    url: str
    write_key: SecretReference
    allow_private: bool = False
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    erase: EraseRequest | None = None

    _checked_url = field_validator("url")(check_url)

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        if urlsplit(self.url).scheme == "http" and not self.allow_private:
            raise ValueError("http:// sends personal data in the clear; use https://, or allow_private on your machine")
        if self.erase is not None:
            check_request(self.erase.url, self.erase.body, self.allow_private)
        return self


def message(delivery: Delivery) -> dict[str, Any]:
    """A delivery as a message of the tracking spec: the same at every repetition."""
    body, context = delivery.body, {**(delivery.body.get("context") or {}), **_ours(delivery)}
    found: dict[str, Any] = {
        "messageId": delivery.delivery_id,
        "timestamp": datetime.fromtimestamp(delivery.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "context": context,
        **_who(delivery),
    }
    if delivery.action == "event":
        return found | _event(delivery)
    if delivery.action == "alert":
        said = {name: value for name, value in body.items() if name != "alert"}
        about = {**said, "profile_id": delivery.profile_id, "segment": delivery.segment}
        return found | {"type": "track", "event": str(body.get("alert")), "properties": about}
    if delivery.action == "profile_changed":
        gone = dict.fromkeys((body.get("unset") or {}).get("traits") or ())
        return found | {"type": "identify", "traits": {**gone, **((body.get("set") or {}).get("traits") or {})}}
    properties: dict[str, Any] = {"profile_id": delivery.profile_id}
    if delivery.action == "profile_deleted":
        return found | {"type": "track", "event": "Profile Deleted", "properties": properties}
    event = "Segment Entered" if delivery.action == "segment_entered" else "Segment Exited"
    properties |= {"segment": delivery.segment, "sequence": body.get("sequence"), **(body.get("traits") or {})}
    return found | {"type": "track", "event": event, "properties": properties}


def _event(delivery: Delivery) -> dict[str, Any]:
    """What is an event's own: ingest puts into `properties` what a group says of its account and a page of its name."""
    body = delivery.body
    kind, properties, traits = body.get("type", "track"), body.get("properties") or {}, body.get("traits")
    who = _who(delivery)
    if kind == "alias" and len(who) < 2:
        kind = "identify"
    found: dict[str, Any] = {"type": kind, "properties": properties}
    if kind == "track":
        found["event"] = body.get("event")
    elif kind == "alias":
        found["previousId"] = who["anonymousId"]
    elif kind in ("page", "screen"):
        found |= {name: properties[name] for name in ("name", "category") if isinstance(properties.get(name), str)}
    elif kind == "group":
        # The person's own go where the spec has them beside a group's.
        traits, own = properties, traits
        if own:
            found["context"] = {**(body.get("context") or {}), **_ours(delivery), "traits": own}
    if traits:
        found["traits"] = traits
    if body.get("group_id"):
        found["groupId"] = body["group_id"]
    return found


def _ours(delivery: Delivery) -> dict[str, Any]:
    return {"headwater": {"destination": delivery.destination, "profile_id": delivery.profile_id}}


def _who(delivery: Delivery) -> dict[str, str]:
    first: dict[str, str] = {}
    for one in delivery.identifiers:
        first.setdefault(one.namespace, one.value)
    found = {"userId": first.get("user_id"), "anonymousId": first.get("anonymous_id")}
    known = {name: value for name, value in found.items() if value is not None}
    return known or {"anonymousId": delivery.profile_id}


class TrackingConnector(Connector):
    """Batches, within the size that collectors take."""

    kind = "tracking"
    mode = "trigger"
    max_batch = 100
    concurrency = 4
    options_model = TrackingOptions

    def __init__(self, destination: str, options: TrackingOptions) -> None:
        super().__init__(destination, options)
        self._url = options.url
        self._erase = options.erase
        self._erase_headers = {
            "content-type": "application/json",
            "user-agent": "headwater",
            **(read_headers(destination, options.erase.headers) if options.erase is not None else {}),
        }
        key = base64.b64encode(f"{options.write_key.read()}:".encode()).decode()
        self._headers = {
            "content-type": "application/json",
            "user-agent": "headwater",
            "authorization": f"Basic {key}",
        }
        self._client = Client(allow_private=options.allow_private, timeout_s=options.timeout_seconds, connections=16)

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Send them together; what is refused together is sent alone, so that one at fault stops no other."""
        outcomes: list[Outcome] = []
        batch: list[bytes] = []
        for delivery in deliveries:
            if delivery.action == "profile_erased":
                # A message about them would only make them known there again.
                outcomes += self._send(batch) if batch else []
                batch = []
                outcomes.append(self._deleted(delivery))
                continue
            text = _encode(message(delivery))
            if batch and sum(map(len, batch)) + len(text) > _MAX_BATCH_BYTES:
                outcomes += self._send(batch)
                batch = []
            batch.append(text)
        return outcomes + (self._send(batch) if batch else [])

    def _send(self, batch: list[bytes]) -> list[Outcome]:
        outcome = self._post(b'{"batch":[' + b",".join(batch) + b"]}")
        if outcome.status == "rejected" and len(batch) > 1:
            return [self._send([each])[0] for each in batch]
        return [outcome] * len(batch)

    def _deleted(self, delivery: Delivery) -> Outcome:
        request = self._erase
        if request is None:
            return rejected("the destination has no `erase` request: delete the person there yourself")
        return worst(self._delete(request, values) for values in erased_values(request, delivery))

    def _delete(self, request: EraseRequest, values: Mapping[str, Any]) -> Outcome:
        try:
            url = filled_url(request.url, values)
            content = _encode(fill(request.body, values)) if request.body is not None else b""
        except MissingValueError as error:
            return rejected(f"the template needs {error}, which this person has not")
        return ask(self._client, request.method, url, self._erase_headers, content)

    def _post(self, content: bytes) -> Outcome:
        return ask(self._client, "POST", self._url, self._headers, content, refused_by=_REFUSES)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
