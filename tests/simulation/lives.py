"""Whole lives: `python -m tests.simulation.lives --seeds N --first M`.

Profiles of pseudonyms that end by themselves when nothing was received for long, amid all else that happens to people:
events, merges, unlinks and their undoing, releases, erasures, other definitions, other identity rules (how long
pseudonyms are kept among them), events of accounts, late and duplicate events, crashes and rebalances; and clocks that
pass deadlines in between.

What must hold of the output topics, each read as a table, was written down from DESIGN before the code was read:

    (a) every identifier of a living profile leads to that profile, and to no other; whatever leads somewhere leads to
        a profile that lives and has it, successors followed, or to none that ever lived with it
    (b) a profile lives or is gone: `profiles` has those whose last word in `profile-changes` is not an end, and an end
        is told once a life, with the cause that belongs to it
    (c) the members are the segments of the documents, and those of a naive evaluation of what is left of the events
    (d) entered and exited alternate, `at` never goes back, nothing happens to a profile that does not live then, and
        every change has a cause that was there
    (e) at every rest, not at the end alone

Two kinds of world:

    settled    nothing is in flight when a profile is to end, or somebody is erased: then it is known what is left of
               whom, and everything is checked against the oracle, for which the forgotten events never were
    hasty      deadlines pass, and people are erased, in the midst of merges and unlinks: checked is what holds
               whatever was in flight
"""

import random
import traceback
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import msgspec

from pipeline.identifiers import Keys, partition_of
from pipeline.identity import IdentityStage
from pipeline.records import (
    EraseRequest,
    Event,
    IdentityPointer,
    Marker,
    ProfileChange,
    ProfileDocument,
    RulesChanged,
    SegmentChange,
    SegmentMember,
    Unlink,
    encode,
)
from pipeline.unify import UnifyStage, account, generations
from tests.oracle.accounts import AccountRules, AccountWorld
from tests.oracle.profiles import ExpectedProfile, profiles
from tests.simulation import checks, seeds
from tests.simulation.accounts import check_accounts, check_alerts, put_accounts
from tests.simulation.definitions import make_segments
from tests.simulation.erasures import ErasingStory, ErasingTruth, Mentions, check_nothing_names, counted
from tests.simulation.rules_change import ChangingCluster, Editor, Paused, Versions, paused_members
from tests.simulation.run import KEYS
from tests.simulation.wiring import lay_out
from tests.simulation.world import DAY, HOUR, MINUTE, SECOND, Operate, Send, World, make_world

T = TypeVar("T")
PSEUDONYMS = ("device_id:", "anonymous_id:")


# ------------------------------------------------------------------------------------------------------------ the story


class LivesStory(ErasingStory):
    """A story of devices and browsers that fall silent and come back, and of people who log in on them, and who are
    erased now and then."""

    expire_ms = 2 * DAY
    erases = 0.3

    def __init__(self, rng: random.Random, world: World, start: int) -> None:
        super().__init__(rng, world, start)
        own = self.own = random.Random(f"lives {world.seed}")
        self.expire_ms = own.choice((2, 3, 9)) * DAY
        self.hasty = own.random() < 0.35
        self.erases = own.choice((0.0, 0.15, 0.5))
        self.keeps = False
        self.shy = own.choice((0.3, 0.7, 0.9))

    def pass_time(self) -> None:
        super().pass_time()
        draw = self.own.random()
        if draw < 0.06:
            self.now += self.expire_ms
        elif draw < 0.12:
            self.now += self.expire_ms // 2 + self.own.choice((-1, 0, 1, SECOND))
        elif draw < 0.15:
            self.now += self.own.choice((HOUR, DAY, 2 * self.expire_ms, self.expire_ms - MINUTE))

    def identifiers(self) -> list[str]:
        shy = [one for one in self.all if one.startswith(PSEUDONYMS)]
        if not shy or self.own.random() >= self.shy:
            return super().identifiers()
        many = min(len(shy), self.own.choices((1, 2, 3), (5, 5, 1))[0])
        return sorted(self.own.sample(shy, many), key=self.world.rules.rank)

    def operate(self) -> None:
        # What an erasing story does half of the time, this one does as often as it is drawn.
        if self.own.random() < 2 * self.erases:
            super().operate()
        else:
            super(ErasingStory, self).operate()


# ----------------------------------------------------------------------------------------------------------- the oracle


