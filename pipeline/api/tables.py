"""What the read model needs of a store, and the tables it keeps in it.

table        key                                                   value
profiles     profile_id                                            the document, as `profiles` has it
identities   identifier, or a retired profile_id                   the pointer, as `identities` has it
members      segment/profile_id                                    the profile's number (4 bytes), the membership
reasons      segment/profile_id                                    the change that made it a member
people       account, NUL, profile_id                              nothing: who belongs to which account
numbers      profile_id                                            its number (4 bytes), for bitmaps
recent       hash of the route, newest first, position             the event
meta         "positions", "next_number", "format"                  how far which topic was read
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

TABLES = ("profiles", "identities", "members", "reasons", "people", "numbers", "recent", "meta")

Row = tuple[str, bytes, bytes | None]
"""(table, key, value); None deletes."""


class Tables(Protocol):
    """A store of tables, read from any thread while one thread writes."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...

    def write(self, rows: Iterable[Row]) -> None: ...

    def close(self) -> None: ...
