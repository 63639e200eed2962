"""What a rule says, in plain English, also while it is being written: what is not there yet reads “…”."""

import json
import re
from collections.abc import Iterable

from pipeline.ui.tree import AGGREGATES, Node

_UNITS = {
    "ms": "millisecond",
    "s": "second",
    "m": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "y": "year",
}
_PART = re.compile(r"([0-9]+)(ms|s|m|h|d|w|y)")
_RELATIVE = re.compile(r"now(?:([+-])([0-9a-z]+))?")
_OPERATORS = {
    "equals": "is",
    "not_equals": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "contains": "contains",
    "not_contains": "does not contain",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "regex": "matches in part",
    "regex_full": "matches",
    "greater_than": "is more than",
    "more_than": "is more than",
    "at_least": "is at least",
    "less_than": "is less than",
    "at_most": "is at most",
    "exactly": "is exactly",
    "before": "is before",
    "after": "is after",
    "within_last": "is within the last",
    "within_next": "is within the next",
}
_AMOUNTS = {
    "at_least": "at least {}",
    "at_most": "at most {}",
    "more_than": "more than {}",
    "less_than": "fewer than {}",
    "exactly": "exactly {}",
}
_MEASURES = {
    "sum": "the sum of {} over {}",
    "average": "the average of {} over {}",
    "min": "the smallest {} of {}",
    "max": "the largest {} of {}",
    "distinct": "the number of different values of {} in {}",
    "first": "the time of the first {}",
    "last": "the time of the last {}",
}
_MOST_SHOWN = 5


def sentence(tree: Node) -> str:
    """What a whole segment, or one rule of it, means: one sentence."""
    if tree.kind != "segment":
        return _capital(clause(tree)) + "."
    rules = tree.rules()
    who = "accounts" if tree.get("entity") == "account" else "people"
    if not rules:
        said = f"Nothing is said yet about which {who} belong to it"
    elif rules[0].kind == "all" and not rules[0].rules():
        said = f"All {who}"
    elif rules[0].kind == "any" and not rules[0].rules():
        said = "No one"
    else:
        said = f"{who.capitalize()} of whom this is true: {clause(rules[0])}"
    for name, word in (("valid_from", "from"), ("valid_until", "until")):
        if tree.get(name):
            said += f", {word} {tree.get(name)}"
    return said + "."


def clause(node: Node, inside: bool = False) -> str:
    """A rule as a part of a sentence. `inside`: it stands among others, so several parts go in brackets."""
    if node.kind in ("all", "any"):
        return _group(node, inside)
    found = _negation(node) if node.kind == "not" else _CLAUSES[node.kind](node)
    return f"({found})" if inside and _goes_on(node) else found


def _goes_on(node: Node) -> bool:
    """Whether what stands behind an “and” or “or” after this rule would read as one more condition of it."""
    if node.kind == "not":
        return any(one.kind == "performed" and not one.get("result") and _goes_on(one) for one in node.rules())
    if node.kind == "performed":
        return bool(node.of_kind("where")) and not node.get("result") and not _window(node)
    if node.kind == "sequence":
        if node.get("by") or node.get("within") or node.get("grace"):
            return False
        last = node.of_kind("step", "absence")[-1:]
        return any(one.of_kind("where") and not one.get("by") and not one.get("within") for one in last)
    return node.kind in ("trait", "computed") and len(node.parts) > 1


def _group(node: Node, inside: bool) -> str:
    rules = node.rules()
    if not rules:
        return "everyone" if node.kind == "all" else "no one"
    if len(rules) == 1:
        return clause(rules[0], inside)
    said = (" and " if node.kind == "all" else " or ").join(clause(one, True) for one in rules)
    return f"({said})" if inside else said


def _negation(node: Node) -> str:
    rules = node.rules()
    if not rules:
        return "not …"
    inner = rules[0]
    if inner.kind == "performed" and not inner.get("result"):
        return f"did not {_done(inner)}"
    if inner.kind == "in_segment":
        return f"is not in the segment {_quoted(inner.get('segment'))}"
    return f"not ({clause(inner)})"


# ------------------------------------------------------------------------------------------------------------- rules


