"""The segment builder: a form that is the tree, its meaning beside it, and what is done with it."""

import json
import time
from typing import Any

from starlette.responses import Response

from pipeline.api.client import ApiError
from pipeline.definitions.export import as_yaml
from pipeline.definitions.keys import NAME
from pipeline.definitions.kinds import mistakes_in
from pipeline.definitions.loader import InvalidDefinitionsError, load_text, told
from pipeline.ui.checks import checked, unseen
from pipeline.ui.controls import Viewer
from pipeline.ui.drafts import Drafts
from pipeline.ui.edits import edit, new_segment
from pipeline.ui.forms import tree_of
from pipeline.ui.sentences import sentence
from pipeline.ui.tree import ROOT, Node, read_segment
from pipeline.ui.web import Entry, Page, Refused, go

_KEEP_WORDS_S = 30.0
_IN_FORCE_WITHIN_MS = 3_000
_LENGTHS = ("1h", "6h", "1d", "7d", "14d", "30d", "90d", "365d")
_NOTHING: dict[str, Any] = {"events": [], "paths": {}, "traits": {}, "purposes": [], "segments": [], "computed": []}


class Builder:
    """The pages of the builder."""

    def __init__(self, drafts: Drafts) -> None:
        self._drafts = drafts
        self._words: dict[str, tuple[float, dict[str, Any]]] = {}

    def entries(self) -> tuple[Entry, ...]:
        """Its addresses. Trying is nobody's change; publishing, and keeping a draft, is an editor's."""
        return (
            Entry("GET", "/segments/new", "viewer", self.new),
            Entry("GET", "/segments/{name}/edit", "viewer", self.open),
            Entry("GET", "/drafts/{key}", "editor", self.open_draft),
            Entry("POST", "/builder", "viewer", self.step),
            Entry("POST", "/builder/meaning", "viewer", self.meaning),
            Entry("POST", "/builder/yaml", "viewer", self.export),
            Entry("POST", "/segments/import", "viewer", self.bring_in),
            Entry("POST", "/segments/publish", "editor", self.publish),
            Entry("POST", "/drafts", "editor", self.save),
            Entry("POST", "/drafts/{key}/delete", "editor", self.delete),
        )

    def new(self, page: Page) -> Response:
        """An empty segment."""
        entity = "account" if page.query.get("entity") == "account" else ""
        return self._show(page, new_segment(entity))

    def open(self, page: Page) -> Response:
        """A segment that is, or was, in force."""
        history = page.client.get_history("segment", page.path["name"])
        if history is None:
            raise Refused(404, "There never was such a segment.")
        wanted = page.query.get("version", str(history["in_force"] or history["versions"][0]["version"]))
        found = next((one for one in history["versions"] if str(one["version"]) == wanted), None)
        if found is None:
            raise Refused(404, "There is no such version of it.")
        return self._show(page, read_segment(found["definition"]), begun=_begun(history))

    def open_draft(self, page: Page) -> Response:
        """A draft of one's own."""
        draft = self._drafts.read(page.session.name, page.path["key"])
        if draft is None:
            raise Refused(404, "This draft is not there any more.")
        return self._show(page, draft.tree, begun=draft.begun)

    def bring_in(self, page: Page) -> Response:
        """A segment as somebody wrote it in YAML, into the builder."""
        try:
            written = load_text(page.field("text").replace("\r\n", "\n"), "text")
        except InvalidDefinitionsError as error:
            raise Refused(422, " · ".join(one.removeprefix("text:") for one in told(error.problems[:10]))) from None
        if len(written) != 1 or written[0].kind != "segment":
            raise Refused(422, "One segment can be brought in at a time.")
        return self._show(page, read_segment(written[0].body))

    def step(self, page: Page) -> Response:
        """Do one thing to the tree. `do` is the action; `line:PATH` the line that was typed there."""
        tree = tree_of(page.form)
        action = page.field("do")
        focus = ""
        if action and not action.startswith("show:"):
            target = action.partition(":")[2].partition(":")[0]
            focus = edit(tree, action, page.field(f"line:{target}"), self._vocabulary(page)["events"])
            if action.startswith("type:"):
                # What was added to a rule that stood alone made a group of both, which has the line from then on.
                focus = f"line:{ROOT}.0" if target == ROOT else f"line:{target}"
        if page.part == "tree":
            return page.render("parts/tree.html", **self._tree(page, tree, focus))
        return self._show(page, tree, focus, begun=page.field("begun"))

    def meaning(self, page: Page) -> Response:
        """What it says, and whom it would hold."""
        return page.render("parts/meaning.html", **self._meaning(page, tree_of(page.form)))

    def export(self, page: Page) -> Response:
        """The segment as a file."""
        tree = tree_of(page.form)
        written, mistakes = checked(tree)
        if mistakes:
            raise Refused(422, "It is not whole yet: " + "; ".join(said for one in mistakes.values() for said in one))
        name = f'attachment; filename="{tree.get("name")}.yaml"'
        return Response(as_yaml(written.body), 200, {"Content-Disposition": name}, "application/yaml")

    def publish(self, page: Page) -> Response:
        """Put it into force."""
        tree, begun = tree_of(page.form), page.field("begun")
        written, mistakes = checked(tree)
        if mistakes:
            wrong = "It is not whole yet; what is missing stands beside it."
            return self._show(page, tree, wrong=wrong, status=422, begun=begun)
        name, _, version = begun.partition("@")
        # Under another name it takes nobody's place.
        over = int(version) if name == tree.get("name") and version.isdecimal() and len(version) < 9 else 0
        try:
            told = page.client.apply_definitions(
                as_yaml(written.body), take_over=bool(page.field("take_over")), wait_ms=_IN_FORCE_WITHIN_MS, over=over
            )
        except ApiError as error:
            if error.status == 412:
                return self._overtaken(page, tree)
            if error.status not in (409, 422):
                raise
            return self._show(page, tree, wrong=error.detail, status=error.status, begun=begun)
        self._drafts.published(page.session.name, tree.get("name"))
        said = "Published. Members come as soon as the history has been read."
        if told["in_force"]:
            said = "Published, and in force."
        return go(f"/segments/{tree.get('name')}", said)

    def save(self, page: Page) -> Response:
        """Keep it as a draft."""
        tree = tree_of(page.form)
        self._drafts.save(page.session.name, tree, page.field("begun")[:200])
        return go("/segments", f"The draft of {tree.get('name') or 'a segment without a name'} is kept.")

    def delete(self, page: Page) -> Response:
        """Delete a draft."""
        self._drafts.delete(page.session.name, page.path["key"])
        return go("/segments", "The draft is deleted.")

    # ------------------------------------------------------------------------------------------------------- inside

    def _overtaken(self, page: Page, tree: Node) -> Response:
        """Somebody else published it since it was opened here: it is said, and who publishes once more means it."""
        name = tree.get("name")
        history = page.client.get_history("segment", name)
        if history is None or not history["in_force"]:
            wrong, begun = f"{name} was removed since you opened it. Publish once more to have it back.", ""
        else:
            begun = _begun(history)
            newest = next(one for one in history["versions"] if one["version"] == history["in_force"])
            wrong = (
                f"There is a segment {name} that you have not seen: version {newest['version']}, by "
                f"{newest['applied_by'] or 'somebody'}. Nothing was published. Choose another name, or publish once "
                "more to put yours in its place."
            )
        return self._show(page, tree, wrong=wrong, status=412, begun=begun, seen=f"/segments/{name}" if begun else "")

    def _show(
        self,
        page: Page,
        tree: Node,
        focus: str = "",
        wrong: str = "",
        status: int = 200,
        begun: str = "",
        seen: str = "",
    ) -> Response:
        meaning = self._meaning(page, tree, tried=False)
        told = {**self._tree(page, tree, focus), **meaning}
        told |= {"name": tree.get("name"), "wrong": wrong, "begun": begun, "seen": seen}
        return page.render("builder.html", status, **told)

    def _tree(self, page: Page, tree: Node, focus: str) -> dict[str, Any]:
        _, mistakes = checked(tree)
        if not tree.get("name"):
            mistakes.pop(ROOT, None)  # a name comes last; publishing asks for it
        viewer = Viewer(tree, mistakes)
        view = viewer.view()
        words = self._vocabulary(page)
        values = {path: words["paths"].get(path) or words["traits"].get(path) or [] for path in viewer.value_paths}
        return {"view": view, "focus": focus, "words": words, "values": values, "lengths": _LENGTHS}

    def _meaning(self, page: Page, tree: Node, tried: bool = True) -> dict[str, Any]:
        written, mistakes = checked(tree)
        found: dict[str, Any] = {"sentence": sentence(tree), "mistakes": mistakes, "tried": None, "untried": ""}
        found["holds"] = ("account", "accounts") if tree.get("entity") == "account" else ("person", "people")
        # A misspelt event is a whole rule that holds nobody.
        found["unseen"] = list(dict.fromkeys(unseen(written.body.get("when"), self._vocabulary(page)["events"])))
        # A name is what comes to mind last: a rule is tried without one, or with one that will not do.
        body = written.body if NAME.fullmatch(written.body["segment"]) else {**written.body, "segment": "unnamed"}
        if tried and not mistakes_in("segment", body) and not written.problems:
            try:
                found["tried"] = page.client.preview_segment(json.dumps(body))
            except ApiError as error:
                if error.status != 422:
                    raise
                found["untried"] = error.detail
        return found

    def _vocabulary(self, page: Page) -> dict[str, Any]:
        kept = self._words.get(page.session.name)
        now = time.monotonic()
        if kept is not None and now - kept[0] < _KEEP_WORDS_S:
            return kept[1]
        try:
            words = page.client.get_vocabulary()
        except ApiError:
            words = _NOTHING
        if len(self._words) > 1_000:
            self._words.clear()
        self._words[page.session.name] = (now, words)
        return words


def _begun(history: dict[str, Any]) -> str:
    """What somebody who opens a segment starts from: its name, and the version in force, which publishing replaces."""
    return f"{history['name']}@{history['in_force'] or 0}"
