"""Bytes to the shape of the tracking spec, within bounds that everything behind relies on.

    size       256 KiB
    nesting    32 levels of objects and lists under a field
    numbers    64 bits, signed; NaN and Infinity are no JSON
    keys       of two equal keys in one object the last one counts, as in nearly every parser
    halves     half of a surrogate pair, as a text has that was cut within an emoji, becomes U+FFFD

A byte order mark in front is passed over. An empty list in place of an object is an empty object: some languages cannot
tell the two apart. Fields that the tracking spec does not know are left out.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from pipeline.ingest.outcomes import Refusal

MAX_RAW_BYTES = 256 * 1024
MAX_DEPTH = 32

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

_Decoded = TypeVar("_Decoded")
RawId = str | int | float | None


class RawEvent(Struct, rename="camel"):
    """An event as the tracking spec spells it; every field optional, because refusing is for a person to understand."""

    type: str | None = None
    event: str | None = None
    message_id: str | int | None = None
    user_id: RawId = None
    anonymous_id: RawId = None
    previous_id: RawId = None
    group_id: RawId = None
    identifiers: dict[str, Any] | None = None
    timestamp: str | int | float | None = None
    original_timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    received_at: str | int | float | None = None
    properties: dict[str, Any] | None = None
    traits: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    name: str | None = None
    category: str | None = None
    source: Any = None


_OBJECT_FIELDS = ("identifiers", "properties", "traits", "context")
_decode_event = msgspec.json.Decoder(RawEvent).decode
_decode_anything = msgspec.json.Decoder().decode
# Digits become "0" and the rest blanks, so that a long row of digits is found by one search, at a tenth of the cost of
# a regular expression; that one then tells a number from a text full of digits.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_ROW = b"0" * 19
_long_number = re.compile(rb"[:,\[][ \t\r\n]*-?[0-9]{19}").search
# An escaped surrogate behind whole pairs of backslashes: the first group keeps those, the second is there for a pair.
_surrogate = re.compile(
    rb"(?<!\\)((?:\\\\)*+)\\u"
    rb"(?:([dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_may_be_half = re.compile(rb"\\u[dD][89a-fA-F]").search


def forgiven(text: bytes) -> bytes:
    """JSON without what the parser refuses and many writers write: a byte order mark, and halves of surrogate pairs. To
    be asked of what was refused only: all of it is searched."""
    text = text.removeprefix(codecs.BOM_UTF8)
    return _surrogate.sub(_whole, text) if _may_be_half(text) else text


def forgiving(decode: Callable[[bytes], _Decoded], text: bytes) -> _Decoded:
    """What `decode` makes of a text, or of what `forgiven` makes of it. Raises what `decode` raises."""
    try:
        return decode(text)
    except msgspec.DecodeError:
        again = forgiven(text)
        if again == text:
            raise
        return decode(again)


def _whole(found: re.Match[bytes]) -> bytes:
    return found[0] if found[2] else found[1] + b"\\ufffd"


def decode(value: bytes | None) -> RawEvent | Refusal:
    """The event in a raw record's value, in bounds, or why there is none."""
    if value is None:
        return Refusal("tombstone", "The record has no value: a tombstone is not an event.")
    if len(value) > MAX_RAW_BYTES:
        return Refusal("too_large", f"The value has {len(value):,} bytes; an event may have {MAX_RAW_BYTES:,}.")
    try:
        event = _decode_event(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        lenient = _decode_leniently(value, error)
        if isinstance(lenient, Refusal):
            return lenient
        event = lenient
    beyond = out_of_bounds(value, ((name, getattr(event, name)) for name in _OBJECT_FIELDS))
    return event if beyond is None else beyond


def out_of_bounds(written: bytes, fields: Iterable[tuple[str, Any]]) -> Refusal | None:
    """The first thing in these fields that is nested too deep or a number too large; `written` is JSON with them."""
    # Both tests see at most too much, never too little; only then is the event walked.
    if written.count(b"{") + written.count(b"[") > MAX_DEPTH or (
        _LONG_ROW in written.translate(_DIGITS) and _long_number(written)
    ):
        for name, root in fields:
            found = _out_of_bounds(root, name)
            if found is not None:
                return found
    return None


def _decode_leniently(value: bytes, strict: Exception) -> RawEvent | Refusal:
    text = forgiven(value)
    if not text.strip():
        return Refusal("empty", "The value is empty.")
    try:
        anything = _decode_anything(text)
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except RecursionError:
        return Refusal("too_deep", f"Objects and lists are nested deeper than {MAX_DEPTH} levels.")
    except msgspec.ValidationError as error:
        # A number that no parser here can hold; the strict attempt knew in which field.
        return _explain(strict if isinstance(strict, msgspec.ValidationError) else error)
    except msgspec.DecodeError as error:
        return _not_json(text, error)
    if not isinstance(anything, dict):
        hint = " Send one event per record." if isinstance(anything, list) else ""
        return Refusal("not_object", f"The value is {_kind(anything)}, not an object.{hint}")
    for name in _OBJECT_FIELDS:
        if anything.get(name) == []:
            anything[name] = None
    try:
        return msgspec.convert(anything, RawEvent)
    except msgspec.ValidationError as error:
        return _explain(error)


def _not_utf8(error: UnicodeDecodeError) -> Refusal:
    return Refusal("not_utf8", f"The value is not UTF-8 ({error.reason}, byte {error.object[error.start]:#04x}).")


def _not_json(text: bytes, error: msgspec.DecodeError) -> Refusal:
    try:
        text.decode()
    except UnicodeDecodeError as unicode_error:
        return _not_utf8(unicode_error)
    place = re.search(r"\(byte (\d+)\)", str(error))
    rest = text[int(place[1]) :] if place else b""
    if rest.startswith((b"NaN", b"Infinity")):
        return Refusal("not_json", f"NaN and Infinity are no JSON (byte {place[1] if place else 0}); send null.")
    if text.count(b"[") + text.count(b"{") > 1000:
        return Refusal("not_json", f"The value is not JSON, and nested very deep: {error}.")
    return Refusal("not_json", f"The value is not JSON: {str(error).removeprefix('JSON is malformed: ')}.")


_SPOKEN = {"str": "text", "int": "number", "float": "number", "bool": "true/false", "array": "list", "object": "object"}


def _explain(error: msgspec.ValidationError) -> Refusal:
    what, _, where = str(error).partition(" - at `")
    # "$.properties[...]": inside a free-form object the parser does not know the way.
    pointer = where.rstrip("`").partition("[")[0].removeprefix("$").replace(".", "/")
    name = pointer.removeprefix("/") or "the value"
    if "out of range" in what:
        return Refusal("number_out_of_range", f"A number in {name} does not fit into 64 bits.", pointer)
    expected = re.findall(r"`([^`]*)`", what)
    if len(expected) != 2:
        return Refusal("wrong_type", f"{name}: {what}.", pointer)
    wanted = " or ".join(sorted({_SPOKEN[word] for word in expected[0].split(" | ") if word in _SPOKEN}))
    return Refusal("wrong_type", f"{name} must be {wanted}, not {_SPOKEN.get(expected[1], expected[1])}.", pointer)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "a list", str: "a text", bool: "true/false"}.get(type(value), "a number")


def _out_of_bounds(root: Any, name: str) -> Refusal | None:
    """The first thing under a field that is nested too deep or a number too large."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(root, (name,))]
    while waiting:
        value, path = waiting.pop()
        if isinstance(value, dict):
            children: Any = value.items()
        elif isinstance(value, list):
            children = enumerate(value)
        elif isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
            where = "/" + "/".join(path)
            return Refusal("number_out_of_range", f"{where[1:]} does not fit into 64 bits; send it as text.", where)
        else:
            continue
        if len(path) > MAX_DEPTH:
            return Refusal("too_deep", f"{name} is nested deeper than {MAX_DEPTH} levels.", f"/{name}")
        waiting.extend((child, (*path, str(key).replace("~", "~0").replace("/", "~1"))) for key, child in children)
    return None
