"""A line in plain words into a rule: the quick way into the builder. It reads what sentences.py writes of the common
rules, and freer forms of it; all other rules are put together from fields.

    Page Viewed where path starts with /pricing at least 3 times in the last 7 days
    no Order Completed in the last 30 days
    plan is free or in the segment newsletter
    Cart Viewed then no Order Completed for 2 hours, all of the same cart_id
    consent for marketing is granted
"""

import json
import re
from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.ui.tree import Node

MAX_LINE = 1_000
_UNITS = {
    "ms": "ms", "millisecond": "ms", "s": "s", "sec": "s", "second": "s", "m": "m", "min": "m", "minute": "m",
    "h": "h", "hour": "h", "d": "d", "day": "d", "w": "w", "week": "w", "y": "y", "year": "y",
}  # fmt: skip
_QUOTED = re.compile(r"“([^”]*)”|\"([^\"]*)\"")
_LENGTH = r"(?:(?:\d+|an?)\s*[a-z]+)(?:\s*(?:and\s+)?\d+\s*[a-z]+)*"
_WINDOW = re.compile(rf",?\s+(?:with)?in(?:(?:\s+the)?(?:\s+last)?\s+({_LENGTH})|\s+the\s+last\s+([a-z]+))\s*$", re.I)
_FOR = re.compile(rf"\s+(?:for|(?:with)?in)\s+({_LENGTH})\s*$", re.I)
_TIMES = re.compile(
    r"\s+(?:(at least|at most|more than|fewer than|less than|exactly)\s+)?(?:(\d+)\s*(?:times?|x)|(once|twice))\s*$",
    re.I,
)
_AMOUNTS = {"at least": "at_least", "at most": "at_most", "more than": "more_than", "exactly": "exactly"}
_SAME = re.compile(r",?\s+(?:all\s+)?(?:of the same|by)\s+(\S+)\s*$", re.I)
_SEGMENT = re.compile(r"(?:is\s+)?(not\s+)?in\s+(?:the\s+)?segment\s+(\S+)", re.I)
_CONSENT = re.compile(r"consent\s+(?:for|to)\s+(\S+)(?:\s+is\s+(granted|denied|not known|unknown))?", re.I)
_NEGATION = re.compile(r"(?:did\s+not|didn['’]t|has\s+not|never(?:\s+did)?|no|not)\s+", re.I)
_SHARED = (
    ("is not one of", "not_in"), ("is none of", "not_in"), ("is one of", "in"), ("is in", "in"),
    ("does not contain", "not_contains"), ("contains", "contains"),
    ("is before", "before"), ("is after", "after"), ("before", "before"), ("after", "after"),
    ("is within the last", "within_last"), ("is within the next", "within_next"),
    ("starts with", "starts_with"), ("begins with", "starts_with"), ("ends with", "ends_with"),
    ("matches in part", "regex"), ("is at least", "at_least"), ("is at most", "at_most"),
    ("is more than", "greater_than"), ("is less than", "less_than"), ("is not", "not_equals"),
    ("is there", "exists"), ("exists", "exists"), ("is missing", "missing"),
    (">=", "at_least"), ("≥", "at_least"), ("<=", "at_most"), ("≤", "at_most"), (">", "greater_than"),
    ("<", "less_than"), ("!=", "not_equals"), ("=", "equals"), ("equals", "equals"), ("is", "equals"),
)  # fmt: skip
_OPERATOR = re.compile(
    r"\s+(" + "|".join(re.escape(said) for said, _ in sorted(_SHARED, key=lambda one: -len(one[0]))) + r")(?=\s|$)",
    re.I,
)
_OPERATORS = dict(_SHARED)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_LIKE_A_RULE = re.compile(
    r"[()]|\b(?:and|or|not|where|then|than|is|once|twice|ago|within|between|ever)\b|\d\s*times?\b|\b(?:in|the)\s+segment\b"
    r"|\bconsent\s+(?:for|to)\b|\blast\s+(?:hour|day|week|month|year)\b",
    re.I,
)
_LIKE_A_LIST = re.compile(r"[()]|^no\b|\b(?:and|or|not|where|then|than)\b", re.I)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d\S*|now(?:[+-]\w+)?")
_AWAY = re.compile(rf"({_LENGTH})\s+(ago|from now)", re.I)
_MARK = re.compile("\x00(\\d+)\x00")
_ADVICE = "write for example: Page Viewed where path starts with /pricing at least 3 times in the last 7 days"


