"""Trees into definitions: what a form holds, half written or whole, as the document that is published."""

import json
import math
from dataclasses import dataclass
from typing import Any

from pipeline.ui.tree import (
    AGGREGATES,
    BETWEEN,
    LENGTHS,
    MOMENTS,
    ROOT,
    WORDS,
    Json,
    Node,
    Steps,
    child_path,
)


@dataclass(slots=True)
class Written:
    """A definition, and which node each place in it came from: for telling people where a mistake is.

    `problems` are what only a tree can have: (path of the node, what).
    """

    body: Json
    places: dict[Steps, str]
    problems: list[tuple[str, str]]


def write_segment(tree: Node) -> Written:
    """The definition a tree stands for. One that is half written gives one that is not valid: the rules of the language
    say what is missing (`mistakes` in this room's checks.py)."""
    writer = _Writer()
    body: Json = {"segment": tree.get("name")}
    writer.places[("segment",)] = ROOT
    if tree.get("description") or tree.get("has_description"):
        body["description"] = tree.get("description")
    for name in ("tags", "purposes"):
        if tree.get(name) or tree.get(f"has_{name}"):
            body[name] = read_lines(tree.get(name))
    body |= {name: tree.get(name) for name in ("entity", "valid_from", "valid_until") if tree.get(name)}
    for name in body:
        writer.places[(name,)] = ROOT
    rules = tree.rules()
    if rules:
        body["when"] = writer.rule(rules[0], child_path(ROOT, tree, rules[0]), ("when",))
    return Written(body, writer.places, writer.problems)


def write_rule(tree: Node) -> Json:
    """The rule a tree stands for."""
    return _Writer().rule(tree, ROOT, ())


