"""The live debugger: what comes just now, and one event, or one person, followed through every room."""

import re
from typing import Any

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.records import ProfileDocument
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

_NEWEST = 25
_EVENTS = 50
_LONGER_MS = 4_000
_PLACE = re.compile(r"[0-9]{1,6}/[0-9]{1,18}")
_CONTRACT_FLAGS = ("contract_violation", "stripped", "unplanned_")


def entries() -> tuple[Entry, ...]:
    """The addresses of the debugger."""
    return (
        Entry("GET", "/debugger", "viewer", live),
        Entry("GET", "/debugger/{partition}/{offset}", "viewer", one),
    )


def live(page: Page) -> Response:
    """What comes just now; a message by its id; what somebody did."""
    wanted = page.query.get("q", "").strip()[:300]
    if page.part or not wanted:
        found = page.client.list_newest_events(limit=_NEWEST)
        template = "parts/newest.html" if page.part else "debugger.html"
        return page.render(template, events=found["events"], wanted="", person=None, did=[])
    place = page.client.list_newest_events(wanted, 1)["found"]
    if place is not None:
        return go(f"/debugger/{place[0]}/{place[1]}")
    person = _person(page, wanted)
    did = page.client.get_profile_events(person.profile_id, _EVENTS) if person is not None else []
    found = page.client.list_newest_events(limit=_NEWEST)
    by_id = next((each for each in did if each["message_id"] == wanted), None)
    if by_id is not None:
        return go(_address(by_id["position"]))
    return page.render("debugger.html", events=found["events"], wanted=wanted, person=person, did=did)


def _address(position: dict[str, int]) -> str:
    return f"/debugger/{position['partition']}/{position['offset']}"


def _person(page: Page, wanted: str) -> ProfileDocument | None:
    try:
        found = page.client.get_profile(wanted)
    except ApiError as error:
        if error.status != 400:
            raise
        return None
    return found if isinstance(found, ProfileDocument) else None


def one(page: Page) -> Response:
    """One event, room after room."""
    partition, offset = page.path["partition"], page.path["offset"]
    if not _PLACE.fullmatch(f"{partition}/{offset}"):
        raise Refused(404, "There is no such place.")
    with refusals_told():
        patience_ms = _LONGER_MS if page.query.get("longer") else None
        found = page.client.trace_event(int(partition), int(offset), patience_ms)
    if found is None:
        raise Refused(404, "There is no event at this place any more.")
    flags = found["event"].get("flags", [])
    return page.render(
        "trace.html",
        found=found,
        event=found["event"],
        contract_flags=[one for one in flags if one.startswith(_CONTRACT_FLAGS)],
        other_flags=[one for one in flags if not one.startswith(_CONTRACT_FLAGS)],
        rules=_rules(found["touched"]),
    )


def _rules(touched: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """By segment, what of it was touched."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in touched:
        found.setdefault(each["segment"], []).append(each)
    return sorted(found.items())
