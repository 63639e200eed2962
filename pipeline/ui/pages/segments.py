"""The segments there are, and one of them: what it says, who is in it, its history, what it has in common."""

import difflib
import time
from typing import Any

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.definitions.export import as_yaml
from pipeline.ui.drafts import Drafts
from pipeline.ui.pages.operations import progress_of, segment_growth
from pipeline.ui.sentences import sentence
from pipeline.ui.tree import read_segment
from pipeline.ui.web import Entry, Page, Refused, go, refusals_told

_MEMBERS = 25
_MOST_OVERLAPS = 12
_DAYS = 30


def _growth(page: Page, name: str) -> dict[str, Any] | None:
    found = page.client.get_growth(name, _DAYS)["segments"]
    return segment_growth(found[0], time.time_ns() // 1_000_000, _DAYS) if found else None


class Segments:
    """The pages about segments."""

    def __init__(self, drafts: Drafts) -> None:
        self._drafts = drafts

    def entries(self) -> tuple[Entry, ...]:
        """Their addresses."""
        return (
            Entry("GET", "/", "viewer", lambda _: go("/segments")),
            Entry("GET", "/segments", "viewer", self.all),
            Entry("GET", "/segments/{name}", "viewer", self.one),
            Entry("GET", "/segments/{name}/yaml", "viewer", self.yaml),
            Entry("POST", "/segments/{name}/pause", "editor", lambda page: self._change(page, "pause")),
            Entry("POST", "/segments/{name}/resume", "editor", lambda page: self._change(page, "resume")),
            Entry("POST", "/segments/{name}/remove", "editor", lambda page: self._change(page, "remove")),
        )

    def all(self, page: Page) -> Response:
        """A list with sizes."""
        wanted = page.query.get("q", "").strip().lower()
        found = page.client.list_segments()
        shown = [one for one in found if wanted in f"{one['segment']} {one['description']}".lower()]
        context = {"segments": shown, "wanted": wanted, "all": len(found)}
        if page.part:
            return page.render("parts/segments.html", **context)
        drafts = self._drafts.all(page.session.name) if page.session.may("editor") else []
        return page.render("segments.html", drafts=drafts, **context)

    def one(self, page: Page) -> Response:
        """One segment."""
        name = page.path["name"]
        client = page.client
        if page.part == "members":
            return page.render("parts/members.html", backfill=progress_of(page), **self._members(page, name))
        history = client.get_history("segment", name)
        if history is None:
            raise Refused(404, "There never was such a segment.")
        versions = history["versions"]
        current = next((one for one in versions if one["version"] == history["in_force"]), None)
        shown = current or versions[0]
        tree = read_segment(shown["definition"])
        return page.render(
            "segment.html",
            history=history,
            shown=shown,
            sentence=sentence(tree),
            description=tree.get("description"),
            compared=self._compared(page, versions),
            overlaps=self._overlaps(page, name) if current else [],
            growth=_growth(page, name) if current else None,
            backfill=progress_of(page) if current else None,
            **self._members(page, name),
        )

    def yaml(self, page: Page) -> Response:
        """The definition in force as a file."""
        found = page.client.get_segment(page.path["name"])
        if found is None:
            raise Refused(404, "There is no such segment in force.")
        name = f'attachment; filename="{page.path["name"]}.yaml"'
        return Response(as_yaml(found["definition"]), 200, {"Content-Disposition": name}, "application/yaml")

    def _change(self, page: Page, what: str) -> Response:
        name = page.path["name"]
        asked: dict[str, Any] = {what: [f"segment/{name}"], "take_over": bool(page.field("take_over"))}
        with refusals_told():
            page.client.change_definitions(**asked)
        done = {
            "pause": "paused",
            "resume": "resumed",
            "remove": "removed; its members leave it. Who publishes one of its versions again has it back",
        }
        return go(f"/segments/{name}", f"{name} is {done[what]}.")

    def _members(self, page: Page, name: str) -> dict[str, Any]:
        after = page.query.get("after", "")
        try:
            found = page.client.get_members(name, after, _MEMBERS, fields=["identifiers", "traits"])
        except ApiError as error:
            if error.status != 404:
                raise
            # It was removed, and all have left it: its history is there.
            found = {"members": [], "size": 0, "next": None}
        people = [{**one, "document": {**one, **one.get("document", {})}} for one in found["members"]]
        return {"size": found["size"], "people": people, "next": found["next"], "after": after, "name": name}

    def _overlaps(self, page: Page, name: str) -> list[dict[str, Any]]:
        others = sorted((one for one in page.client.list_segments() if one["size"]), key=lambda one: -one["size"])
        names = [one["segment"] for one in others if one["segment"] != name][:_MOST_OVERLAPS]
        if not names:
            return []
        found = page.client.get_overlap([name, *names])
        size = found["sizes"][name]
        both = [(set(one["segments"]) - {name}, one["both"]) for one in found["pairs"] if name in one["segments"]]
        shares = [
            {
                "segment": other,
                "both": count,
                "share": round(100 * count / size) if size else 0,
                "size": found["sizes"][other],
            }
            for others_, count in both
            for other in others_
            if count
        ]
        return sorted(shares, key=lambda one: -one["both"])

    def _compared(self, page: Page, versions: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Two versions beside each other, as `?a=1&b=2` asks."""
        by_number = {str(one["version"]): one for one in versions}
        one, other = by_number.get(page.query.get("a", "")), by_number.get(page.query.get("b", ""))
        if one is None or other is None or one is other:
            return None
        if one["version"] > other["version"]:
            one, other = other, one
        texts = [as_yaml(each["definition"]).splitlines() for each in (one, other)]
        lines = [line for line in difflib.ndiff(texts[0], texts[1]) if not line.startswith("?")]
        return {
            "a": one["version"],
            "b": other["version"],
            "said": [sentence(read_segment(each["definition"])) for each in (one, other)],
            "lines": [(line[0], line[2:]) for line in lines],
        }
