"""A person: found by any identifier; what is known of them, what they did, and why they are in which segment."""

from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.records import ProfileDocument
from pipeline.ui.graph import MOST_SHOWN, Edge, picture
from pipeline.ui.shown import who
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

_NAMESPACES = ("email", "user_id", "phone", "device_id", "anonymous_id")
_EVENTS = 50


def entries() -> tuple[Entry, ...]:
    """The addresses of the pages about people."""
    return (
        Entry("GET", "/people", "viewer", search),
        Entry("GET", "/people/{profile:path}", "viewer", one),
        Entry("POST", "/people/{profile}/unlink", "operator", unlink),
        Entry("POST", "/people/{profile}/relink", "operator", relink),
        Entry("POST", "/people/{profile}/privacy", "operator", ask_privacy),
        Entry("GET", "/privacy/{id}", "operator", receipt),
    )


def search(page: Page) -> Response:
    """Find somebody: NAMESPACE:VALUE, a profile_id, or a value alone, which is tried under the common namespaces."""
    wanted = page.query.get("q", "").strip()[:500]
    if not wanted:
        return page.render("people.html", wanted="", missing=False)
    for text in (wanted, *(f"{namespace}:{wanted}" for namespace in _NAMESPACES)):
        try:
            found = page.client.get_profile(text)
        except ApiError as error:
            if error.status != 400:
                raise
            continue  # it is no identifier, by itself or in this namespace, and no profile_id
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
        **_came(page, profile, found),
        asked=asked,
    )


def _came(page: Page, profile: str, found: dict[str, Any]) -> dict[str, Any]:
    """Where traits and links came from, and the links as a picture."""
    came = page.client.get_provenance(profile)
    names = [f"{each['namespace']}:{each['value']}" for each in found.get("identifiers") or []]
    for each in came["links"]:
        each["taken_back"] = any(_takes_back(one, each) for one in came["taken_back"])
    edges = [Edge(each["a"], each["b"], each["count"], not each["taken_back"]) for each in came["links"]]
    edges += [Edge(each["a"], each["b"], 1, False) for each in came["unfollowed"]]
    followed = sum(each.followed for each in edges)
    counts = f"{followed} links, {len(edges) - followed} not followed"
    title = f"How the identifiers of {who(found)} hang together: {counts}"
    return {
        "came": came,
        "names": names,
        "graph": picture(names, edges, title) if len(names) > 1 or edges else "",
        "graph_most": MOST_SHOWN,
    }


def _takes_back(unlink: dict[str, Any], link: dict[str, Any]) -> bool:
    """Whether a link is one that was taken back, and has not been seen since then."""
    ends = {link["a"], link["b"]}
    named = {unlink["a"], unlink["b"]} - {""}
    return named <= ends and (unlink["forever"] or link["last"] <= unlink["at"])


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


def relink(page: Page) -> Response:
    """Undo that."""
    with refusals_told():
        page.client.relink(page.field("a").strip(), page.field("b").strip())
    return go(f"/people/{page.path['profile']}", "The link counts again; what follows from it shows in a moment.")


def ask_privacy(page: Page) -> Response:
    """Make a request about their data. They are named by the profile: an identifier may be of a spelling of before."""
    request, name = page.field("request"), page.field("trait").strip()
    if request not in REQUESTS:
        raise Refused(422, "There is no such request.")
    if request == "rectify" and not name:
        raise Refused(422, "Name the trait that is to be corrected.")
    # An empty value takes the trait back.
    traits = {name: page.field("value").strip() or None} if request == "rectify" else None
    with refusals_told():
        made = page.client.ask_privacy(request, page.path["profile"], traits, bool(page.field("lift")))
    return go(f"/privacy/{made}")


def receipt(page: Page) -> Response:
    """What became of a request."""
    found = page.client.get_receipt(page.path["id"])
    context = {"id": page.path["id"], "receipt": found}
    return page.render("parts/receipt.html" if page.part else "receipt.html", **context)


REQUESTS = ("export", "rectify", "suppress", "erase")
"""What can be asked for."""
