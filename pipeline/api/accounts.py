"""Handlers: an account, the people who belong to it, what they do, and which accounts do most."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.access import Hidden
from pipeline.api.answers import answer
from pipeline.api.engagement import activity, all_of, days_of, members_of, ranking
from pipeline.api.histories import DAY_MS
from pipeline.api.model import decoded
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.records import AccountAlert, ProfileDocument

_DEFAULT_LIMIT = 100
_DEFAULT_DAYS = 30
_DEFAULT_RANKED = 25
_LONGEST_S = 0.5
MISSING = "-"
"""Stands for an account that does not have a trait at all, in `among`."""


class Accounts:
    """The operations that ask about accounts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, call: Call) -> Response:
        """A page of the accounts, by name."""
        limit, model, hide = call.values["limit"] or _DEFAULT_LIMIT, self._service.model, call.caller.hide

        def page() -> dict[str, Any]:
            rows = model.accounts(call.values["begins"] or "", call.values["after"] or "", limit)
            known = [(name, stored) for name, each in rows if (stored := model.document(each)) is not None]
            found = [_account(name, decoded(stored), hide) for name, stored in known]
            return {"accounts": found, "next": rows[-1][0] if len(rows) == limit else None}

        return answer(self._service, call, await asyncio.to_thread(page))

    async def one(self, call: Call) -> Response:
        """The account itself, and how many people it has."""
        name, document = self._named(call)
        shown = call.caller.hide.strip(msgspec.json.decode(document))
        people = await asyncio.to_thread(self._service.model.headcount, name)
        return answer(self._service, call, {"people": people, "account": shown})

    async def people(self, call: Call) -> Response:
        """A page of its people, with what they have done."""
        limit, hide, model = call.values["limit"] or _DEFAULT_LIMIT, call.caller.hide, self._service.model
        name, _ = self._named(call)
        since = _now_ms() // DAY_MS - _DEFAULT_DAYS + 1
        may_count = "events:read" in call.caller.scopes

        def page() -> dict[str, Any]:
            found, following = model.people(name, call.values["after"] or "", limit)
            people = [
                _person(one, hide) | ({"recent_events": sum(days_of(model, one, since).values())} if may_count else {})
                for one in found
            ]
            return {"account": name, "people": people, "next": following or None}

        return answer(self._service, call, await asyncio.to_thread(page))

    async def activity(self, call: Call) -> Response:
        """The events of its people, by the day."""
        days = call.values["days"] or _DEFAULT_DAYS
        account, _ = self._named(call)
        model, now = self._service.model, _now_ms()
        found = await asyncio.to_thread(lambda: activity(model, account, now, days, time.monotonic() + _LONGEST_S))
        told = [{"day": day * DAY_MS, "events": count} for day, count in sorted(found.days.items())]
        return answer(
            self._service,
            call,
            {"account": account, "days": told, "active": found.active, "counted": found.counted, "all": found.all},
        )

    async def alerts(self, call: Call) -> Response:
        """Its newest alerts."""
        return self._alerts(call, decoded(self._named(call)[1]).profile_id)

    async def all_alerts(self, call: Call) -> Response:
        """The newest alerts of all accounts."""
        return self._alerts(call, "")

    def _alerts(self, call: Call, profile_id: str) -> Response:
        found = self._service.model.alerts(profile_id, call.values["limit"] or _DEFAULT_LIMIT)
        hide = call.caller.hide
        seen = [self._alert(one, hide) for one in found if hide.sees_segment(one.segment)]
        return answer(self._service, call, {"alerts": seen})

    def _alert(self, alert: AccountAlert, hide: Hidden) -> dict[str, Any]:
        shown = hide.strip(msgspec.to_builtins(alert))
        owner = self._service.owner_trait(alert.alert)
        return shown if hide.sees_trait(owner) else shown | {"owner": ""}

    async def ranking(self, call: Call) -> Response:
        """The accounts whose people did most, of those that are asked for."""
        values, model, now = call.values, self._service.model, _now_ms()
        days, limit = values["days"] or _DEFAULT_DAYS, values["limit"] or _DEFAULT_RANKED
        if values["among"] is not None and values["trait"] is None:
            raise Problem(400, "among says which values of `trait` are meant: name the trait too.")
        hide = call.caller.hide
        if values["trait"] is not None and not hide.sees_trait(values["trait"]):
            raise Problem(403, "This token does not see that trait.")
        await self._service.check_segments(call.caller, filter(None, (values["segment"], values["without"])))

        def chosen() -> Iterator[tuple[str, ProfileDocument]]:
            every = members_of(model, values["segment"]) if values["segment"] else all_of(model)
            return ((name, one) for name, one in every if _is_meant(one, values))

        found, is_all = await asyncio.to_thread(lambda: ranking(model, chosen(), now, days))
        ranked = [
            _account(one.name, one.document, hide)
            | {"events": one.activity.events, "active": one.activity.active, "people": one.activity.counted}
            for one in found[:limit]
            if one.activity.events
        ]
        return answer(self._service, call, {"ranked": ranked, "judged": len(found), "all": is_all, "days": days})

    def _named(self, call: Call) -> tuple[str, bytes]:
        """The name of the account that is asked for, and its document. Raises Problem 404."""
        name = self._service.account(call.values["account"])
        document = self._service.model.document(self._service.identifier(f"account:{name}"))
        if document is None:
            raise Problem(404, "There is no such account.")
        return name, document


def _is_meant(document: ProfileDocument, values: dict[str, Any]) -> bool:
    """Whether an account is among those whose ranking is asked for."""
    if values["without"] and values["without"] in document.segments:
        return False
    if values["trait"] is None:
        return True
    held = document.traits.get(values["trait"])
    wanted = [one for one in (values["among"] or "").split(",") if one]
    if held is None:
        return MISSING in wanted
    return not wanted or _text(held) in wanted


def _text(value: Any) -> str:
    """A trait's value as a caller writes it: as JSON, texts without their quotes."""
    if isinstance(value, str):
        return value
    whole = isinstance(value, float) and value.is_integer()
    return msgspec.json.encode(int(value) if whole else value).decode()


def _account(name: str, document: ProfileDocument, hide: Hidden) -> dict[str, Any]:
    shown = hide.strip(msgspec.to_builtins(document))
    people = shown.get("computed", {}).get("people", 0)
    return {
        "account": name,
        "profile_id": document.profile_id,
        "people": people if isinstance(people, int) else 0,
        "traits": shown.get("traits", {}),
        "segments": sorted(shown.get("segments", {})),
    }


def _person(document: ProfileDocument, hide: Hidden) -> dict[str, Any]:
    shown = hide.strip(msgspec.to_builtins(document))
    names = ("profile_id", "identifiers", "traits", "totals", "segments", "first_seen", "last_seen")
    return {name: shown[name] for name in names if name in shown}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
