"""Handlers: what changes something. Each goes through the topic that the commands use."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.definitions.apply import OvertakenError
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import Readiness, apply
from pipeline.in_charge import refuse_decisions
from pipeline.privacy import audit
from pipeline.records import Relink, Unlink, encode
from pipeline.runtime.kafka.doors import produce_all

OWNER = "ui"
MAX_BODY = 1_000_000
_JSON = "application/json"
_MOST_NAMED = 100
_MOST_SAID = 2_000
_SEEN_WITHIN_S = 5.0


class LinkRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The two ends of a link; without `b`, every link of `a`."""

    a: str
    b: str = ""
    forever: bool = False


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What to do to definitions in force, each as `kind/name`."""

    remove: list[str] = []
    pause: list[str] = []
    resume: list[str] = []


_decode_change = msgspec.json.Decoder(ChangeRequest).decode
_decode_link = msgspec.json.Decoder(LinkRequest).decode


class Writes:
    """The operations that change something."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def definitions(self, call: Call) -> Response:
        """Put definitions into force, or tell what that would change."""
        try:
            text = call.body.decode()
        except UnicodeDecodeError:
            raise Problem(400, "The body is not UTF-8.") from None
        return await self._apply(call, lambda: {"written": load_text(text), "over": call.values["over"]})

    async def change(self, call: Call) -> Response:
        """Remove, pause or resume definitions in force, or tell what that would change."""
        try:
            asked = _decode_change(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(422, f"The body is no change: {error}") from None
        names = [*asked.remove, *asked.pause, *asked.resume]
        if not names or len(names) > _MOST_NAMED:
            raise Problem(422, f"Name 1 to {_MOST_NAMED} definitions to remove, pause or resume.")
        return await self._apply(call, lambda: msgspec.to_builtins(asked))

    async def _apply(self, call: Call, what: Callable[[], dict[str, Any]]) -> Response:
        dry_run, take_over = bool(call.values["dry_run"]), bool(call.values["take_over"])
        settings, who = self._service.settings, call.caller.name
        wait_s = (call.values["wait_ms"] or 0) / 1_000 if not dry_run else 0.0

        def work() -> dict[str, Any]:
            asked = what()
            # It hears what comes after it was opened: before anything is written.
            readiness = Readiness(settings) if wait_s else None
            try:
                return carried_out(asked, readiness)
            except OvertakenError as error:
                raise Problem(412, f"{error.what}\n{error.what_to_do}") from None
            finally:
                if readiness is not None:
                    readiness.close()

        def carried_out(asked: dict[str, Any], readiness: Readiness | None) -> dict[str, Any]:
            planned = apply(settings, **asked, owner=OWNER, take_over=take_over, applied_by=who, dry_run=dry_run)
            if planned.changes and not dry_run:
                names = ", ".join(each.key for each in planned.changes)
                audit.note(settings, "applied", what=names[:_MOST_SAID], by=who)
            in_force: bool | None = None
            if planned.generation is not None and not dry_run:
                # Who is told that it is done may ask for it at once, as the pages do.
                self._service.plans.follow_to(planned.generation.number, _SEEN_WITHIN_S)
                if readiness is not None:
                    in_force = readiness.wait(planned.generation.number, wait_s)
            return {
                "generation": planned.generation.number if planned.generation is not None else None,
                "changes": [msgspec.to_builtins(change) for change in planned.changes],
                "dry_run": dry_run,
                "in_force": in_force,
            }

        return _answer(await self._service.in_thread(work))

    async def unlink(self, call: Call) -> Response:
        """Take back a link between two identifiers, or all links of one."""
        asked = self._link(call)
        who, now = call.caller.name, time.time_ns() // 1_000_000
        return await self._decide(Unlink(a=asked.a, b=asked.b, received=now, forever=asked.forever, actor=who))

    async def relink(self, call: Call) -> Response:
        """Undo an unlink of the same identifiers."""
        asked = self._link(call)
        if asked.forever:
            raise Problem(422, "forever belongs to unlink.")
        return await self._decide(
            Relink(a=asked.a, b=asked.b, received=time.time_ns() // 1_000_000, actor=call.caller.name)
        )

    def _link(self, call: Call) -> LinkRequest:
        try:
            asked = _decode_link(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(422, f"The body is not a link: {error}") from None
        call.subject = self._service.subject_of(asked.a, asked.b)
        a = self._service.person(asked.a)
        b = self._service.person(asked.b) if asked.b else ""
        if a == b:
            raise Problem(422, "An identifier has no link to itself.")
        a, b = sorted((a, b)) if b else (a, b)
        return LinkRequest(a, b, asked.forever)

    async def _decide(self, decision: Unlink | Relink) -> Response:
        record = [(None, encode(decision))]
        settings = self._service.settings

        def work() -> None:
            refuse_decisions(settings)
            for end in filter(None, (decision.a, decision.b)):
                audit.note(settings, "decided", end, type(decision).__name__.lower(), by=decision.actor)
            produce_all(settings, "identity-edges", record)

        await self._service.in_thread(work)
        return _answer({"told": "identity"})


def _answer(found: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(found), 200, {"Cache-Control": "no-store"}, _JSON)
