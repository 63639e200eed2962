"""What the read model needs of a store, and the tables it keeps in it.

table        key                                                   value
profiles     profile_id                                            the document, as `profiles` has it
identities   hash of an identifier, or of a retired profile_id     the same in full, the pointer as `identities` has it
members      segment/profile_id                                    the profile's number (4 bytes), the membership
reasons      segment/profile_id                                    the change that made it a member
people       account, NUL, profile_id                              nothing: who belongs to which account
numbers      profile_id                                            its number (4 bytes), for bitmaps
recent       hash of the route, newest first, position             the event
accounts     the name of an account                                its profile_id
routes       hash of the route                                     what came by it: days, origins of traits, links
growth       segment, NUL, hour                                    how many entered it and left it in that hour
violations   day                                                   how often which contract was not kept to
alerts       profile_id of an account or `*`, NUL, newest first    the alert, without the people in it
erased       hash of an identifier; a profile_id                   up to when they are erased; nothing
meta         "positions", "followed_at", "next_number", "format"   how far which topic was read, and when

Hashes are keyed: a key stands on in files that know of it, when its row has long been deleted.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

TABLES = (
    "profiles",
    "identities",
    "members",
    "reasons",
    "people",
    "accounts",
    "numbers",
    "recent",
    "routes",
    "growth",
    "violations",
    "alerts",
    "erased",
    "meta",
)

Row = tuple[str, bytes, bytes | None]
"""(table, key, value); None deletes."""


class Tables(Protocol):
    """A store of tables, read from any thread while one thread writes."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...

    def write(self, rows: Iterable[Row]) -> None: ...

    def compact(self, ranges: Iterable[tuple[str, bytes]] | None) -> None: ...

    def close(self) -> None: ...
