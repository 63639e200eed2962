"""YAML and JSON into plain values, with the line of every part.

What is read is JSON written comfortably: `yes`, `on` and `12:30` are texts, dates are texts, keys are texts and stand
once, `.5` and `True` are refused, nothing is ever constructed from a tag. JSON is read by the same code.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]
Mark = tuple[int, int]

MAX_BYTES = 5_000_000
_MAX_DEPTH = 100
_MAX_VALUES = 500_000
_MAX_STEPS = 3_000_000
"""Of all paths of a text together: what is remembered of each part is where it stands."""
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
# Numbers to any other reader of YAML, and texts to JSON: nobody could tell which was meant.
_ALMOST_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.)([eE][-+]?[0-9]+)?")
# Values to any other reader of YAML, and to who writes Python.
_ALMOST_PLAIN = {text: near for near in ("true", "false", "null") for text in (near.capitalize(), near.upper())}
_PLAIN = {"": None, "~": None, "null": None, "true": True, "false": False}
# What texts of JSON may have as it is: YAML refuses it, or takes it for the end of a line.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_TWO_ESCAPES = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """A text that cannot be read: what, and the line and column, both from 1."""

    def __init__(self, what: str, mark: Mark = (1, 1)) -> None:
        super().__init__(what)
        self.what = what
        self.mark = mark


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its value, and where (line, column) each part of it stands."""

    value: Any
    marks: dict[Path, Mark]

    def mark_of(self, path: tuple[Any, ...]) -> Mark:
        """Where the part at `path` stands, or the nearest part around it.

        Steps that are not in the document are passed over: validators put the names of alternatives between.
        """
        found: Path = ()
        for step in path:
            if (*found, step) in self.marks:
                found = (*found, step)
        return self.marks[found]


def json_as_yaml(text: str) -> str:
    """JSON in the form that a YAML reader takes: it may be indented by tabs, has characters in its texts that YAML has
    only as escapes, and writes those beyond the first 65,536 as two escapes."""
    escaped = _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\t", " "))
    return _TWO_ESCAPES.sub(_one_character, escaped)


def _one_character(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return found[1] + chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def read_documents(text: str) -> list[Document]:
    """The documents of a text, empty ones left out; a list at the top is several documents. Raises DocumentError."""
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error):  # newer releases of the parser have a bound of their own
            raise DocumentError("this is nested too deeply") from None
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise DocumentError(f"this is not YAML: {_why(error, text, place)}", place) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"this is not YAML: {str(error).partition(chr(10))[0]}", _place_in(text, error)) from None
    except RecursionError:
        raise DocumentError("this is nested too deeply") from None
    documents = []
    builder = _Builder()
    for node in nodes:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            document = builder.document(part)
            if document.value is not None:
                documents.append(document)
    return documents


def _why(error: yaml.MarkedYAMLError, text: str, place: Mark) -> str:
    lines = text.split("\n")
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a line begins with a tab; indent it by spaces"
    return str(error.problem or error.context)


def _place_in(text: str, error: yaml.YAMLError) -> Mark:
    """Where a character stands that YAML does not take; such an error only counts bytes."""
    before = text.encode(errors="replace")[: getattr(error, "position", 0)].decode(errors="ignore")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _mark(node: Any) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Builder:
    """Builds the documents of one text. Aliases let a short one stand for an endless one: what may be built is bounded
    for all of them together."""

    def __init__(self) -> None:
        self._marks: dict[Path, Mark] = {}
        self._values = self._steps = 0

    def document(self, node: Any) -> Document:
        self._marks = {(): _mark(node)}
        return Document(self.build(node, ()), self._marks)

    def build(self, node: Any, path: Path) -> Any:
        if node.tag not in _OWN_TAGS:
            raise DocumentError(f"the tag {node.tag} is not known here", _mark(node))
        self._values += 1
        self._steps += len(path)
        if self._values > _MAX_VALUES or self._steps > _MAX_STEPS or len(path) > _MAX_DEPTH:
            raise DocumentError("this is too large, or nested too deeply", _mark(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            values = []
            for number, item in enumerate(node.value):
                self._marks[(*path, number)] = _mark(item)
                values.append(self.build(item, (*path, number)))
            return values
        return _scalar(node)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise DocumentError("a key must be a text", _mark(key_node))
            key = key_node.value
            if key in values:
                raise DocumentError(f"the key `{key}` stands twice", _mark(key_node))
            if key == "<<":
                raise DocumentError("merge keys (<<) are not known here; write the keys out", _mark(key_node))
            self._marks[(*path, key)] = _mark(key_node)
            values[key] = self.build(value_node, (*path, key))
        return values


def _scalar(node: Any) -> Any:
    text: str = node.value
    if node.style:  # quoted or a block: a text, whatever it looks like
        return text
    if text in _PLAIN:
        return _PLAIN[text]
    if _INTEGER.fullmatch(text):
        number = int(text) if len(text) < 30 else 1 << 64
        if not -(1 << 63) <= number < 1 << 63:
            raise DocumentError("this number is too large; put it in quotes if it is a text", _mark(node))
        return number
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise DocumentError("this number is too large", _mark(node))
        return value
    if _ALMOST_NUMBER.fullmatch(text):
        what = "this is no number here: write it like 0.5, or put it in quotes if it is a text"
        raise DocumentError(what, _mark(node))
    if text in _ALMOST_PLAIN:
        what = f"this is nothing here: write {_ALMOST_PLAIN[text]}, or put it in quotes if it is a text"
        raise DocumentError(what, _mark(node))
    return text


def is_plainly_text(text: str) -> bool:
    """Whether an unquoted scalar reads as a text: nothing empty, no number, no null or boolean."""
    return (
        text not in _PLAIN.keys() | _ALMOST_PLAIN.keys()
        and not _NUMBER.fullmatch(text)
        and not _ALMOST_NUMBER.fullmatch(text)
    )


_OWN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value")
)
