"""One task's memory while it works: the batch's state and outputs, its clock, and the profiles it has at hand.

Nothing here outlives a crash but what is in the state. The profiles at hand are a cache: each can be made again from
the state, and is then equal to what it was. They go when the runtime lets go of their actors.
"""

from bisect import insort
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pipeline.identifiers import BURIED, Keys, split_identifier
from pipeline.plans import GenerationPlan, Plans
from pipeline.profile import SHOWN_IDENTIFIERS, Fragment, join, join_all
from pipeline.records import Event, IdentifierPair, Named
from pipeline.runtime.ports import Outputs, State
from pipeline.segments import NO_SEGMENTS, SegmentsPlan, Standing
from pipeline.unify.actor import (
    ACTORS,
    FOREVER,
    GROUP_INLINE,
    META_KEY,
    VERSION,
    Actor,
    Group,
    Held,
    Meta,
)
from pipeline.unify.forms import belongs_elsewhere, live, pairs_of, shown_links, waits
from pipeline.unify.keeping import first_to_go
from pipeline.unify.profile import NOTHING_COMPUTED, RESTING, Profile
from pipeline.unify.writer import Writer

OpenSealed = Callable[[bytes], bytes | None]
"""Opens a sealed event; None if its key was destroyed."""

SEALED_FIRST = b"\x01"
"""The first byte of a sealed event: no JSON begins with it."""

PSEUDONYMOUS = ("device_id", "anonymous_id")

# How long a profile does not end for fragments that are expected to come. If one was erased on its way it never does;
# and as long as much is to be caught up with, hours pass in the time that it takes them.
EXPECTED_MS = 86_400_000

_UNORDERED = (0, 0)


