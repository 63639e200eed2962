"""The destinations there are, and a plain form for those that need no more than a few fields."""

import json
from typing import Any

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

KINDS = {"webhook": "A webhook", "file": "A file"}
"""The kinds that have a form; the others are written as files."""

_MOST_SHOWN = 200


def entries() -> tuple[Entry, ...]:
    """The addresses of the pages about destinations."""
    return (
        Entry("GET", "/destinations", "viewer", all_of_them),
        Entry("GET", "/destinations/new/{kind}", "editor", new),
        Entry("POST", "/destinations", "editor", create),
        Entry("POST", "/destinations/{name}/pause", "editor", lambda page: _change(page, "pause")),
        Entry("POST", "/destinations/{name}/resume", "editor", lambda page: _change(page, "resume")),
        Entry("POST", "/destinations/{name}/remove", "editor", lambda page: _change(page, "remove")),
    )


def all_of_them(page: Page) -> Response:
    """A list: what kind each is, what it is told, whether it is paused."""
    held = [one for one in page.client.list_definitions() if one["kind"] == "destination"]
    shown = []
    for one in held[:_MOST_SHOWN]:
        history = page.client.get_history("destination", one["name"])
        version: dict[str, Any] = next(
            (each for each in (history or {}).get("versions", ()) if each["version"] == one["version"]), {}
        )
        body = version.get("definition", {})
        shown.append({**one, "connector": body.get("kind", ""), "told": _told(body)})
    return page.render("destinations.html", destinations=shown, all=len(held), kinds=KINDS)


def _told(body: dict[str, Any]) -> str:
    chosen = body.get("segments")
    others = [name for name in ("profiles", "events", "alerts") if body.get(name)]
    if chosen == "*" or (chosen is None and not others):
        said = ["every segment"]
    else:
        said = [", ".join(chosen)] if chosen else []
    return "; ".join([*said, *others])


def new(page: Page) -> Response:
    """An empty form of a kind."""
    kind = page.path["kind"]
    if kind not in KINDS:
        raise Refused(404, "There is no form for this kind; write it as a file.")
    return _form(page, kind, {"segments": []})


def _form(page: Page, kind: str, held: dict[str, Any], wrong: str = "", status: int = 422) -> Response:
    known = [one["segment"] for one in page.client.list_segments()]
    return page.render(
        "destination.html",
        status if wrong else 200,
        kind=kind,
        title=KINDS[kind],
        held=held,
        segments=known,
        wrong=wrong,
    )


def create(page: Page) -> Response:
    """Put a new destination into force. One that is there already is not written over: it may say more than a form."""
    kind, name = page.field("kind"), page.field("name").strip()
    if kind not in KINDS:
        raise Refused(422, "There is no form for this kind.")
    chosen = [one for one in page.fields("segments") if one]
    held = dict(page.form) | {"segments": chosen}
    if not name:
        return _form(page, kind, held, "It has no name yet.")
    if page.field("which") != "all" and not chosen:
        return _form(page, kind, held, "No segment is chosen: choose some, or all of them.")
    unknown = {*chosen} - {one["segment"] for one in page.client.list_segments()}
    if unknown:
        return _form(page, kind, held, f"There is no segment {min(unknown)} any more: choose again.")
    history = page.client.get_history("destination", name)
    if history is not None and history["in_force"]:
        return _form(page, kind, held, f"There is a destination {name} already: choose another name, or remove it.")
    try:
        page.client.apply_definitions(json.dumps(_written(page, kind, name)))
    except ApiError as error:
        if error.status not in (409, 422):
            raise
        return _form(page, kind, held, error.detail, error.status)
    return go("/destinations", f"{name} is in force. Changes from now on reach it while `headwater run deliver` runs.")


def _written(page: Page, kind: str, name: str) -> dict[str, Any]:
    body: dict[str, Any] = {"destination": name, "kind": kind}
    if page.field("description").strip():
        body["description"] = page.field("description").strip()
    body["segments"] = "*" if page.field("which") == "all" else page.fields("segments")
    if kind == "file":
        return body | {"path": page.field("path").strip()}
    body["url"] = page.field("url").strip()
    secret = page.field("secret").strip()
    body |= {"secret": {"env": secret}} if secret else {}
    return body | {option: True for option in ("unsigned", "allow_private") if page.field(option)}


def _change(page: Page, what: str) -> Response:
    name = page.path["name"]
    asked: dict[str, Any] = {what: [f"destination/{name}"]}
    with refusals_told():
        page.client.change_definitions(**asked)
    done = {"pause": "paused; what is for it waits", "resume": "resumed", "remove": "removed"}[what]
    return go("/destinations", f"{name} is {done}.")
