"""What a worker does now and then, beside its batches: nothing of it is needed for what comes out to be right."""

from collections.abc import Iterable, Mapping

from pipeline.runtime.adapters import Adapters, Partition
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.task import Task
from pipeline.topology import Role


class Upkeep:
    """Keeps disks small: those of the broker, by deleting what has been read, and its own."""

    def __init__(self, role: Role, adapters: Adapters, settings: WorkerSettings) -> None:
        self._topics = role.trimmed
        self._adapters = adapters
        self._settings = settings
        self._trimmed_ms = 0
        self._scrubbed_ms = 0
        self._trimmed: dict[Partition, int] = {}

    def trim(self, owners: Mapping[Partition, Task]) -> None:
        """Delete what the role's own loop-back topics hold below the committed positions."""
        now = self._adapters.clock()
        if not self._topics or now - self._trimmed_ms < self._settings.trim_interval_ms:
            return
        self._trimmed_ms = now
        below = {
            partition: task.positions[partition]
            for partition, task in owners.items()
            if partition[0] in self._topics and task.positions[partition] > self._trimmed.get(partition, 0)
        }
        if below:
            self._trimmed.update(below)
            self._adapters.admin.delete_records(below)

    def scrub(self, tasks: Iterable[Task]) -> None:
        """Let stores rewrite what still holds values that are to be gone."""
        now = self._adapters.clock()
        begin = now - self._scrubbed_ms >= self._settings.scrub_interval_ms
        if begin:
            self._scrubbed_ms = now
        for task in tasks:
            task.scrub(begin)