class Task:
    """What the functions of this room share. `state` and `out` are those of the step at hand."""

    def __init__(self, partition: int, keys: Keys, plans: Plans, expire_after_ms: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.keys = keys
        self.plans = plans
        self.expire_after_ms = expire_after_ms
        self.open_sealed: OpenSealed | None = None
        self.writer = Writer()
        self.state: State
        self.out: Outputs
        self.forget()

    def forget(self) -> None:
        """Drop everything that is not in the state."""
        self._meta: Meta | None = None
        self._meta_changed = False
        self.clock = 0
        self.generation = 0
        self.plan: GenerationPlan
        self.profiles: dict[bytes, Profile] = {}
        self.dirty: dict[bytes, Profile] = {}
        self.message_index: dict[bytes, dict[bytes, int]] = {}
        self.position = 0
        self._folding: dict[tuple[int, int], SegmentsPlan] = {}
        self.jobs_wanted: dict[tuple[int, int, int], SegmentsPlan | None] = {}
        self.touched: dict[bytes, Profile] = {}
        self.naming: Named | None = None
        self.hands: dict[bytes, Any] = {}
        self.dirty_accounts: dict[bytes, Any] = {}
        self._account_folding: dict[tuple[int, int], SegmentsPlan] = {}
        self._account_leaves: dict[tuple[int, int], frozenset[str]] = {}

    def enter(self, state: State, out: Outputs) -> None:
        """Begin a step."""
        self.state = state
        self.out = out
        state.rest(ACTORS)
        if self._meta is None:
            stored = state.get(META_KEY)
            # A copy: the stored object may be changed only in a step that also puts it.
            self._meta = msgspec.structs.replace(stored, counts=dict(stored.counts)) if stored is not None else Meta()
            self.clock = self._meta.clock
            self.position = self._meta.position
            self.use_generation(self._meta.generation)

    @property
    def meta(self) -> Meta:
        """The task as a whole; to be read only. Its clock is brought up to date when a batch ends."""
        assert self._meta is not None
        return self._meta

    def change_meta(self) -> Meta:
        """The task as a whole, to be changed."""
        assert self._meta is not None
        self._meta_changed = True
        return self._meta

    def as_of(self, clock: int, actor: Actor) -> int:
        """The clock by which an actor is judged as of another one: never before what it was last settled up to, nor
        before the change of the rules."""
        settled = max(clock, actor.settled)
        return max(settled, self.meta.switched)

    def use_generation(self, generation: int) -> None:
        """Evaluate under this generation from now on."""
        self.generation = generation
        self.plan = self.plans(generation)
        self.computed_leaves = frozenset(one.leaf for one in self.plan.segments.computed_traits.values())

    def folding(self, generation: int, newest: int) -> SegmentsPlan:
        """The segments of `generation`, folding and joining also the leaves of all later ones up to `newest`."""
        if newest <= generation:
            return self.plan.segments if generation == self.generation else self.plans(generation).segments
        found = self._folding.get((generation, newest))
        if found is None:
            found = self.plans(generation).segments
            for later in range(generation + 1, newest + 1):
                found = found.with_leaves_of(self.plans(later).segments)
            self._folding[generation, newest] = found
        return found

    def see_generation(self, generation: int) -> None:
        """Leaves of this generation may be among those that have come here."""
        if generation > self.meta.newest:
            self.change_meta().newest = generation

    def fold_leaves(self, leaves: dict[str, Any], event: Event, generation: int) -> tuple[str, ...]:
        """Fold an event into leaf states: those evaluated now and those of the generation it belongs to. What was
        there before the marker of a later one is that one's history, and is folded by its backfill."""
        if generation == self.generation:
            return self.plan.segments.fold(leaves, event)
        return self.folding(min(generation, self.generation), generation).fold(leaves, event)

    def account_leaves(self, generation: int, newest: int = 0) -> frozenset[str]:
        """The leaves of accounts, those of `generation` and of all later ones up to `newest` (0: that may be here)."""
        key = (generation, newest or self.meta.newest)
        found = self._account_leaves.get(key)
        if found is None:
            plans = [self.plans(one).segments for one in range(generation, max(generation, key[1]) + 1)]
            found = frozenset(leaf for one in plans if one.accounts is not None for leaf in one.accounts.leaves)
            self._account_leaves[key] = found
        return found

    def account_folding(self, generation: int, newest: int) -> SegmentsPlan:
        """The accounts' plan of `generation`, folding and joining also the leaves of all later ones up to `newest`."""
        key = (generation, newest)
        found = self._account_folding.get(key)
        if found is None:
            found = self._accounts_plan(generation)
            for later in range(generation + 1, newest + 1):
                found = found.with_leaves_of(self._accounts_plan(later))
            self._account_folding[key] = found
        return found

    def account_folding_of_both(self, generation: int, other: int) -> SegmentsPlan:
        """The accounts' plan of `other`, folding only the leaves that `generation` has too."""
        key = (generation, -other)
        found = self._account_folding.get(key)
        if found is None:
            plan, known = self._accounts_plan(other), self._accounts_plan(generation).leaves
            found = self._account_folding[key] = plan.restricted(one for one in plan.leaves if one in known)
        return found

    def _accounts_plan(self, generation: int) -> SegmentsPlan:
        return self.plans(generation).segments.accounts or NO_SEGMENTS

    def see(self, clock: int) -> None:
        """Time has come to `clock` at least."""
        if clock > self.clock:
            self.clock = clock

    def count(self, what: str, number: int = 1) -> None:
        """Count what is neither in a profile nor an error."""
        counts = self.change_meta().counts
        counts[what] = counts.get(what, 0) + number

    @property
    def counts(self) -> Mapping[str, int]:
        """All that was counted; empty before the first record."""
        return self._meta.counts if self._meta is not None else {}

    def put_meta(self) -> None:
        """Keep the task as a whole, if it has changed."""
        meta = self.meta
        if self._meta_changed or meta.clock != self.clock or meta.position != self.position:
            meta.clock = self.clock
            meta.position = self.position
            # In an order that is not that in which the events of a batch were dealt with.
            self.state.put(META_KEY, msgspec.structs.replace(meta, counts=dict(sorted(meta.counts.items()))))
            self._meta_changed = False

    # -------------------------------------------------------------------------------------------------------- actors

    def actor_key(self, identifier: str) -> bytes:
        """Where the actor of an identifier is kept."""
        return b"a" + self.keys.actor(identifier)

    def actor(self, key: bytes, identifier: str) -> Actor:
        """The actor kept under `key`; a new one if there is none."""
        found: Actor | None = self.state.get(key)
        return found if found is not None else Actor(VERSION, identifier, generation=self.generation)

    def put(self, key: bytes, actor: Actor) -> None:
        """Keep an actor."""
        self.state.put(key, actor, actor.wake)

    def unbury(self, key: bytes, actor: Actor, identifier: str) -> None:
        """Somebody who was erased is known anew: their actor has its identifier again. It must be put afterwards."""
        buried = actor.identifier
        if buried == identifier or buried[:1] != BURIED or identifier[:1] == BURIED:
            return
        group = self.group(key, actor)
        if group is not None and buried in group.present:
            group.present[identifier] = group.present.pop(buried)
            self.put_group(key, actor, group)
        actor.identifier = identifier
        self.drop(key)

    def group(self, key: bytes, actor: Actor) -> Group | None:
        """The actor's group, to be read only."""
        if actor.spilled:
            found: Group | None = self.state.get(b"h" + key[1:])
            return found
        return actor.group

    def group_to_change(self, key: bytes, actor: Actor) -> Group:
        """The actor's group, made if there is none. Both must be put with `put_group` afterwards."""
        found = self.group(key, actor)
        if found is None:
            found = actor.group = Group(present={actor.identifier: (True, actor.epoch if actor.erased else -1)})
        return found

    def put_group(self, key: bytes, actor: Actor, group: Group) -> None:
        """Keep a changed group, beside its actor once it has outgrown it."""
        if not actor.spilled and len(group.present) + len(group.given) + len(group.births) > GROUP_INLINE:
            actor.spilled, actor.group = True, None
        if actor.spilled:
            self.state.put(b"h" + key[1:], group)
        self.put(key, actor)

    def part_key(self, key: bytes, fragment: str) -> bytes:
        """Where a holder keeps another identifier's fragment."""
        return b"f" + key[1:] + self.keys.actor(fragment)

    def part(self, key: bytes, actor: Actor, fragment: str) -> Fragment | None:
        """What a holder has of a fragment."""
        if fragment == actor.identifier:
            return actor.own
        found: Fragment | None = self.state.get(self.part_key(key, fragment))
        return found

    def put_part(self, key: bytes, actor: Actor, fragment: str, part: Fragment | None) -> None:
        """Keep a fragment (None: nothing) at its holder; the actor itself must be put too."""
        if fragment == actor.identifier:
            actor.own = part
        elif part is None:
            self.state.delete(self.part_key(key, fragment))
        else:
            self.state.put(self.part_key(key, fragment), part)

    # ------------------------------------------------------------------------------------------------------ profiles

    def profile_id(self, identifier: str, erased: int) -> str:
        """The profile_id of the profile an identifier names."""
        return self.keys.profile_id(identifier, erased)

    def profile(self, key: bytes, actor: Actor) -> Profile:
        """The profile of a holder, from the cache or made anew, standing as it stood when last settled."""
        found = self.profiles.get(key)
        if found is not None:
            if found.actor is actor:
                return found
            if found.actor is RESTING:
                found.wake(actor, self.group(key, actor))
                return found
        plan = self.plan if actor.generation == self.generation else self.plans(actor.generation)
        profile = Profile(key, actor, self.group(key, actor), plan, self.profile_id(actor.identifier, actor.erased))
        if actor.unfollowed:
            held: Held | None = self.state.get(b"u" + key[1:])
            profile.unfollowed = shown_links(held)
        self.rejoin(profile)
        if actor.published:
            profile.standing = plan.segments.resume(actor.standing, actor.settled, actor.wake)
            if profile.standing is None:
                profile.standing = self.judge(profile, actor.settled)
                # Judged otherwise than when its entry in the time index was written, it may be due before that.
                deadline = self._deadline(profile, actor.settled)
                members = {segment for segment, pair in pairs_of(actor).items() if pair.member}
                profile.differs = members != profile.standing.members
                if profile.differs:
                    deadline = actor.settled
                if deadline < (actor.wake or FOREVER):
                    actor.wake = max(deadline, actor.settled + 1)
            else:
                self.compute(profile, actor.settled)
        self.profiles[key] = profile
        return profile

    def rejoin(self, profile: Profile) -> None:
        """Join what is here now, and list whose it is."""
        actor, group = profile.actor, profile.group
        self.list_identifiers(profile)
        if group is None:
            profile.holds(actor.own if actor.own is not None else Fragment())
        else:
            parts = (self.part(profile.key, actor, name) for name in live(group, actor))
            join_leaves = self.folding(actor.generation, self.meta.newest).join
            profile.holds(join_all((part for part in parts if part is not None), join_leaves))

    def judge(self, profile: Profile, now_ms: int) -> Standing:
        """Judge a profile from scratch, as of `now_ms`."""
        plan = profile.plan.segments
        profile.standing = plan.begin(profile, now_ms)
        self.compute(profile, now_ms)
        return profile.standing

    def compute(self, profile: Profile, now_ms: int) -> None:
        """Compute the profile's computed traits as of `now_ms`."""
        plan = profile.plan.segments
        if plan.computed_traits:
            profile.computed = plan.computed(profile, now_ms)
            profile.computed_deadline = plan.computed_deadline(profile, now_ms)
        elif profile.computed:
            profile.computed, profile.computed_deadline = NOTHING_COMPUTED, 0

    def list_identifiers(self, profile: Profile) -> None:
        """List the identifiers of the profile, strongest first, and how much of them is on its way."""
        actor, group = profile.actor, profile.group
        if group is None:
            # There is nothing to be ordered with, and most profiles have one identifier: asked for when a second comes.
            profile.names = [(_UNORDERED, actor.identifier)]
            profile.awaiting = 0
        else:
            order = profile.plan.identity.order
            profile.names = sorted((order(name), name) for name in live(group, actor))
            profile.awaiting = sum(1 for _, name in profile.names if not group.present[name][0])
        profile.belongs = None
        self._show_identifiers(profile)
        profile.pseudonymous = all(name.startswith(PSEUDONYMOUS_PREFIXES) for _, name in profile.names)

    def _show_identifiers(self, profile: Profile) -> None:
        profile.identifiers = [IdentifierPair(*split_identifier(name)) for _, name in profile.names[:SHOWN_IDENTIFIERS]]
        profile.identifiers_total = len(profile.names)

    def add(self, profile: Profile, name: str, there: tuple[bool, int] | None, piece: Fragment | None) -> None:
        """Add a fragment that has come, or a piece of it (None: an empty one), to the join and to the identifiers.
        `there` is what was known of it before. What it costs does not depend on how many are there."""
        actor, group = profile.actor, profile.group
        assert group is not None
        if actor.erased:
            self.rejoin(profile)
            return
        if there is None:
            order = profile.plan.identity.order
            if len(profile.names) == 1:
                only = profile.names[0][1]
                profile.names = [(order(only), only)]
            insort(profile.names, (order(name), name))
            profile.belongs = None
            profile.pseudonymous = profile.pseudonymous and name.startswith(PSEUDONYMOUS_PREFIXES)
            self._show_identifiers(profile)
        profile.awaiting += (not group.present[name][0]) - (there is not None and not there[0])
        join_leaves = self.folding(actor.generation, self.meta.newest).join
        if piece is not None:
            profile.holds(join(profile.joined, piece, join_leaves))
        elif profile.joined is actor.own:
            # From now on there are several: what is folded into another must not come into this one.
            profile.holds(join_all((profile.joined,), join_leaves))

    def set_deadline(self, profile: Profile) -> None:
        """After an evaluation: keep how the profile stands, and when it is to be looked at again, in the time index
        too. The index may be early, never late, so that it need not move with every event; but it says the same
        whatever was at hand, for the order in which ticks find profiles is seen in the log. The actor must be put
        afterwards."""
        actor, standing = profile.actor, profile.standing
        wake = actor.wake
        actor.standing = standing.kept if standing is not None else b""
        if standing is not None and 0 < wake <= self.clock:
            profile.plan.segments.tighten(standing, profile, self.clock)
        deadline = self._deadline(profile, self.clock)
        if deadline < wake or wake <= self.clock or standing is None:
            actor.wake = max(deadline, self.clock + 1) if deadline < FOREVER else 0

    def may_be_due(self, actor: Actor) -> bool:
        """Whether time alone may have changed an actor's profile. In the time index what was due when it was written
        is due a millisecond later."""
        return 0 < actor.wake <= self.clock + 1

    def is_due(self, profile: Profile) -> bool:
        """Whether time alone has changed a published profile since it was last settled."""
        actor, standing = profile.actor, profile.standing
        if not self.may_be_due(actor):
            return False
        if standing is not None:
            profile.plan.segments.tighten(standing, profile, actor.settled)
        return self._deadline(profile, actor.settled) <= self.clock

    def expires(self, profile: Profile) -> int:
        """When nothing will have been received for so long that a profile of pseudonyms ends. While some of it is on
        its way nobody knows when anything was received; and what belongs to another by now is called away in parts, of
        which the newest may be the first."""
        received, actor, group = profile.joined.last_received, profile.actor, profile.group
        if not received or profile.awaiting or belongs_elsewhere(actor):
            return FOREVER
        if group is not None and actor.identifier not in group.present:
            return FOREVER
        expires = received + self.lives_for(profile.plan)
        return max(expires, actor.hold_until + EXPECTED_MS) if actor.expecting else expires

    def lives_for(self, plan: GenerationPlan) -> int:
        """How long a profile of pseudonyms lives without an event."""
        own = plan.identity.expire_after_ms
        return self.expire_after_ms if own is None else own

    def _deadline(self, profile: Profile, now_ms: int) -> int:
        actor, standing = profile.actor, profile.standing
        if standing is None:
            return FOREVER
        deadline = standing.deadline or FOREVER
        if profile.computed_deadline and profile.computed_deadline < deadline:
            deadline = profile.computed_deadline
        if profile.pseudonymous:
            deadline = min(deadline, self.expires(profile))
        until = first_to_go(profile)
        if until is not None:
            deadline = min(deadline, until)
        if actor.hold_until > now_ms and waits(actor):
            deadline = min(deadline, actor.hold_until)
        return deadline

    def drop(self, key: bytes) -> None:
        """What is at hand of this profile is no longer so."""
        self.profiles.pop(key, None)


PSEUDONYMOUS_PREFIXES = tuple(f"{namespace}:" for namespace in PSEUDONYMOUS)
