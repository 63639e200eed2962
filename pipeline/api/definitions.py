"""Handlers: the definitions in force, their history, and a segment tried before it is."""

import asyncio
import time
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.answers import answer
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.api.trial import facts_of, reasons, trial_of, try_rule, vocabulary
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.loader import InvalidDefinitionsError, load_text, told
from pipeline.definitions.segments import SegmentDefinition
from pipeline.records import ProfileDocument

_SAMPLES = 10
_MOST_VERSIONS = 200


class Definitions:
    """The operations that ask about definitions."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, call: Call) -> Response:
        """Everything in force, without the bodies."""
        catalog = await self._catalog()
        latest = catalog.latest
        found = []
        for key in sorted(latest.members):
            held = catalog.in_force(latest, key)
            assert held is not None
            found.append(
                {
                    "kind": held.kind,
                    "name": held.name,
                    "version": held.version,
                    "owner": held.owner,
                    "paused": key in latest.paused,
                    "applied_at": held.applied_at,
                    "applied_by": held.applied_by,
                }
            )
        return answer(self._service, call, {"generation": latest.number, "definitions": found})

    async def one(self, call: Call) -> Response:
        """Every version of one definition, the newest first."""
        kind, name = call.values["kind"], call.values["name"]
        catalog = await self._catalog()
        versions = catalog.versions(kind, name)[:_MOST_VERSIONS]
        if not versions:
            raise Problem(404, "There never was such a definition.")
        key = f"{kind}/{name}"
        return answer(
            self._service,
            call,
            {
                "kind": kind,
                "name": name,
                "in_force": catalog.latest.members.get(key),
                "paused": key in catalog.latest.paused,
                "versions": [
                    {
                        "version": one.version,
                        "owner": one.owner,
                        "applied_at": one.applied_at,
                        "applied_by": one.applied_by,
                        "definition": one.body,
                    }
                    for one in versions
                ],
            },
        )

    async def preview(self, call: Call) -> Response:
        """A segment tried on the people of the read model."""
        definition = self._segment_in(call.body)
        model, hide, now_ms = self._service.model, call.caller.hide, _now_ms()

        def work() -> dict[str, Any]:
            tried = try_rule(model, trial_of(definition), hide, now_ms, _SAMPLES)
            sizes = [one for one in tried.sizes.items() if hide.sees_segment(one[0])]
            return {
                "judged": tried.judged,
                "people": tried.people,
                "all": tried.all,
                "whole": tried.whole,
                "matching": tried.matching,
                "estimate": round(tried.matching * tried.people / tried.judged) if tried.judged else 0,
                "overlap": dict(sorted(sizes, key=lambda one: (-one[1], one[0]))[:10]),
                "members": [
                    {**self._person(document, hide), "whole": whole, "why": msgspec.to_builtins(why)}
                    for document, why, whole in tried.members
                ],
            }

        return answer(self._service, call, await asyncio.to_thread(work))

    async def why(self, call: Call) -> Response:
        """Why a person is in a segment in force, or is not, as far as the read model can tell."""
        key = self._service.identifier(call.values["profile"])
        stored = self._service.model.document(key)
        if stored is None:
            raise Problem(404, "Nobody is known by this identifier.")
        document, name, hide = decoded(stored), call.values["segment"], call.caller.hide
        call.profile_id = document.profile_id
        if not hide.sees_segment(name):
            raise Problem(403, "This token does not see who is in that segment.")
        catalog = await self._catalog()
        held = catalog.in_force(catalog.latest, f"segment/{name}")
        if held is None:
            raise Problem(404, "There is no such segment in force.")
        definition, model, now_ms = SegmentDefinition.model_validate(held.body), self._service.model, _now_ms()
        if definition.entity != document.entity:
            raise Problem(422, f"This segment is one of {'accounts' if definition.entity == 'account' else 'people'}.")
        trial = trial_of(definition)
        facts, whole = facts_of(model, document, trial, hide, now_ms)
        why = reasons(trial, facts, now_ms)
        member = name in document.segments
        return answer(
            self._service,
            call,
            {"segment": name, "member": member, "whole": whole, "at": now_ms, "why": msgspec.to_builtins(why)},
        )

    async def vocabulary(self, call: Call) -> Response:
        """The names that rules can be written with."""
        model, hide = self._service.model, call.caller.hide
        catalog = await self._catalog()
        found = await asyncio.to_thread(vocabulary, model, hide)
        named = {kind: [each.name for each in catalog.of_kind(catalog.latest, kind)] for kind in ("segment", "trait")}
        return answer(self._service, call, {**found, "segments": named["segment"], "computed": named["trait"]})

    def _segment_in(self, body: bytes) -> SegmentDefinition:
        """The one segment in a body. Raises Problem 400, 422."""
        try:
            written = load_text(body.decode(), "definition")
        except UnicodeDecodeError:
            raise Problem(400, "The body is not UTF-8.") from None
        except InvalidDefinitionsError as error:
            raise Problem(422, "\n".join(told(error.problems))) from None
        if len(written) != 1 or written[0].kind != "segment":
            raise Problem(422, "Send one segment.")
        return SegmentDefinition.model_validate(written[0].body)

    def _person(self, document: ProfileDocument, hide: Any) -> dict[str, Any]:
        shown = hide.strip(msgspec.to_builtins(document))
        return {name: shown[name] for name in ("profile_id", "identifiers", "traits", "last_seen") if name in shown}

    async def _catalog(self) -> Catalog:
        return await self._service.in_thread(self._service.plans.look)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
