"""How far a group has come in time."""

from confluent_kafka import KafkaException, TopicPartition

from pipeline.runtime.kafka.positions import CommittedPositions
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings
from pipeline.topology import Role

_TIMEOUT_S = 5.0


class GroupClock:
    """The least of the clocks (ms) that the tasks of a role keep beside the positions of their changelogs."""

    def __init__(self, settings: Settings, role: Role) -> None:
        assert role.changelog is not None
        changelog = settings.topic(role.changelog)
        self._group = settings.prefix + role.name
        self._partitions = [TopicPartition(changelog, number) for number in range(settings.partitions)]
        self._committed = CommittedPositions({**quiet_properties(settings), "client.id": "headwater-group-clock"})

    def __call__(self) -> int:
        """-1 while a task has kept none, or the broker does not say."""
        try:
            return self._ask()[0]
        except KafkaException:
            return -1

    def is_due(self) -> bool:
        """Whether a task has still to do something up to then; also when the broker does not say."""
        try:
            clock, first = self._ask()
        except KafkaException:
            return True
        return 0 < first <= clock

    def _ask(self) -> tuple[int, int]:
        self._committed(self._group, self._partitions, _TIMEOUT_S)
        kept = [tuple(map(int, note.split())) for note in self._committed.notes[self._group]]
        if len(kept) < len(self._partitions):
            return -1, 0
        return min(clock for clock, _ in kept), min((first for _, first in kept if first), default=0)
