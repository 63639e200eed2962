"""What a validator says about a value that may be of several types, once and in words.

It tries each type and says for each why not: `event: ["Cart Viewed", ""]` is no text, and its second name is empty.
Told are the mistakes of the type that was meant; where none was, all types in one sentence.
"""

from collections.abc import Iterator, Sequence
from typing import Any

_TYPES = {
    "string_type": "a text",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}

Detail = Any
"""An error as pydantic gives it, with its `ctx`."""


def told_once(details: Sequence[Detail], document: Any) -> Iterator[tuple[tuple[Any, ...], str | None]]:
    """Each mistake with its location; None where the validator's own words do, at that location."""
    refused: dict[tuple[Any, ...], list[str]] = {}
    for one in details:
        if one["type"] in _TYPES:
            expected = refused.setdefault(_at(one["loc"], document), [])
            if _TYPES[one["type"]] not in expected:
                expected.append(_TYPES[one["type"]])
    # A type that was not refused as such at a place was meant there.
    meant = {
        place[:length]
        for one in details
        if one["type"] not in _TYPES
        for place in (_at(one["loc"], document),)
        for length in range(len(place) + 1)
    }
    inside = {place[:length] for place in refused for length in range(len(place))}
    for one in details:
        place = _at(one["loc"], document)
        if one["type"] not in _TYPES:
            yield one["loc"], _in_words(one)
        elif place in refused and place not in meant and place not in inside:
            expected = refused.pop(place)
            if "a number" in expected and "a whole number" in expected:
                expected.remove("a whole number")
            yield one["loc"], f"{' or '.join(expected)} is expected here"


_BOUNDS = {
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than_equal": ("le", "a number of at most"),
    "greater_than": ("gt", "a number greater than"),
    "less_than": ("lt", "a number less than"),
}


def _in_words(detail: Detail) -> str | None:
    bounds = detail.get("ctx") or {}
    if detail["type"] == "literal_error":
        # As it is written here: `True` is refused.
        return f"{bounds['expected'].replace('True', 'true')} is expected here"
    if detail["type"] == "too_short":
        return f"at least {bounds['min_length']:,} must stand here, not {bounds['actual_length']:,}"
    if detail["type"] == "too_long" and bounds.get("actual_length") is not None:
        return f"at most {bounds['max_length']:,} may stand here, not {bounds['actual_length']:,}"
    if detail["type"] in _BOUNDS:
        key, words = _BOUNDS[detail["type"]]
        return f"{words} {bounds[key]:,} is expected here"
    if detail["type"] == "string_too_short" and bounds.get("min_length") == 1:
        return "it is empty"
    if detail["type"] == "string_too_long":
        return f"at most {bounds['max_length']:,} characters"
    return None


def _at(location: tuple[Any, ...], document: Any) -> tuple[Any, ...]:
    """The place in the document: without the steps that only the validator knows, which name types."""
    place: tuple[Any, ...] = ()
    value = document
    for step in location:
        known = step in value if isinstance(value, dict) else isinstance(step, int) and isinstance(value, list)
        if known:
            value = value[step]
            place = (*place, step)
    return place
