"""What is still to be done of a batch, because it is long, or because the stage raised; and which record was to blame.

A step says itself at which record it raised: the batch is done again without it. Where a batch raises only at its end,
nobody knows which record it was: one half is done, then half of what is left, until one record is. So a flood of poison
costs a few transactions each, and neither a transaction a record nor the whole batch again for every one of them.
"""

from collections.abc import Callable

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
    """Records that were consumed and are still to be done; `suspects`: so many of the first hold what raised. Of those
    of the topic `patient`, `can_wait` (if the stage has it) says whether they are long work that nobody waits for."""

    def __init__(self, patient: str | None = None) -> None:
        self.suspects = 0
        self.can_wait: Callable[[Record], bool] | None = None
        self._patient = patient
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

    def is_long(self, records: list[Record]) -> bool:
        """Whether a batch has long work in it, and nothing older than what has come since is still to be done."""
        topic, can_wait = self._patient, self.can_wait
        if topic is None or can_wait is None or self._records or self.suspects:
            return False
        return any(record[0] == topic and can_wait(record) for record in records)

    def leave_long(self, records: list[Record]) -> None:
        """Shorten what has come since to what is not long: one batch has one turn of it. It holds up what stands behind
        it in its partition, and together they are the next batch."""
        topic, can_wait = self._patient, self.can_wait
        if topic is None or can_wait is None:
            return
        begin: dict[int, int] = {}
        for record in records:
            if record[0] == topic and record[1] not in begin and can_wait(record):
                begin[record[1]] = record[2]
        if not begin:
            return
        now: list[Record] = []
        for record in records:
            first = begin.get(record[1]) if record[0] == topic else None
            (now if first is None or record[2] < first else self._records).append(record)
        records[:] = now

    def done(self, count: int) -> None:
        """So many were committed."""
        self.suspects = max(0, self.suspects - count)

    def clear(self) -> list[Record]:
        """Give up what is left; what that was."""
        records, self._records, self.suspects = self._records, [], 0
        return records
