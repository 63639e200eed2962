"""One partition in memory: records, control records, open transactions, holes."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.runtime.adapters import Committed, Partition


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction. `offsets` are positions pending for a group until it ends."""

    transactional_id: str
    state: Literal["open", "committed", "aborted"] = "open"
    partitions: set[Partition] = field(default_factory=set)
    offsets: dict[str, dict[Partition, Committed]] = field(default_factory=dict)


class Entry(NamedTuple):
    """A record in the log; `control` marks the end of `transaction` and holds no data."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    transaction: Transaction | None = None
    control: bool = False


@dataclass(slots=True)
class Log:
    """Entries by rising offset, with holes where compaction went; `start` is the low watermark, `end` the high one."""

    entries: list[Entry] = field(default_factory=list)
    start: int = 0
    end: int = 0
    open: dict[Transaction, int] = field(default_factory=dict)

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        transaction: Transaction | None = None,
        control: bool = False,
    ) -> int:
        """Append an entry and give its offset."""
        offset = self.end
        self.entries.append(Entry(offset, key, value, timestamp_ms, transaction, control))
        self.end = offset + 1
        if transaction is not None:
            if control:
                self.open.pop(transaction, None)
            else:
                self.open.setdefault(transaction, offset)
        return offset

    def pass_on(self, of: Transaction, to: Transaction) -> None:
        """Let what is here of one transaction be of another."""
        self.entries = [e._replace(transaction=to) if e.transaction is of else e for e in self.entries]
        if of in self.open:
            self.open[to] = self.open.pop(of)

    @property
    def stable_end(self) -> int:
        """The last stable offset: where the first open transaction begins."""
        return min(self.open.values(), default=self.end)

    def read(self, position: int, limit: int, committed: bool = True) -> tuple[list[Entry], int]:
        """Up to `limit` data records from `position`, and the position after them, past control and aborted ones."""
        until = self.stable_end if committed else self.end
        found: list[Entry] = []
        index = bisect_left(self.entries, position, key=lambda entry: entry.offset)
        while index < len(self.entries):
            entry = self.entries[index]
            if entry.offset >= until:
                break
            if not entry.control and not (committed and entry.transaction and entry.transaction.state != "committed"):
                if len(found) == limit:
                    return found, found[-1].offset + 1
                found.append(entry)
            index += 1
        return found, max(position, until)

    def delete_below(self, position: int) -> None:
        """Delete records below a position, as DeleteRecords does."""
        self.start = max(self.start, min(position, self.end))
        del self.entries[: bisect_left(self.entries, self.start, key=lambda entry: entry.offset)]

    def compact(self, drop_tombstones: bool) -> None:
        """Keep the last committed record of each key below the stable end, as the log cleaner would in the end."""
        until = self.stable_end
        last: dict[bytes | None, int] = {}
        for entry in self.entries:
            if entry.offset < until and _is_committed(entry):
                last[entry.key] = entry.offset
        self.entries = [
            entry
            for entry in self.entries
            if entry.offset >= until
            or (
                _is_committed(entry)
                and last[entry.key] == entry.offset
                and not (drop_tombstones and entry.value is None)
            )
        ]


def _is_committed(entry: Entry) -> bool:
    return not entry.control and (entry.transaction is None or entry.transaction.state == "committed")
