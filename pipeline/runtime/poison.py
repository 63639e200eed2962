"""Which record of a batch made the stage raise, and what is still to be done of that batch.

A step says itself at which record it raised: the batch is done again without it. Where a batch raises only at its end,
nobody knows which record it was: one half is done, then half of what is left, until one record is. So a flood of poison
costs a few transactions each, and neither a transaction a record nor the whole batch again for every one of them.
"""

from pipeline.errors import BrokerError
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.ports import Record

# Records that are stepped again for a second poisoned one and more, before the batch ends there: about what a
# transaction costs.
STEPPED_AGAIN = 256


class StageRaised(Exception):
    """A stage raised; `index` is the batch's record it was at, or None where no single record can be blamed."""

    def __init__(self, cause: Exception, index: int | None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.index = index


def blame(error: Exception, index: int | None) -> Exception:
    """What a step that raised is told as. A broker that does not answer is nobody's poison: the worker stops, and reads
    the record again."""
    if isinstance(error, BrokerError):
        return WorkerStopped(f"a stage could not ask the broker: {error}")
    return StageRaised(error, index)


class Rest:
    """Records that were consumed and are still to be done; `suspects`: so many of the first hold what raised."""

    def __init__(self) -> None:
        self.suspects = 0
        self._records: list[Record] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def take(self) -> list[Record]:
        """What is next: half of the suspects, or everything."""
        records = self._records
        count = max(1, self.suspects // 2) if self.suspects else len(records)
        self._records = records[count:]
        return records[:count]

    def doubt(self, records: list[Record]) -> None:
        """One of these, taken or consumed just now, made the batch raise, and nobody knows which."""
        self.suspects = len(records)
        self._records = records + self._records

    def cut(self, records: list[Record], count: int) -> None:
        """Shorten a batch to `count` records; the others are for later."""
        self._records = records[count:] + self._records
        del records[count:]

    def done(self, count: int) -> None:
        """So many were committed."""
        self.suspects = max(0, self.suspects - count)

    def clear(self) -> list[Record]:
        """Give up what is left; what that was."""
        records, self._records, self.suspects = self._records, [], 0
        return records
