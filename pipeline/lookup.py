"""Finding one profile in the compacted topics, by any identifier or by a profile_id that may have been retired."""

import re
from collections.abc import Callable, Mapping

import msgspec

from pipeline.errors import InputError, LookupFailed
from pipeline.identifiers import ACCOUNT, identifier
from pipeline.identity import IdentityRules, Junk
from pipeline.records import IdentityPointer, ProfileDocument

Value = Callable[[str, bytes], bytes | None]
"""Gives the present value of a key in a compacted topic: (topic, key) -> value."""

_MAX_SUCCESSORS = 1000
_PROFILE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_decode_pointer = msgspec.json.Decoder(IdentityPointer).decode
_decode_profile = msgspec.json.Decoder(ProfileDocument).decode


def normalised(text: str, rules: IdentityRules) -> str:
    """The identifier a person typed, as the pipeline writes it; also one that is blocked by now.

    Raises:
        InputError: it is not NAMESPACE:VALUE, or the value is one that never identifies anybody.
    """
    namespace, colon, value = text.strip().partition(":")
    if not colon or not namespace or not value:
        raise InputError(f"{text!r} is no identifier.", "", "write NAMESPACE:VALUE, for example email:ada@example.org")
    cleaned = rules.spelled(namespace, value)
    if isinstance(cleaned, Junk):
        raise InputError(f"{text!r} never identifies anybody: {cleaned.reason}.", "", "look for another identifier")
    return identifier(namespace, cleaned)


def person(text: str, rules: IdentityRules) -> str:
    """The same, of a person.

    Raises:
        InputError: also if it names an account.
    """
    if text.strip().partition(":")[0] == ACCOUNT:
        raise InputError(f"{text!r} is an account, not a person.", "", "name one of its people by their identifier")
    return normalised(text, rules)


def is_profile_id(text: str) -> bool:
    """Whether a text is a profile_id, as the pipeline writes it. No identifier is: it has a colon."""
    return _PROFILE_ID.fullmatch(text) is not None


def typed_profile_id(text: str) -> str | None:
    """The profile_id that a person typed, in capitals or with blanks around it too; None if it is none."""
    profile_id = text.strip().lower()
    return profile_id if is_profile_id(profile_id) else None


def identifier_or_profile(text: str, rules: IdentityRules) -> str:
    """Whom a look-up is about: an identifier, as the pipeline writes it, or a profile_id.

    Raises:
        InputError: it is neither.
    """
    profile_id = typed_profile_id(text)
    if profile_id is not None:
        return profile_id
    if ":" not in text:
        raise InputError(
            f"{text!r} is no identifier, and no profile_id.",
            "",
            "write NAMESPACE:VALUE, for example email:ada@example.org, or a whole profile_id: 8-4-4-4-12 of 0-9, a-f",
        )
    return normalised(text, rules)


def person_or_profile(text: str, rules: IdentityRules) -> str:
    """Whom a request is about: the same, of a person.

    Raises:
        InputError: also if it names an account.
    """
    return person(text, rules) if ":" in text else identifier_or_profile(text, rules)


def as_kept(text: str, wanted: str, known: Callable[[str], str | None], whole: bool = False) -> str:
    """What the rules make of a text; or the profile_id of whoever is known by exactly that text, and was taken in
    before a normaliser changed. `known` gives the profile_id behind an identifier. Whoever is known by what the rules
    make of it goes first. But not if `whole`: an erasure asks for the spelling of today by itself, and so reaches both.
    """
    typed = text.strip()
    profile_id = known(typed) if typed != wanted and not is_profile_id(wanted) else None
    if profile_id is None or (not whole and known(wanted) is not None):
        return wanted
    return profile_id


def as_named(wanted: str, same: Mapping[str, str], known: Callable[[str], object | None]) -> str:
    """The account that another of its names means (`same`), where nobody is `known` by that (None); whoever else as it
    is."""
    namespace, _, name = wanted.partition(":")
    if namespace != ACCOUNT or name not in same or known(wanted) is not None:
        return wanted
    return identifier(ACCOUNT, same[name])


def known_in(value: Value) -> Callable[[str], str | None]:
    """Gives the profile_id that an identifier leads to in the compacted topics; None if it is nobody's."""

    def known(text: str) -> str | None:
        pointer = value("identities", text.encode())
        return _decode_pointer(pointer).profile_id if pointer is not None else None

    return known


def find_profile(text: str, value: Value) -> ProfileDocument:
    """The living profile of a normalised identifier or a profile_id, successors followed.

    Raises:
        LookupFailed: nobody is known by it, or the profile has ended without a successor.
    """
    profile_id = text
    pointer = value("identities", text.encode())
    for _ in range(_MAX_SUCCESSORS):
        if pointer is not None:
            profile_id = _decode_pointer(pointer).profile_id
        document = value("profiles", profile_id.encode())
        if document is not None:
            return _decode_profile(document)
        pointer = value("identities", profile_id.encode())
        if pointer is None:
            raise LookupFailed(
                f"Nobody is known by {text}.", "", "check the spelling; a profile appears when its first event has come"
            )
    raise LookupFailed(f"The successors of {text} go in a circle.", profile_id, "report this: it must not happen")


def find_person(text: str, value: Value) -> ProfileDocument:
    """The same of a person.

    Raises:
        LookupFailed: also if it is the profile of an account.
    """
    document = find_profile(text, value)
    if document.entity != "person":
        raise LookupFailed(f"{text} is an account, not a person.", "", "name one of its people by their identifier")
    return document
