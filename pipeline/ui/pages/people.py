"""A person: found by any identifier; what is known of them, what they did, and why they are in which segment."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.records import ProfileDocument
from pipeline.ui.shown import who
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

_NAMESPACES = ("email", "user_id", "phone", "device_id", "anonymous_id")
_EVENTS = 50


def entries() -> tuple[Entry, ...]:
    """The addresses of the pages about people."""
    return (
        Entry("GET", "/people", "viewer", search),
        Entry("GET", "/people/{profile}", "viewer", one),
        Entry("POST", "/people/{profile}/unlink", "operator", unlink),
    )


def search(page: Page) -> Response:
    """Find somebody: NAMESPACE:VALUE, a profile_id, or a value alone, which is tried under the common namespaces."""
    wanted = page.query.get("q", "").strip()[:500]
    if not wanted:
        return page.render("people.html", wanted="", missing=False)
    tried = [wanted] if ":" in wanted or wanted.count("-") == 4 else []
    for text in [*tried, *(f"{namespace}:{wanted}" for namespace in _NAMESPACES)]:
        try:
            found = page.client.get_profile(text)
        except ApiError as error:
            if error.status != 400:
                raise
            continue  # it is no identifier of this namespace
        if isinstance(found, ProfileDocument):
            return go(f"/people/{found.profile_id}")
    return page.render("people.html", wanted=wanted, missing=True)


def one(page: Page) -> Response:
    """Everything about one person that the API knows and this user may see."""
    client, profile = page.client, page.path["profile"]
    found = client.get_profile(profile, fields=["identifiers", "traits", "computed", "consents", "totals", "accounts"])
    if not isinstance(found, dict):
        raise Refused(404, "Nobody is known by this identifier.")
    if found["entity"] == "account":
        return go(f"/accounts/of/{quote(who(found), safe=':')}")
    held = client.get_profile_segments(profile)
    others = [each for each in client.list_segments() if each["segment"] not in {one["segment"] for one in held}]
    asked = page.query.get("why", "")
    return page.render(
        "person.html",
        person=found,
        held=held,
        others=[each["segment"] for each in others if each["entity"] == "person"],
        events=client.get_profile_events(profile, _EVENTS),
        why=_why(page, profile, asked) if asked else None,
        asked=asked,
    )


def _why(page: Page, profile: str, segment: str) -> dict[str, Any]:
    try:
        return page.client.get_why(profile, segment)
    except ApiError as error:
        if error.status not in (404, 422):
            raise
        return {"untold": error.detail}


def unlink(page: Page) -> Response:
    """Take back the link between two identifiers of the person."""
    a, b = page.field("a").strip(), page.field("b").strip()
    with refusals_told():
        page.client.unlink(a, b, bool(page.field("forever")))
    return go(f"/people/{page.path['profile']}", "The link is taken back; what follows from it shows in a moment.")