class MortalTruth(ErasingTruth):
    """The oracle's view where profiles end by themselves: of what was received of them nothing is left but that it was
    there, and what it said of who is who."""

    def __init__(self, world: World, keys: Keys, expire_ms: int) -> None:
        super().__init__(world, keys)
        self.expire_ms = expire_ms
        self._ended: set[tuple[str, str, int]] = set()
        self._erased_events: list[Event] = []

    def settle(self) -> None:
        super().settle()
        left = [event for event in self.accepted.events if _name(event) not in self._ended]
        self.expected = {self.id_of(name): one for name, one in profiles(left, self.who).items()}

    def may_end(self, after: int, until: int) -> bool:
        """Whether a profile can end in this time, whoever is together with whom by then."""
        return any(after < received + self.expire_ms <= until for received in self._silent_since().values())

    def may_be_dead(self, now: int) -> bool:
        """Whether anybody is kept alive by others alone, and ends when parted from them."""
        return any(newest + self.expire_ms <= now for newest in self._silent_since(newest=True).values())

    def _silent_since(self, newest: bool = False) -> dict[object, int]:
        """When each event was received that is left of a pseudonym; of each pseudonym the newest alone."""
        found: dict[object, int] = {}
        for events in self.partitions.values():
            for event in events:
                route = event.identifiers[0]
                if route.startswith(PSEUDONYMS) and _name(event) not in self._ended:
                    key = route if newest else _name(event)
                    found[key] = max(event.received, found.get(key, 0))
        return found

    def pass_time(self, now: int) -> int:
        """Time has come to `now`: forget who has ended by then. Gives how many profiles that were."""
        self.settle()
        over = [one for one in self.expected.values() if self._is_over(one, now)]
        for profile in over:
            self._ended.update(map(_name, profile.events))
            self.forgotten += len(profile.events)
        if over:
            self.settle()
        return len(over)

    def _is_over(self, profile: ExpectedProfile, now: int) -> bool:
        newest = max(event.received for event in profile.events)
        return all(one.startswith(PSEUDONYMS) for one in profile.identifiers) and newest + self.expire_ms <= now

    def erase(self, record: EraseRequest, epoch: int) -> None:
        self.settle()
        name = self.who.name_of.get(record.identifier, record.identifier)
        gone = self.who.members.get(name, frozenset({record.identifier}))
        theirs = [event for event in self.accepted.events if event.identifiers[0] in gone]
        self._erased_events += theirs
        # They are counted with the erased from now on.
        self.forgotten -= sum(_name(event) in self._ended for event in theirs)
        super().erase(record, epoch)

    @property
    def gone(self) -> list[Event]:
        """The events of whoever is gone."""
        return self._erased_events + [one for one in self.accepted.events if _name(one) in self._ended]


def _name(event: Event) -> tuple[str, str, int]:
    return event.identifiers[0], event.message_id, event.received


class AccountsThatStay(AccountWorld):
    """What events say of an account stays when the person is no more through whom it came."""

    gone: list[Event]

    @cached_property
    def _named(self) -> list[tuple[str, Event]]:
        found = list(AccountWorld._named.func(self))  # type: ignore[attr-defined]
        for event in self.gone:
            rules = self.rules_at(event)
            if event.type == "group" and event.group_id and rules.groups:
                found.append((rules.canonical(event.group_id), event))
        return found


# ------------------------------------------------------------------------------------------------------------- the laws


@dataclass
class Tables:
    """The output topics as a subscriber has them."""

    profiles: dict[str, ProfileDocument]
    pointers: dict[str, IdentityPointer]
    members: dict[tuple[str, str], SegmentMember]
    profile_changes: list[ProfileChange]
    segment_changes: list[SegmentChange]


def read_tables(topics: checks.Topics) -> Tables:
    """Read them all."""

    profiles, pointers = _rows(topics, "profiles", ProfileDocument), _rows(topics, "identities", IdentityPointer)
    members = _rows(topics, "segment-members", SegmentMember).values()
    return Tables(
        profiles,
        pointers,
        {(one.segment, one.profile_id): one for one in members},
        _log(topics, "profile-changes", ProfileChange),
        _log(topics, "segment-changes", SegmentChange),
    )


def _rows(topics: checks.Topics, name: str, kind: type[T]) -> dict[str, T]:
    return {key.decode(): msgspec.json.decode(value, type=kind) for key, value in topics.compacted(name).items()}


def _log(topics: checks.Topics, name: str, kind: type[T]) -> list[T]:
    return [msgspec.json.decode(one.value, type=kind) for one in topics.records(name) if one.value is not None]


def check_lives(tables: Tables, changes_of_rules: int) -> None:
    """What holds of the tables by themselves, whoever is who. `changes_of_rules`: how many generations there were."""
    _check_names(tables)
    _check_ends(tables)
    _check_memberships(tables)
    _check_reasons(tables, changes_of_rules)


