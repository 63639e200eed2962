"""What was consumed and is still to be done: because the stage raised, or because it is long work that is to rest.

Long work that nobody waits for (a tick of mass deadlines) has one turn in a batch, and what comes meanwhile goes with
it. On a machine with too little for everybody even that makes live events wait: then long work rests for a while, and
live events have the worker for themselves.
"""

from collections.abc import Callable

from pipeline.runtime.ports import Record

# A turn is late that takes so many times as long as turns usually do, where each counts for so much in what is usual.
# How long long work rests then: so many times as long as that turn was late, of its time this share at most, and no
# more at once than so many seconds.
_LATE = 1.2
_USUAL = 0.02
_REST_FOR_LATE = 2.0
_SHARE = 0.25
_MOST_SPARE_S = 1.0


class Rest:
    """Records that were consumed and are still to be done; `suspects`: so many of the first hold what raised.

    Of those of the topic `patient`, `can_wait` (if the stage has it) says whether they are long work that nobody waits
    for: a batch has one turn of it. A turn that takes longer than `long_turn_s`, and than turns have taken of late,
    shows that the machine or the broker has too much to do. Then long work is left alone for `_REST_FOR_LATE` times as
    long as the turn was late, but for no more than `_SHARE` of the time that turns take: it is to be over on a slow
    machine too. With 0 it never is left alone.
    """

    def __init__(self, patient: str | None = None, long_turn_s: float = 0.0) -> None:
        self.suspects = 0
        self.can_wait: Callable[[Record], bool] | None = None
        self._patient = patient
        self._long_turn_s = long_turn_s
        self._records: list[Record] = []
        self._left: list[Record] = []
        self._until_s = 0.0
        self._usual_s = long_turn_s
        self._spare_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._records or self._left)

    @property
    def is_clear(self) -> bool:
        """Whether nothing that was consumed is older than what has come since, and still to be done."""
        return not self._records and not self.suspects

    def take(self, now_s: float) -> list[Record]:
        """What is next: half of the suspects, or everything; what is long work only if it need not wait any more."""
        records = self._records
        if not records and now_s >= self._until_s:
            records, self._left = self._left, []
        count = max(1, self.suspects // 2) if self.suspects else len(records)
        self._records = records[count:]
        return records[:count]

    def waits_s(self, now_s: float) -> float | None:
        """How long what is long is still to be left alone, s. None: it is not, and nothing is left of it."""
        left_s = self._until_s - now_s
        return max(0.0, left_s) if left_s > 0 or self._left else None

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
        if topic is None or can_wait is None or not self.is_clear:
            return False
        return any(record[0] == topic and can_wait(record) for record in records)

    def leave_long(self, records: list[Record]) -> None:
        """Shorten what has come since to what is not long. Long work holds up what stands behind it in its partition,
        and together they are a later batch."""
        topic, can_wait = self._patient, self.can_wait
        if topic is None or can_wait is None:
            return
        begin = {record[1]: -1 for record in self._left}
        for record in records:
            if record[0] == topic and record[1] not in begin and can_wait(record):
                begin[record[1]] = record[2]
        if not begin:
            return
        now: list[Record] = []
        for record in records:
            first = begin.get(record[1]) if record[0] == topic else None
            (now if first is None or record[2] < first else self._left).append(record)
        records[:] = now

    def was_long(self, took_s: float, now_s: float) -> None:
        """A turn of long work has ended, and took so long."""
        self._spare_s = min(_MOST_SPARE_S, self._spare_s + took_s * _SHARE)
        late_s = took_s - max(self._long_turn_s, self._usual_s * _LATE)
        self._usual_s += (took_s - self._usual_s) * _USUAL
        if self._long_turn_s > 0 and late_s > 0:
            rest_s = min(self._spare_s, late_s * _REST_FOR_LATE)
            self._spare_s -= rest_s
            self._until_s = now_s + rest_s

    def done(self, count: int) -> None:
        """So many were committed."""
        self.suspects = max(0, self.suspects - count)

    def clear(self) -> list[Record]:
        """Give up what is left; what that was."""
        records, self._records, self._left, self.suspects = self._records + self._left, [], [], 0
        return records
