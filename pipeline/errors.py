"""The typed catalogue of errors: each says what happened, where, and what to do.

Only errors a person can act on stand here. A programmer's mistake is an assertion or a plain Python exception, and
ends the process. What stops a worker is `WorkerStopped` (`pipeline/runtime/errors.py`), told by its message.
"""


class HeadwaterError(Exception):
    """What happened, where (a file, a field, a topic, an address; may be empty), and what to do about it.

    `exit_code` is what a command ends with: 1 the work failed, 2 it was asked for wrongly.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", what_to_do: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.what_to_do = what_to_do

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.what_to_do:
            lines.append(f"  what to do: {self.what_to_do}")
        return "\n".join(lines)


class SettingsError(HeadwaterError):
    """A setting is missing or cannot be used."""

    exit_code = 2


class DefinitionError(HeadwaterError):
    """Something people wrote (a segment, identity rules, a contract, a destination) is not valid."""

    exit_code = 2


class DefinitionsNotThere(DefinitionError):
    """A record asks for definitions that did not come in time, or that this version cannot read. Nothing is wrong with
    the record."""


class InputError(HeadwaterError):
    """A file or an argument given to a command cannot be used."""

    exit_code = 2


class BrokerError(HeadwaterError):
    """No Kafka could be found or started, or it does not answer."""


class TopicMissing(BrokerError):
    """A topic is not there: the broker says so."""


class TopicsError(HeadwaterError):
    """The topics of the workspace are missing, or differ from what the pipeline needs."""


class PositionError(HeadwaterError):
    """A position lies outside its log: a topic was truncated or made anew under state that remembers the old one."""


class StateError(HeadwaterError):
    """Stored state cannot be used: a version nobody can read, a damaged store, another workspace's."""


class LookupFailed(HeadwaterError):
    """Something that was asked for by name does not exist."""
