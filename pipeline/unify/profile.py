"""A profile while a task has it at hand: its actor, what was made of it, and what accounts have to be told of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.plans import GenerationPlan
from pipeline.profile import Fragment
from pipeline.records import IdentifierPair, UnfollowedLink
from pipeline.segments import Standing
from pipeline.unify.actor import VERSION, Actor, Group
from pipeline.unify.news import News, facts_of

# What stands for an actor, and for its own fragment, in a profile whose actor is at rest.
RESTING = Actor(VERSION, "")
_NOTHING = Fragment()
NOTHING_COMPUTED: Mapping[str, Any] = {}


class Profile:
    """A holder's profile at hand. It is also the `facts` that rules are judged on.

    `joined` is the join of the fragments that are here: the actor's own object where that is the only one. `standing`
    is None until the profile is published. `head` and `tail` are what stands before and behind the totals in the
    document, as last written; None once a change was said of them. `differs`: judged anew it stands otherwise than was
    told, which is to be told when it is settled. `accounts`: what its accounts told of themselves;
    `belongs`: to which it belongs, None if that is to be found out; `news`, `moment`, `ended`, `moved_to` and `whole`:
    what they have to be told (news.py).
    """

    __slots__ = (
        "accounts",
        "actor",
        "awaiting",
        "belongs",
        "computed",
        "computed_deadline",
        "consents",
        "differs",
        "ended",
        "group",
        "head",
        "identifiers",
        "identifiers_total",
        "joined",
        "key",
        "leaves",
        "moment",
        "moved_to",
        "names",
        "news",
        "plan",
        "profile_id",
        "profile_key",
        "pseudonymous",
        "standing",
        "tail",
        "totals",
        "traits",
        "unfollowed",
        "whole",
    )

    def __init__(self, key: bytes, actor: Actor, group: Group | None, plan: GenerationPlan, profile_id: str) -> None:
        self.key = key
        self.actor = actor
        self.group = group
        self.plan = plan
        self.profile_id = profile_id
        self.profile_key = profile_id.encode()
        self.standing: Standing | None = None
        self.differs = False
        self.computed = NOTHING_COMPUTED
        self.computed_deadline = 0
        self.head: bytes | None = None
        self.tail: bytes | None = None
        self.names: list[tuple[tuple[int, int], str]] = []
        self.identifiers: list[IdentifierPair] = []
        self.identifiers_total = 0
        self.pseudonymous = False
        self.awaiting = 0
        self.unfollowed: Sequence[UnfollowedLink] = ()
        self.accounts = facts_of(actor)
        self.belongs: list[str] | None = None
        self.told()

    def told(self) -> None:
        """The accounts know everything."""
        self.news: tuple[News, ...] = ()
        self.moment: Any = None
        self.ended = False
        self.moved_to = ""
        self.whole = False

    def rest(self) -> None:
        """Let go of the actor and of what is its own; what was made of them stays."""
        if self.joined is self.actor.own:
            self._hold(_NOTHING)
        if self.standing is not None:
            self.standing.rest()
        self.actor = RESTING
        self.group = None

    def wake(self, actor: Actor, group: Group | None) -> None:
        """The actor is here again, as it was."""
        if self.joined is _NOTHING:
            self._hold(actor.own if actor.own is not None else Fragment())
        self.actor = actor
        self.group = group

    def holds(self, joined: Fragment) -> None:
        """Show the rules this join, which is not what was shown before."""
        self.head = self.tail = None
        self.belongs = None
        self._hold(joined)

    def _hold(self, joined: Fragment) -> None:
        self.joined = joined
        self.leaves = joined.leaves
        self.traits = joined.traits
        self.consents = joined.consents
        self.totals = joined.totals
