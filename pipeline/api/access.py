"""Who may ask for what: tokens with scopes, hidden fields and a rate each.

The file of tokens holds their SHA-256 only; the token itself is shown once, when it is made.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.contracts import NO_CONTRACTS, ContractsPlan
from pipeline.errors import InputError, SettingsError
from pipeline.private_files import UnreadableError, is_there, read_yaml, write_private_yaml

Scope = Literal[
    "profiles:read",
    "events:read",
    "segments:read",
    "streams:read",
    "definitions:read",
    "definitions:write",
    "identity:write",
    "privacy:write",
    "operations:read",
    "operations:write",
]
SCOPES: tuple[str, ...] = get_args(Scope)
_PREFIX = "hw_"
_GROUP = "Group"
_log = logging.getLogger(__name__)
_MAX_TOKENS = 10_000
_UNREAD = (0, -1)
_CALLED = "file of tokens"


class Token(BaseModel):
    """One token: whose it is, what it may do, and what it never sees.

    `hide` names fields: `traits.email`, `identifiers.phone`, `properties.total`, or a whole section: `consents`;
    `hide_labels` names labels of contracts: every field that carries one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    hide: tuple[str, ...] = ()
    hide_labels: tuple[str, ...] = ()
    per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 1_000


class TokensFile(BaseModel):
    """The file of tokens."""

    model_config = ConfigDict(extra="forbid")

    tokens: Annotated[list[Token], Field(max_length=_MAX_TOKENS)] = []


class Caller:
    """A token at work: what it is allowed, and how much of its rate is left. `is_in_force` becomes false when it is
    revoked or changed: what is still going on under it ends."""

    __slots__ = ("_at", "_left", "_token", "hide", "is_in_force", "name", "per_second", "scopes")

    def __init__(self, token: Token) -> None:
        self.name = token.name
        self.scopes = frozenset(token.scopes)
        self._token = token
        self.hide = Hidden(token.hide)
        self.per_second = token.per_second
        self.is_in_force = True
        self._left = max(1.0, token.per_second)
        self._at = time.monotonic()

    def is_of(self, token: Token) -> bool:
        """Whether this is that very token, unchanged."""
        return self._token == token

    def look_at_labels(self, labelled: Mapping[str, Iterable[str]]) -> None:
        """Hide what carries a label that is hidden. `labelled`: label → the fields that carry it."""
        fields = [field for label in self._token.hide_labels for field in labelled.get(label, ())]
        self.hide = Hidden((*self._token.hide, *fields))

    def takes_one(self) -> float:
        """Take one request from the rate; 0 if there was one, else the seconds until there is."""
        now = time.monotonic()
        self._left = min(max(1.0, self.per_second), self._left + (now - self._at) * self.per_second)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self.per_second
        self._left -= 1
        return 0.0


class Hidden:
    """The fields a caller never sees: whole sections, and keys of sections."""

    __slots__ = ("keys", "sections")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.sections: set[str] = set()
        self.keys: dict[str, set[str]] = {}
        for path in paths:
            section, dot, key = path.partition(".")
            if dot:
                self.keys.setdefault(section, set()).add(key)
            else:
                self.sections.add(section)

    def __bool__(self) -> bool:
        return bool(self.sections or self.keys)

    def strip(self, found: dict[str, Any]) -> dict[str, Any]:
        """A document, change or event without what is hidden."""
        shown = {section: value for section, value in found.items() if section not in self.sections}
        for section, keys in self.keys.items():
            value = shown.get(section)
            if isinstance(value, dict):
                shown[section] = {key: one for key, one in value.items() if key not in keys}
            elif section == "identifiers" and isinstance(value, list):
                shown[section] = [one for one in value if namespace_of(one) not in keys]
            elif isinstance(value, list):
                shown[section] = [one for one in value if one not in keys]
        if isinstance(shown.get("unfollowed"), list):
            shown["unfollowed"] = [
                one for one in shown["unfollowed"] if self.sees_identifier(one["identifier"], one["other"])
            ]
        for section in ("set", "unset"):
            if isinstance(shown.get(section), dict):
                shown[section] = self.strip(shown[section])
        return shown

    def sees_identifier(self, *identifiers: Any) -> bool:
        """Whether identifiers, in either of their forms, are all of namespaces that are not hidden."""
        hidden = self.keys.get("identifiers", ())
        return "identifiers" not in self.sections and all(namespace_of(one) not in hidden for one in identifiers)

    def sees_segment(self, name: str) -> bool:
        """Whether it may be known who is in a segment."""
        return "segments" not in self.sections and name not in self.keys.get("segments", ())

    def sees_trait(self, name: str) -> bool:
        """Whether a trait is not hidden."""
        return "traits" not in self.sections and name not in self.keys.get("traits", ())


def namespace_of(one: Any) -> str:
    """The namespace of an identifier in either of its forms."""
    return str(one["namespace"]) if isinstance(one, dict) else str(one).partition(":")[0]


