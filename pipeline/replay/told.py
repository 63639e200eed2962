"""What the subscribers of a workspace have been told of each profile: read from the state of who told it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.identifiers import Keys
from pipeline.records import Takeover
from pipeline.runtime.adapters import LogReader
from pipeline.runtime.overlay import HEADER
from pipeline.segments import HIDDEN
from pipeline.unify.account_state import Account
from pipeline.unify.actor import Actor
from pipeline.unify.forms import decode, pairs_of

CHANGELOG = "unify-changelog"
_TIMEOUT_S = 10.0
# The actors that tell subscribers: of people, and of accounts.
_TELL = (b"a", b"c")
Pairs = dict[str, tuple[bool, int, int, int]]


class Told(NamedTuple):
    """Of the profile named after an identifier: segment → (is a member, since, sequence, version)."""

    identifier: str
    profile_id: str
    pairs: Pairs


def read_told(
    reader: LogReader, partitions: int, keys: Keys, progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[bytes, Told]:
    """What was told of every profile there is or was, of people and of accounts, by its actor's key. `progress` is told
    positions."""
    bounds = [reader.bounds((CHANGELOG, number), _TIMEOUT_S) for number in range(partitions)]
    total, done = sum(end - low for low, end in bounds), 0
    found: dict[bytes, Told] = {}
    for number, (low, end) in enumerate(bounds):
        reader.open((CHANGELOG, number), low)
        while reader.position((CHANGELOG, number)) < end:
            for record in reader.read(10_000, 0.1):
                key, value = record.key, record.value
                if key is None or key[:1] not in _TELL:
                    continue
                told = _told(decode(key, value[HEADER:]), keys) if value is not None else None
                if told is None:
                    found.pop(key, None)
                else:
                    found[key] = told
            progress(done + reader.position((CHANGELOG, number)) - low, total)
        done += end - low
        reader.close_partition((CHANGELOG, number))
    return found


def _told(one: Actor | Account, keys: Keys) -> Told | None:
    if not one.pairs:
        return None
    held, erased = (one.pairs, 0) if isinstance(one, Account) else (pairs_of(one), one.erased)
    pairs = {
        name: (pair.member, pair.at, pair.sequence, pair.version)
        for name, pair in held.items()
        # Of hidden segments no subscriber was told.
        if name[0] != HIDDEN
    }
    return Told(one.identifier, keys.profile_id(one.identifier, erased), pairs) if pairs else None


def takeovers(old: dict[bytes, Told], new: dict[bytes, Told], clock: int) -> Iterator[Takeover]:
    """What the holders of the new workspace have to be told so that subscribers of the old one can go on: nothing
    where both said the same, and the new is behind neither in sequence nor in time."""
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if before is None:
            assert now is not None
            if any(pair[0] for pair in now.pairs.values()):
                yield Takeover(now.identifier, now.profile_id, {}, clock)
        elif _differ(before, now):
            yield Takeover(before.identifier, before.profile_id, before.pairs, clock)


def _differ(before: Told, now: Told | None) -> bool:
    if now is None or now.profile_id != before.profile_id:
        return True
    for segment in before.pairs.keys() | now.pairs.keys():
        was = before.pairs.get(segment, (False, 0, 0, 0))
        is_now = now.pairs.get(segment, (False, 0, 0, 0))
        if was[0] != is_now[0] or was[1] > is_now[1] or was[2] > is_now[2]:
            return True
    return False
