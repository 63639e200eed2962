"""How active accounts are: the events of their people, by the day, as far back as the read model counts."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.api.histories import DAY_MS
from pipeline.api.model import ReadModel, decoded
from pipeline.records import ProfileDocument

MOST_PEOPLE = 2_000
_PAGE = 200
_LONGEST_S = 0.5


class Activity(NamedTuple):
    """What the people of an account did: events by the day (days since the epoch), how many of them did anything, how
    many were counted, and whether those were all."""

    days: dict[int, int]
    active: int
    counted: int
    all: bool

    @property
    def events(self) -> int:
        """All events."""
        return sum(self.days.values())


class Ranked(NamedTuple):
    """An account and how active it was."""

    name: str
    document: ProfileDocument
    activity: Activity


def days_of(model: ReadModel, document: ProfileDocument, since_day: int) -> dict[int, int]:
    """Events of one person by the day, from `since_day` on."""
    return {day: count for day, count in model.history(document).days.items() if day >= since_day}


def activity(model: ReadModel, account: str, now_ms: int, days: int, until: float) -> Activity:
    """What the people of an account did in the last `days` days; stops at the instant `until` (monotonic)."""
    since = now_ms // DAY_MS - days + 1
    total: Counter[int] = Counter()
    active = counted = 0
    after = ""
    while counted < MOST_PEOPLE and time.monotonic() < until:
        people, after = model.people(account, after, _PAGE)
        for person in people:
            found = days_of(model, person, since)
            active += bool(found)
            total.update(found)
        counted += len(people)
        if not after:
            return Activity(dict(total), active, counted, True)
    return Activity(dict(total), active, counted, False)


def ranking(
    model: ReadModel, accounts: Iterable[tuple[str, ProfileDocument]], now_ms: int, days: int
) -> tuple[list[Ranked], bool]:
    """The accounts with the most events first, and whether all were looked at in time."""
    until = time.monotonic() + _LONGEST_S
    found: list[Ranked] = []
    is_all = True
    for name, document in accounts:
        if time.monotonic() > until:
            is_all = False
            break
        found.append(Ranked(name, document, activity(model, name, now_ms, days, until)))
    found.sort(key=lambda one: (-one.activity.events, one.name))
    return found, is_all


def members_of(model: ReadModel, segment: str) -> Iterator[tuple[str, ProfileDocument]]:
    """The accounts in a segment."""
    after = ""
    while True:
        page = model.members(segment, after, _PAGE)
        for one in page:
            stored = model.document(one["profile_id"])
            if stored is not None and (document := decoded(stored)).entity == "account" and document.identifiers:
                yield document.identifiers[0].value, document
        if len(page) < _PAGE:
            return
        after = page[-1]["profile_id"]


def all_of(model: ReadModel, begins: str = "") -> Iterator[tuple[str, ProfileDocument]]:
    """All accounts whose names begin so."""
    after = ""
    while True:
        page = model.accounts(begins, after, _PAGE)
        for name, profile_id in page:
            stored = model.document(profile_id)
            if stored is not None:
                yield name, decoded(stored)
        if len(page) < _PAGE:
            return
        after = page[-1][0]