def _check_names(tables: Tables) -> None:
    holders: dict[str, str] = {}
    for profile_id, document in tables.profiles.items():
        for pair in document.identifiers:
            text = f"{pair.namespace}:{pair.value}"
            if text in holders:
                raise checks.Violation("a", f"{text} stands in two profiles: {holders[text]} and {profile_id}")
            holders[text] = profile_id
            there = tables.pointers.get(text)
            if there is None or there.retired or there.profile_id != profile_id:
                raise checks.Violation("a", f"{text} stands in {profile_id} and leads to {there}")
    for text, pointer in tables.pointers.items():
        if pointer.retired:
            if text in tables.profiles:
                raise checks.Violation("a", f"{text} lives, and has a successor: {pointer}")
            _follow(tables, text)
        elif pointer.profile_id in tables.profiles and holders.get(text) != pointer.profile_id:
            raise checks.Violation("a", f"{text} leads to {pointer.profile_id}, which does not have it")


def _follow(tables: Tables, profile_id: str) -> str:
    seen = []
    while (pointer := tables.pointers.get(profile_id)) is not None and profile_id not in tables.profiles:
        seen.append(profile_id)
        profile_id = pointer.profile_id
        if profile_id in seen:
            raise checks.Violation("a", f"successors go round: {seen}")
    return profile_id


ENDS = {"merged": ("merge", "split"), "expired": ("expired",), "erased": ("erase", "merge", "split")}


def _check_ends(tables: Tables) -> None:
    alive: set[str] = set()
    last: dict[str, ProfileChange] = {}
    for change in tables.profile_changes:
        one = change.profile_id
        if (change.change in ("created", "split")) == (one in alive):
            raise checks.Violation("b", f"{change} while {'alive' if one in alive else 'not alive'}")
        if change.change in ENDS:
            alive.discard(one)
            if change.cause not in ENDS[change.change]:
                raise checks.Violation("b", f"{change} has the cause of something else")
        else:
            alive.add(one)
        last[one] = change
    checks.same("b", "who lives", set(tables.profiles), alive)
    for text, pointer in tables.pointers.items():
        ended = last.get(text)
        if pointer.retired and (ended is None or ended.change != "merged"):
            raise checks.Violation("b", f"{text} has a successor, and its last word is {ended}")


def _check_memberships(tables: Tables) -> None:
    shown = {
        (segment, profile_id): told.since
        for profile_id, document in tables.profiles.items()
        for segment, told in document.segments.items()
    }
    checks.same("c", "members and documents", {pair: one.since for pair, one in tables.members.items()}, shown)


def _check_reasons(tables: Tables, changes_of_rules: int) -> None:
    with_accounts = any(one.entity == "account" for one in tables.profile_changes)
    ended = {(one.profile_id, one.cause, one.at) for one in tables.profile_changes if one.change in ENDS}
    for change in tables.segment_changes:
        # Where there are accounts, the end of one person may be a reason for another.
        if change.cause in ("expired", "erase") and not with_accounts:
            if change.change == "entered":
                raise checks.Violation("d", f"{change}: nobody enters by an end")
            # `at` may be held back by what was told of the pair before.
            if not any(
                (one, cause) == (change.profile_id, change.cause) and at <= change.at for one, cause, at in ended
            ):
                raise checks.Violation("d", f"{change}: nothing ended so")
        if change.cause in ("definition", "backfill") and not changes_of_rules:
            raise checks.Violation("d", f"{change}: no rule ever changed")
        if change.cause == "timer" and change.at > change.decided_at:
            raise checks.Violation("d", f"{change}: before its time")


# ------------------------------------------------------------------------------------------------------------ the world


