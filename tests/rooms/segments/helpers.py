"""One profile under one plan, driven by hand: send events, let time pass, see flips."""

from typing import Any

from pipeline.definitions.loader import load_text
from pipeline.definitions.segments import compile_definitions
from pipeline.profile import Fragment
from pipeline.records import Event
from pipeline.segments import Flip, SegmentsPlan

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def plan_of(text: str, generation: int = 0, births: dict[str, int] | None = None) -> SegmentsPlan:
    """The plan of definitions as YAML."""
    written = load_text(text)
    return compile_definitions(
        [(one.body, 1) for one in written if one.kind == "segment"],
        [(one.body, 1) for one in written if one.kind == "trait"],
        generation,
        births,
    )


def plan_of_rule(rule: str) -> SegmentsPlan:
    """The plan of one segment, s, with a rule as one line of YAML."""
    return plan_of(f"segment: s\nwhen: {rule}")


def event(name: str, at: int, received: int | None = None, **properties: Any) -> Event:
    """An event at a time; received then too, unless said otherwise."""
    received = at if received is None else received
    return Event(f"{name}{at}", "track", name, ["user_id:1"], at, received, properties=properties)


class Facts(Fragment):
    """A profile's facts, with an id for buckets."""

    profile_id: str = "8c7d8c06-9d0c-5c1c-8d0e-2f1f3f9b6d11"


class Profile:
    """A profile, its facts and where it stands. Times are ms; the clock begins at `now`."""

    def __init__(self, plan: SegmentsPlan, now: int = 0) -> None:
        self.plan, self.now = plan, now
        self.facts = Facts()
        self.standing = plan.begin(self.facts, now)

    @property
    def members(self) -> set[str]:
        """The segments it is in, which must be what judging from scratch says."""
        assert self.standing.members == self.plan.begin(self.facts, self.now).members
        return self.standing.members

    def send(self, one: Event) -> list[Flip]:
        """Let the time of an event come, then fold and judge it; returns the flips of the event alone."""
        self.wait(max(self.now, one.received))
        return self.plan.update(self.standing, self.facts, self.now, self.plan.fold(self.facts.leaves, one))

    def set_trait(self, name: str, value: Any) -> list[Flip]:
        """Set a trait at the clock."""
        self.facts.traits[name] = (self.now, value)
        return self.plan.update(self.standing, self.facts, self.now, (), (name,))

    def wait(self, until: int) -> list[tuple[int, list[Flip]]]:
        """Let time pass."""
        passed = self.plan.settle(self.standing, self.facts, until)
        self.now = until
        return passed


def as_values(flips: list[Flip]) -> list[tuple[str, bool, bool]]:
    """(segment, entered, approximate) of each."""
    return [(flip.segment, flip.entered, flip.approximate) for flip in flips]


def changes(passed: list[tuple[int, list[Flip]]]) -> list[tuple[int, str, bool]]:
    """(instant, segment, entered) of what settle gave."""
    return [(at, flip.segment, flip.entered) for at, flips in passed for flip in flips]
