"""Handlers: one person or account, by any identifier."""

from collections import Counter
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.access import Hidden
from pipeline.api.answers import answer
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
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
ALWAYS = ("profile_id", "entity")
_DEFAULT_EVENTS = 20
_SUPPORT_EVENTS = 10
_ORDER = "Order Completed"
_QUESTION_OPENED, _QUESTION_CLOSED = "Ticket Opened", "Ticket Closed"


class _Id(msgspec.Struct):
    profile_id: str


_decode_id = msgspec.json.Decoder(_Id).decode
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
            return answer(self._service, call, document)
        found = decode_object(document)
        if fields is not None:
            found = chosen(found, fields)
        return answer(self._service, call, hide.strip(found))

    async def segments(self, call: Call) -> Response:
        """Its memberships, and why."""
        document = decoded(await self._find(call))
        return answer(self._service, call, {"segments": self._memberships(document, call.caller.hide)})

    async def events(self, call: Call) -> Response:
        """Its most recent events."""
        document = decoded(await self._find(call))
        limit = call.values["limit"] or _DEFAULT_EVENTS
        return answer(self._service, call, {"events": self._events(document, limit, call.caller.hide)})

    async def support(self, call: Call) -> Response:
        """Who is in front of an agent, in one call."""
        document = decoded(await self._find(call))
        hide = call.caller.hide
        events = [one for one, _, _ in self._service.model.recent(document, 100)]
        seen = [shown_event(one, hide) for one in events]
        shown = hide.strip(msgspec.to_builtins(document))
        orders = shown.get("totals", {}).get(_ORDER, {})
        return answer(
            self._service,
            call,
            {
                "profile_id": document.profile_id,
                "entity": document.entity,
                "who": {
                    name: shown[name] for name in ("identifiers", "traits", "consents", "accounts") if name in shown
                },
                "orders": {
                    "count": orders.get("count", 0),
                    "last": orders.get("last"),
                    "recent": [one for one in seen if one["event"] == _ORDER][:_SUPPORT_EVENTS],
                },
                "preferred_channel": _preferred_channel(shown.get("computed", {}), seen),
                "open_questions": [one for one, is_open in zip(seen, _open_questions(events), strict=True) if is_open],
                "last_events": seen[:_SUPPORT_EVENTS],
                "segments": self._memberships(document, hide),
            },
        )

    def _memberships(self, document: ProfileDocument, hide: Hidden) -> list[dict[str, Any]]:
        held = sorted(one for one in document.segments.items() if hide.sees_segment(one[0]))
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
        """The document that is asked for. Raises Problem 400, 404."""
        key = self._service.identifier(call.values["profile"])
        document = self._service.model.document(key)
        if document is None:
            raise Problem(404, "Nobody is known by this identifier.")
        call.profile_id = _decode_id(document).profile_id
        return document


def chosen(found: dict[str, Any], fields: str) -> dict[str, Any]:
    """The sections, and keys of sections, that were asked for. Raises Problem 400."""
    wanted: dict[str, set[str | None]] = {}
    for field in fields.split(","):
        section, dot, key = field.strip().partition(".")
        if section not in SECTIONS:
            raise Problem(400, f"fields are {', '.join(SECTIONS)}, or one key of one: traits.plan.")
        wanted.setdefault(section, set()).add(key if dot else None)  # None: all of it
    shown = {name: found[name] for name in ALWAYS}
    for section, keys in wanted.items():
        value = found.get(section)
        if None in keys:
            shown[section] = value
        elif isinstance(value, dict):
            shown[section] = {key: one for key, one in value.items() if key in keys}
        elif section == "identifiers" and isinstance(value, list):
            shown[section] = [one for one in value if one["namespace"] in keys]
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


def _preferred_channel(computed: dict[str, Any], events: list[dict[str, Any]]) -> str | None:
    """The computed trait of that name, else the commonest channel of the recent events, as they are shown."""
    if isinstance(known := computed.get("preferred_channel"), str):
        return known
    channels = Counter(one for event in events if isinstance(one := event.get("context", {}).get("channel"), str))
    return min(channels, key=lambda channel: (-channels[channel], channel)) if channels else None


def _open_questions(events: list[Event]) -> list[bool]:
    """Of each event whether it opened a ticket that, as far as the recent events say, was not closed."""
    closed = {str(one.properties.get("ticket_id")) for one in events if one.event == _QUESTION_CLOSED}
    return [one.event == _QUESTION_OPENED and str(one.properties.get("ticket_id")) not in closed for one in events]
