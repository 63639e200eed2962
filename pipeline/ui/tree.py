"""A segment as the builder holds it: a tree of plain nodes, made from a definition and made into one without loss.

A node has a kind, texts (what a form's fields hold) and parts. So a tree is a form and a form is a tree (forms.py), and
one that is half written is a tree too. What a definition may leave out stays left out, and what it says in two ways
(`plan: free`, `plan: {equals: free}`) comes back in the way it was written; only a `null` is the same as nothing.

    kind                        texts                                                         parts
    segment                     name, description, entity, tags, purposes, valid_from, valid_until      a rule
    all, any                                                                                  rules
    not                                                                                       a rule
    performed                   events, a window, grace, result, of                           events, where, tests
    sequence                    by, within, grace                                             steps, absences
    step, absence               events, within, by                                            events, where
    score                       half_life, within                                             weights, tests
    weight                      events, weight                                                events, where
    trait, computed, account    segment (account)                                             checks
    consent                     purpose, is
    in_segment                  segment
    bucket                      salt, from, to
    members                     how                                                           a rule, tests
    event                       name
    where                                                                                     checks, where_…
    where_all, where_any, where_not                                                           wheres
    check                       path, as                                                      tests
    test                        operator, type, value, upper, lines
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError

Json = dict[str, Any]
Steps = tuple[int | str, ...]

RESULTS = ("count", "sum", "average", "min", "max", "distinct", "first", "last")
AGGREGATES = ("sum", "average", "min", "max", "distinct")
BETWEEN = ("from", "to", "time_zone")
CALENDAR = ("unit", "last", "current", "time_zone")
WORDS = ("any", "none", "all")
LENGTHS = ("within_last", "within_next")
MOMENTS = ("before", "after")


@dataclass(slots=True)
class Node:
    """One part of a segment in the making."""

    kind: str
    values: dict[str, str] = field(default_factory=dict)
    parts: list["Node"] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A form has no other way to say nothing than an empty field.
        self.values = {name: text for name, text in self.values.items() if text}

    def get(self, name: str) -> str:
        """A text; empty if there is none."""
        return self.values.get(name, "")

    def of_kind(self, *kinds: str) -> list["Node"]:
        """The parts of these kinds."""
        return [part for part in self.parts if part.kind in kinds]

    def rules(self) -> list["Node"]:
        """The parts that are rules."""
        return self.of_kind(*RULES)


ROOT = "n"
"""The path of the tree's first node; `n.2` is its third part."""


def child_path(path: str, node: Node, part: Node) -> str:
    """The path of a part of the node at `path`."""
    return f"{path}.{next(number for number, one in enumerate(node.parts) if one is part)}"


def node_at(tree: Node, path: str) -> Node:
    """The node at a path. Raises InputError."""
    node = tree
    try:
        for step in path.split(".")[1:]:
            node = node.parts[int(step)]
    except (ValueError, IndexError):
        raise InputError("There is no such part.", path, "load the page again") from None
    return node


# ------------------------------------------------------------------------------------------------------------ reading


def read_segment(body: Mapping[str, Any]) -> Node:
    """The tree of a valid definition of a segment."""
    values = {"name": str(body["segment"]), **_texts(body, "entity", "valid_from", "valid_until")}
    # An empty text says nothing, but a definition that has one is another text than one that has none.
    for name in ("description", "tags", "purposes"):
        if body.get(name) is not None:
            values[f"has_{name}"] = "1"
    values["description"] = str(body.get("description") or "")
    for name in ("tags", "purposes"):
        values[name] = _lines(body.get(name) or [])
    return Node("segment", values, [read_rule(body["when"])])


def read_rule(rule: Mapping[str, Any]) -> Node:
    """The tree of a valid rule."""
    [(kind, value)] = rule.items()
    return RULES[kind](kind, value)


def _group(kind: str, value: Any) -> Node:
    return Node(kind, {}, [read_rule(one) for one in value])


def _not(kind: str, value: Any) -> Node:
    return Node(kind, {}, [read_rule(value)])


def _performed(kind: str, value: Json) -> Node:
    node = _selected(kind, value)
    for name in ("within", "between", "calendar"):
        if value.get(name) is not None:
            node.values["window"] = name
    node.values |= _texts(value, "within", "grace")
    node.values |= _texts(value.get("between") or {}, *BETWEEN)
    node.values |= _texts(value.get("calendar") or {}, *CALENDAR)
    for name in RESULTS:
        if value.get(name) is not None:
            tests = dict(value[name])
            node.values |= {"result": name, **_texts(tests, "of")}
            tests.pop("of", None)
            node.parts += _tests(tests)
    return node


def _sequence(kind: str, value: Json) -> Node:
    return Node(kind, _texts(value, "by", "within", "grace"), [_step(one) for one in value["steps"]])


def _step(step: Json) -> Node:
    if "not" in step:
        node = _selected("absence", step["not"])
        node.values |= _texts(step["not"], "by") | _texts(step, "within")
    else:
        node = _selected("step", step)
        node.values |= _texts(step, "within", "by")
    return node


def _score(kind: str, value: Json) -> Node:
    weights = []
    for one in value["events"]:
        weights.append(_selected("weight", one))
        weights[-1].values["weight"] = _scalar(one["weight"])
    rest = {name: one for name, one in value.items() if name not in ("events", "half_life", "within")}
    return Node(kind, _texts(value, "half_life", "within"), [*weights, *_tests(rest)])


