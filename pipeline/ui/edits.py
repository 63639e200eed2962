"""What people do to a tree in the builder: one action is one text, `add:n.0:performed`, `remove:n.0.2`."""

from collections.abc import Callable, Iterable

from pipeline.errors import InputError
from pipeline.ui.tree import PARTS, ROOT, RULES, Node, child_path, node_at
from pipeline.ui.typed import read_line

CONDITIONS = {
    "performed": "Something they did",
    "trait": "A trait",
    "in_segment": "Another segment",
    "sequence": "Steps in order",
    "score": "A score that fades",
    "computed": "A computed trait",
    "consent": "A consent",
    "bucket": "A random share",
    "account": "Their account",
    "members": "People of the account",
    "all": "A group: all of",
    "any": "A group: any of",
    "not": "Not",
}
"""The kinds of rules, as the builder offers them."""

OF_PEOPLE = tuple(kind for kind in CONDITIONS if kind != "members")
OF_ACCOUNTS = tuple(kind for kind in CONDITIONS if kind not in ("account", "consent", "computed"))


def new_segment(entity: str = "") -> Node:
    """An empty segment: one group, in which all must be true."""
    return Node("segment", {"entity": entity}, [Node("all")])


def _test(**values: str) -> Node:
    return Node("test", values)


def _check() -> Node:
    return Node("check", {}, [_test(operator="equals", type="text")])


def _selected(kind: str, **values: str) -> Node:
    return Node(kind, values, [Node("event")])


NEW: dict[str, Callable[[], Node]] = {
    "all": lambda: Node("all"),
    "any": lambda: Node("any"),
    "not": lambda: Node("not"),
    "performed": lambda: _selected("performed", window="within", within="30d"),
    "sequence": lambda: Node("sequence", {}, [_selected("step"), _selected("step", within="1d")]),
    "score": lambda: Node(
        "score",
        {"half_life": "7d"},
        [_selected("weight", weight="1"), _test(operator="at_least", type="number", value="10")],
    ),
    "trait": lambda: Node("trait", {}, [_check()]),
    "computed": lambda: Node("computed", {}, [_check()]),
    "consent": lambda: Node("consent", {"is": "granted"}),
    "in_segment": lambda: Node("in_segment"),
    "bucket": lambda: Node("bucket", {"from": "0", "to": "10"}),
    "members": lambda: Node(
        "members",
        {"how": "count"},
        [_selected("performed", window="within", within="30d"), _test(operator="at_least", type="number", value="1")],
    ),
    "account": lambda: Node("account", {}, [_check()]),
    "event": lambda: Node("event"),
    "step": lambda: _selected("step", within="1d"),
    "absence": lambda: _selected("absence", within="1d"),
    "weight": lambda: _selected("weight", weight="1"),
    "where": lambda: Node("where", {}, [_check()]),
    "check": _check,
    "where_all": lambda: Node("where_all", {}, [Node("where", {}, [_check()])]),
    "where_any": lambda: Node("where_any", {}, [Node("where", {}, [_check()]), Node("where", {}, [_check()])]),
    "where_not": lambda: Node("where_not", {}, [Node("where", {}, [_check()])]),
    "test": lambda: _test(operator="at_least", type="number", value="1"),
}
"""A new node of each kind that can be added, with what most people will want in it."""

_ORDER = {"event": 0, "step": 0, "absence": 0, "weight": 0, "where": 1, "check": 1, "test": 2}


def edit(tree: Node, action: str, line: str = "", events: Iterable[str] = ()) -> str:
    """Do one action to the tree, in place; the path of the node to go on with. Raises InputError.

    `type:PATH` reads `line` and adds what it says to the group at PATH.
    """
    verb, _, rest = action.partition(":")
    path, _, kind = rest.partition(":")
    node = node_at(tree, path or ROOT)
    if verb == "add":
        return _add(node, path, _new(kind))
    if verb == "type":
        return _add(node, path, read_line(line, events))
    parent_path, _, number = path.rpartition(".")
    if not parent_path:
        raise InputError("The whole segment stays where it is.", "", "choose one of its parts")
    parent, place = node_at(tree, parent_path), int(number)
    if verb == "remove":
        del parent.parts[place]
        return parent_path
    if verb in ("up", "down"):
        other = place + (1 if verb == "down" else -1)
        if 0 <= other < len(parent.parts) and _alike(parent.parts[other], node):
            parent.parts[place], parent.parts[other] = parent.parts[other], node
            return f"{parent_path}.{other}"
        return path
    if verb == "wrap" and kind in ("all", "any", "not") and node.kind in RULES:
        parent.parts[place] = Node(kind, {}, [node])
        return path
    if verb == "unwrap" and node.kind in ("all", "any", "not"):
        if len(node.parts) > 1 and parent.kind not in ("all", "any"):
            raise InputError("There is room for one rule here.", "", "remove the others first")
        parent.parts[place : place + 1] = node.parts
        return parent_path
    raise InputError("The page asked for something that cannot be done.", action[:100], "load the page again")


def _new(kind: str) -> Node:
    if kind not in NEW:
        raise InputError(f"Nothing of the kind {kind[:50]} can be added.", "", "load the page again")
    return NEW[kind]()


def _add(node: Node, path: str, added: Node) -> str:
    if added.kind not in PARTS.get(node.kind, ()):
        raise InputError("That has no place there.", added.kind, "load the page again")
    if node.kind in ("segment", "not", "members") and node.rules() and added.kind in RULES:
        # There is room for one rule: what is there and what is new go into a group.
        present = node.rules()[0]
        if present.kind != "all":
            place = node.parts.index(present)
            node.parts[place] = Node("all", {}, [present])
            return _add(node.parts[place], f"{path}.{place}", added)
        return _add(present, child_path(path, node, present), added)
    if added.kind == "test" and node.kind == "check":
        added = _test(operator="not_equals", type="text")
    # What belongs to the events stands before what is asked about them.
    place = len(node.parts)
    while place and _ORDER.get(node.parts[place - 1].kind, 0) > _ORDER.get(added.kind, 0):
        place -= 1
    node.parts.insert(place, added)
    return f"{path}.{place}"


def _alike(one: Node, other: Node) -> bool:
    steps = ("step", "absence")
    return (one.kind in RULES and other.kind in RULES) or (one.kind in steps and other.kind in steps)
