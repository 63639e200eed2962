"""The tree as rows of controls: what is shown for each kind of node, with its words. Templates only lay it out.

Every text of a node is in exactly one field, shown or hidden: so the form is the tree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.ui.edits import CONDITIONS, OF_ACCOUNTS, OF_PEOPLE
from pipeline.ui.forms import shown
from pipeline.ui.tree import AGGREGATES, ROOT, Node
from pipeline.ui.words import (
    AGAINST,
    CLOCK,
    COMMON,
    HOW_MANY,
    NUMBERS,
    RESULTS,
    THIS_OR_WHOLE,
    TIMES,
    TYPES,
    UNITS,
    WINDOWS,
    YES_NO,
    Options,
    without_twin,
)


@dataclass(slots=True)
class Control:
    """One field. `again`: the page shows other fields when it changes."""

    name: str
    label: str
    value: str
    sort: str = "text"
    options: Options = ()
    listed: str = ""
    again: bool = False
    quiet: bool = False
    hint: str = ""
    size: int = 0
    is_control: bool = True


@dataclass(slots=True)
class Adding:
    """A button that adds a part."""

    action: str
    label: str
    is_adding: bool = True


@dataclass(slots=True)
class View:
    """A node as it is shown: rows of controls, buttons and views, under captions."""

    kind: str
    path: str
    title: str
    rows: list[tuple[str, list[Any]]] = field(default_factory=list)
    hidden: list[tuple[str, str]] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    tools: tuple[str, ...] = ()
    negated: bool = False
    is_view: bool = True


class Viewer:
    """Makes the view of one tree. `mistakes`: path → what is wrong there."""

    def __init__(self, tree: Node, mistakes: Mapping[str, list[str]] | None = None) -> None:
        self._tree = tree
        self._mistakes = mistakes or {}
        self._entity = tree.get("entity") or "person"
        self.value_paths: set[str] = set()

    def view(self) -> View:
        """The whole segment."""
        tree = self._tree
        rest = [one for one in tree.values if one not in ("name", "description", "entity", "tags", "purposes")]
        found = View("segment", ROOT, "Segment", mistakes=self._mistakes.get(ROOT, []))
        entity = (("account", "accounts"), (tree.get("entity") if self._entity == "person" else "", "people"))
        head = [
            self._text(tree, ROOT, "name", "Name", hint="small letters, digits, _ . -", size=28, again=True),
            self._choice(tree, ROOT, "entity", "It holds", entity[::-1], again=True),
        ]
        more = [
            self._area(tree, ROOT, "description", "What it is for"),
            self._area(tree, ROOT, "tags", "Tags, one a line"),
            self._area(tree, ROOT, "purposes", "Only for these purposes, one a line"),
            self._text(tree, ROOT, "valid_from", "Nobody is in it before", hint="2026-03-01", size=20),
            self._text(tree, ROOT, "valid_until", "Nobody is in it from", hint="2026-12-31", size=20),
        ]
        rest = [one for one in rest if one not in ("valid_from", "valid_until")]
        found.hidden = self._hidden(tree, ROOT, rest)
        found.rows = [("head", head), ("more", more)]
        found.rows.append(("rule", [self._rule(one, f"{ROOT}.{n}", last=True) for n, one in enumerate(tree.parts)]))
        if not any(one.kind in ("all", "any") for one in tree.parts):
            found.rows.append(("adds", self._adds(ROOT)))
        return found

    # ----------------------------------------------------------------------------------------------------- rules

    def _rule(self, node: Node, path: str, last: bool = False) -> View:
        title = CONDITIONS.get(node.kind, node.kind)
        view = View(node.kind, path, title, mistakes=self._mistakes.get(path, []))
        view.tools = () if last else ("up", "down", "not", "group", "remove")
        shown_names = getattr(self, f"_{node.kind}")(node, path, view)
        if node.kind not in ("all", "any"):
            view.hidden.append((f"{path}:kind", node.kind))
        view.hidden += self._hidden(node, path, [one for one in node.values if one not in shown_names], kind=False)
        return view

    def _group(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        both = (("all", "All of these are true"), ("any", "At least one of these is true"))
        view.rows.append(
            ("kind", [Control(f"{path}:kind", "How they go together", node.kind, "choice", both, again=True)])
        )
        view.rows.append(("rules", [self._rule(one, f"{path}.{n}") for n, one in enumerate(node.parts)]))
        view.rows.append(("adds", self._adds(path)))
        return ()

    _all = _any = _group

    def _adds(self, path: str) -> list[Adding]:
        kinds = OF_ACCOUNTS if self._entity == "account" else OF_PEOPLE
        return [Adding(f"add:{path}:{kind}", CONDITIONS[kind]) for kind in kinds]

    def _not(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        view.title, view.negated = "This is not true", True
        view.rows.append(("rules", [self._rule(one, f"{path}.{n}") for n, one in enumerate(node.parts)]))
        if not node.parts:
            view.rows.append(("adds", self._adds(path)))
        return ()

    def _performed(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        used = self._events_rows(node, path, view, "did")
        result = node.get("result")
        often: list[Any] = [self._choice(node, path, "result", "how often", RESULTS, again=True)]
        used += ("result",)
        if result in AGGREGATES:
            often.append(
                self._text(node, path, "of", "of the property", listed="paths", hint="properties.total", size=18)
            )
            used += ("of",)
        if result:
            operators = TIMES if result in ("first", "last") else NUMBERS
            often += self._tests(node, path, operators)
        view.rows.append(("how often", often))
        window = node.get("window")
        when: list[Any] = [self._choice(node, path, "window", "when", WINDOWS, again=True)]
        names: tuple[str, ...] = ("window",)
        if window == "within":
            when += [self._length(node, path, "within", "for how long"), self._grace(node, path)]
            names += ("within", "grace")
        elif window == "between":
            when += [
                self._text(node, path, "from", "from", hint="2026-03-01", size=20),
                self._text(node, path, "to", "until", hint="2026-04-01", size=20),
                self._text(node, path, "time_zone", "time zone", hint="UTC", size=14),
            ]
            names += ("from", "to", "time_zone")
        elif window == "calendar":
            current = without_twin(THIS_OR_WHOLE, "true", node.get("current"))
            when += [
                self._text(node, path, "last", "the last", hint="1", size=4),
                self._choice(node, path, "unit", "unit", (("", "…"), *UNITS) if not node.get("unit") else UNITS),
                self._choice(node, path, "current", "which", current),
                self._text(node, path, "time_zone", "time zone", hint="UTC", size=14),
            ]
            names += ("unit", "last", "current", "time_zone")
        view.rows.append(("when", when))
        return used + names

    def _sequence(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        steps: list[Any] = []
        for number, one in enumerate(node.parts):
            here = f"{path}.{number}"
            step = View(one.kind, here, "no" if one.kind == "absence" else "then" if number else "first")
            step.mistakes, step.tools = self._mistakes.get(here, []), ("up", "down", "remove")
            used = self._events_rows(one, here, step, step.title)
            more = []
            if number:
                label = "for" if one.kind == "absence" else "within"
                more.append(
                    self._length(one, here, "within", label, hint="any time" if label == "within" else "until the next")
                )
                used += ("within",)
            more.append(self._text(one, here, "by", "its own property to match", listed="paths", quiet=True, size=18))
            step.rows.append(("more", more))
            step.hidden = [(f"{here}:kind", one.kind)]
            step.hidden += self._hidden(one, here, [n for n in one.values if n not in (*used, "by")], kind=False)
            steps.append(step)
        view.rows.append(("steps", steps))
        view.rows.append(("adds", [Adding(f"add:{path}:step", "Then"), Adding(f"add:{path}:absence", "Then not")]))
        whole = [
            self._text(node, path, "by", "all of the same", listed="paths", hint="properties.cart_id", size=22),
            self._length(node, path, "within", "begun in the last", hint="any time"),
            self._grace(node, path),
        ]
        view.rows.append(("whole", whole))
        return "by", "within", "grace"

    def _score(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        weights: list[Any] = []
        for number, one in enumerate(node.parts):
            if one.kind != "weight":
                continue
            here = f"{path}.{number}"
            weight = View("weight", here, "Points", mistakes=self._mistakes.get(here, []), tools=("remove",))
            weight.rows.append(("points", [self._text(one, here, "weight", "points", size=6)]))
            used = (*self._events_rows(one, here, weight, "for each"), "weight")
            weight.hidden = [(f"{here}:kind", "weight")]
            weight.hidden += self._hidden(one, here, [n for n in one.values if n not in used], kind=False)
            weights.append(weight)
        view.rows.append(("steps", weights))
        view.rows.append(("adds", [Adding(f"add:{path}:weight", "More points")]))
        view.rows.append(("the score is", self._tests(node, path, NUMBERS)))
        half_life = self._length(node, path, "half_life", "by half every")
        counting = self._length(node, path, "within", "counting the last", hint="40 half-lives")
        view.rows.append(("it fades", [half_life, counting]))
        return "half_life", "within"

    def _trait(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        checks = self._checks(node, path, "traits", against=True, clock=True)
        view.rows.append(("whose", [*checks, Adding(f"add:{path}:check", "and another trait")]))
        return ()

    def _computed(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        checks = self._checks(node, path, "computed", against=True, clock=True)
        view.rows.append(("whose", [*checks, Adding(f"add:{path}:check", "and another")]))
        return ()

    def _consent(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        states: Options = (("granted", "is granted"), ("denied", "is denied"), ("unknown", "is not known"))
        if not node.get("is"):
            states = (("", "is granted"), *states[1:])
        row = [
            self._text(node, path, "purpose", "consent for", listed="purposes", size=20),
            self._choice(node, path, "is", "state", states),
        ]
        view.rows.append(("", row))
        return "purpose", "is"

    def _in_segment(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        view.rows.append(("", [self._text(node, path, "segment", "is in the segment", listed="segments", size=28)]))
        return ("segment",)

    def _bucket(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        row = [
            self._text(node, path, "from", "from percent", hint="0", size=6),
            self._text(node, path, "to", "to percent", hint="10", size=6),
            self._text(node, path, "salt", "drawn by", hint="any text; another text draws others", size=20),
        ]
        view.rows.append(("", row))
        return "from", "to", "salt"

    def _members(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        how = without_twin(HOW_MANY, "any", node.get("how"))
        row: list[Any] = [self._choice(node, path, "how", "of its people", how, again=True)]
        if node.get("how") == "count":
            row += self._tests(node, path, NUMBERS)
        else:
            row += self._kept_tests(node, path)
        view.rows.append(("", row))
        rules = [
            self._rule(one, f"{path}.{n}", last=True) for n, one in enumerate(node.parts) if one.kind in CONDITIONS
        ]
        view.rows.append(("rules", rules))
        if not rules:
            view.rows.append(("adds", [Adding(f"add:{path}:{kind}", CONDITIONS[kind]) for kind in OF_PEOPLE]))
        return ("how",)

    def _account(self, node: Node, path: str, view: View) -> tuple[str, ...]:
        checks = self._checks(node, path, "traits", against=False, clock=True)
        view.rows.append(("whose", [*checks, Adding(f"add:{path}:check", "a trait of the account")]))
        view.rows.append(
            ("", [self._text(node, path, "segment", "and is in the account segment", listed="segments", size=28)])
        )
        return ("segment",)

    # ----------------------------------------------------------------------------------------------------- parts

    def _events_rows(self, node: Node, path: str, view: View, caption: str) -> tuple[str, ...]:
        row: list[Any] = []
        which: Options = (("", "these events"), ("any", "any event"))
        if node.get("events") == "list":
            which = (("list", "these events"), ("any", "any event"))
        named = [(n, one) for n, one in enumerate(node.parts) if one.kind == "event"]
        if node.get("events") != "any":
            for place, (number, one) in enumerate(named):
                here = f"{path}.{number}"
                label = "event" if not place else "or"
                event = View("event", here, label, mistakes=self._mistakes.get(here, []))
                event.tools = ("remove",) if len(named) > 1 else ()
                event.rows.append(
                    ("", [self._text(one, here, "name", label, listed="events", size=24, hint="Page Viewed")])
                )
                event.hidden = [(f"{here}:kind", "event")]
                event.hidden += self._hidden(one, here, [n for n in one.values if n != "name"], kind=False)
                row.append(event)
            row.append(Adding(f"add:{path}:event", "or another"))
        else:
            for number, one in named:
                row.append(self._unseen(one, f"{path}.{number}"))
        row.append(self._choice(node, path, "events", "which events", which, again=True, quiet=True))
        view.rows.append((caption, row))
        wheres = [(n, one) for n, one in enumerate(node.parts) if one.kind == "where"]
        for number, one in wheres:
            view.rows.append(("where", [self._where(one, f"{path}.{number}", against=node.kind == "performed")]))
        if not wheres:
            view.rows.append(("", [Adding(f"add:{path}:where", "where …")]))
        return ("events",)

    def _where(self, node: Node, path: str, against: bool, removable: bool = True) -> View:
        view = View(
            "where", path, "where", mistakes=self._mistakes.get(path, []), tools=("remove",) if removable else ()
        )
        view.hidden = [(f"{path}:kind", "where")]
        items: list[Any] = []
        for number, one in enumerate(node.parts):
            here = f"{path}.{number}"
            if one.kind == "check":
                items.append(self._check(one, here, "paths", against, clock=False))
                continue
            words = {"where_all": "and all of", "where_any": "and at least one of", "where_not": "and not"}
            group = View(one.kind, here, words[one.kind], tools=("remove",))
            group.hidden = [(f"{here}:kind", one.kind)]
            inner: list[Any] = [self._where(each, f"{here}.{n}", against) for n, each in enumerate(one.parts)]
            if one.kind != "where_not" or not inner:
                inner.append(Adding(f"add:{here}:where", "one more"))
            group.rows.append(("", inner))
            items.append(group)
        view.rows.append(("", items))
        adds = [("check", "and …"), ("where_any", "any of"), ("where_all", "all of"), ("where_not", "not")]
        view.rows.append(("adds", [Adding(f"add:{path}:{kind}", label) for kind, label in adds]))
        return view

    def _checks(self, node: Node, path: str, listed: str, against: bool, clock: bool) -> list[Any]:
        return [
            self._check(one, f"{path}.{number}", listed, against, clock)
            for number, one in enumerate(node.parts)
            if one.kind == "check"
        ]

    def _check(self, node: Node, path: str, listed: str, against: bool, clock: bool) -> View:
        view = View("check", path, "condition", mistakes=self._mistakes.get(path, []), tools=("remove",))
        label = {"paths": "property", "traits": "trait", "computed": "computed trait"}[listed]
        hint = "properties.path" if listed == "paths" else ""
        row: list[Any] = [self._text(node, path, "path", label, listed=listed, hint=hint, size=20)]
        operators = (*COMMON, *CLOCK) if clock else COMMON
        row += self._tests(node, path, operators, typed=True, against=against, values_of=node.get("path"))
        cast: Options = (("", "as it is"), ("number", "read as a number"), ("text", "read as a text"))
        row.append(self._choice(node, path, "as", "the value", cast, quiet=True))
        view.rows.append(("", row))
        view.hidden = [(f"{path}:kind", "check")]
        view.hidden += self._hidden(node, path, [n for n in node.values if n not in ("path", "as")], kind=False)
        return view

    def _tests(
        self, node: Node, path: str, operators: Options, typed: bool = False, against: bool = False, values_of: str = ""
    ) -> list[Any]:
        found: list[Any] = []
        tests = [(n, one) for n, one in enumerate(node.parts) if one.kind == "test"]
        for number, one in tests:
            found.append(self._test(one, f"{path}.{number}", operators, typed, against, len(tests) > 1, values_of))
        found.append(Adding(f"add:{path}:test", "and" if tests else "compare"))
        return found

    def _kept_tests(self, node: Node, path: str) -> list[Any]:
        return [self._unseen(one, f"{path}.{n}") for n, one in enumerate(node.parts) if one.kind == "test"]

    def _test(
        self, node: Node, path: str, operators: Options, typed: bool, against: bool, many: bool, values_of: str
    ) -> View:
        view = View(
            "test", path, "comparison", mistakes=self._mistakes.get(path, []), tools=("remove",) if many else ()
        )
        operator, kind = node.get("operator"), node.get("type")
        if operator not in dict(operators):
            operators = ((operator, operator.replace("_", " ") or "…"), *operators)
        row: list[Any] = [self._choice(node, path, "operator", "comparison", operators, again=True)]
        used: tuple[str, ...] = ("operator",)
        if operator == "exists":
            there: Options = (("true", "there"), ("false", "missing"))
            row.append(self._choice(node, path, "value", "is it there", there))
            used += ("value",)
        elif operator in ("within_last", "within_next"):
            row.append(self._length(node, path, "value", "length of time"))
            used += ("value",)
        elif operator in ("before", "after"):
            row.append(self._text(node, path, "value", "time", hint="2026-03-01 or now-30d", size=20))
            used += ("value",)
        elif operator in ("in", "not_in"):
            kinds: Options = (("text", "texts"), ("number", "numbers"), ("json", "as JSON"))
            row += [
                self._area(node, path, "lines", "values, one a line"),
                self._choice(node, path, "type", "type", kinds),
            ]
            used += ("lines", "type")
        elif kind == "boolean":
            row.append(self._choice(node, path, "value", "value", YES_NO))
            used += ("value",)
        else:
            listed = ""
            if typed and kind == "text" and values_of and " " not in values_of:
                self.value_paths.add(values_of)
                listed = f"values-of-{values_of}"
            if kind == "trait":
                row.append(self._text(node, path, "value", "the trait", listed="traits", size=16))
            else:
                row.append(self._text(node, path, "value", "value", listed=listed, size=8 if kind == "number" else 20))
            used += ("value",)
            if operator == "between":
                row.append(self._text(node, path, "upper", "and", size=8))
                used += ("upper",)
        if typed and "type" not in used and operator not in ("exists", "within_last", "within_next", "before", "after"):
            types = TYPES
            if operator == "between":
                types = (("text", "text"), ("number", "number"))
            elif against and operator in AGAINST:
                types = (*TYPES, ("trait", "their trait"))
            row.append(self._choice(node, path, "type", "type", types, again=True, quiet=True))
            used += ("type",)
        view.rows.append(("", row))
        view.hidden = [(f"{path}:kind", "test")]
        view.hidden += self._hidden(node, path, [n for n in node.values if n not in used], kind=False)
        return view

    # --------------------------------------------------------------------------------------------------- controls

    def _unseen(self, node: Node, path: str) -> View:
        """A part that the present choice does not show, kept for when it is taken back."""
        view = View(
            "unseen", path, "", hidden=[(f"{path}:kind", node.kind), *self._hidden(node, path, node.values, False)]
        )
        view.rows.append(("", [self._unseen(one, f"{path}.{n}") for n, one in enumerate(node.parts)]))
        return view

    def _hidden(self, node: Node, path: str, names: Iterable[str], kind: bool = True) -> list[tuple[str, str]]:
        found = [(f"{path}:kind", node.kind)] if kind else []
        return found + [(f"{path}:{name}", shown(name, node.get(name))) for name in names]

    def _text(
        self,
        node: Node,
        path: str,
        name: str,
        label: str,
        listed: str = "",
        hint: str = "",
        size: int = 16,
        quiet: bool = False,
        again: bool = False,
    ) -> Control:
        value = shown(name, node.get(name))
        return Control(
            f"{path}:{name}", label, value, "text", (), listed, again, quiet, hint, max(size, min(len(value), 40))
        )

    def _length(self, node: Node, path: str, name: str, label: str, hint: str = "7d") -> Control:
        return Control(f"{path}:{name}", label, shown(name, node.get(name)), "text", (), "lengths", hint=hint, size=8)

    def _grace(self, node: Node, path: str) -> Control:
        value = shown("grace", node.get("grace"))
        return Control(
            f"{path}:grace", "believe an absence after", value, "text", (), "lengths", quiet=True, hint="0s", size=8
        )

    def _area(self, node: Node, path: str, name: str, label: str) -> Control:
        return Control(f"{path}:{name}", label, shown(name, node.get(name)), "area")

    def _choice(
        self, node: Node, path: str, name: str, label: str, options: Options, again: bool = False, quiet: bool = False
    ) -> Control:
        value = node.get(name)
        if value not in dict(options):
            options = ((value, value.replace("_", " ") or "…"), *options)
        return Control(f"{path}:{name}", label, value, "choice", options, again=again, quiet=quiet)
