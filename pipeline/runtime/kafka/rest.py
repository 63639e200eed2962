"""Whether a workspace has taken in everything there is, what its stages tell each other included."""

from collections.abc import Mapping, Sequence

from pipeline.runtime.kafka.group_clock import GroupClock
from pipeline.runtime.kafka.sources import Offsets, SourcesAtEnd
from pipeline.settings import Settings
from pipeline.topology import UNIFY

STAGES: Mapping[str, Sequence[str]] = {"unify": ("events", "links"), "identity": ("identity-edges",)}


class AtRest:
    """Asked again and again, it says yes once twice in a row everything was read to its end and nothing had come, and
    no deadline is due that unify has still to settle."""

    def __init__(self, settings: Settings, groups: Mapping[str, Sequence[str]] = STAGES) -> None:
        self._groups = [SourcesAtEnd(settings, group, topics) for group, topics in groups.items()]
        self._unify = GroupClock(settings, UNIFY)
        self._before: list[Offsets | None] | None = None

    def __call__(self) -> bool:
        """Whether nothing is on its way. False also when the broker does not say."""
        # All are asked, whatever the first one says: each answer is about the ends of the question before.
        answers = [group() for group in self._groups]
        at_end = all(answers)
        ends = [group.ends for group in self._groups]
        steady, self._before = at_end and ends == self._before, ends if at_end else None
        return steady and not self._unify.is_due()