def read_line(text: str, events: Iterable[str] = ()) -> Node:
    """The rule a line says. `events`: names of events that are known, which are never taken for traits.

    Raises InputError, with an example.
    """
    if len(text) > MAX_LINE:
        raise InputError("The line is too long.", "", f"{MAX_LINE} characters at most: write several lines")
    return _Reader(text, events).rule()


class _Reader:
    def __init__(self, text: str, events: Iterable[str]) -> None:
        self._quotes: list[str] = []
        text = "".join(one if one.isprintable() else " " for one in text)
        self._text = _QUOTED.sub(self._put_aside, text).strip().removesuffix(".")
        self._events = {name.lower(): name for name in events}

    def _put_aside(self, found: re.Match[str]) -> str:
        self._quotes.append(found[1] if found[1] is not None else found[2])
        return f"\x00{len(self._quotes) - 1}\x00"

    def _said(self, text: str) -> str:
        """A text with what stood in quotes put back."""
        return _MARK.sub(lambda found: self._quotes[int(found[1])], text.strip())

    def rule(self) -> Node:
        parts = re.split(r",?\s+or\s+", self._text, flags=re.I)
        rules: list[Node] = []
        for part in filter(None, (part.strip() for part in parts)):
            rule = self._clause(part.strip("()") if part[0] == "(" and part[-1] == ")" else part)
            if rules and rules[-1].kind == "trait" and self._is_a_name(part, rule):
                # “plan is free or pro”: nobody means that pro was done.
                said = self._said(part)
                raise InputError(
                    f"“{said}” is no event that was seen.", "", f"write “is one of … , {said}”, or did {said}"
                )
            rules.append(rule)
        if not rules:
            raise InputError("The line is empty.", "", _ADVICE)
        return rules[0] if len(rules) == 1 else Node("any", {}, rules)

    def _is_a_name(self, said: str, rule: Node) -> bool:
        """Whether what was said is nothing but a name, which no event has that was seen."""
        if rule.kind != "performed" or rule.values or [one.kind for one in rule.parts] != ["event"]:
            return False
        return not said.lower().startswith("did ") and not _MARK.search(said) and said.lower() not in self._events

    def _clause(self, text: str) -> Node:
        if found := _SEGMENT.fullmatch(text):
            node = Node("in_segment", {"segment": self._said(found[2])})
            return Node("not", {}, [node]) if found[1] else node
        if found := _CONSENT.fullmatch(text):
            state = (found[2] or "granted").lower().replace("not known", "unknown")
            return Node("consent", {"purpose": self._said(found[1]), "is": "" if state == "granted" else state})
        if re.search(r"\s+then\s+", text, re.I):
            return self._sequence(text)
        if found := _NEGATION.match(text):
            return Node("not", {}, [self._performed(text[found.end() :])])
        if text.lower().startswith("did "):
            return self._performed(text[4:])
        if not re.search(r"\s+where\s+", text, re.I) and not self._begins_with_event(text):
            checks = self._checks(text, "")
            if checks:
                return Node("trait", {}, checks)
        return self._performed(text)

    def _begins_with_event(self, text: str) -> bool:
        said = text.lower() + " "
        return any(said.startswith(name + " ") for name in self._events)

    def _performed(self, text: str) -> Node:
        node = Node("performed")
        for _ in range(2):  # the number and the window, in either order
            if found := _WINDOW.search(text):
                node.values |= {"window": "within", "within": self._length(found[1] or f"1 {found[2]}")}
                text = text[: found.start()]
            if found := _TIMES.search(text):
                node.values["result"] = "count"
                often = {"once": "1", "twice": "2"}.get((found[3] or "").lower()) or found[2]
                usual = "at least" if found[3] or int(often) else "exactly"
                operator = _AMOUNTS.get((found[1] or usual).lower(), "less_than")
                node.parts = [Node("test", {"operator": operator, "type": "number", "value": often})]
                text = text[: found.start()]
        node.parts = [*self._selected(text), *node.parts]
        return node

    def _selected(self, text: str) -> list[Node]:
        name, _, where = self._halves(text, r"\s+where\s+")
        unquoted, name = _MARK.sub("", name), self._said(name)
        if not name:
            raise InputError("The line names no event.", "", _ADVICE)
        known = self._events.get(name.lower(), name)
        if name.lower() not in self._events and _LIKE_A_RULE.search(unquoted):
            what = f"“{name}” is no event that was seen, and says more than a name."
            raise InputError(what, "", f"put a name that reads so in quotes; {_ADVICE}")
        parts = [Node("event", {"name": known})]
        if where:
            checks = self._checks(where, "properties.")
            if not checks:
                raise InputError(f"What is asked of “{name}” is not understood.", self._said(where), _ADVICE)
            parts.append(Node("where", {}, checks))
        return parts

    def _halves(self, text: str, between: str) -> tuple[str, str, str]:
        found = re.search(between, text, re.I)
        return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])

    def _sequence(self, text: str) -> Node:
        node = Node("sequence")
        if found := _SAME.search(text):
            node.values["by"] = _full_path(self._said(found[1]), "properties.")
            text = text[: found.start()]
        for number, part in enumerate(re.split(r",?\s+then\s+", text.removeprefix("did "), flags=re.I)):
            absent = re.match(r"(?:no|not|without)\s+", part, re.I)
            step = Node("absence" if absent else "step")
            part = part[absent.end() :] if absent else part
            if found := _FOR.search(part):
                step.values["within"] = self._length(found[1])
                part = part[: found.start()]
            if number == 0 and (absent or step.values):
                raise InputError("A sequence begins with something that was done.", "", _ADVICE)
            step.parts = self._selected(re.sub(r"\s+in between$", "", part, flags=re.I))
            node.parts.append(step)
        return node

    def _checks(self, text: str, root: str) -> list[Node]:
        """Comparisons with “and” between; none if one of them is not understood."""
        checks: list[Node] = []
        for part in re.split(r"\s+and\s+", text, flags=re.I):
            found = _OPERATOR.search(part)
            if found is None:
                return []
            named = part[: found.start()].strip()
            of_event = any(f" {name} " in f" {named.lower()} " for name in self._events)
            if not named or of_event or _LIKE_A_LIST.search(_MARK.sub("", named)):
                return []
            path = _full_path(self._said(named), root)
            values = self._operand(_OPERATORS[found[1].lower()], part[found.end() :].strip())
            if values is None:
                return []
            checks.append(Node("check", {"path": path}, [Node("test", values)]))
        return checks

    def _operand(self, operator: str, text: str) -> dict[str, str] | None:
        if operator in ("exists", "missing"):
            return None if text else {"operator": "exists", "value": "true" if operator == "exists" else "false"}
        if not text:
            return None
        if operator in ("in", "not_in"):
            listed = [one.strip() for one in re.split(r"\s*,\s*", text) if one.strip()]
            kind = "number" if listed and all(map(_is_number, listed)) else "text"
            return {"operator": operator, "type": kind, "lines": "\n".join(map(self._said, listed))}
        if operator in ("before", "after"):
            if found := _AWAY.fullmatch(text):
                text = f"now{'-' if found[2].lower() == 'ago' else '+'}{self._length(found[1])}"
            return {"operator": operator, "value": text} if _MOMENT.fullmatch(text) else None
        if operator in ("within_last", "within_next"):
            return {"operator": operator, "value": self._length(text)} if re.fullmatch(_LENGTH, text, re.I) else None
        if _is_number(text):
            return {"operator": operator, "type": "number", "value": text}
        if text.lower() in ("yes", "no", "true", "false"):
            return {"operator": operator, "type": "boolean", "value": str(text.lower() in ("yes", "true")).lower()}
        if found := _WINDOW.search(f" {text}") or _TIMES.search(f" {text}"):
            what = f"“{found[0].strip()}” can be said of events only."
            raise InputError(what, self._said(text), "put a value that reads so in quotes")
        return {"operator": operator, "type": "text", "value": self._said(text)}

    def _length(self, text: str) -> str:
        said = ""
        for number, unit in re.findall(r"(\d+|an?)\s*([a-z]+)", text.lower()):
            short = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
            if short is None:
                raise InputError(f"“{unit}” is no unit of time.", text, "write 30 minutes, 2 hours, 7 days, 4 weeks")
            said += (number if number.isdigit() else "1") + short
        return said


def _is_number(text: str) -> bool:
    """Whether a text is a number as JSON has it: 007 is none."""
    if not _NUMBER.fullmatch(text):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _full_path(text: str, root: str) -> str:
    if not root or text.startswith(("properties.", "traits.", "context.")):
        return text
    return root + text
