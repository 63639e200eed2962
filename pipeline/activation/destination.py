"""One destination, compiled; and the decisions that rest on it and the change alone."""

from dataclasses import dataclass
from typing import Literal

from pipeline.records import ProfileChange, SegmentChange

Mode = Literal["audience", "trigger"]
Transform = Literal["sha256", "mask", "drop"]

HOUR_MS = 3_600_000
QUIET_CAUSES = frozenset({"backfill", "definition", "split"})
_QUIET_PROFILE_CAUSES = QUIET_CAUSES | {"merge"}
ENDS = frozenset({"merged", "expired", "erased"})
PROFILE_SECTIONS = frozenset({"identifiers", "traits", "computed", "consents", "segments", "accounts"})
"""The sections of a profile a destination mirrors unless it names others: not the totals and the last-seen time,
which change with every event."""


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination, compiled.

    `segments` None means every segment; `changes` which of entered and exited. `traits` are sent along with segment
    changes and limit those of profile changes (None there: all). `profile_sections` None means no profile changes;
    `events` names the events forwarded, `alerts` the alerts about accounts, `("*",)` all. `max_age_ms` holds for
    triggers only. `purposes` is what it does with people, `channel` how it reaches them; `labels` are those of the data
    it takes, `transforms` what is made of single fields: (address, what), as `("traits.email", "sha256")`.
    `own_sources` are the sources by which its own changes come in (echo.py).
    """

    name: str
    kind: str
    mode: Mode = "trigger"
    entity: Literal["person", "account"] | None = None
    segments: frozenset[str] | None = frozenset()
    changes: frozenset[str] = frozenset({"entered", "exited"})
    traits: tuple[str, ...] | None = None
    profile_sections: frozenset[str] | None = None
    events: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    max_age_ms: int = HOUR_MS
    paused: bool = False
    purposes: tuple[str, ...] = ()
    channel: str | None = None
    labels: frozenset[str] = frozenset()
    transforms: tuple[tuple[str, Transform], ...] = ()
    own_sources: frozenset[str] = frozenset()

    @property
    def asks(self) -> bool:
        """Whether a person has to allow it."""
        return bool(self.purposes) or self.channel is not None

    @property
    def mirrors(self) -> bool:
        """Whether it holds exactly who is a member now: what it was told need not be kept."""
        return self.mode == "audience" and len(self.changes) == 2

    def wants(self, segment: str) -> bool:
        """Whether it hears of changes of a segment."""
        return self.segments is None or segment in self.segments

    def takes_segment_change(self, change: SegmentChange) -> bool:
        """Whether a change is one for it, whatever the person allows."""
        if change.change not in self.changes:
            return False
        if self.entity is not None and self.entity != change.entity:
            return False
        if self.mode == "audience":
            return True
        if change.cause in QUIET_CAUSES or change.decided_at - change.at > self.max_age_ms:
            return False
        return not change.continues if change.change == "entered" else change.moved_to is None

    def takes_profile_change(self, change: ProfileChange) -> bool:
        """The same of a profile change."""
        if self.entity is not None and self.entity != change.entity:
            return False
        if self.mode == "audience":
            return True
        if change.cause in _QUIET_PROFILE_CAUSES or change.change in ("merged", "split"):
            return False
        return change.decided_at - change.at <= self.max_age_ms