class Life:
    """One deployment, and everything that happens in its world."""

    def __init__(self, world: World, story: LivesStory) -> None:
        rng = self.rng = random.Random(f"a life {world.seed}")
        self.world, self.story = world, story
        lay_out(world.seed)
        generations._BUCKETS = tuple(f"a{number:x}".encode() for number in range(16))
        generations.PROFILES_PER_SWEEP = rng.choice((1, 2, 1_000))
        account._BUCKETS = tuple(f"{number:x}".encode() for number in range(16))
        numbers = {one["segment"]: 1 for one in world.segments if "segment" in one}
        self.versions = versions = Versions(world, [], [], numbers, expire_ms=story.expire_ms)
        if not versions.put_in_force(world.segments if rng.random() < 0.8 else [], frozenset(), world.accounts):
            raise AssertionError("the first rules do not fit together")
        self.editor = Editor(rng, versions, story.start)
        self.cluster = ChangingCluster(
            world.partitions,
            rng,
            lambda partition: IdentityStage(KEYS, versions.plans.__getitem__, world.partitions),
            lambda partition: UnifyStage(partition, KEYS, versions.plans.__getitem__, 36_500, world.partitions),
            rng.choice((0.0, 0.03, 0.15)),
        )
        self.cluster.history_records = rng.choice((1, 2, 5, 100))
        self.truth = MortalTruth(world, KEYS, story.expire_ms)
        self.mentions = Mentions()
        self.eager = rng.choice((0.0, 0.05, 0.2))
        self.turns = rng.choice((0.0, 0.0, 0.04))
        if story.erases and not story.hasty:
            # How many people the erased had touched counts under other rules too, and only identity knows.
            self.turns = 0.0
        self.limits = rng.choice((0.0, 0.0, 0.04))
        self.paused = Paused()
        self.sent_under: dict[tuple[str, int], AccountRules] = {}
        self.passed = 0
        self.dirty = False

    @property
    def hasty(self) -> bool:
        return self.story.hasty

    def run(self) -> None:
        """All of it."""
        for arrival in self.world.arrivals:
            if self.rng.random() < self.eager:
                self.change_definitions()
            if self.rng.random() < self.turns:
                self.change_who()
            if self.rng.random() < self.limits:
                self.change_limit()
            self.mentions.take(arrival)
            if isinstance(arrival, Send):
                self.send(arrival.event)
            elif isinstance(arrival, Operate):
                self.operate(arrival)
            else:
                self.rest(arrival.now)
                continue
            self.cluster.some_steps()

    def comes(self, now: int) -> None:
        """Something of this time comes. Whoever ends before it has all there is of them by then."""
        if not self.hasty:
            if now < self.passed:
                # It is late, and of before an end: everybody hears of it after that.
                self.rest(self.cluster.now, looks=False)
            if self.truth.may_end(self.cluster.now, now):
                self.rest(self.cluster.now, looks=False)
                if self.rng.random() < 2 * self.eager:
                    # Whoever ends now does so while history is read and profiles are taken along.
                    self.change_definitions()
                    self.cluster.some_steps()
                self.truth.pass_time(now)
                self.passed = now
        self.cluster.now = max(self.cluster.now, now)

    def regroups(self) -> None:
        """Something was said that may part people: who was kept alive by others alone has ended before it goes on."""
        if not self.hasty and self.truth.may_be_dead(self.cluster.now):
            self.rest(self.cluster.now, looks=False)

    def send(self, event: Event) -> None:
        event = msgspec.structs.replace(event, identifiers=list(event.identifiers))
        self.comes(event.received)
        key = KEYS.actor(event.identifiers[0])
        self.cluster.write("events", key, encode(event))
        partition = partition_of(key, self.world.partitions)
        if self.hasty:
            self.truth.send(partition, event)
        else:
            self.truth.arrives(partition, event)
        if self.versions.accounts is not None:
            self.sent_under[event.message_id, event.received] = self.versions.accounts
        if len(event.identifiers) > 1:
            self.regroups()

    def operate(self, arrival: Operate) -> None:
        record = arrival.record
        erasing = isinstance(record, EraseRequest)
        if self.passed and not self.hasty:
            self.rest(self.cluster.now)
        self.comes(getattr(record, "received", 0))
        if isinstance(record, Unlink) and not self.hasty and self.truth.may_be_dead(self.cluster.now):
            # Of an earlier instant it would part some until their routes have said that they were seen since.
            record = msgspec.structs.replace(record, received=self.cluster.now)
        if erasing and self.rng.random() < 2 * self.eager:
            self.change_definitions()
            self.cluster.some_steps()
        self.cluster.write("identity-edges", None, encode(record), 0)
        if not erasing:
            self.truth.operate(record)
        elif not self.hasty:
            assert isinstance(record, EraseRequest)
            self.truth.erase(record, self.cluster.end("identity-edges"))
        self.regroups()

    # ---------------------------------------------------------------------------------------------------- other rules

    def change_definitions(self) -> None:
        generation = self.editor.change()
        if generation is not None:
            self.paused.members = {one: ids for one, ids in self.paused.members.items() if one in self.versions.paused}
            self.mark(generation)

    def change_who(self) -> None:
        """Other identity rules: who is who is found anew."""
        generation = self.editor.change_who(self.rng)
        self.mark(generation)
        self.cluster.write("identity-edges", None, encode(RulesChanged(generation, self.cluster.now)), 0)
        assert self.versions.who is not None
        self.truth.rules = self.versions.who
        self.regroups()

    def change_limit(self) -> None:
        """Pseudonyms are kept for longer, or not so long."""
        if not self.hasty:
            self.rest(self.cluster.now)
        self.versions.expire_ms = self.rng.choice((HOUR, DAY, 2 * DAY, 5 * DAY, 20 * DAY))
        assert self.versions.put_in_force(self.versions.definitions, self.versions.paused, self.versions.accounts)
        self.mark(len(self.versions.plans) - 1)
        self.truth.expire_ms = self.versions.expire_ms
        if not self.hasty:
            self.rest(self.cluster.now)

    def mark(self, generation: int) -> None:
        for partition in range(self.world.partitions):
            self.cluster.write("events", None, encode(Marker(generation, self.cluster.now)), partition)

    # ---------------------------------------------------------------------------------------------------------- a rest

    def rest(self, now: int, looks: bool = True) -> None:
        """Bring everything to rest, and check it if it `looks` there."""
        cluster, truth = self.cluster, self.truth
        now = max(now, cluster.now)
        if not self.hasty and truth.may_end(cluster.now, now):
            # Whoever comes to an end by then has all there is of them.
            cluster.caught_up(cluster.now)
            cluster.come_to_rest()
        cluster.caught_up(now)
        cluster.come_to_rest()
        if self.hasty or truth.pass_time(now):
            # Somebody whose time was over when they were parted from others lives for one instant.
            now += 1
            cluster.caught_up(now)
            cluster.come_to_rest()
        self.passed = 0
        if not looks and self.rng.random() < 0.5:
            return
        if self.hasty:
            self.check_hastily(now)
        else:
            self.check(now)

    def check_hastily(self, now: int) -> None:
        """What holds whatever was in flight when somebody ended."""
        broker: checks.Topics = self.cluster.broker
        checks.check_nothing_refused(broker)
        if not self.turns:
            checks.check_limits(self.truth, broker)
        checks.check_folds(self.truth, broker)
        checks.check_causes(broker)
        tables = read_tables(broker)
        check_lives(tables, len(self.versions.plans) - 1)
        stores = self.cluster.stores()
        checks.check_store(stores)
        shown = sum(total.count for one in tables.profiles.values() for total in one.totals.values())
        lost = ("duplicates", "erased", "kept_out", "expired")
        gone = sum(counted(local, what) for local, _ in stores.values() for what in lost)
        checks.same("8 accounting", "events", shown + gone, self.truth.sent)
        check_nothing_names(self.cluster, self.mentions.gone(broker.compacted("identity-decisions")))

    def check(self, now: int) -> None:
        """Everything."""
        truth, versions = self.truth, self.versions
        broker: checks.Topics = self.cluster.broker
        truth.settle()
        checks.check_evidence(truth, broker)
        checks.check_what_is_told(truth, broker)
        checks.check_causes(broker)
        check_lives(read_tables(broker), len(versions.plans) - 1)
        check_nothing_names(self.cluster, truth.erased)
        asked = [one for one in versions.definitions if "segment" in one and one["segment"] not in versions.paused]
        if versions.accounts is not None:
            due = AccountsThatStay(
                truth.expected,
                versions.definitions,
                versions.accounts,
                lambda name: KEYS.profile_id(f"account:{name}"),
                now,
                lambda event: self.sent_under[event.message_id, event.received],
            )
            due.gone = truth.gone
            check_accounts(due, broker)
            check_alerts(broker, versions.accounts.alerts)
            expected = {one["segment"]: due.members(one) for one in asked}
        else:
            expected = checks.members_due(truth, versions.definitions, asked, now)
        paused_members(broker, versions, self.paused)
        checks.check_members(truth, broker, {**expected, **self.paused.members}, now)
        checks.check_computed(truth, broker, versions.definitions, now)
        checks.check_store(self.cluster.stores())


def try_seed(seed: int) -> str | None:
    """Run one seed; what went wrong, or None."""
    told: list[LivesStory] = []

    class Told(LivesStory):
        def __init__(self, rng: random.Random, world: World, start: int) -> None:
            world.calm = False
            super().__init__(rng, world, start)
            told.append(self)

    ordinary = generations._BUCKETS, generations.PROFILES_PER_SWEEP, account._BUCKETS
    try:
        world = make_world(seed, make_segments, put_accounts, story=Told)
        Life(world, told[0]).run()
    except checks.Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001 -- whatever a stage raises is a failure of the seed
        return traceback.format_exc()
    finally:
        generations._BUCKETS, generations.PROFILES_PER_SWEEP, account._BUCKETS = ordinary
    return None


if __name__ == "__main__":
    raise SystemExit(seeds.main(__spec__.name if __spec__ else __name__, __doc__, try_seed, seeds=200))
