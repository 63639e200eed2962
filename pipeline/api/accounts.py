"""Handlers: an account, and the people who belong to it."""

from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.access import Hidden
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.records import ProfileDocument

_DEFAULT_LIMIT = 100
_encode = msgspec.json.Encoder().encode


class Accounts:
    """The operations that ask about one account."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def one(self, call: Call) -> Response:
        """The account itself, and how many people it has."""
        document = self._document(call.values["account"])
        shown = call.caller.hide.strip(msgspec.json.decode(document))
        return self._answer({"people": self._service.model.headcount(call.values["account"]), "account": shown})

    async def people(self, call: Call) -> Response:
        """A page of its people, with what they have done."""
        account, limit = call.values["account"], call.values["limit"] or _DEFAULT_LIMIT
        self._document(account)
        page = self._service.model.people(account, call.values["after"] or "", limit)
        following = page[-1].profile_id if len(page) == limit else None
        people = [_person(one, call.caller.hide) for one in page]
        return self._answer({"account": account, "people": people, "next": following})

    def _document(self, account: str) -> bytes:
        document = self._service.model.document(self._service.identifier(f"account:{account}"))
        if document is None:
            raise Problem(404, "There is no such account.")
        return document

    def _answer(self, found: dict[str, Any]) -> Response:
        return Response(_encode(found), 200, self._service.freshness(), "application/json")


def _person(document: ProfileDocument, hide: Hidden) -> dict[str, Any]:
    shown = hide.strip(msgspec.to_builtins(document))
    names = ("profile_id", "identifiers", "traits", "totals", "segments", "first_seen", "last_seen")
    return {name: shown[name] for name in names if name in shown}
