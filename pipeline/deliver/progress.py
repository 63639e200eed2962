"""What of a partition is done: the position to commit, and what is already done beyond it.

Profiles do not wait for each other, so much may be done after the first delivery that is not. The committed position
stands before that one; the note beside it tells what lies open up to a bound, so that a restart repeats little:

    done is every record before `bound`, apart from those at the offsets in `still`.
"""

from bisect import bisect_left
from typing import NamedTuple

from pipeline.deliver.health import split_note

_NOTE_LIMIT = 3_000  # bytes; the broker's offset.metadata.max.bytes is 4,096 by default
_FORM = "1"


class Note(NamedTuple):
    """What was known to be done beyond a committed position."""

    bound: int
    still: frozenset[int]

    def is_done(self, offset: int) -> bool:
        """Whether a record was done when the note was taken."""
        return offset < self.bound and offset not in self.still


NOTHING_KNOWN = Note(0, frozenset())


class Progress:
    """The progress of one partition, from the first record accepted on.

    `note` is what was known before; of what lies beyond the last record accepted, it still is.
    """

    def __init__(self, note: Note = NOTHING_KNOWN) -> None:
        self._known = sorted(note.still)
        self._bound = note.bound
        # Insertion is in the order of offsets, so the first key is the lowest that lies open.
        self._open: dict[int, None] = {}
        self._end: int | None = None

    def begin(self, offset: int) -> None:
        """Take on a record. Offsets rise."""
        assert self._end is None or offset >= self._end, "records of a partition come in order"
        self._open[offset] = None
        self._end = offset + 1

    def finish(self, offset: int) -> None:
        """A record is done."""
        del self._open[offset]

    @property
    def open(self) -> int:
        """How many records lie open."""
        return len(self._open)

    def position(self) -> tuple[int, str] | None:
        """The position to commit and the note beside it; None before the first record."""
        if self._end is None:
            return None
        end = self._end
        still = list(self._open)
        start = still[0] if still else end
        if self._bound > end:
            still += self._known[bisect_left(self._known, end) :]
            end = self._bound
        return start, _written(start, still, end) if end > start else ""


def _written(start: int, still: list[int], end: int) -> str:
    """The note as text: offsets as distances, in hexadecimal, as many as there is room for."""
    parts, length, last = [], 0, start
    for offset in still:
        part = f"{offset - last:x}"
        length += len(part) + 1
        if length > _NOTE_LIMIT:
            # Of what lies beyond nothing is said, and so it will be done again.
            end = offset
            break
        parts.append(part)
        last = offset
    return f"{_FORM};{end - start:x};{','.join(parts)}"


def read_note(position: int, text: str | None) -> Note:
    """The note beside a committed position; `NOTHING_KNOWN` if there is none, or one of another form. What is said
    behind it about the destination is passed over."""
    form, _, rest = split_note(text or "")[0].partition(";")
    if form != _FORM:
        return NOTHING_KNOWN
    length, _, distances = rest.partition(";")
    try:
        offset, still = position, []
        for distance in filter(None, distances.split(",")):
            offset += int(distance, 16)
            still.append(offset)
        return Note(position + int(length, 16), frozenset(still))
    except ValueError:
        return NOTHING_KNOWN
