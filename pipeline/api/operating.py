"""Handlers: how the pipeline does, what could not be used and is sent again, how segments grow."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.histories import DAY_MS, HOUR_MS
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.pulse import Pulse
from pipeline.api.service import Service
from pipeline.definitions.catalog import Catalog
from pipeline.deliver.health import Health, briefly
from pipeline.errors import LookupFailed
from pipeline.letters import Letter, named, send_again
from pipeline.topology import DELIVERIES

_DEFAULT_LIMIT = 100
_DEFAULT_DAYS = 7
_DEFAULT_SEGMENTS = 20
_MOST_REPLAYED = 1_000
_NEWEST_ERRORS = 3
_SHOWN_BYTES = 100_000
_VIOLATION_DAYS = 14
_RECENT_MS = HOUR_MS

_encode = msgspec.json.Encoder().encode


class ReplayRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Dead letters to send again, by their ids. `value`: this text stands in the place of what the (one) record
    held."""

    ids: list[str]
    value: str | None = None


_decode_replay = msgspec.json.Decoder(ReplayRequest).decode


class Operating:
    """The operations for who runs it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def overview(self, call: Call) -> Response:
        """Throughput, lag, latency, destinations, violations, and what is wrong now."""
        pulse, model = self._pulse(), self._service.model
        now = _now_ms()
        roles, letters = pulse.roles(), pulse.letters()
        catalog = await self._catalog()
        paused = catalog.paused(catalog.latest, "destination")
        names = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
        destinations = _destinations(names, paused, roles, letters, pulse.healths(), bool(call.caller.hide))
        minutes = [
            {"at": at, "events": count, **{name: found[int((len(found) - 1) * share)] for name, share in _SHARES}}
            for at, count, found in self._service.follower.visible.latencies.minutes()
        ]
        violations: Counter[tuple[str, str, str]] = Counter()
        for _, contract, event, flag, count in model.violations(now - _VIOLATION_DAYS * DAY_MS):
            violations[contract, event, flag] += count
        waiting = model.generations.behind()
        return self._answer(
            {
                "at": now,
                "roles": roles,
                "throughput": pulse.throughput(),
                "latency": minutes,
                "destinations": destinations,
                "dead_letters": {
                    "recent": sum(one.letter.at > now - _RECENT_MS for one in letters),
                    "known": len(letters),
                    "reasons": Counter(one.letter.reason for one in letters),
                },
                "violations": [
                    {"contract": contract, "event": event, "what": flag, "count": count}
                    for (contract, event, flag), count in violations.most_common(100)
                ],
                "generation": {"latest": catalog.latest.number, "not_in_force": waiting},
                "troubles": dict(pulse.troubles),
                "age_ms": self._service.age_ms(),
            }
        )

    async def letters(self, call: Call) -> Response:
        """The newest dead letters, without content."""
        reason, limit = call.values["reason"], call.values["limit"] or _DEFAULT_LIMIT
        every = self._pulse().letters()
        found = [one for one in every if reason is None or one.letter.reason == reason]
        shown = [_told(one, bool(call.caller.hide)) for one in found[:limit]]
        reasons = Counter(one.letter.reason for one in every)
        return self._answer({"letters": shown, "known": len(found), "reasons": reasons})

    async def letter(self, call: Call) -> Response:
        """One dead letter; what the record held is shown to whoever may see whole events."""
        settings, id = self._service.settings, f"{call.values['partition']}/{call.values['offset']}"

        def work() -> Letter:
            try:
                return named(settings, [id])[0]
            except LookupFailed:
                raise Problem(404, "There is no dead letter at this place, or not any more.") from None

        found = await self._found(work)
        told = _told(found, bool(call.caller.hide))
        if "events:read" in call.caller.scopes and not call.caller.hide:
            body = found.letter.value
            told |= {"value": _text(body), "key": _text(found.letter.key), "whole": body is not None}
        return self._answer(told)

    async def replay(self, call: Call) -> Response:
        """Send dead letters again."""
        try:
            asked = _decode_replay(call.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(422, f"The body is no request: {error}") from None
        if not 1 <= len(asked.ids) <= _MOST_REPLAYED:
            raise Problem(422, f"Name 1 to {_MOST_REPLAYED} dead letters.")
        if asked.value is not None and len(asked.ids) != 1:
            raise Problem(422, "A value mends one dead letter.")
        settings, now = self._service.settings, _now_ms()
        mended = asked.value.encode() if asked.value is not None else None

        def work() -> dict[str, int]:
            return send_again(settings, named(settings, asked.ids), now, mended)

        return self._answer({"sent": await self._found(work)})

    async def backfills(self, call: Call) -> Response:
        """How far the history of new definitions has been read."""
        latest = (await self._catalog()).latest.number
        waiting = self._service.model.generations.behind()
        partitions: list[dict[str, Any]] = []
        if waiting:
            pulse = self._pulse()
            partitions = [one._asdict() for one in await self._found(pulse.backfills)]
        return self._answer({"latest": latest, "not_in_force": waiting, "partitions": partitions})

    async def growth(self, call: Call) -> Response:
        """How the largest segments, or one, came to their size: entries and exits by the hour."""
        days, wanted = call.values["days"] or _DEFAULT_DAYS, call.values["segment"]
        model, catalog = self._service.model, await self._catalog()
        since = _now_ms() - days * DAY_MS
        every = [each for each in catalog.of_kind(catalog.latest, "segment") if wanted in (None, each.name)]
        if wanted is not None and not every:
            raise Problem(404, "There is no such segment in force.")
        every.sort(key=lambda each: (-model.size(each.name), each.name))
        found = [
            {
                "segment": each.name,
                "entity": each.body.get("entity", "person"),
                "size": model.size(each.name),
                "hours": [
                    {"at": at, "entered": entered, "exited": exited}
                    for at, entered, exited in model.growth(each.name, since)
                ],
            }
            for each in every[: call.values["limit"] or _DEFAULT_SEGMENTS]
        ]
        return self._answer({"days": days, "segments": found, "all": len(every)})

    def _pulse(self) -> Pulse:
        if self._service.pulse is None:
            raise Problem(503, "This process does not look at the pipeline.")
        return self._service.pulse

    async def _catalog(self) -> Catalog:
        return await self._service.in_thread(self._service.plans.look)

    async def _found(self, work: Callable[[], Any]) -> Any:
        return await self._service.in_thread(work)

    def _answer(self, found: dict[str, Any]) -> Response:
        return Response(_encode(found), 200, {"Cache-Control": "no-store"}, "application/json")


_SHARES = (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))


def _destinations(
    names: list[str],
    paused: frozenset[str],
    roles: list[dict[str, Any]],
    letters: list[Letter],
    healths: dict[str, Health],
    hides: bool,
) -> list[dict[str, Any]]:
    by_group = {one["group"]: one for one in roles}
    found = []
    for name in names:
        role, health = by_group.get(f"deliver-{name}"), healths.get(name)
        fails = health is not None and not health.up
        own = [one.letter for one in letters if one.letter.topic == f"{DELIVERIES.name}{name}"]
        found.append(
            {
                "destination": name,
                "state": _state(role, not fails, name in paused),
                "behind": role["behind"] if role is not None else None,
                "working": role["working"] if role is not None else None,
                "failure": _words(health.failure, hides) if health is not None and fails else "",
                "since": health.at_ms if health is not None and fails else None,
                "dead_letters": len(own),
                "errors": [
                    {"at": one.at, "reason": one.reason, "detail": _words(one.detail, hides)}
                    for one in own[:_NEWEST_ERRORS]
                ],
            }
        )
    return found


def _state(role: dict[str, Any] | None, is_up: bool, is_paused: bool) -> str:
    """How a destination is, in a word."""
    if is_paused:
        return "paused"
    if not is_up:
        return "fails"
    if role is None:
        return "unknown"
    if role["working"] == 0:
        return "nobody delivers"
    return "stuck" if role["stuck"] else "behind" if role["waits"] else "well"


def _words(detail: str, hides: bool) -> str:
    """What a destination answered, or a stage raised: it may repeat what is hidden from who asks."""
    return briefly(detail) if hides else detail


def _told(one: Letter, hides: bool) -> dict[str, Any]:
    letter = one.letter
    # What ingest says of a record shows no value.
    hides = hides and letter.stage != "ingest"
    return {
        "id": one.id,
        "at": letter.at,
        "stage": letter.stage,
        "reason": letter.reason,
        "detail": _words(letter.detail, hides),
        "pointer": letter.pointer,
        "source": f"{letter.topic}/{letter.partition}/{letter.offset}",
    }


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data[:_SHOWN_BYTES].decode()
    except UnicodeDecodeError:
        return repr(data[:_SHOWN_BYTES])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
