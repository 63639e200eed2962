"""Handlers: how a profile came to be: where each trait came from and when, what stood together, what is not followed,
what was taken back."""

from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.answers import answer
from pipeline.api.histories import DAY_MS, Route
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.identifiers import identifier
from pipeline.records import ProfileDocument, Relink, Unlink, decode_edges_record, source_name


class Provenance:
    """The operation that tells where things came from."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def one(self, call: Call) -> Response:
        """Origins of traits, links, and what was taken back."""
        model, hide = self._service.model, call.caller.hide
        stored = model.document(self._service.identifier(call.values["profile"]))
        if stored is None:
            raise Problem(404, "Nobody is known by this identifier.")
        document = decoded(stored)
        call.profile_id = document.profile_id
        history = model.history(document)
        shown = hide.strip(msgspec.to_builtins(document))
        own = [_text(one) for one in shown.get("identifiers", [])]
        trouble = ""
        taken_back: list[dict[str, Any]] = []
        if own:
            try:
                taken_back = await self._service.in_thread(lambda: self._taken_back(document))
            except Problem as problem:
                trouble = problem.detail
        visible = set(own)
        return answer(
            self._service,
            call,
            {
                "profile_id": document.profile_id,
                "since_days": self._service.settings.api.recent_days,
                "traits": _origins(history, shown.get("traits", {})),
                "links": self._links(history, own),
                "unfollowed": [
                    {"a": a, "b": b, "reason": one["reason"], "since": one["since"]}
                    for one in shown.get("unfollowed", [])
                    for a, b in ((_text(one["identifier"]), _text(one["other"])),)
                    if a in visible
                ],
                "taken_back": [one for one in taken_back if hide.sees_identifier(*filter(None, (one["a"], one["b"])))],
                "days": [{"day": day * DAY_MS, "events": count} for day, count in sorted(history.days.items())],
                "trouble": trouble,
            },
        )

    def _links(self, history: Route, own: list[str]) -> list[dict[str, Any]]:
        """What stood together, of identifiers the profile still has and the caller sees."""
        names = {self._service.model.digest(text): text for text in own}
        return [
            {
                "a": names[one.a],
                "b": names[one.b],
                "first": one.first,
                "last": one.last,
                "count": one.count,
                "position": {"partition": one.partition, "offset": one.offset},
            }
            for one in sorted(history.links, key=lambda one: one.first)
            if one.a in names and one.b in names
        ]

    def _taken_back(self, document: ProfileDocument) -> list[dict[str, Any]]:
        """The unlinks in force that name one of the profile's identifiers. Raises BrokerError."""
        own = {identifier(one.namespace, one.value) for one in document.identifiers}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        every = [
            message for value in self._service.decisions() if isinstance(message := _decision(value), Unlink | Relink)
        ]
        for message in sorted(every, key=lambda one: one.received):
            if message.a not in own and message.b not in own:
                continue
            if isinstance(message, Relink):
                found.pop((message.a, message.b), None)
                continue
            found[message.a, message.b] = {
                "a": message.a,
                "b": message.b,
                "at": message.received,
                "forever": message.forever,
                "by": message.actor,
            }
        return list(found.values())


def _decision(value: bytes) -> Any:
    try:
        return decode_edges_record(value)
    except msgspec.ValidationError:
        return None  # a decision of another kind


def _origins(history: Route, traits: dict[str, Any]) -> dict[str, Any]:
    """Where the newest value of each trait came from, of those that are shown."""
    return {
        name: {
            "at": one.time,
            "event": one.event,
            "source": source_name(one.origin, one.source),
            "contract": one.contract or None,
            "position": {"partition": one.partition, "offset": one.offset},
        }
        for name, one in sorted(history.traits.items())
        if name in traits
    }


def _text(pair: dict[str, str]) -> str:
    return identifier(pair["namespace"], pair["value"])
