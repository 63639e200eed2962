"""Handlers: one person or account, by any identifier."""

import hashlib
from collections import Counter
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.access import Hidden
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.positions import parse_place, parse_position
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.errors import InputError
from pipeline.records import Event, Membership, ProfileDocument

SECTIONS = (
    "identifiers",
    "traits",
    "computed",
    "consents",
    "totals",
    "segments",
    "accounts",
    "first_seen",
    "last_seen",
)
_ALWAYS = ("profile_id", "entity")
_DEFAULT_TIMEOUT_MS = 1_000
_DEFAULT_EVENTS = 20
_SUPPORT_EVENTS = 10
_ORDER = "Order Completed"
_QUESTION_OPENED, _QUESTION_CLOSED = "Ticket Opened", "Ticket Closed"

_encode = msgspec.json.Encoder().encode
decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class Profiles:
    """The operations that ask about one profile."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def whole(self, call: Call) -> Response:
        """The document, or some of its fields."""
        document = await self._find(call)
        fields = call.values["fields"]
        hide = call.caller.hide
        if fields is None and not hide:
            return self._answer(call, document)
        found = decode_object(document)
        if fields is not None:
            found = chosen(found, fields)
        return self._answer(call, _encode(hide.strip(found)))

    async def segments(self, call: Call) -> Response:
        """Its memberships, and why."""
        document = decoded(await self._find(call))
        return self._answer(call, _encode({"segments": self._memberships(document, call.caller.hide)}))

    async def events(self, call: Call) -> Response:
        """Its most recent events."""
        document = decoded(await self._find(call))
        limit = call.values["limit"] or _DEFAULT_EVENTS
        return self._answer(call, _encode({"events": self._events(document, limit, call.caller.hide)}))

    async def support(self, call: Call) -> Response:
        """Who is in front of an agent, in one call."""
        document = decoded(await self._find(call))
        hide = call.caller.hide
        events = self._service.model.recent(document, 100)
        orders = document.totals.get(_ORDER)
        shown = hide.strip(msgspec.to_builtins(document))
        view = {
            "profile_id": document.profile_id,
            "entity": document.entity,
            "who": {name: shown[name] for name in ("identifiers", "traits", "consents", "accounts") if name in shown},
            "orders": {
                "count": orders.count if orders else 0,
                "last": orders.last if orders else None,
                "recent": [shown_event(one, hide) for one, _, _ in events if one.event == _ORDER][:_SUPPORT_EVENTS],
            },
            "preferred_channel": _preferred_channel(document, [one for one, _, _ in events]),
            "open_questions": [shown_event(one, hide) for one in _open_questions([one for one, _, _ in events])],
            "last_events": [shown_event(one, hide) for one, _, _ in events[:_SUPPORT_EVENTS]],
            "segments": self._memberships(document, hide),
        }
        return self._answer(call, _encode(view))

    def _memberships(self, document: ProfileDocument, hide: Hidden) -> list[dict[str, Any]]:
        if "segments" in hide.sections:
            return []
        hidden = hide.keys.get("segments", ())
        held = sorted(one for one in document.segments.items() if one[0] not in hidden)
        return [self._membership(document.profile_id, segment, one) for segment, one in held]

    def _membership(self, profile_id: str, segment: str, held: Membership) -> dict[str, Any]:
        reason = self._service.model.reason(segment, profile_id)
        # A change that is ahead of the document, or behind it, says why of another time.
        why = msgspec.to_builtins(reason) if reason is not None and reason.sequence == held.sequence else None
        return {"segment": segment, "since": held.since, "sequence": held.sequence, "version": held.version, "why": why}

    def _events(self, document: ProfileDocument, limit: int, hide: Hidden) -> list[dict[str, Any]]:
        return [
            {**shown_event(event, hide), "position": {"partition": partition, "offset": offset}}
            for event, partition, offset in self._service.model.recent(document, limit)
        ]

    async def _find(self, call: Call) -> bytes:
        """The document that is asked for, once what shall be waited for is there. Raises Problem 400, 404, 409."""
        key = self._service.identifier(call.values["profile"])
        await self._wait(call)
        document = self._service.model.document(key)
        if document is None:
            raise Problem(404, "Nobody is known by this identifier.")
        return document

    async def _wait(self, call: Call) -> None:
        service, values = self._service, call.values
        timeout_s = (values["timeout_ms"] or _DEFAULT_TIMEOUT_MS) / 1000
        try:
            if values["wait_for"] is not None:
                place = parse_place(values["wait_for"])
                if not await service.wait_for_record(place, timeout_s):
                    raise Problem(409, "That record has had no effect yet.", retry_after="1")
            if values["Headwater-Position"] is not None:
                wanted = parse_position(values["Headwater-Position"])
                if not await service.wait(lambda: service.follower.visible.is_reached(wanted), timeout_s):
                    raise Problem(409, "This process has not read as far as the answer you had.", retry_after="1")
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}") from None

    def _answer(self, call: Call, body: bytes) -> Response:
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, **self._service.freshness()}
        if call.request.headers.get("if-none-match") == tag:
            return Response(b"", 304, headers)
        return Response(body, 200, headers, "application/json")


def chosen(found: dict[str, Any], fields: str) -> dict[str, Any]:
    """The sections, and keys of sections, that were asked for. Raises Problem 400."""
    shown = {name: found[name] for name in _ALWAYS}
    for field in fields.split(","):
        section, dot, key = field.strip().partition(".")
        if section not in SECTIONS:
            raise Problem(400, f"fields are {', '.join(SECTIONS)}, or one key of one: traits.plan.")
        value = found.get(section)
        if not dot:
            shown[section] = value
        elif isinstance(value, dict):
            picked = shown.setdefault(section, {})
            if key in value and isinstance(picked, dict):
                picked[key] = value[key]
        elif section == "identifiers" and isinstance(value, list):
            shown.setdefault(section, []).extend(one for one in value if one["namespace"] == key)
    return shown


def shown_event(event: Event, hide: Hidden) -> dict[str, Any]:
    """An event without what is hidden."""
    return hide.strip(
        {
            "event": event.event,
            "type": event.type,
            "time": event.time,
            "message_id": event.message_id,
            "identifiers": event.identifiers,
            "properties": event.properties,
            "traits": event.traits,
            "context": event.context,
        }
    )


def _preferred_channel(document: ProfileDocument, events: list[Event]) -> str | None:
    """The computed trait of that name, else the commonest channel of the recent events."""
    computed = document.computed.get("preferred_channel")
    if isinstance(computed, str):
        return computed
    channels = Counter(one for event in events if isinstance(one := event.context.get("channel"), str))
    return min(channels, key=lambda channel: (-channels[channel], channel)) if channels else None


def _open_questions(events: list[Event]) -> list[Event]:
    """Tickets that were opened and, as far as the recent events say, not closed. Newest first, as `events`."""
    closed = {str(one.properties.get("ticket_id")) for one in events if one.event == _QUESTION_CLOSED}
    opened = [one for one in events if one.event == _QUESTION_OPENED]
    return [one for one in opened if str(one.properties.get("ticket_id")) not in closed]
