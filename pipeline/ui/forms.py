"""Trees as the fields of a form, and back: `n.0.2:operator` is a text of the third part of the first part.

Browsers keep a text as it is, but for control characters and line breaks: a text that has one (in a field of one line)
goes as JSON behind a mark.
"""

import json
import re
from collections.abc import Iterable

from pipeline.errors import InputError
from pipeline.ui.tree import PARTS, ROOT, Node

MULTILINE = frozenset(("description", "tags", "lines"))
MAX_FIELDS = 20_000
_MAX_DEPTH = 60
_MARK = "json:"
_KEPT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*")
_HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a character beyond the first 65,536: no text that can be sent has one."""
_NAME = re.compile(r"(n(?:\.\d{1,4})*):([a-z_]{1,30})")


def fields_of(tree: Node, path: str = ROOT) -> list[tuple[str, str]]:
    """The fields of a tree: (name, what the field holds)."""
    found = [(f"{path}:kind", tree.kind)]
    found += [(f"{path}:{name}", shown(name, value)) for name, value in tree.values.items()]
    for number, part in enumerate(tree.parts):
        found += fields_of(part, f"{path}.{number}")
    return found


def tree_of(fields: Iterable[tuple[str, str]]) -> Node:
    """The tree that a form's fields hold; fields of other names are left alone. An empty field is no text.

    Raises InputError when they are no tree.
    """
    kinds: dict[tuple[int, ...], str] = {}
    texts: dict[tuple[int, ...], dict[str, str]] = {}
    for count, (name, text) in enumerate(fields):
        if count > MAX_FIELDS:
            raise InputError("The segment is too large for a form.", "", "split it with “is in segment”")
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        place = tuple(int(step) for step in found[1].split(".")[1:])
        if len(place) > _MAX_DEPTH:
            raise InputError("The rules stand too deep in each other.", "", "split them with “is in segment”")
        if found[2] == "kind":
            kinds[place] = text
        else:
            texts.setdefault(place, {})[found[2]] = held(found[2], text)
    if () not in kinds:
        raise InputError("The form has no segment in it.", "", "load the page again")
    if kinds[()] != "segment":
        raise InputError("The form is that of something else.", "", "load the page again")
    nodes: dict[tuple[int, ...], Node] = {}
    for place in sorted(kinds):
        nodes[place] = Node(kinds[place], texts.get(place, {}))
        if place:
            around = nodes.get(place[:-1])
            if around is None:
                raise InputError("The form lacks a part.", "", "load the page again")
            if kinds[place] not in PARTS.get(around.kind, ()):
                raise InputError("A part of the form stands where it cannot stand.", "", "load the page again")
            around.parts.append(nodes[place])
    return nodes[()]


def shown(name: str, text: str) -> str:
    """A text as a field holds it."""
    plain = text.replace("\n", "") if name in MULTILINE else text
    if _KEPT.fullmatch(plain) and not text.startswith(_MARK):
        return text
    return _MARK + json.dumps(text)


def held(name: str, text: str) -> str:
    """The text that a field holds. Browsers send line breaks of areas as CR LF."""
    if text.startswith(_MARK):
        try:
            found = json.loads(text.removeprefix(_MARK))
        except (ValueError, RecursionError):
            return text
        return found if isinstance(found, str) and not _HALF.search(found) else text
    return text.replace("\r\n", "\n") if name in MULTILINE else text