class Access:
    """The tokens in force."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._contracts = NO_CONTRACTS
        self._computed: Mapping[str, Iterable[str]] = {}
        self._callers: dict[str, Caller] = {}
        self.replace(tokens)

    def replace(self, tokens: Iterable[Token]) -> None:
        """Put other tokens into force. One that has not changed goes on with what is left of its rate."""
        before, self._callers = self._callers, {}
        for token in tokens:
            known = before.get(token.sha256)
            self._callers[token.sha256] = known if known is not None and known.is_of(token) else Caller(token)
        for digest, caller in before.items():
            caller.is_in_force = self._callers.get(digest) is caller
        self.look_at_contracts(self._contracts, self._computed)

    def look_at_contracts(self, contracts: ContractsPlan, computed: Mapping[str, Iterable[str]] | None = None) -> None:
        """Hide what the labels of these contracts say, from now on; `computed`: computed trait → the labels of what its
        rule looks at."""
        self._contracts, self._computed = contracts, computed or {}
        labelled = labelled_fields(contracts)
        for name, labels in self._computed.items():
            for label in labels:
                labelled.setdefault(label, set()).add(f"computed.{name}")
        for caller in self._callers.values():
            caller.look_at_labels(labelled)

    def caller(self, token: str) -> Caller | None:
        """Who a token belongs to. Looked up by its hash, so the time it takes tells nothing of the token."""
        return self._callers.get(hashed(token))


def labelled_fields(contracts: ContractsPlan) -> dict[str, set[str]]:
    """label → the fields that carry it in any contract: `traits.phone`, `properties.total`.

    A field inside of another hides the whole of it. What is a personal trait is the identifier of that name too. A
    label of a whole event hides its properties. The properties of a group event are the traits of accounts.
    """
    found: dict[str, set[str]] = {}
    for contract in contracts.contracts:
        for event in contract.events.values():
            shown_as = ("properties", "traits") if event.event == _GROUP else ("properties",)
            for label in event.labels:
                found.setdefault(label, set()).update(
                    f"{section}.{name}" for section in shown_as for name in event.planned.get("properties", ())
                )
            for field in event.fields:
                sections = shown_as if field.section == "properties" else (field.section,)
                names = {f"{section}.{field.path[0]}" if field.path else section for section in sections}
                if field.section == "traits" and field.path:
                    names |= {f"identifiers.{field.path[0]}", f"computed.{field.path[0]}"}
                for label in field.labels:
                    found.setdefault(label, set()).update(names)
    return found


class TokensFollowed:
    """The tokens of a file, as it is now. A file that has become unreadable changes nothing."""

    def __init__(self, path: Path) -> None:
        """Read it for the first time. Raises SettingsError."""
        self._path = path
        self._seen = self._stamp()
        self._trouble = ""
        self.access = Access(read_tokens(path))

    def look(self) -> None:
        """Read it again if it has changed."""
        if self._stamp() == self._seen:
            return
        self._seen = self._stamp()
        try:
            self.access.replace(read_tokens(self._path))
            self._trouble = ""
        except SettingsError as error:
            if isinstance(error, UnreadableError):
                self._seen = _UNREAD  # it may become readable without a change: by its rights, or with fewer open files
            if str(error) != self._trouble:
                _log.error("the tokens stay as they were: %s", error)
            self._trouble = str(error)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def hashed(token: str) -> str:
    """The stored form of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> list[Token]:
    """The tokens in a file. Raises SettingsError."""
    if not is_there(path, _CALLED):
        raise SettingsError(
            "There are no tokens, so nobody could ask the API anything.",
            str(path),
            "make one with `headwater tokens create NAME --scope profiles:read`",
        )
    try:
        return TokensFile.model_validate(read_yaml(path, _CALLED) or {}).tokens
    except ValidationError as error:
        first = f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
        raise SettingsError(f"The file of tokens cannot be used: {first}.", str(path), "correct it") from None


def create_token(
    path: Path,
    name: str,
    scopes: Iterable[str],
    hide: Iterable[str] = (),
    per_second: float = 1_000,
    hide_labels: Iterable[str] = (),
) -> str:
    """Make a token and add it to the file; the token, which is kept nowhere. Raises InputError, SettingsError."""
    tokens = read_tokens(path) if is_there(path, _CALLED) else []
    if any(token.name == name for token in tokens):
        raise InputError(f"There is a token {name} already.", str(path), "choose another name, or revoke it first")
    token = _PREFIX + secrets.token_urlsafe(32)
    fields = {"scopes": list(scopes), "hide": list(hide), "hide_labels": list(hide_labels), "per_second": per_second}
    try:
        made = Token.model_validate({"name": name, "sha256": hashed(token), **fields})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"The token cannot be made: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            "",
            f"scopes are {', '.join(SCOPES)}",
        ) from None
    _write(path, [*tokens, made])
    return token


def revoke_token(path: Path, name: str) -> None:
    """Take a token out of the file. Raises InputError."""
    tokens = read_tokens(path)
    kept = [token for token in tokens if token.name != name]
    if len(kept) == len(tokens):
        there = ", ".join(token.name for token in tokens) or "none"
        raise InputError(f"There is no token {name}.", str(path), f"there are: {there}")
    _write(path, kept)


def _write(path: Path, tokens: list[Token]) -> None:
    write_private_yaml(path, {"tokens": [token.model_dump(mode="json") for token in tokens]})
