"""The identity rules: which namespaces there are, which is stronger, what a profile may hold, what is junk.

    namespace     priority  unique  limit  normaliser
    user_id             10  yes     1      none
    email               20  -       -      email
    phone               30  -       -      phone
    device_id           40  -       -      none
    anonymous_id        50  -       -      none
    any other        after these, by name  -      none

A smaller priority is stronger. The rules are frozen: a change of them is a new value, in force from a marker on.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import re2

from pipeline.identifiers import ACCOUNT, Identifier, identifier, split_identifier
from pipeline.identity import normalise
from pipeline.identity.normalise import Junk, NormaliserName

OnConflict = Literal["first", "latest"]
Ranked = tuple[int, int, Identifier]

MAX_NAMESPACE_LENGTH = 64
MAX_DECLARED_PRIORITY = 1_000_000
# More distinct people than this at one e-mail address, phone or device, and it is nobody's: a kiosk, a test address.
QUARANTINE_AFTER = 10

_CACHED_VALUES = 100_000
_NAMESPACE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@dataclass(frozen=True, slots=True)
class Namespace:
    """The rules of one namespace.

    `unique`: a profile holds at most one value. `limit`: at most so many (None: any number). `blocked`: regular
    expressions (RE2), searched in the normalised value, without regard to case. `quarantine_after`: a value that
    touches more people than this is followed no more (None: as the rules say). `person`: whether a value of this
    namespace is a person to those that touch it (None: where one is all that a profile may hold).
    """

    name: str
    priority: int
    unique: bool = False
    limit: int | None = None
    normaliser: NormaliserName = "none"
    blocked: tuple[str, ...] = ()
    on_conflict: OnConflict = "first"
    strip_plus_tag: bool = False
    quarantine_after: int | None = None
    person: bool | None = None

    @property
    def is_person(self) -> bool:
        """Whether whatever touches many values of this namespace is nobody's."""
        return self.capacity == 1 if self.person is None else self.person

    @property
    def capacity(self) -> int | None:
        """How many values one profile may hold; None: any number."""
        return 1 if self.unique else self.limit


BUILT_IN: tuple[Namespace, ...] = (
    Namespace("user_id", 10, unique=True),
    Namespace("email", 20, normaliser="email"),
    Namespace("phone", 30, normaliser="phone"),
    Namespace("device_id", 40),
    Namespace("anonymous_id", 50),
)

# What clients put into a field when they have nothing: whole values only, because a part of one may be anything.
_FILLERS = (r"^(nil|n/a|test|default|true|false|[-_.?*]+)$",)

# What versions in the topic `definitions` say by the name "strict": it never changes. Other rules need another name.
STRICT: tuple[Namespace, ...] = (
    Namespace("user_id", 10, unique=True, blocked=_FILLERS),
    Namespace(
        "email",
        20,
        normaliser="email",
        blocked=(
            r"^(tests?|testing|null|undefined|none|nan|unknown|anonymous)@",
            r"^(no|do-?not)[-_.]?reply@",
            r"[@.](test|invalid|localhost)$",  # kept free of owners by RFC 2606
        ),
    ),
    Namespace("phone", 30, normaliser="phone"),
    # The id that a whole series of telephones had, and what Android tells instead of a hardware address.
    Namespace("device_id", 40, quarantine_after=1, blocked=(*_FILLERS, "^9774d56d682e549c$", "^02:00:00:00:00:00$")),
    Namespace("anonymous_id", 50, quarantine_after=1, blocked=_FILLERS),
)
"""For whom a wrong merge is worse than a lost visit: a device or browser on which two people logged in is nobody's."""


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """The identity rules of one generation.

    `namespaces` holds the declared ones; any other name is a namespace too, weaker than these, without limits.
    `quarantine_after`: an identifier that touches more people than this (distinct values of a namespace that
    `is_person`) is followed no more. `expire_after_ms`: how long a profile of pseudonyms only lives without an event
    (None: as the stage has it); it changes nothing of who is who. `default_region`: the country (ISO 3166, two letters)
    of phone numbers in national form; None refuses them.

    Raises ValueError when a name, number, normaliser or pattern cannot be used.
    """

    namespaces: Mapping[str, Namespace]
    quarantine_after: int = QUARANTINE_AFTER
    default_region: str | None = None
    expire_after_ms: int | None = field(default=None, compare=False)
    _clean_text: Callable[[str, str], str | Junk] = field(init=False, repr=False, compare=False)
    _undeclared: dict[str, Namespace] = field(init=False, repr=False, compare=False, default_factory=dict)
    _order: Callable[[str], tuple[int, int]] = field(init=False, repr=False, compare=False)
    _ranked: Callable[[str, str], Ranked | Junk] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = {name: _check(name, namespace) for name, namespace in self.namespaces.items()}
        if self.quarantine_after < 1:
            raise ValueError(f"quarantine_after is {self.quarantine_after}; it must be 1 or more")

        # People come back: the same few raw values make most of the traffic, and a phone number costs 10 µs to parse.
        @lru_cache(maxsize=_CACHED_VALUES)
        def clean_text(name: str, raw: str) -> str | Junk:
            return _clean(self.namespace(name), patterns.get(name), self.default_region, raw)

        @lru_cache(maxsize=_CACHED_VALUES)
        def order(text: str) -> tuple[int, int]:
            return self.priority(text), _hash64(text)

        @lru_cache(maxsize=_CACHED_VALUES)
        def ranked(name: str, raw: str) -> Ranked | Junk:
            if name == ACCOUNT:
                return normalise.RESERVED_NAMESPACE
            value = clean_text(name, raw)
            if isinstance(value, Junk):
                return value
            text = identifier(name, value)
            return *order(text), text

        object.__setattr__(self, "_clean_text", clean_text)
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "_ranked", ranked)

    def namespace(self, name: str) -> Namespace:
        """The rules of a namespace, declared or not."""
        found = self.namespaces.get(name) or self._undeclared.get(name)
        if found is None:
            found = Namespace(name, undeclared_priority(name))
            # Names come from events: an attacker may invent any number of them.
            if len(self._undeclared) < 10_000:
                self._undeclared[name] = found
        return found

    def clean(self, namespace: str, raw_value: Any) -> str | Junk:
        """The normalised value of a raw identifier, or the reason why it is none."""
        if type(raw_value) is str:
            return self._clean_text(namespace, raw_value)
        text = normalise.as_text(raw_value)
        return text if isinstance(text, Junk) else self._clean_text(namespace, text)

    def spelled(self, namespace: str, raw_value: Any) -> str | Junk:
        """The same, of a value that a blocked pattern may have come for later: it was one, and may have a profile."""
        value = self.clean(namespace, raw_value)
        text = normalise.as_text(raw_value)
        if value != normalise.BLOCKED_PATTERN or isinstance(text, Junk):
            return value
        return _clean(self.namespace(namespace), (), self.default_region, text)

    def ranked(self, namespace: str, raw_value: Any) -> Ranked | Junk:
        """The identifier of a person, of a raw value, with its order before it: a sorted list of these stands strongest
        first."""
        if type(raw_value) is str:
            return self._ranked(namespace, raw_value)
        text = normalise.as_text(raw_value)
        return text if isinstance(text, Junk) else self._ranked(namespace, text)

    def priority(self, identifier_text: str) -> int:
        """The priority of an identifier "namespace:value"; smaller is stronger; below 2**58."""
        return self.namespace(split_identifier(identifier_text)[0]).priority

    def order(self, identifier_text: str) -> tuple[int, int]:
        """The key by which identifiers are ordered, strongest first: (priority, 64-bit hash of the text)."""
        return self._order(identifier_text)


