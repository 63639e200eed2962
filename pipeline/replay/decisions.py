"""What was decided about identity in the old workspace and is still to be copied, in the order of its effect."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipeline.records import Release, Relink, Unlink, encode
from pipeline.workspaces import UnlinkCopied


class Pending(NamedTuple):
    """A decision that is still to be copied, and where in the old topic it stood (-1: nothing tells of it)."""

    due: int
    key: bytes
    made: Unlink | Relink | Release
    offset: int = -1


class PendingDecisions:
    """The old `identity-decisions`, learnt record by record.

    `copied` is what former copiers copied of unlinks and undoings; decisions before the position `known` were learnt by
    them, and of the releases among these all that were due up to `decided` are copied.
    """

    def __init__(self, copied: Mapping[bytes, UnlinkCopied], known: int, decided: int) -> None:
        self._copied = dict(copied)
        self._known, self._decided = known, decided
        self._due = {key: one.due for key, one in copied.items()}
        self._standing: set[bytes] = set()
        self._pending: list[Pending] = []

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def first(self) -> Pending:
        """What takes effect next. IndexError if nothing is left."""
        return self._pending[0]

    def learn(self, key: bytes, offset: int, made: Unlink | Relink | Release | None) -> None:
        """One record; None: nothing is left of what was decided, and what was not copied is as if it had never been."""
        if made is None:
            self._pending = [one for one in self._pending if one.key != key or isinstance(one.made, Relink)]
            self._standing.discard(key)
            return
        self._standing.add(key)
        # What was decided of the same thing keeps its order, whatever the clocks of who decided.
        due = self._due[key] = max(made.received, self._due.get(key, 0))
        if not self._is_copied(key, offset, made, due):
            self._pending.append(Pending(due, key, made, offset))

    def _is_copied(self, key: bytes, offset: int, made: Unlink | Relink | Release, due: int) -> bool:
        if isinstance(made, Release):
            return offset < self._known and due <= self._decided
        copied = self._copied.get(key)
        return copied is not None and copied.offset >= offset

    def all_learnt(self, keys: Iterable[bytes] | None = None) -> None:
        """The records of `keys` (None: of all) are learnt. Of each unlink that was copied, and of which nothing stands
        in the old topic any more, not even, perhaps, that it was undone, an undo is to be copied."""
        for key in self._copied if keys is None else keys:
            copied = self._copied.get(key)
            if copied is None or not copied.a or key in self._standing:
                continue
            if not any(one.key == key and isinstance(one.made, Relink) for one in self._pending):
                self._pending.append(Pending(copied.due, key, Relink(copied.a, copied.received, copied.b)))
        self._pending.sort(key=lambda one: one.due)

    def copy_first(self) -> tuple[bytes, bytes | None] | None:
        """The first is copied: what the next copier is to know of it, as the old decision's key and a value; None if
        nothing."""
        due, key, made, offset = self._pending.pop(0)
        if isinstance(made, Release):
            return None
        if isinstance(made, Unlink):
            self._copied[key] = UnlinkCopied(offset, due, made.a, made.b, made.received)
        elif offset >= 0:
            self._copied[key] = UnlinkCopied(offset, due)
        else:
            self._copied.pop(key, None)
            return key, None
        return key, encode(self._copied[key])
