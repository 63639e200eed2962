"""Whether a worker's topics are there, belong together, and are still the same ones.

A topic that was deleted and made again has its name and its positions a second time, for other records. Nobody tells a
consumer: it goes on at its old position as soon as the new topic has grown that far, past whatever stands before it. So
the ids by which the broker tells the two apart are kept beside the positions, in the group and in the state, compared
at every start, and asked for once a second in between.
"""

from collections.abc import Mapping

from pipeline.runtime.adapters import Admin, Clock
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.settings import WorkerSettings
from pipeline.topology import Role


class Topics:
    """The inputs and the changelog of one worker. `ids` are those they had when it started, as far as they are told."""

    def __init__(self, role: Role, admin: Admin, clock: Clock, settings: WorkerSettings) -> None:
        self.ids: dict[str, str] = {}
        self._role = role
        self._admin = admin
        self._clock = clock
        self._settings = settings
        self._names = [*role.inputs, *([role.changelog] if role.changelog else [])]
        self._asked_ms = 0

    def counts(self) -> dict[str, int]:
        """The partition count of each that is there. May be asked again if it was not answered."""
        return self._admin.partition_counts(self._names, self._settings.call_timeout_s)

    def check(self, counts: Mapping[str, int]) -> None:
        """WorkerStopped if one is missing, or a stateful role's have different partition counts."""
        role = self._role
        missing = [topic for topic in self._names if topic not in counts]
        if missing:
            raise WorkerStopped(f"{role.name}: there is no topic {', '.join(missing)}; create the topics first")
        if role.changelog and len({counts[topic] for topic in self._names}) > 1:
            raise WorkerStopped(f"{role.name}: the partition counts differ: {counts}; they must be the same")

    def ask_ids(self) -> None:
        """Take the ids that they have now. May be asked again if it was not answered."""
        self.ids |= self._admin.topic_ids(self._names, self._settings.call_timeout_s)

    def watch(self) -> None:
        """WorkerStopped if one was made again meanwhile.

        What was taken from it by then was committed under the former one's id: the next start knows that this was so.
        """
        now = self._clock()
        if 0 <= now - self._asked_ms < self._settings.topics_interval_ms:
            return
        self._asked_ms = now
        for topic, id in self._admin.topic_ids_lately(self._names).items():
            if self.ids.get(topic, id) != id:
                then = "start again: it is then read from its beginning"
                if self._role.changelog is not None:
                    then = "the state belongs to the former one: replay into a new deployment"
                raise WorkerStopped(f"{self._role.name}: {topic} was deleted and made again; {then}")
