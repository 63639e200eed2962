"""What destinations were told of one person: kept with the person, so that what is taken back is taken back everywhere
it was said, and nowhere else.

A destination that mirrors memberships (an audience) was told exactly those the person has, for as long as it may have
them: of it only is kept that it may not. A trigger was told of moments, and not of all: of it is kept which.

Profiles that become one were told of together, and of each part that leaves a profile was told what was told of the
whole. So what is kept may be more than the truth, never less: a destination may hear once too often that it is to let
go of somebody, and never once too rarely.
"""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from pipeline.records import Cause

PROFILE = "*"
"""Stands among the segments that a destination was told of: it was told of the profile."""


class Told(Struct, array_like=True):
    """`refused`: the destinations that may not have the person, by name, as it was last decided. `heard`: destination →
    the segments (and `PROFILE`) it was told they are in, and not since that they left; nothing, where it had events, or
    everything was taken back. `turns`: how often consent has changed what destinations have."""

    refused: list[str] = []
    heard: dict[str, list[str]] = {}
    turns: int = 0

    def believes(self, destination: str, what: str) -> bool:
        """Whether a destination was told so, and nothing else since."""
        return what in self.heard.get(destination, ())

    def hears(self, destination: str, what: str, so: bool = True) -> None:
        """A destination is told that it is so, or that it is not."""
        there = self.heard.get(destination, [])
        if so is not (what in there):
            there = [*there, what] if so else [one for one in there if one != what]
        if so or destination in self.heard:
            self.heard[destination] = there

    def keep(self, names: Container[str]) -> None:
        """Forget of destinations that are none any more."""
        self.refused = [name for name in self.refused if name in names]
        self.heard = {name: heard for name, heard in self.heard.items() if name in names}

    def inherit(self, heard: Mapping[str, list[str]]) -> None:
        """What was told of somebody who has become a part of this one."""
        for destination, segments in heard.items():
            there = self.heard.get(destination, [])
            self.heard[destination] = [*there, *(one for one in segments if one not in there)]


class Turn(NamedTuple):
    """When, and by what, a person changed what they allow; `refused`: destinations that are refused by parts of them
    which are still on their way."""

    at: int
    decided_at: int
    evidence: Cause = Cause()
    refused: tuple[str, ...] = ()


def evidence_of(turn: Turn) -> dict[str, Any]:
    """As deliveries show it."""
    return {name: value for name in Cause.__struct_fields__ if (value := getattr(turn.evidence, name)) is not None}
