"""The steps, each a frozen value that changes a draft. A field that is not there is nothing to do."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pipeline.cleaning.plan import Draft, Failed, Reference, Tools, containers, put

Path = tuple[str, ...]
CastTo = Literal["text", "number", "integer", "boolean"]
_MAX_TEXT = 10_000
_MAX_USER_AGENT = 1_024
_REMEMBERED = 20_000
_TRUE, _FALSE = frozenset(("true", "yes", "1", "on")), frozenset(("false", "no", "0", "off"))
_CAMPAIGN = ("source", "medium", "campaign", "term", "content", "id")
_SEARCH = ("google", "bing", "duckduckgo", "yahoo", "baidu", "yandex", "ecosia", "qwant", "startpage", "naver", "brave")
_SOCIAL = {
    "facebook": "facebook",
    "instagram": "instagram",
    "linkedin": "linkedin",
    "lnkd": "linkedin",
    "t.co": "x",
    "twitter": "x",
    "x.com": "x",
    "reddit": "reddit",
    "youtube": "youtube",
    "pinterest": "pinterest",
    "tiktok": "tiktok",
    "mastodon": "mastodon",
    "bsky": "bluesky",
}
_MAIL = frozenset(("mail", "webmail", "outlook"))


@dataclass(frozen=True, slots=True)
class Rename:
    """A field gets another place; one that is there already is kept, and the other dropped. Where a text or a list
    stands in the way it stays where it was, and the event says so."""

    field: Path
    to: Path

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Move the field."""
        for parent, key in list(containers(draft.sections, self.field)):
            value = parent.pop(key)
            # An object that this has emptied is not in the way: {price: {value: 5}} may become {price: 5}.
            if any(place[last] is not parent or parent for place, last in containers(draft.sections, self.to)):
                continue
            if not put(draft.sections, self.to, value):
                parent[key] = value
                draft.flags.append(_flag("not_renamed", self.field))


@dataclass(frozen=True, slots=True)
class RenameEvent:
    """The event gets another name."""

    to: str

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Rename it."""
        draft.event = self.to


@dataclass(frozen=True, slots=True)
class Cast:
    """A value becomes one of another type. One that cannot stays as it is, and the event says so."""

    field: Path
    to: CastTo

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Convert the values."""
        for parent, key in containers(draft.sections, self.field):
            value = parent[key]
            if value is None:
                continue
            made = _CASTS[self.to](value)
            if made is None:
                draft.flags.append(_flag("not_cast", self.field))
            else:
                parent[key] = made


def _flag(word: str, field: Path) -> str:
    return f"{word}:/{'/'.join(field)}"[:100]


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 100:
        return None
    text = value.strip()
    try:
        number = float(text)
    except ValueError:
        return None
    # Python also reads 1_000, nan and infinity.
    if "_" in text or not math.isfinite(number):
        return None
    return int(text) if text.lstrip("+-").isdigit() and abs(number) < 2**63 else number


def _integer(value: Any) -> int | None:
    number = _number(value)
    if number is None or (isinstance(number, float) and not number.is_integer()) or abs(number) >= 2**63:
        return None
    return int(number)


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = _text(value)
    word = text.strip().lower() if text is not None else ""
    return True if word in _TRUE else False if word in _FALSE else None


_CASTS: dict[str, Callable[[Any], Any]] = {"text": _text, "number": _number, "integer": _integer, "boolean": _boolean}


@dataclass(frozen=True, slots=True)
class Default:
    """A field that is missing or null gets a value."""

    field: Path
    value: Any

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Fill it in."""
        there = [parent[key] for parent, key in containers(draft.sections, self.field)]
        if not there or there[0] is None:
            put(draft.sections, self.field, deepcopy(self.value))  # later steps may change what is inside


@dataclass(frozen=True, slots=True)
class Drop:
    """A field goes."""

    field: Path

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Drop it."""
        for parent, key in reversed(list(containers(draft.sections, self.field))):
            del parent[key]


@dataclass(frozen=True, slots=True)
class Hash:
    """A value becomes its keyed hash: the same for the same value, and of no use outside of the workspace."""

    field: Path

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Hash the values. What is no text or number is dropped: it must not stay readable."""
        for parent, key in reversed(list(containers(draft.sections, self.field))):
            text = _text(parent[key])
            if text is not None:
                parent[key] = tools.hashed(text)
            elif parent[key] is not None:
                del parent[key]


@dataclass(frozen=True, slots=True)
class Mask:
    """A value keeps its last few characters; the others become stars."""

    field: Path
    keep_last: int

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Mask the values. What is no text or number is dropped: it must not stay readable."""
        for parent, key in reversed(list(containers(draft.sections, self.field))):
            text = _text(parent[key])
            if text is not None:
                kept = text[-self.keep_last :] if 0 < self.keep_last < len(text) else ""
                parent[key] = "*" * min(len(text) - len(kept), _MAX_TEXT) + kept
            elif parent[key] is not None:
                del parent[key]