def _checked(kind: str, value: Json) -> Node:
    return Node(kind, {}, _checks(value))


def _consent(kind: str, value: Any) -> Node:
    if isinstance(value, str):
        return Node(kind, {"purpose": value, "short": "1"})
    return Node(kind, _texts(value, "purpose", "is"))


def _in_segment(kind: str, value: str) -> Node:
    return Node(kind, {"segment": value})


def _bucket(kind: str, value: Json) -> Node:
    return Node(kind, _texts(value, "salt", "from", "to"))


def _members(kind: str, value: Json) -> Node:
    how = next((word for word in WORDS if value.get(word)), "")
    tests = _tests({name: one for name, one in value.items() if name != "match" and name not in WORDS})
    return Node(kind, {"how": how or "count"} if how or tests else {}, [read_rule(value["match"]), *tests])


def _account(kind: str, value: Json) -> Node:
    segment = value.get("in_segment")
    return Node(kind, {"segment": segment} if segment else {}, _checks(value.get("trait") or {}))


RULES = {
    "all": _group,
    "any": _group,
    "not": _not,
    "performed": _performed,
    "sequence": _sequence,
    "score": _score,
    "trait": _checked,
    "computed": _checked,
    "consent": _consent,
    "in_segment": _in_segment,
    "bucket": _bucket,
    "members": _members,
    "account": _account,
}

_SELECTED = frozenset(("event", "where"))
PARTS: Mapping[str, frozenset[str]] = {
    "segment": frozenset(RULES),
    "all": frozenset(RULES),
    "any": frozenset(RULES),
    "not": frozenset(RULES),
    "performed": _SELECTED | {"test"},
    "sequence": frozenset(("step", "absence")),
    "step": _SELECTED,
    "absence": _SELECTED,
    "score": frozenset(("weight", "test")),
    "weight": _SELECTED,
    "trait": frozenset(("check",)),
    "computed": frozenset(("check",)),
    "account": frozenset(("check",)),
    "members": frozenset(RULES) | {"test"},
    "where": frozenset(("check", "where_all", "where_any", "where_not")),
    "where_all": frozenset(("where",)),
    "where_any": frozenset(("where",)),
    "where_not": frozenset(("where",)),
    "check": frozenset(("test",)),
}
"""The kinds of parts that a node of a kind may have; those that are not here have none."""


def _selected(kind: str, value: Json) -> Node:
    names = value["event"]
    node = Node(kind)
    if names == "*":
        node.values["events"] = "any"
    elif isinstance(names, list):
        node.values["events"] = "list"
        node.parts = [Node("event", {"name": name}) for name in names]
    else:
        node.parts = [Node("event", {"name": names})]
    if value.get("where") is not None:
        node.parts.append(_where(value["where"]))
    return node


def _where(value: Json) -> Node:
    node = Node("where")
    for name, one in value.items():
        if one is None:
            continue
        if name in ("all", "any"):
            node.parts.append(Node(f"where_{name}", {}, [_where(each) for each in one]))
        elif name == "not":
            node.parts.append(Node("where_not", {}, [_where(one)]))
        else:
            node.parts += _checks({name: one})
    return node


def _checks(value: Mapping[str, Any]) -> list[Node]:
    found = []
    for path, comparison in value.items():
        if not isinstance(comparison, dict):
            found.append(Node("check", {"path": path, "short": "1"}, _tests({"equals": comparison})))
            continue
        tests = {name: one for name, one in comparison.items() if name != "as"}
        found.append(Node("check", {"path": path, **_texts(comparison, "as")}, _tests(tests)))
    return found


def _tests(comparison: Mapping[str, Any]) -> list[Node]:
    return [
        Node("test", {"operator": name, **_operand(name, operand)})
        for name, operand in comparison.items()
        if operand is not None
    ]


def _operand(operator: str, operand: Any) -> dict[str, str]:
    if operator == "exists":
        return {"value": "true" if operand else "false"}
    if operator in (*LENGTHS, *MOMENTS):
        return {"value": operand}
    if operator in ("in", "not_in"):
        kinds = {_type(one) for one in operand}
        plain = kinds == {"text"} and all(one and not _broken(one) for one in operand)
        if kinds == {"number"} or plain:
            return {"type": kinds.pop(), "lines": "\n".join(map(_scalar, operand))}
        return {"type": "json", "lines": "\n".join(json.dumps(one, ensure_ascii=False) for one in operand)}
    if isinstance(operand, list | tuple):
        low, high = operand
        return {"type": _type(low), "value": _scalar(low), "upper": _scalar(high)}
    if isinstance(operand, dict):
        return {"type": "trait", "value": operand["trait"]}
    return {"type": _type(operand), "value": _scalar(operand)}


def _type(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _broken(text: str) -> bool:
    return text.splitlines() != [text]


def _lines(texts: Iterable[str]) -> str:
    texts = list(texts)
    if any(not one or _broken(one) or one.startswith("[") for one in texts):
        return json.dumps(texts, ensure_ascii=False)
    return "\n".join(texts)


def _texts(value: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: _scalar(value[name]) for name in names if value.get(name) is not None}
