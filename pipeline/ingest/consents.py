"""What an event says people allow, `context.consent`, in words that cannot be mistaken: a yes is true, a no is false.

    said to a purpose or channel                              becomes
    true, 1, and the texts true, granted, yes, 1              true
    false, 0, and the texts false, denied, no, 0              false
    null                                                      what it is: nothing is said
    anything else                                             false, and the event says so

Texts in any case, with spaces around them. A no in a word nobody thought of would else leave an older yes in force, and
so would one beside `categoryPreferences`: it is put among them.
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

_PREFERENCES = "categoryPreferences"
_UNREADABLE = "unreadable_consent:"


def read_consents(context: dict[str, Any]) -> list[str]:
    """Make true or false of each word of the consents in a context; the flags of what could not be read."""
    stated = context.get("consent")
    if stated is None:
        return []
    if type(stated) is not dict:
        return [f"{_UNREADABLE}consent"]
    beside = [name for name in stated if name not in _BESIDE and name != _PREFERENCES]
    if stated.get(_PREFERENCES) is not None:
        flags = _read_all(stated, _PREFERENCES) + _move_in(stated, beside)
    else:
        flags = _read(stated, beside)
        if any(stated[name] is not None for name in beside):
            # It says nothing, and whoever meets it would look no further.
            stated.pop(_PREFERENCES, None)
    if "channels" in stated:
        flags += _read_all(stated, "channels")
    return flags


def _read_all(stated: dict[str, Any], section: str) -> list[str]:
    preferences = stated[section]
    if preferences is None:
        return []
    return _read(preferences, list(preferences)) if type(preferences) is dict else [_UNREADABLE + section]


def _move_in(stated: dict[str, Any], names: list[str]) -> list[str]:
    """Words beside the preferences count like those among them; of two about the same purpose the no. What is no word
    stays where it is, for it may be no purpose."""
    flags = []
    preferences = stated[_PREFERENCES] if type(stated[_PREFERENCES]) is dict else {}
    for name in names:
        said = stated[name]
        allowed = _allowed(said)
        if allowed is not None:
            preferences[name] = allowed and preferences.get(name) is not False
            stated[_PREFERENCES] = preferences
            del stated[name]
        elif said is not None:
            flags.append(_UNREADABLE + name[:64])
    return flags


def _read(preferences: dict[str, Any], names: list[str]) -> list[str]:
    flags = []
    for name in names:
        said = preferences[name]
        if said is None:
            continue
        allowed = _allowed(said)
        if allowed is None:
            flags.append(_UNREADABLE + name[:64])
        preferences[name] = bool(allowed)
    return flags


def _allowed(said: Any) -> bool | None:
    word = said.strip().lower() if type(said) is str else said
    return _WORDS.get(word) if type(word) in (bool, str, int, float) else None