@dataclass(frozen=True, slots=True)
class DeriveUserAgent:
    """context.userAgent → context.browser, context.os and context.device, as far as they are not there."""

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Add what the user agent says."""
        context = draft.sections["context"]
        agent = context.get("userAgent")
        if not isinstance(agent, str) or not agent:
            return
        for name, found in _agent(agent[:_MAX_USER_AGENT]):
            there = context.setdefault(name, {})
            if isinstance(there, dict):
                for key, value in found:
                    there.setdefault(key, value)


@lru_cache(maxsize=_REMEMBERED)
def _agent(text: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    try:
        from ua_parser import parse
    except ImportError:
        raise Failed("user agents need a package: pip install 'headwater[cleaning]'") from None
    parsed = parse(text)
    found: list[tuple[str, tuple[tuple[str, str], ...]]] = []
    for name, part in (("browser", parsed.user_agent), ("os", parsed.os)):
        if part is not None and part.family:
            version = ".".join(each for each in (part.major, part.minor, part.patch) if each)
            pairs = [("name", part.family)] + ([("version", version)] if version else [])
            found.append((name, tuple(pairs)))
    device = parsed.device
    if device is not None and device.family not in (None, "Other"):
        named = (("manufacturer", device.brand), ("model", device.model))
        found.append(("device", tuple((key, value) for key, value in named if value)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class DeriveCampaign:
    """utm_source and so on of the page's address → context.campaign, as far as it is not there."""

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Add the parameters of the campaign."""
        query = _address(draft, "url").query or str(_of_page(draft, "search") or "").removeprefix("?")
        if "utm_" not in query[:_MAX_TEXT]:
            return
        given = dict(parse_qsl(query[:_MAX_TEXT], max_num_fields=200, separator="&") if query.count("&") < 200 else ())
        campaign = draft.sections["context"].setdefault("campaign", {})
        if not isinstance(campaign, dict):
            return
        for name in _CAMPAIGN:
            value = given.get(f"utm_{name}")
            if value:
                campaign.setdefault("name" if name == "campaign" else name, value)


@dataclass(frozen=True, slots=True)
class DeriveReferrer:
    """The page's referrer → context.referrer: its domain and kind (internal, search, social, mail, other; direct)."""

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Add where the visitor came from."""
        own, came_from = _address(draft, "url").hostname, _address(draft, "referrer").hostname
        context = draft.sections["context"]
        if own is None and came_from is None:
            return
        there = context.setdefault("referrer", {})
        if not isinstance(there, dict):
            return
        if came_from is None:
            there.setdefault("type", "direct")
            return
        domain = came_from.removeprefix("www.")
        kind, name = _kind_of(domain)
        if own is not None and own.removeprefix("www.") == domain:
            kind, name = "internal", ""
        there.setdefault("domain", domain)
        there.setdefault("type", kind)
        if name:
            there.setdefault("name", name)


def _kind_of(domain: str) -> tuple[str, str]:
    parts = domain.split(".")
    if parts[0] in _MAIL:
        return "mail", ""
    for name in _SEARCH:
        if name in parts[:-1]:
            return "search", name
    for word, name in _SOCIAL.items():
        if domain == word or domain.endswith(f".{word}") or word in parts[:-1]:
            return "social", name
    return "other", ""


def _of_page(draft: Draft, name: str) -> Any:
    page = draft.sections["context"].get("page")
    value = page.get(name) if isinstance(page, dict) else None
    return value if value else draft.sections["properties"].get(name)


def _address(draft: Draft, name: str) -> Any:
    value = _of_page(draft, name)
    try:
        address = urlsplit(value[:_MAX_TEXT] if isinstance(value, str) else "")
        _ = address.hostname
    except ValueError:
        return urlsplit("")
    return address


@dataclass(frozen=True, slots=True)
class Join:
    """The row of a reference, by a field; context.references says where it is from. No row: the event says so."""

    reference: Reference
    by: Path
    to: Path

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Put the row into the event."""
        for parent, key in list(containers(draft.sections, self.by)):
            text = _text(parent[key])
            if text is None:
                continue
            row = tools.row(self.reference, text)
            if row is None or not put(draft.sections, self.to, row):
                draft.flags.append(f"no_reference:{self.reference.name}")
                continue
            from_where = draft.sections["context"].setdefault("references", {})
            if isinstance(from_where, dict):
                said = {"reference": self.reference.name, "provenance": self.reference.provenance}
                from_where[".".join(self.to)] = {name: value for name, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class Call:
    """A Python function, by the name of its entry point."""

    function: str
    timeout_ms: int

    def apply(self, draft: Draft, tools: Tools) -> None:
        """Let the function change the event: it is given one and returns one."""
        given = {"event": draft.event, **draft.sections}
        answer = tools.call(self.function, given, self.timeout_ms)
        if answer is None:
            return
        if not isinstance(answer, dict) or not isinstance(answer.get("event"), str) or not answer["event"].strip():
            raise Failed(f"{self.function} returned no event")
        for section in draft.sections:
            if not isinstance(answer.get(section, {}), dict):
                raise Failed(f"{self.function} returned {section} that are no object")
        draft.event = answer["event"][:512]
        for section, own in draft.sections.items():
            made = answer.get(section, {})
            own.clear()
            own.update(made)