def _performed(node: Node) -> str:
    result = node.get("result")
    if not result:
        return f"did {_done(node)}"
    tests = node.of_kind("test")
    if result == "count":
        return f"did {_events(node)} {_amounts(tests, ' times')}{_window(node)}"
    events = _events(node) + _window(node)
    named = (_path(node.get("of")), events) if result in AGGREGATES else (events,)
    return f"{_MEASURES.get(result, '… of {}').format(*named)} {_tests(tests)}"


def _done(node: Node) -> str:
    return _events(node) + _window(node)


def _sequence(node: Node) -> str:
    steps = []
    for one in node.of_kind("step", "absence"):
        events = _events(one) + (f" of the same {_path(one.get('by'))}" if one.get("by") else "")
        within = one.get("within")
        if one.kind == "absence":
            steps.append(f"no {events}" + (f" for {duration(within)}" if within else " in between"))
        else:
            steps.append(events + (f" within {duration(within)}" if within else ""))
    said = "did " + ", then ".join(steps or ["…"])
    if node.get("by"):
        said += f", all of the same {_path(node.get('by'))}"
    if node.get("within"):
        said += f", begun in the last {duration(node.get('within'))}"
    if node.get("grace"):
        said += f" (an absence is believed after {duration(node.get('grace'))} more)"
    return said


def _score(node: Node) -> str:
    weights = [f"{one.get('weight') or '…'} for each {_events(one)}" for one in node.of_kind("weight")]
    within = f", over the last {duration(node.get('within'))}" if node.get("within") else ""
    said = f"a score of {', '.join(weights) or '…'}, which halves every {duration(node.get('half_life'))}{within},"
    return f"{said} {_tests(node.of_kind('test'))}"


def _trait(node: Node) -> str:
    return _and(f"{_path(one.get('path'))} {_comparison(one)}" for one in node.of_kind("check"))


def _computed(node: Node) -> str:
    return _and(f"the computed {_path(one.get('path'))} {_comparison(one)}" for one in node.of_kind("check"))


def _consent(node: Node) -> str:
    state = node.get("is") or "granted"
    return f"consent for {_quoted(node.get('purpose'))} is {'not known' if state == 'unknown' else state}"


def _in_segment(node: Node) -> str:
    return f"is in the segment {_quoted(node.get('segment'))}"


def _bucket(node: Node) -> str:
    low, high = node.get("from") or "0", node.get("to") or "…"
    return f"falls in the share from {low}% to {high}% of everyone, drawn by {_quoted(node.get('salt'))}"


def _members(node: Node) -> str:
    rules = node.rules()
    said = clause(rules[0]) if rules else "…"
    how = node.get("how")
    if how == "all":
        who = "every person of it"
    elif how == "none":
        who = "no person of it"
    elif how == "count":
        who = f"{_amounts(node.of_kind('test'), '')} of its people"
    else:
        who = "at least 1 of its people"
    return f"of {who} this is true: ({said})"


def _account(node: Node) -> str:
    asked = [f"{_path(one.get('path'))} {_comparison(one)}" for one in node.of_kind("check")]
    if node.get("segment"):
        asked.append(f"it is in the segment {_quoted(node.get('segment'))}")
    return f"has an account of which this is true: ({_and(asked)})"


_CLAUSES = {
    "performed": _performed,
    "sequence": _sequence,
    "score": _score,
    "trait": _trait,
    "computed": _computed,
    "consent": _consent,
    "in_segment": _in_segment,
    "bucket": _bucket,
    "members": _members,
    "account": _account,
}

# ------------------------------------------------------------------------------------------------------------- parts


def _events(node: Node) -> str:
    if node.get("events") == "any":
        said = "any event"
    else:
        said = " or ".join(_quoted(one.get("name")) for one in node.of_kind("event")) or "…"
    wheres = node.of_kind("where")
    return f"{said} where {_where(wheres[0])}" if wheres and wheres[0].parts else said


def _where(node: Node, inside: bool = False) -> str:
    parts = []
    for one in node.parts:
        if one.kind == "check":
            parts.append(f"{_path(one.get('path'))} {_comparison(one)}")
        elif one.kind == "where_not":
            parts.append("not (" + (_where(one.parts[0]) if one.parts else "…") + ")")
        elif not one.parts:
            parts.append("anything" if one.kind == "where_all" else "nothing at all")
        else:
            word = " and " if one.kind == "where_all" else " or "
            said = word.join(_where(each, len(one.parts) > 1) for each in one.parts)
            parts.append(f"({said})" if len(one.parts) > 1 else said)
    said = _and(parts) if parts else "anything"
    return f"({said})" if inside and len(parts) > 1 else said


