"""How many records a batch may take.

While little waits, a batch is what waits. With a backlog, the larger a batch the less an event costs: what is kept and
told by key is encoded, produced and written once for all the records of the key. So a full batch lets the next one be
larger, up to what takes about `batch_ms`: short enough for a transaction, and for whoever waits for the last record.
And up to about `batch_keys`: of each key that a batch changes, all is in memory until it is committed, and where every
record is of another key nothing is saved.
"""

from pipeline.runtime.settings import WorkerSettings


class BatchSize:
    """`limit` is how many records the next batch may have."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._least = min(settings.batch_records_at_once, settings.batch_records)
        self._most = settings.batch_records
        self._batch_ms = settings.batch_ms
        self._batch_keys = settings.batch_keys
        self.limit = self._least

    def took(self, records: int, seconds: float, keys: int = 0) -> None:
        """A batch of so many records took so long, and changed so many keys. A full one decides how large the next may
        be."""
        if records < self.limit:
            return
        fitting = int(records * min(self._batch_ms / (seconds * 1_000 + 1), self._batch_keys / (keys + 1)))
        self.limit = max(self._least, min(self._most, 2 * records, fitting))