def builtin_rules(default_region: str | None = None) -> IdentityRules:
    """The rules in force where nobody has written any: those of generation 0."""
    return IdentityRules({namespace.name: namespace for namespace in BUILT_IN}, default_region=default_region)


def is_namespace(name: str) -> bool:
    """Whether a text can name a namespace."""
    return 0 < len(name) <= MAX_NAMESPACE_LENGTH and _NAMESPACE_CHARACTERS.issuperset(name)


def compile_pattern(pattern: str) -> Any:
    """A blocked pattern, compiled by RE2, whose time is linear in the input. Raises ValueError saying what is wrong."""
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"the blocked pattern {pattern!r} is not a regular expression RE2 takes: {why}") from error


def _check(name: str, namespace: Namespace) -> tuple[Any, ...]:
    if name == ACCOUNT:
        raise ValueError(f"namespace {name}: {normalise.JUNK_REASONS['reserved_namespace']}")
    if name != namespace.name or not is_namespace(name):
        raise ValueError(f"namespace {name!r}: {normalise.JUNK_REASONS['bad_namespace']}")
    if namespace.normaliser not in normalise.FUNCTIONS:
        known = ", ".join(normalise.NORMALISERS)
        raise ValueError(f"namespace {name}: unknown normaliser {namespace.normaliser!r}; there are {known}")
    if not 1 <= namespace.priority <= MAX_DECLARED_PRIORITY and namespace.priority != undeclared_priority(name):
        raise ValueError(f"namespace {name}: priority {namespace.priority} is not within 1 to {MAX_DECLARED_PRIORITY}")
    if namespace.limit is not None and namespace.limit < 1:
        raise ValueError(f"namespace {name}: limit {namespace.limit} is less than 1")
    if namespace.unique and namespace.limit not in (None, 1):
        raise ValueError(f"namespace {name}: unique means a limit of 1, not {namespace.limit}")
    if namespace.quarantine_after is not None and namespace.quarantine_after < 1:
        raise ValueError(f"namespace {name}: quarantine_after is {namespace.quarantine_after}; it must be 1 or more")
    if namespace.on_conflict not in ("first", "latest"):
        raise ValueError(f"namespace {name}: on_conflict is {namespace.on_conflict!r}, not 'first' or 'latest'")
    return tuple(compile_pattern(pattern) for pattern in namespace.blocked)


def _clean(namespace: Namespace, patterns: tuple[Any, ...] | None, region: str | None, raw: str) -> str | Junk:
    if patterns is None and not is_namespace(namespace.name):
        return normalise.BAD_NAMESPACE
    text = normalise.trim(raw)
    if isinstance(text, Junk):
        return text
    if normalise.is_junk(text):
        return normalise.JUNK_VALUE
    value = normalise.FUNCTIONS[namespace.normaliser](text, region)
    if isinstance(value, Junk):
        return value
    if namespace.strip_plus_tag:
        value = normalise.without_plus_tag(value)
    # Both may grow or empty a value: lower case can take more bytes, and digits can leave only zeros.
    if len(value) * 4 > normalise.MAX_VALUE_BYTES and len(value.encode()) > normalise.MAX_VALUE_BYTES:
        return normalise.TOO_LONG
    if value != text and normalise.is_junk(value):
        return normalise.JUNK_VALUE
    if patterns and any(pattern.search(value) for pattern in patterns):
        return normalise.BLOCKED_PATTERN
    return value


def undeclared_priority(name: str) -> int:
    """The priority of a namespace for which none was declared: behind every declared one, by name; below 2**58."""
    # The first seven bytes as a number order names alphabetically and stay within 64 bits; the hash decides the rest.
    return 2**57 + int.from_bytes(name.encode("utf-8", "replace")[:7].ljust(7, b"\0"), "big")


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
