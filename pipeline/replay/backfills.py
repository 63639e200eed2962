"""How far each partition has come with the history of new rules: read from the state of its task."""

from typing import NamedTuple

from pipeline.runtime.errors import Retriable
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaLogReader
from pipeline.runtime.overlay import HEADER
from pipeline.settings import Settings
from pipeline.unify.actor import META_KEY, Meta
from pipeline.unify.forms import decode
from pipeline.wire import values_of

CHANGELOG = "unify-changelog"
_TIMEOUT_S = 10.0
# A task writes its own record with nearly every transaction: it stands near the end.
_FIRST_LOOK = 5_000


class Backfill(NamedTuple):
    """One partition: the generation in force, the one last marked, and of the history that is being read for
    `generation` (0: none) what was `read` of the positions up to `until`."""

    partition: int
    in_force: int
    marked: int
    generation: int = 0
    read: int = 0
    until: int = 0


class BackfillView:
    """Looks at the changelogs' ends. Keeps its connection."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.partitions
        config = KafkaConfig(settings.client_properties(), settings.prefix, values=values_of(settings))
        self._reader = KafkaLogReader(config, "backfill")

    def look(self) -> list[Backfill]:
        """Every partition, by its number."""
        return [_of(number, self._meta(number)) for number in range(self._partitions)]

    def _meta(self, number: int) -> Meta | None:
        low, end = self._reader.bounds((CHANGELOG, number), _TIMEOUT_S)
        back = _FIRST_LOOK
        while True:
            start = max(low, end - back)
            found = self._last(number, start, end)
            if found is not None or start == low:
                return found
            back *= 8

    def _last(self, number: int, start: int, end: int) -> Meta | None:
        found = None
        self._reader.open((CHANGELOG, number), start)
        try:
            while self._reader.position((CHANGELOG, number)) < end:
                try:
                    records = self._reader.read(10_000, 0.1)
                except Retriable:
                    continue
                for record in records:
                    if record.key == META_KEY and record.value is not None:
                        found = record.value
        finally:
            self._reader.close_partition((CHANGELOG, number))
        return decode(META_KEY, found[HEADER:]) if found is not None else None

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()


def _of(number: int, meta: Meta | None) -> Backfill:
    if meta is None:
        return Backfill(number, 0, 0)
    if not meta.jobs:
        return Backfill(number, meta.generation, meta.marked)
    job = meta.jobs[0]
    return Backfill(number, meta.generation, meta.marked, job.generation, job.next, job.until)
