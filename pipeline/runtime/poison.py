"""A stage that raised, and which record was to blame.

A step says itself at which record it raised: the batch is done again without it. Where a batch raises only at its end,
nobody knows which record it was: one half is done, then half of what is left, until one record is. So a flood of poison
costs a few transactions each, and neither a transaction a record nor the whole batch again for every one of them.
"""

from pipeline.errors import BrokerError, DefinitionsNotThere
from pipeline.runtime.errors import WorkerStopped

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
    """What a step that raised is told as. A broker that does not answer, and definitions that do not come or cannot
    be read here, are nobody's poison: the worker stops, and reads the record again."""
    if isinstance(error, BrokerError):
        return WorkerStopped(f"a stage could not ask the broker: {error}")
    if isinstance(error, DefinitionsNotThere):
        return WorkerStopped(f"a stage has no definitions: {error}")
    return StageRaised(error, index)
