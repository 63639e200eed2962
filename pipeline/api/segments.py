"""Handlers: the segments, their members and sizes, and what they have in common."""

from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.profiles import chosen, decode_object
from pipeline.api.service import Service
from pipeline.definitions.catalog import Catalog

_DEFAULT_LIMIT = 100
_MAX_OVERLAP = 20

_encode = msgspec.json.Encoder().encode


class Segments:
    """The operations that ask about segments."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, call: Call) -> Response:
        """Every segment in force, with its size."""
        catalog = await self._catalog()
        latest = catalog.latest
        paused = catalog.paused(latest, "segment")
        found = [
            {
                "segment": each.name,
                "entity": each.body.get("entity", "person"),
                "description": each.body.get("description", ""),
                "version": each.version,
                "owner": each.owner,
                "paused": each.name in paused,
                "size": self._service.model.size(each.name),
            }
            for each in catalog.of_kind(latest, "segment")
        ]
        return self._answer({"generation": latest.number, "segments": found})

    async def one(self, call: Call) -> Response:
        """One segment: its definition and size."""
        name = call.values["segment"]
        catalog = await self._catalog()
        found = catalog.in_force(catalog.latest, f"segment/{name}")
        if found is None:
            raise Problem(404, "There is no such segment in force.")
        size = self._service.model.size(name)
        return self._answer({"segment": name, "version": found.version, "size": size, "definition": found.body})

    async def members(self, call: Call) -> Response:
        """A page of its members; with `fields`, each with those of its document."""
        fields = call.values["fields"]
        if fields is not None and "profiles:read" not in call.caller.scopes:
            raise Problem(403, "Fields of profiles need the scope profiles:read.")
        name, limit = call.values["segment"], call.values["limit"] or _DEFAULT_LIMIT
        model = self._service.model
        page = model.members(name, call.values["after"] or "", limit)
        following = page[-1]["profile_id"] if len(page) == limit else None
        if fields is not None:
            for one in page:
                stored = model.document(one["profile_id"])
                found = chosen(decode_object(stored), fields) if stored is not None else {}
                one["document"] = call.caller.hide.strip(found)
        return self._answer({"segment": name, "size": model.size(name), "members": page, "next": following})

    async def overlap(self, call: Call) -> Response:
        """How many profiles are in all of the segments, in any, and in each two."""
        names = sorted({name for name in call.values["of"].split(",") if name})
        if not 2 <= len(names) <= _MAX_OVERLAP:
            raise Problem(400, f"of names 2 to {_MAX_OVERLAP} different segments, with commas between.")
        model = self._service.model
        pairs = [
            {"segments": [one, other], "both": model.overlap([one, other])}
            for place, one in enumerate(names)
            for other in names[place + 1 :]
        ]
        sizes = {name: model.size(name) for name in names}
        return self._answer({"sizes": sizes, "all": model.overlap(names), "any": model.union(names), "pairs": pairs})

    async def _catalog(self) -> Catalog:
        return await self._service.in_thread(self._service.plans.look)

    def _answer(self, found: dict[str, Any]) -> Response:
        return Response(_encode(found), 200, self._service.freshness(), "application/json")
