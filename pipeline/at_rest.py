"""Leaf states at rest: most leaves of a person are not touched by an event, and need be neither decoded nor encoded.

A state is *awake* (what `pipeline.segments.leaves` says it is) from when it is first asked for until its fragment is
encoded; then it is *at rest*, as the bytes that were written. Numbers and texts have no other form. A state at rest is
one object of a tenth of the size, it is copied into the next encoding as it is, and it is shared by copies.
"""

from typing import Any

import msgspec

States = dict[str, Any]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def rest(states: States) -> None:
    """Put all states to rest, in place: whoever encodes them does so first, so that equal states are equal bytes."""
    for name, state in states.items():
        if state.__class__ is list or state.__class__ is dict:
            states[name] = _encode(state)


def awake(states: States, name: str) -> Any:
    """A state, awake (None: there is none). It stays so in `states`, and may be changed in place there."""
    state = states.get(name)
    if state.__class__ is bytes:
        state = states[name] = _decode(state)
    return state


def awakened(state: Any) -> Any:
    """What a state at rest is awake; anything else is itself. A new object, if it was at rest."""
    return _decode(state) if state.__class__ is bytes else state