def read_lines(text: str) -> list[str]:
    """The texts of a field that has one a line (or all of them as a JSON list, where a line could not hold them)."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return [line for line in text.split("\n") if line]


class _Writer:
    """Writes rules, and notes which node each place came from."""

    def __init__(self) -> None:
        self.places: dict[Steps, str] = {}
        self.problems: list[tuple[str, str]] = []

    def rule(self, node: Node, path: str, at: Steps) -> Json:
        kind, inner = node.kind, (*at, node.kind)
        self.places[at] = self.places[inner] = path
        value: Any
        if kind in ("all", "any"):
            value = self._rules(node, path, inner)
        elif kind == "not":
            value = self._only_rule(node, path, inner)
        elif kind in ("trait", "computed"):
            return self._traits(node, path, at)
        elif kind == "consent":
            value = node.get("purpose")
            if not node.get("short") or node.get("is"):
                value = {"purpose": value, **self._given(node, "is")}
        elif kind == "in_segment":
            value = node.get("segment")
        else:
            value = getattr(self, f"_{kind}")(node, path, inner)
        return {kind: value}

    def _rules(self, node: Node, path: str, at: Steps) -> list[Json]:
        rules = node.rules()
        return [self.rule(one, child_path(path, node, one), (*at, number)) for number, one in enumerate(rules)]

    def _only_rule(self, node: Node, path: str, at: Steps) -> Any:
        rules = node.rules()
        return self.rule(rules[0], child_path(path, node, rules[0]), at) if rules else None

    def _given(self, node: Node, *names: str) -> Json:
        return {name: node.get(name) for name in names if node.get(name)}

    def _performed(self, node: Node, path: str, at: Steps) -> Json:
        value = self._selected(node, path, at)
        window = node.get("window")
        if window == "within":
            value |= {"within": node.get("within"), **self._given(node, "grace")}
        elif window == "between":
            value["between"] = self._given(node, *BETWEEN)
        elif window == "calendar":
            value["calendar"] = self._given(node, "unit", "time_zone")
            if node.get("last"):
                value["calendar"]["last"] = number_of(node.get("last"))
            if node.get("current"):
                value["calendar"]["current"] = node.get("current") == "true"
        result = node.get("result")
        if result:
            of = self._given(node, "of") if result in AGGREGATES else {}
            value[result] = of | self._tests(node, path, (*at, result))
        for name in value:
            self.places.setdefault((*at, name), path)
        return value

    def _sequence(self, node: Node, path: str, at: Steps) -> Json:
        steps: list[Json] = []
        for one in node.of_kind("step", "absence"):
            here, place = child_path(path, node, one), (*at, "steps", len(steps))
            self.places[place] = here
            if one.kind == "absence":
                absent = self._selected(one, here, (*place, "not")) | self._given(one, "by")
                steps.append({"not": absent, **self._given(one, "within")})
            else:
                steps.append(self._selected(one, here, place) | self._given(one, "within", "by"))
        return {"steps": steps, **self._given(node, "by", "within", "grace")}

    def _score(self, node: Node, path: str, at: Steps) -> Json:
        events: list[Json] = []
        for one in node.of_kind("weight"):
            here, place = child_path(path, node, one), (*at, "events", len(events))
            self.places[place] = here
            events.append(self._selected(one, here, place) | {"weight": number_of(one.get("weight"))})
        return {"events": events, **self._given(node, "half_life", "within"), **self._tests(node, path, at)}

    def _bucket(self, node: Node, path: str, at: Steps) -> Json:
        return {"salt": node.get("salt")} | {
            name: number_of(node.get(name)) for name in ("from", "to") if node.get(name)
        }

    def _members(self, node: Node, path: str, at: Steps) -> Json:
        value: Json = {"match": self._only_rule(node, path, (*at, "match"))}
        how = node.get("how")
        if how in WORDS:
            value[how] = True
        elif how == "count":
            value |= self._tests(node, path, at)
        return value

    def _account(self, node: Node, path: str, at: Steps) -> Json:
        value: Json = {}
        checks = node.of_kind("check")
        if checks:
            value["trait"], again = self._mapping(node, checks, path, (*at, "trait"))
            self._twice(path, again, "an account is asked for a trait once")
        if node.get("segment"):
            value["in_segment"] = node.get("segment")
        return value

    def _traits(self, node: Node, path: str, at: Steps) -> Json:
        # A mapping has each name once. What stands twice in the builder becomes two rules that must both hold.
        mapping, again = self._mapping(node, node.of_kind("check"), path, (*at, node.kind))
        if not again:
            return {node.kind: mapping}
        return {"all": [{node.kind: mapping}, *({node.kind: {name: one}} for name, one in again)]}

    def _mapping(self, node: Node, checks: list[Node], path: str, at: Steps) -> tuple[Json, list[tuple[str, Any]]]:
        mapping: Json = {}
        again: list[tuple[str, Any]] = []
        for one in checks:
            name = one.get("path")
            comparison = self._comparison(one, child_path(path, node, one), (*at, name))
            if name in mapping:
                again.append((name, comparison))
            else:
                mapping[name] = comparison
        return mapping, again

    def _selected(self, node: Node, path: str, at: Steps) -> Json:
        self.places[at] = self.places[(*at, "event")] = path
        names: Any = [one.get("name") for one in node.of_kind("event")]
        if node.get("events") == "any":
            names = "*"
        elif node.get("events") != "list" and len(names) < 2:
            names = names[0] if names else ""
        value: Json = {"event": names}
        wheres = node.of_kind("where")
        if wheres:
            value["where"] = self._where(wheres[0], child_path(path, node, wheres[0]), (*at, "where"))
        return value

    def _where(self, node: Node, path: str, at: Steps) -> Json:
        self.places[at] = path
        value: Json = {}
        for one in node.parts:
            here = child_path(path, node, one)
            if one.kind == "check":
                name = one.get("path")
                if name in value:
                    value.setdefault("all", []).append({name: self._comparison(one, here, at)})
                else:
                    value[name] = self._comparison(one, here, (*at, name))
                continue
            name = one.kind.removeprefix("where_")
            inner = [
                self._where(each, child_path(here, one, each), (*at, name, number))
                for number, each in enumerate(one.parts)
            ]
            found: Any = inner if name != "not" else inner[0] if inner else {}
            if name not in value:
                value[name] = found
            elif name == "all":
                value["all"] += found
            else:
                value.setdefault("all", []).append({name: found})
        return value

    def _comparison(self, node: Node, path: str, at: Steps) -> Any:
        self.places[at] = path
        value = self._tests(node, path, at)
        if node.get("as"):
            value["as"] = node.get("as")
        if node.get("short") and list(value) == ["equals"] and not isinstance(value["equals"], dict):
            return value["equals"]
        return value

    def _tests(self, node: Node, path: str, at: Steps) -> Json:
        value: Json = {}
        for one in node.of_kind("test"):
            operator, here = one.get("operator"), child_path(path, node, one)
            self.places[(*at, operator)] = here
            if operator in value:
                self.problems.append((here, f"“{operator.replace('_', ' ')}” stands here twice; use it once"))
            value[operator] = operand_of(one)
            if one.get("type") == "number" and isinstance(value[operator], str) and value[operator]:
                self.problems.append((here, f"“{value[operator][:40]}” is no number, or too large a one"))
        return value

    def _twice(self, path: str, again: list[tuple[str, Any]], what: str) -> None:
        for name, _ in again:
            self.problems.append((path, f"“{name}” stands here twice; {what}"))


def operand_of(test: Node) -> Any:
    """The operand of a test, typed. A number that is none stays the text it is, and is told as a mistake later."""
    operator, kind, value = test.get("operator"), test.get("type"), test.get("value")
    if operator == "exists":
        return value != "false"
    if operator in ("in", "not_in"):
        lines = [line for line in test.get("lines").split("\n") if line]
        if kind == "text":
            return lines
        return [number_of(line) if kind == "number" else _json_of(line) for line in lines]
    if operator in (*LENGTHS, *MOMENTS):
        return value
    if operator == "between":
        pair = [value, test.get("upper")]
        return [number_of(one) for one in pair] if kind != "text" else pair
    if kind == "trait":
        return {"trait": value}
    if kind == "boolean":
        return value != "false"
    return number_of(value) if kind == "number" else value


def number_of(text: str) -> Any:
    """A number as people write it; the text itself when it is none."""
    found = _json_of(text.strip())
    return found if isinstance(found, int | float) and not isinstance(found, bool) else text


def _json_of(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=lambda word: word)
    except (ValueError, RecursionError):
        return text


def _whole(text: str) -> int | str:
    # What no definition can hold stays the text it is too.
    return int(text) if len(text) < 30 and -(1 << 63) <= int(text) < 1 << 63 else text


def _fraction(text: str) -> float | str:
    return float(text) if math.isfinite(float(text)) else text
