"""Handlers: the segments, their members and sizes, and what they have in common."""

import asyncio
from typing import Any

from starlette.responses import Response

from pipeline.api.answers import answer
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.profiles import ALWAYS, chosen, decode_object
from pipeline.api.service import Service
from pipeline.definitions.catalog import Catalog

_DEFAULT_LIMIT = 100
_MAX_OVERLAP = 20
_AT_ONCE = 200


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
        return answer(self._service, call, {"generation": latest.number, "segments": found})

    async def one(self, call: Call) -> Response:
        """One segment: its definition and size."""
        name = call.values["segment"]
        catalog = await self._catalog()
        found = catalog.in_force(catalog.latest, f"segment/{name}")
        if found is None:
            raise Problem(404, "There is no such segment in force.")
        size = self._service.model.size(name)
        told = {"segment": name, "version": found.version, "size": size, "definition": found.body}
        return answer(self._service, call, told)

    async def members(self, call: Call) -> Response:
        """A page of its members; with `fields`, each with those of its document."""
        fields = call.values["fields"]
        if fields is not None and "profiles:read" not in call.caller.scopes:
            raise Problem(403, "Fields of profiles need the scope profiles:read.")
        name, limit, hide = call.values["segment"], call.values["limit"] or _DEFAULT_LIMIT, call.caller.hide
        await self._service.check_segments(call.caller, [name])
        model = self._service.model

        def page() -> dict[str, Any]:
            found = model.members(name, call.values["after"] or "", limit)
            following = found[-1]["profile_id"] if len(found) == limit else None
            for one in found if fields is not None else ():
                stored = model.document(one["profile_id"])
                one["document"] = hide.strip(chosen(decode_object(stored), fields)) if stored is not None else {}
            return {"segment": name, "size": model.size(name), "members": found, "next": following}

        if fields is not None:
            chosen(dict.fromkeys(ALWAYS, ""), fields)  # what is not understood is said before anything is read
        return answer(self._service, call, await asyncio.to_thread(page) if limit > _AT_ONCE else page())

    async def overlap(self, call: Call) -> Response:
        """How many profiles are in all of the segments, in any, and in each two."""
        names = sorted({name for name in call.values["of"].split(",") if name})
        if not 2 <= len(names) <= _MAX_OVERLAP:
            raise Problem(400, f"of names 2 to {_MAX_OVERLAP} different segments, with commas between.")
        await self._service.check_segments(call.caller, names)
        model = self._service.model
        pairs = [
            {"segments": [one, other], "both": model.overlap([one, other])}
            for place, one in enumerate(names)
            for other in names[place + 1 :]
        ]
        sizes = {name: model.size(name) for name in names}
        told = {"sizes": sizes, "all": model.overlap(names), "any": model.union(names), "pairs": pairs}
        return answer(self._service, call, told)

    async def _catalog(self) -> Catalog:
        return await self._service.in_thread(self._service.plans.look)
