"""The names that definitions take, and the keys that a document may have at a place, for whoever mistyped one."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

_LIKE = 0.7
_LISTED = 12
NAME = re.compile(r"[a-z][a-z0-9_.-]{0,99}")
_NO_NAME = re.compile(r"[^a-z0-9_.-]+")


def a_name(value: Any) -> str:
    """The name of a definition. Raises ValueError, which says one that would do."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    if value in (None, ""):
        raise ValueError("a name is missing")
    near = name_near(str(value))
    quote = "" if isinstance(value, str) else '"'
    advice = f"; write {quote}{near}{quote}" if near else ""
    raise ValueError(f"a name begins with a small letter and has small letters, digits, _ . and -, at most 100{advice}")


def name_near(text: str) -> str:
    """The name that would do in place of `text`; empty where there is none."""
    plain = unicodedata.normalize("NFKD", text[:300]).encode("ascii", "ignore").decode().lower()
    near = _NO_NAME.sub("_", plain).strip("_.-")
    return near if NAME.fullmatch(near) else ""


def instead(location: Sequence[int | str], *models: type[BaseModel]) -> str:
    """What to write instead of the unknown key at the end of `location`; nothing where nobody can say. The keys of the
    whole document are those of `models`, together."""
    *around, key = location
    found: list[Any] = list(models)
    for step in around:
        # Steps that only the validator knows, as the names of alternatives, lead nowhere.
        found = [each for one in found for each in _below(one, step)] or found
    known = list(dict.fromkeys(name for one in found if _is_model(one) for name in _fields(one)))
    near = get_close_matches(str(key), known, 1, _LIKE)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; keys here are {', '.join(known)}" if 0 < len(known) <= _LISTED else ""


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    model.model_rebuild()  # else an annotation may still be a name
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _below(part: Any, step: int | str) -> list[Any]:
    if _is_model(part):
        fields = _fields(part)
        if step in fields:
            return list(_parts(fields[str(step)]))
        # Where any key may stand, as paths do, what it holds is said beside the fields.
        part = vars(part)["__annotations__"].get("__pydantic_extra__")
    arguments = get_args(part)
    if get_origin(part) is dict:
        return list(_parts(arguments[1]))
    if get_origin(part) in (list, tuple) and isinstance(step, int):
        return list(_parts(arguments[0]))
    return []


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _parts(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation: models, lists, mappings, plain types."""
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for one in get_args(annotation):
            yield from _parts(one)
    else:
        yield annotation


def source_named(text: str) -> str:
    """The name of a source, as `records.source_name` gives it: a topic outside of the workspace may be written with its
    slash, as the setting `sources` has it."""
    return text.removeprefix("/")