def _window(node: Node) -> str:
    window = node.get("window")
    if window == "within":
        said = f" in the last {duration(node.get('within'))}"
        return said + (f" (believed after {duration(node.get('grace'))} more)" if node.get("grace") else "")
    if window == "between":
        zone = f" ({node.get('time_zone')})" if node.get("time_zone") else ""
        start = f" from {node.get('from')}" if node.get("from") else ""
        end = f" until {node.get('to')}" if node.get("to") else ""
        return (start + end or " between …") + zone
    if window == "calendar":
        unit, zone = node.get("unit") or "…", f" ({node.get('time_zone')})" if node.get("time_zone") else ""
        last = node.get("last") or "1"
        if node.get("current") == "false":
            which = f"the last whole {unit}" if last == "1" else f"the last {last} whole {unit}s"
        else:
            which = f"this {unit}" if last == "1" else f"the last {last} {unit}s, this one among them"
        return f" in {which}{zone}"
    return ""


def _comparison(node: Node) -> str:
    cast = {"number": "read as a number ", "text": "read as a text "}.get(node.get("as"), "")
    return cast + _tests(node.of_kind("test"))


def _tests(tests: list[Node]) -> str:
    return _and(_test(one) for one in tests) or "…"


def _test(test: Node) -> str:
    operator, value = test.get("operator"), test.get("value")
    if operator == "exists":
        return "is missing" if value == "false" else "is there"
    if operator == "between":
        low, high = (_scalar(test.get("type"), test.get(name)) for name in ("value", "upper"))
        return f"is between {low} and {high}"
    said = _OPERATORS.get(operator, operator or "…")
    if operator in ("in", "not_in"):
        shown = [_scalar(test.get("type"), line) for line in test.get("lines").split("\n") if line]
        more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
        return f"{said} {', '.join(shown[:_MOST_SHOWN]) or 'nothing'}{more}"
    if operator in ("within_last", "within_next"):
        return f"{said} {duration(value)}"
    if operator in ("before", "after"):
        return f"{said} {_moment(value)}"
    return f"{said} {_scalar(test.get('type'), value)}"


def _amounts(tests: list[Node], unit: str) -> str:
    said = []
    for one in tests:
        if one.get("operator") == "between":
            said.append(f"between {one.get('value') or '…'} and {one.get('upper') or '…'}{unit}")
        else:
            amount = _AMOUNTS.get(one.get("operator"), "{}").format(one.get("value") or "…")
            said.append(amount + (unit.removesuffix("s") if one.get("value") == "1" else unit))
    return _and(said) or f"…{unit}"


def _scalar(kind: str, value: str) -> str:
    if kind == "trait":
        return f"their {_path(value)}"
    if kind == "boolean":
        return "no" if value == "false" else "yes"
    if kind in ("number", "json"):
        return value or "…"
    return _quoted(value, blank="“”")


def _moment(text: str) -> str:
    found = _RELATIVE.fullmatch(text)
    if not found:
        return text or "…"
    sign, length = found.groups()
    if not length:
        return "now"
    return f"{duration(length)} {'ago' if sign == '-' else 'from now'}"


def duration(text: str) -> str:
    """A length of time in words: `1d12h` is “1 day 12 hours”."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return text or "…"
    return " ".join(f"{number} {_UNITS[unit]}{'' if number == '1' else 's'}" for number, unit in parts)


def _path(text: str) -> str:
    if not text:
        return "…"
    root, dot, rest = text.partition(".")
    if dot and rest and root in ("properties", "context"):
        return rest if root == "properties" else f"{rest} of the context"
    return f"the event's trait {rest}" if dot and rest and root == "traits" else text


def _quoted(text: str, blank: str = "…") -> str:
    if not text:
        return blank
    return f"“{text}”" if text.isprintable() else json.dumps(text)


def _and(parts: Iterable[str]) -> str:
    return " and ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
