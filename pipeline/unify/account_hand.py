"""An account at hand: the facts that its rules are judged on, kept up to date message by message.

It is a cache, made of the account's people once. What all of them did together is joined in memory only: together.py.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.identifiers import split_identifier
from pipeline.records import Event, IdentifierPair
from pipeline.segments import NO_SEGMENTS, PEOPLE, SegmentsPlan, Standing
from pipeline.unify.account_state import Account, Person
from pipeline.unify.actor import FOREVER
from pipeline.unify.task import Task
from pipeline.unify.together import Together

# So many people are at hand, over all accounts, before the oldest accounts are let go.
_PEOPLE_AT_HAND = 500_000
# A person's key: "p", the actor of the account, that of the person.
_PLACE = 1 + 32


class AtHand:
    """An account at hand; also the `facts` of its rules.

    `rules`: the plan of the account's generation. `people` counts those in each hidden segment, and all of them under
    PEOPLE; `matching`: hidden segment → person → since when. `moving`: profile_id that ended → (its key, until when
    what it brought still counts). `standing` is None until the account is published.
    """

    __slots__ = (
        "account",
        "consents",
        "identifiers",
        "key",
        "leaves",
        "matching",
        "moving",
        "name",
        "people",
        "profile_id",
        "profile_key",
        "rules",
        "standing",
        "together",
        "traits",
    )

    def __init__(self, task: Task, key: bytes, account: Account) -> None:
        self.key = key
        self.account = account
        self.name = split_identifier(account.identifier)[1]
        self.identifiers = [IdentifierPair(*split_identifier(account.identifier))]
        self.profile_id = task.profile_id(account.identifier, 0)
        self.profile_key = self.profile_id.encode()
        self.consents: dict[str, Any] = {}
        self.traits = account.traits
        self.standing: Standing | None = None
        self.rules: SegmentsPlan
        self.together: Together
        self.leaves: dict[str, Any]
        self.people: dict[str, int]
        self.matching: dict[str, dict[str, int]]
        self.moving: dict[str, tuple[bytes, int]]

    @property
    def deadline(self) -> int:
        """Nothing changes before it without a message."""
        until = min((held[1] for held in self.moving.values()), default=FOREVER)
        standing = self.standing
        if standing is None:
            return until
        return min(standing.deadline or FOREVER, until)

    # -------------------------------------------------------------------------------------------------------- people

    def know_members(self, person: str, members: Mapping[str, int]) -> Iterable[str]:
        """Somebody is in these hidden segments, since when. Gives those whose count changed."""
        changed = []
        for segment, since in members.items():
            matching = self.matching.setdefault(segment, {})
            if person not in matching:
                self.people[segment] = self.people.get(segment, 0) + 1
                changed.append(segment)
            matching[person] = since
        return changed

    def forget_members(self, person: str, segments: Iterable[str]) -> Iterable[str]:
        """Somebody is not in these any more. Gives those whose count changed."""
        changed = []
        for segment in segments:
            matching = self.matching.get(segment)
            if matching is not None and matching.pop(person, None) is not None:
                self.people[segment] -= 1
                changed.append(segment)
        return changed

    # -------------------------------------------------------------------------------------------------------- leaves

    def folding(self, task: Task, generation: int, newest: int) -> SegmentsPlan:
        """The plan of `generation`, folding and joining the leaves of all later ones too."""
        return task.account_folding(generation, newest)

    def fold(self, task: Task, person_key: bytes, person: Person, event: Event, generation: int) -> Iterable[str]:
        """Fold an event into the leaves of its person and of all. Gives the leaves of all that changed."""
        own = self.account.generation
        task.account_folding(min(generation, own), generation).fold(person.leaves, event)
        plan = self.rules if generation >= own else task.account_folding_of_both(generation, own)
        return self.together.fold(place_of(person_key), plan, event)


def place_of(person_key: bytes) -> bytes:
    """What follows the account's actor in the key of one of its people."""
    return person_key[_PLACE:]


def at_hand(task: Task, key: bytes, account: Account) -> AtHand:
    """The account, from the cache or made anew of its people, standing as it stood when last settled."""
    found: AtHand | None = task.hands.get(key)
    if found is not None:
        # Decoded anew it is equal to what it was: whatever changes it also keeps it.
        found.account = account
        found.traits = account.traits
        return found
    found = AtHand(task, key, account)
    choose_generation(task, found)
    if account.published:
        found.standing = found.rules.begin(found, account.settled)
    task.hands[key] = found
    while len(task.hands) > 1 and sum(one.people.get(PEOPLE, 0) + 1 for one in task.hands.values()) > _PEOPLE_AT_HAND:
        del task.hands[next(iter(task.hands))]
    return found


def choose_generation(task: Task, hand: AtHand) -> None:
    """Make the facts for the account's generation."""
    hand.rules = task.plans(hand.account.generation).segments.accounts or NO_SEGMENTS
    hand.people, hand.matching, hand.moving = {PEOPLE: 0}, {}, {}
    hand.together = Together(b"p" + hand.key[1:], hand.rules, _people(task, hand))
    hand.leaves = hand.together.root


def _people(task: Task, hand: AtHand) -> Iterable[tuple[bytes, dict[str, Any]]]:
    for key, person in task.state.scan(b"p" + hand.key[1:]):
        assert isinstance(person, Person)
        hand.people[PEOPLE] += 1
        hand.know_members(person.person, person.members)
        if person.moved_to:
            hand.moving[person.profile_id] = (key, person.until)
        yield place_of(key), person.leaves
