"""What a source of one's own is: a class that is asked for what is new in another system, and says where it stands.

The whole contract:

- `poll(position, limit)` gives up to `limit` records that come after `position`, in their order, or none where nothing
  is new. It may wait a little, but not for long: nothing else of this source happens meanwhile.
- Each record has a `position`: a text by which `poll` finds what comes after it, also years later, in another process.
  Before anything was pulled it is None. Headwater keeps it beside the records, in one transaction: after a crash `poll`
  is asked from where the last *kept* record stands, so nothing is lost and nothing comes twice.
- `acknowledged(position)` is called after everything up to there is kept. A queue that forgets what was taken is told
  here. It may be called again with a position it knows.
- An exception means: not now. `poll` is asked again, later and later, from the same position.
- Options are a pydantic model. A secret is always a `SecretReference`, read when the source opens, never stored. When
  the file of one changes, the source is closed and opened anew.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, NamedTuple

from connectors.base import Options
from connectors.registry import UnknownKindError

GROUP = "headwater.sources"
MAX_POSITION = 4_096
"""Characters of a position, at most."""


class Pulled(NamedTuple):
    """One record of a source. `value` is an event in the tracking spec's shape, or whatever the definition's `event`
    maps to one; bytes are taken as they are. None: there is nothing to keep, only to go on behind. `key` chooses the
    partition: what belongs to one person keeps its order if it has one key; without, all of the source does.
    """

    position: str
    value: Mapping[str, Any] | bytes | None
    key: bytes | None = None


class Source:
    """The base of all sources. A kind is a subclass; an instance serves one definition.

    `kind` is its name in definitions; `max_batch` bounds `limit`.
    """

    kind: ClassVar[str]
    max_batch: ClassVar[int] = 1_000
    options_model: ClassVar[type[Options]] = Options

    def __init__(self, source: str, options: Any) -> None:
        """Open the source named `source`; `options` is an instance of `options_model`.

        Raises ValueError, saying what to do, when the set-up cannot work (a secret that is not there)."""
        self.source = source

    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        """Up to `limit` records behind `position`, in order."""
        raise NotImplementedError

    def acknowledged(self, position: str) -> None:
        """Everything up to `position` is kept."""

    def close(self) -> None:
        """Let go of connections and files. No `poll` is under way then."""


@cache
def source_kind(kind: str) -> type[Source]:
    """The class of a kind of source, brought by a package's entry point. Raises UnknownKindError."""
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == kind]
    if not entries:
        known = ", ".join(source_kinds()) or "none: install a package that brings one"
        raise UnknownKindError(f"there is no kind of source {kind!r}; known: {known}")
    found = entries[0].load()
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise UnknownKindError(f"the kind of source {kind!r} is not a connectors.Source class")
    return found


def source_kinds() -> list[str]:
    """The names of all kinds, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})
