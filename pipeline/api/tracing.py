"""Handlers: what came just now, and one event followed through every room."""

from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.access import Hidden
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.profiles import shown_event
from pipeline.api.service import Service
from pipeline.api.trace import differences, effects, event_at, raw_of, touched_by
from pipeline.deliver.health import briefly
from pipeline.errors import HeadwaterError
from pipeline.records import Event
from pipeline.runtime.kafka.doors import PartitionPositions, committed_positions
from pipeline.topology import DELIVERIES

_DEFAULT_LIMIT = 30
_SHOWN_BYTES = 20_000
_PATIENCE_MS = 400

_encode = msgspec.json.Encoder().encode


class Tracing:
    """The operations that follow an event."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def newest(self, call: Call) -> Response:
        """What came just now, or where a message stands."""
        newest, wanted = self._service.follower.visible.newest, call.values["message_id"]
        place = newest.find(wanted) if wanted is not None else None
        tail = newest.tail(call.values["limit"] or _DEFAULT_LIMIT)
        return self._answer({"events": [one._asdict() for one in tail], "found": list(place) if place else None})

    async def one(self, call: Call) -> Response:
        """One event, from its raw record to what became of deliveries."""
        place = call.values["partition"], call.values["offset"]
        settings, hide = self._service.settings, call.caller.hide
        event = await self._service.in_thread(lambda: event_at(settings, *place))
        if event is None:
            raise Problem(404, "There is no event at this place: it is a record of another kind, or not kept any more.")
        catalog = await self._service.in_thread(self._service.plans.look)
        plan = await self._service.in_thread(self._service.plans.latest)
        raw = await self._service.in_thread(lambda: raw_of(settings, event))
        stored = self._service.model.document(event.identifiers[0])
        profile_id = decoded(stored).profile_id if stored is not None else None
        names = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
        found: dict[str, Any] = {
            "event": shown_event(event, hide) | {"received": event.received, "flags": event.flags},
            "place": list(place),
            "source": event.source,
            "origin": event.origin,
            "raw": None if raw is None or hide else raw[:_SHOWN_BYTES].decode(errors="replace"),
            "raw_kept": raw is not None,
            "cleaned": [one if not hide else {"path": one["path"]} for one in differences(raw, event)],
            "contract": event.contract,
            "profile_id": profile_id,
            "who": self._who(event, hide),
            "touched": [one._asdict() for one in touched_by(plan.segments, event)],
            "generation": catalog.latest.number,
            "changes": [],
            "flips": [],
            "deliveries": [],
            "all": True,
            "trouble": "",
        }
        if profile_id is not None:
            longest_s = (call.values["patience_ms"] or _PATIENCE_MS) / 1_000
            found |= await self._effects(event, place, profile_id, names, hide, longest_s)
        return self._answer(found)

    async def _effects(
        self, event: Event, place: tuple[int, int], profile_id: str, names: list[str], hide: Any, longest_s: float
    ) -> dict[str, Any]:
        settings, pulse = self._service.settings, self._service.pulse
        letters = pulse.letters() if pulse is not None else []
        groups = {f"deliver-{name}": DELIVERIES.name + name for name in names}

        def committed() -> PartitionPositions:
            return committed_positions(settings, groups)

        try:
            told = await self._service.in_thread(
                lambda: effects(settings, event, place, profile_id, names, letters, committed, longest_s)
            )
        except (Problem, HeadwaterError) as error:
            return {"trouble": str(error), "all": False}
        return {
            "changes": [hide.strip(one) for one in told.changes],
            "flips": [hide.strip(one) for one in told.flips if hide.sees_segment(one["segment"])],
            "deliveries": [
                {**one, "why": _in_brief(one["why"])} if hide else one
                for one in told.deliveries
                if hide.sees_segment(one["segment"] or "")
            ],
            "all": told.all,
        }

    def _who(self, event: Event, hide: Hidden) -> list[dict[str, Any]]:
        """Each identifier of the event that is not hidden, and whose it is now."""
        found = []
        for text in filter(hide.sees_identifier, event.identifiers):
            stored = self._service.model.document(text)
            found.append({"identifier": text, "profile_id": decoded(stored).profile_id if stored is not None else None})
        return found

    def _answer(self, found: dict[str, Any]) -> Response:
        return Response(_encode(found), 200, {"Cache-Control": "no-store"}, "application/json")


def _in_brief(why: str) -> str:
    """Why a delivery was given up, without the destination's own words: they may repeat what is hidden."""
    reason, colon, detail = why.partition(": ")
    return reason + colon + briefly(detail)
