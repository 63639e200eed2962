"""Templates of requests: texts with places that lead into a delivery. How they are written: `connectors/http.py`."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from pydantic import field_validator

from connectors.base import Options, Outcome, SecretReference
from connectors.webhook import check_headers, check_scheme, check_url
from pipeline.records import Delivery

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_PATH = re.compile(r"(sha256:)?[a-z_]+(\.[^.{}]+)*")
_ROOTS = frozenset(
    {
        "profile_id",
        "segment",
        "change",
        "action",
        "at",
        "at_iso",
        "decided_at",
        "delivery_id",
        "cause",
        "destination",
        "identifiers",
        "traits",
        "properties",
        "body",
    }
)
_CHANGES = {"segment_entered": "entered", "segment_exited": "exited"}
EACH = "{each}"
_MISSING: Any = object()
_WORST_FIRST = ("retry", "rejected", "delivered")


class MissingValueError(Exception):
    """A place of the template leads to nothing in this delivery."""


class EraseRequest(Options):
    """The request that deletes a person; `{body.profile_ids}` are all the ids they ever had. `headers` are its own."""

    url: str
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "DELETE"
    headers: dict[str, str | SecretReference] = {}
    body: dict[str, Any] | list[Any] | None = None

    _checked_url = field_validator("url")(check_url)
    _checked_headers = field_validator("headers")(check_headers)


def check_request(url: str, body: Any, allow_private: bool) -> None:
    """Whether a request is one that may be sent. Raises ValueError."""
    check_address(url, allow_private)
    check_places(body)


def check_address(url: str, allow_private: bool) -> None:
    """Whether a request may go there. Raises ValueError."""
    if "{" in urlsplit(url).netloc:
        raise ValueError("the host of the url is fixed: data must not choose where data goes")
    check_scheme(url, allow_private)
    check_places(url)


def check_fixed(url: str, allow_private: bool) -> None:
    """The same of an address without places. Raises ValueError."""
    if _PLACE.search(url):
        raise ValueError("it is taken as it is, and may have no place to be filled in")
    check_scheme(url, allow_private)


def check_places(template: Any) -> None:
    """Whether the places of a template lead somewhere. Raises ValueError."""
    for text in _texts(template):
        for found in _PLACE.finditer(text):
            _check_place(found, text)


def check_together(body: Any, each: Any) -> None:
    """The same of a body that holds many: `each` of them, where it says so. Raises ValueError."""
    if EACH not in _texts(body):
        raise ValueError(f"`each` is what a body holds many of: write {EACH} where their list is to be")
    check_places([[text for text in _texts(body) if text != EACH], each])


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def _check_place(found: re.Match[str], text: str) -> None:
    path = found[1]
    if found[0] in ("{{", "}}"):
        return
    if path is None:
        raise ValueError(f"a brace in {text!r} stands alone; write it twice to mean the brace itself")
    if not _PATH.fullmatch(path) or path.removeprefix("sha256:").split(".")[0] not in _ROOTS:
        raise ValueError(f"there is nothing called {{{path}}}; places begin with {', '.join(sorted(_ROOTS))}")


def values_of(delivery: Delivery) -> dict[str, Any]:
    """What the places of a template lead into."""
    namespaces: dict[str, str] = {}
    for pair in delivery.identifiers:
        namespaces.setdefault(pair.namespace, pair.value)
    changed = delivery.body.get("set")
    traits = changed.get("traits", {}) if isinstance(changed, Mapping) else {}
    return {
        "profile_id": delivery.profile_id,
        "segment": delivery.segment,
        "change": _CHANGES.get(delivery.action),
        "action": delivery.action,
        "at": delivery.at,
        "at_iso": datetime.fromtimestamp(delivery.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "decided_at": delivery.decided_at,
        "delivery_id": delivery.delivery_id,
        "cause": delivery.cause,
        "destination": delivery.destination,
        "identifiers": namespaces,
        "traits": {**traits, **(delivery.body.get("traits") or {})},
        "properties": delivery.body.get("properties") or {},
        "body": delivery.body,
    }


def erased_values(request: EraseRequest, delivery: Delivery) -> Iterator[dict[str, Any]]:
    """What the places of a request that deletes a person lead into, for each time it has to be sent:
    `{identifiers.email}` is one address, and the person may have several."""
    values = values_of(delivery)
    names: dict[str, list[str]] = {}
    for pair in delivery.identifiers:
        names.setdefault(pair.namespace, []).append(pair.value)
    paths = [found[1] or "" for text in _texts([request.url, request.body]) for found in _PLACE.finditer(text)]
    steps = [path.removeprefix("sha256:").split(".") for path in paths]
    asked = {name for root, *rest in steps if root == "identifiers" for name in (rest[:1] or names)}
    times = max((len(names.get(name, ())) for name in asked), default=1)
    for time in range(max(1, times)):
        yield {**values, "identifiers": {name: each[min(time, len(each) - 1)] for name, each in names.items()}}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """What became of several requests together: delivered, if all are."""
    return min(outcomes, key=lambda one: _WORST_FIRST.index(one.status))


def _value(path: str, values: Mapping[str, Any]) -> Any:
    hashed = path.startswith("sha256:")
    found: Any = values
    for step in path.removeprefix("sha256:").split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            return _MISSING
    return hashlib.sha256(shown(found).strip().lower().encode()).hexdigest() if hashed else found


def shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def fill_text(text: str, values: Mapping[str, Any], escape: Callable[[str], str] = str) -> str:
    """The text with its places filled in. Raises MissingValueError."""

    def put(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        value = _value(found[1], values)
        if value is _MISSING:
            raise MissingValueError(found[1])
        return escape(shown(value))

    return _PLACE.sub(put, text)


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with its places filled in. Raises MissingValueError where what is missing cannot be left out."""
    if isinstance(template, str):
        whole = _PLACE.fullmatch(template)
        if whole is None or whole[1] is None:
            return fill_text(template, values)
        value = _value(whole[1], values)
        if value is _MISSING:
            raise MissingValueError(whole[1])
        return value
    if isinstance(template, Mapping):
        filled = {}
        for name, part in template.items():
            try:
                filled[name] = fill(part, values)
            except MissingValueError:
                if not (isinstance(part, str) and (whole := _PLACE.fullmatch(part)) and whole[1]):
                    raise
        return filled
    return [fill(part, values) for part in template] if isinstance(template, list) else template


def filled_url(url: str, values: Mapping[str, Any]) -> str:
    """The address with its places filled in, escaped. Raises MissingValueError, also where a value would turn the
    address into another one: `/people/{traits.crm_id}` with nothing in it, or two dots, is not about that person."""

    def escaped(text: str) -> str:
        if not text:
            raise MissingValueError("a value in the url that is not empty")
        return quote(text, safe="")

    filled = fill_text(url, values, escaped)
    written = urlsplit(url).path.split("/")
    for part in urlsplit(filled).path.split("/"):
        if part in (".", "..") and part not in written:
            raise MissingValueError(f"a value in the url that is not {part!r}")
    return filled
