"""What an event says people allow, `context.consent`, in words that cannot be mistaken: a yes is true, a no is false.

    said to a purpose or channel                              becomes
    true, 1, and the texts true, granted, yes, 1              true
    false, 0, and the texts false, denied, no, 0              false
    null                                                      what it is: nothing is said
    anything else                                             false, and the event says so

Texts in any case, with spaces around them. A no in a word nobody thought of would else leave an older yes in force.
"""

from typing import Any

_WORDS: dict[str | int | float, bool] = {
    **dict.fromkeys(("true", "granted", "yes", "1"), True),
    **dict.fromkeys(("false", "denied", "no", "0"), False),
    1: True,
    0: False,
}
_BESIDE = frozenset({"source", "version", "proof", "channels"})
"""What stands beside the purposes where these have no section of their own."""

_UNREADABLE = "unreadable_consent:"


def read_consents(context: dict[str, Any]) -> list[str]:
    """Make true or false of each word of the consents in a context; the flags of what could not be read."""
    stated = context.get("consent")
    if stated is None:
        return []
    if type(stated) is not dict:
        return [f"{_UNREADABLE}consent"]
    flags = []
    if "categoryPreferences" in stated:
        flags += _read_all(stated, "categoryPreferences")
    else:
        flags += _read(stated, [name for name in stated if name not in _BESIDE])
    if "channels" in stated:
        flags += _read_all(stated, "channels")
    return flags


def _read_all(stated: dict[str, Any], section: str) -> list[str]:
    preferences = stated[section]
    if preferences is None:
        return []
    return _read(preferences, list(preferences)) if type(preferences) is dict else [_UNREADABLE + section]


def _read(preferences: dict[str, Any], names: list[str]) -> list[str]:
    flags = []
    for name in names:
        said = preferences[name]
        if said is None or type(said) is bool:
            continue
        word = said.strip().lower() if type(said) is str else said
        allowed = _WORDS.get(word) if type(word) in (str, int, float) else None
        if allowed is None:
            flags.append(_UNREADABLE + name[:64])
        preferences[name] = bool(allowed)
    return flags
