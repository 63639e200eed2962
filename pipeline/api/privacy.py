"""Handlers: requests of people about their data, and what became of them. The privacy role carries them out."""

from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.privacy.asking import ask
from pipeline.records import RequestKind
from pipeline.runtime.kafka.doors import current_values

_JSON = "application/json"


class PrivacyAsked(msgspec.Struct, forbid_unknown_fields=True):
    """A request about the person behind `identifier`, which may be a profile_id. `traits`: rectify to these, null takes
    one back. `lift` ends a suppression."""

    request: RequestKind
    identifier: str
    traits: dict[str, Any] = {}
    lift: bool = False


_decode = msgspec.json.Decoder(PrivacyAsked).decode


class Privacy:
    """The operations about requests."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def request(self, call: Call) -> Response:
        """Make a request."""
        try:
            asked = _decode(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(422, f"The body is no request: {error}") from None
        if bool(asked.traits) is not (asked.request == "rectify"):
            raise Problem(422, "A rectification, and nothing else, names the traits that are to be corrected.")
        if asked.lift and asked.request != "suppress":
            raise Problem(422, "lift belongs to suppress.")
        call.subject = self._service.subject_of(asked.identifier)
        text = self._service.person_or_profile(asked.identifier, whole=asked.request == "erase")
        call.subject = self._service.subject_of(text)
        settings, who = self._service.settings, call.caller.name
        request_id = await self._service.in_thread(
            lambda: ask(settings, asked.request, text, who, asked.traits, asked.lift)
        )
        return _answer({"request_id": request_id})

    async def receipt(self, call: Call) -> Response:
        """What became of a request."""
        key, settings = call.values["request"].encode(), self._service.settings
        found = await self._service.in_thread(lambda: current_values(settings, "privacy-receipts").get(key))
        if found is None:
            raise Problem(404, "There is no receipt of that id, or not yet.")
        return Response(found, 200, {"Cache-Control": "no-store"}, _JSON)


def _answer(found: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(found), 200, {"Cache-Control": "no-store"}, _JSON)
