"""Members as numbers: each profile has one, so that a segment's members are a bitmap."""

from collections.abc import Iterator

from pipeline.api.tables import Row, Tables

NUMBER_BYTES = 4
"""How many bytes of a row of `members`, its first, are the profile's number."""


class Numbers:
    """The numbers of profiles, for bitmaps, in one batch: what it has given is not in the tables yet."""

    def __init__(self, tables: Tables, next_number: int) -> None:
        self._tables = tables
        self._of_members: dict[bytes, bytes | None] = {}
        self._given: dict[bytes, bytes] = {}
        self.next = next_number
        self.flips: list[tuple[str, int, bool]] = []

    def member(self, key: bytes, value: bytes | None) -> Row:
        """The row of a membership, or of its end."""
        if key in self._of_members:
            number = self._of_members[key]
        else:
            row = self._tables.get("members", key)
            number = row[:NUMBER_BYTES] if row is not None else None
        if value is None:
            self._of_members[key] = None
            if number is not None:
                self.flips.append((segment_of(key), number_in(number), False))
            return "members", key, None
        if number is None:
            number = self._number_of(key.partition(b"/")[2])
            self.flips.append((segment_of(key), number_in(number), True))
        self._of_members[key] = number
        return "members", key, number + value

    def _number_of(self, profile_id: bytes) -> bytes:
        number = self._given.get(profile_id) or self._tables.get("numbers", profile_id)
        if number is None:
            number = self._given[profile_id] = self.next.to_bytes(NUMBER_BYTES, "big")
            self.next += 1
        return number

    def rows(self) -> Iterator[Row]:
        """What was given, and what comes next."""
        for profile_id, number in self._given.items():
            yield "numbers", profile_id, number
        yield "meta", b"next_number", self.next.to_bytes(NUMBER_BYTES, "big")


def segment_of(key: bytes) -> str:
    """The segment that the key of a membership names."""
    return key.partition(b"/")[0].decode()


def number_in(value: bytes) -> int:
    """The profile's number in a row of `members`."""
    return int.from_bytes(value[:NUMBER_BYTES], "big")
