"""The stored form of a fragment, apart from its rules (fragment.py): msgspec reads the types of its fields."""

from typing import Any

from msgspec import Struct

Leaves = dict[str, Any]


class Fragment(Struct, array_like=True):
    """One fragment, or the join of several. Times are milliseconds; `first_seen` 0 means nothing was seen.

    `traits`: name → (event time, value), where None is a trait taken back. `consents`: purpose → (event time, granted).
    `ties`: account → (event time, joined or left). `totals`: event name → [count, first, last]. `recent`, oldest first,
    28 bytes an event: its time (8, in order also below 0), the hash of its message id (8), its partition (4) and offset
    (8) in `events`, which has the event itself. It is packed because it is written again with every event. `proofs`:
    purpose → where the newest word on it that came with a proof came from (proofs.py).
    """

    version: int = 1
    traits: dict[str, tuple[int, Any]] = {}
    consents: dict[str, tuple[int, bool]] = {}
    totals: dict[str, list[int]] = {}
    leaves: Leaves = {}
    recent: bytes = b""
    first_seen: int = 0
    last_seen: int = 0
    last_received: int = 0
    ties: dict[str, tuple[int, bool]] = {}
    proofs: dict[str, tuple[int, bool, str, str, str]] = {}
