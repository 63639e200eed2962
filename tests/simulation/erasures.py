"""Worlds in which people are erased: `python -m tests.simulation.erasures --seeds N --first M`.

People are linked, merged, unlinked, released and erased in random order, come back by later events, and are erased
again, while workers crash. Two kinds of world:

    settled    everything comes to rest before an erasure: then it is known who is erased, and all that must be true is
               checked against the oracle, for which the erased never were
    hasty      erasures fall into the middle of merges, unlinks and other erasures: whom they find depends on what was
               read by then, so checked is what holds whomever they find: nothing is lost or counted twice, the logs
               fold to the tables, and every store is what its changelog gives

In both, nothing that is kept names anybody who was erased and not heard of since. Whom an erasure found is read from
`identity-decisions`; who was to be kept out is heard of by a consent that was given since, and by no event else.

In most worlds some of the erased are kept out: events come through a door (door.py) that knows them by a keyed hash,
and some got past it before it knew. People come back by a consent, are rectified, and suppressed, in between.
"""

import random
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.identifiers import Keys, partition_of
from pipeline.records import EdgesRecord, Erased, EraseRequest, Event, Release, Relink, Unlink, encode
from pipeline.unify import actor, forms
from tests.oracle.identity import Evidence
from tests.simulation import checks, seeds
from tests.simulation.cluster import Cluster
from tests.simulation.definitions import make_segments
from tests.simulation.door import Door, KeptOut, consents
from tests.simulation.driver import Simulation, replayed
from tests.simulation.run import KEYS, rest
from tests.simulation.wiring import identity_stage, said_by_records, unify_stage
from tests.simulation.world import DAY, Operate, Rest, Send, Story, World, make_world

_CHANGELOG_HEADER = 8


@dataclass(frozen=True)
class PastTheDoor(Send):
    """An event that was accepted when the door had not yet heard of an erasure."""


class ErasingStory(Story):
    """A story in which every second intervention is an erasure."""

    hasty = False
    erased_at = -1

    def __init__(self, rng: random.Random, world: World, start: int) -> None:
        super().__init__(rng, world, start)
        # Drawn apart: a world where nobody is kept out is what it was before there was a door.
        self.apart = random.Random(f"door {world.seed}")
        self.keeps = self.apart.random() < 0.7
        self.doomed: dict[str, int] = {}

    def operate(self) -> None:
        if self.rng.random() < 0.5:
            super().operate()
            return
        if not self.hasty:
            self.world.arrivals.append(Rest(self.now))
        # What was received up to then is of before, so nothing else may be of the same instant.
        self.now += 1
        self.erased_at = self.now
        doomed = self.rng.choice(self.all)
        request_id = f"r{self.now}" if self.rng.random() < 0.7 else ""
        keep_out = self.keeps and self.apart.random() < 0.7
        if keep_out:
            request_id = f"r{self.now}"
            self.doomed[doomed] = self.now
        self.world.arrivals.append(Operate(EraseRequest(doomed, self.now, request_id, keep_out)))
        if not self.hasty:
            # At this very instant: since when somebody is kept out is by the clock at which the actor hears of it.
            self.world.arrivals.append(Rest(self.now))
        self.now += 1

    def fresh(self) -> Event:
        event = super().fresh()
        if event.received <= self.erased_at:
            event.received = self.now
        if self.doomed and self.apart.random() < 0.4:
            self._of_the_erased(event)
        return event

    def _of_the_erased(self, event: Event) -> None:
        """What is heard of somebody who was to be kept out: a sign of life, a consent, a request by another."""
        one = self.apart.choice(sorted(self.doomed))
        draw = self.apart.random()
        if draw < 0.4:
            event.identifiers = sorted({one, *event.identifiers}, key=self.world.rules.rank)
        elif draw < 0.7:
            event.identifiers = sorted({one, *event.identifiers[:1]}, key=self.world.rules.rank)
            event.context = {"consent": {"marketing": self.apart.random() < 0.8}}
        elif draw < 0.85:
            # As `headwater privacy rectify` and `suppress` say it: in the person's own name.
            event.identifiers, event.type, event.event, event.properties = [one], "identify", "Identify", {}
            event.traits = {"city": "rectified"}
        else:
            event.identifiers, event.type, event.event, event.properties = [one], "identify", "Identify", {}
            event.traits, event.context = {}, {"consent": {"*": self.apart.random() < 0.3}}

    def send(self, event: Event) -> None:
        consents = bool(event.context.get("consent")) and bool(self.doomed) and not self.hasty
        if consents:
            # A consent anew is told from route to route: what comes just before or after it, under another name, may
            # overtake it.
            self.world.arrivals.append(Rest(self.now))
        if self.keeps and self.apart.random() < 0.2:
            self.sent.append(event)
            self.world.arrivals.append(PastTheDoor(event))
        else:
            super().send(event)
        if consents:
            self.world.arrivals.append(Rest(self.now))
            self.now += 1


class HastyStory(ErasingStory):
    """The same without waiting."""

    hasty = True


class ErasingTruth(checks.Truth):
    """The oracle's view where people are erased."""

    def __init__(self, world: World, keys: Keys) -> None:
        super().__init__(world.rules, keys)
        self._kept_apart: set[str] = set()
        self._witnessed: list[tuple[list[str], int, int]] = []
        self.erased: set[str] = set()
        self.erasures = 0
        self.kept = KeptOut()

    def operate(self, record: EdgesRecord) -> None:
        if isinstance(record, Release):
            self._kept_apart.discard(record.identifier)
        # Whoever decides about somebody knows them, and says who it is.
        self.know_again(one for one in (getattr(record, name, "") for name in ("a", "b", "identifier")))
        super().operate(record)

    def _evidence(self) -> Evidence:
        evidence = super()._evidence()
        evidence.kept_apart = set(self._kept_apart)
        for identifiers, time, received in self._witnessed:
            evidence.saw(identifiers, time, received)
        self._known_at[self.sent] = set(evidence.edges)
        return evidence

    def erase(self, record: EraseRequest, epoch: int) -> None:
        """Everything is at rest: whoever is in the group now was never there, but for what others did with them."""
        self.settle()
        name = self.who.name_of.get(record.identifier, record.identifier)
        gone = self.who.members.get(name, frozenset({record.identifier}))
        self._kept_apart = (self._kept_apart | self.who.quarantined) - gone
        self.told_before += self.accepted.events
        # What an event of theirs said of two others stays said.
        seen = [(one.identifiers, one.time, one.received) for one in self.accepted.events if one.identifiers[0] in gone]
        self._witnessed = [
            (left, time, received)
            for identifiers, time, received in (*self._witnessed, *seen)
            if len(left := [one for one in identifiers if one not in gone]) > 1
        ]
        for partition, events in self.partitions.items():
            kept = [event for event in events if event.identifiers[0] not in gone]
            self.forgotten += len(events) - len(kept)
            self.partitions[partition] = [_without(event, gone) for event in kept]
        self.operated = [(sent, one) for sent, one in self.operated if not _is_about(one, gone)]
        for pairs in self._known_at.values():
            pairs -= {pair for pair in pairs if gone.intersection(pair)}
        self.epochs |= dict.fromkeys(gone, epoch)
        self.kept.erased(gone, record.received, record.keep_out)
        self.erased |= gone
        self.erasures += 1

    def arrives(self, partition: int, event: Event) -> None:
        """An event stands in `events`. Who is kept out behind the door is not heard of by it."""
        if self.kept.takes(event):
            # Another who is kept out is linked to nobody, and their name is kept nowhere, though it was told.
            whole, event = event, _without(event, frozenset(event.identifiers[1:]).intersection(self.kept.behind))
            if event != whole and not any(_are_one(whole, other) for other in self.partitions[partition]):
                self.told_before.append(whole)
            self.send(partition, event)
            self.know_again(event.identifiers)
        else:
            # It is counted, and nothing else comes of it.
            self.sent += 1
            self.forgotten += 1

    def know_again(self, identifiers: Iterable[str]) -> None:
        """Whoever is named is known again."""
        self.erased.difference_update(identifiers)


def _without(event: Event, gone: frozenset[str]) -> Event:
    left = [one for one in event.identifiers if one not in gone]
    return msgspec.structs.replace(event, identifiers=left)


def _are_one(event: Event, other: Event) -> bool:
    """Whether two records of one partition are one event."""
    near = abs(event.received - other.received) <= DAY
    return near and (event.identifiers[0], event.message_id) == (other.identifiers[0], other.message_id)


def _is_about(record: EdgesRecord, gone: frozenset[str]) -> bool:
    if isinstance(record, Unlink | Relink):
        return record.a in gone or record.b in gone
    return isinstance(record, Release) and record.identifier in gone


class Mentions:
    """Who was named by what, in the order in which it was written: in a hasty world nobody knows what was read when."""

    def __init__(self) -> None:
        self._written = 0
        self._rested = 0
        self._heard: dict[str, int] = {}
        self._consented: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        self._asked: dict[int, tuple[int, int, bool]] = {}

    def take(self, arrival: Send | Operate | Rest) -> None:
        """Something is written, or all that was is read."""
        self._written += 1
        if isinstance(arrival, Rest):
            self._rested = self._written
        elif isinstance(arrival, Send):
            event = arrival.event
            for one in event.identifiers:
                self._heard[one] = self._written
                if consents(event, self._consented.get(one, 0)):
                    self._consented[one] = event.time
        elif isinstance(arrival.record, EraseRequest):
            asked = arrival.record
            self._asked[asked.received] = self._written, self._rested, asked.keep_out
        else:
            named = [getattr(arrival.record, name, "") for name in ("a", "b", "identifier")]
            self._decided.update(dict.fromkeys(named, self._written))

    def gone(self, decisions: Mapping[bytes, bytes]) -> set[str]:
        """Whoever was erased, and not heard of since in any order of events."""
        by_actor = {KEYS.actor(one).decode(): one for one in (*self._heard, *self._decided)}
        found = set()
        for key, value in decisions.items():
            if key.startswith(b"erase\t"):
                erased = msgspec.json.decode(value, type=Erased)
                one = by_actor.get(erased.actor)
                written, rested, keep_out = self._asked[erased.received]
                if one is None or self._decided.get(one, 0) > written:
                    continue
                if keep_out:
                    named = self._consented.get(one, 0) > erased.received
                else:
                    named = self._heard.get(one, 0) > rested
                if not named:
                    found.add(one)
        return found


Deployment = Simulation | Cluster


def play(world: World, engine: str, rng: random.Random, partitions: int, hasty: bool) -> tuple[Deployment, int]:
    """A deployment with this many partitions, and everything that happens in the world. How many were erased, too."""
    unify, identity = unify_stage(world, KEYS), identity_stage(world.rules, partitions, world.seed, KEYS)
    crash_rate = rng.choice((0.0, 0.03, 0.15))
    kind = Simulation if engine == "light" else Cluster
    deployment: Deployment = kind(partitions, rng, identity, unify, crash_rate)
    truth, door, asked, mentions = ErasingTruth(world, KEYS), Door(KEYS), dict[str, int](), Mentions()
    for arrival in world.arrivals:
        mentions.take(arrival)
        if isinstance(arrival, Send):
            event: Event | None = arrival.event
            if not isinstance(arrival, PastTheDoor):
                event = door.let_in(arrival.event)
                if not hasty:
                    through = None if event is None else event.identifiers
                    checks.same("door", arrival.event.message_id, through, truth.kept.let_in(arrival.event))
            deployment.now = max(deployment.now, arrival.event.received)
            if event is None:
                continue
            key = KEYS.actor(event.identifiers[0])
            deployment.write("events", key, encode(event))
            if hasty:
                # Whether it comes before an erasure or after it, nobody knows.
                truth.send(partition_of(key, partitions), event)
            else:
                truth.arrives(partition_of(key, partitions), event)
        elif isinstance(arrival, Operate):
            deployment.write("identity-edges", None, encode(arrival.record), 0)
            if not isinstance(arrival.record, EraseRequest):
                truth.operate(arrival.record)
            else:
                erase(deployment, truth, door, arrival.record, hasty)
                if arrival.record.keep_out:
                    asked[arrival.record.request_id] = arrival.record.received
        else:
            if hasty:
                rest_hastily(deployment, truth, arrival)
                check_nothing_names(deployment, mentions.gone(deployment.broker.compacted("identity-decisions")))
            else:
                rest(deployment, truth, world, arrival)
                check_nothing_names(deployment, truth.erased)
            door.learn(deployment.broker.compacted("identity-decisions"), asked)
            if not hasty:
                there = {KEYS.actor(one): at for one, at in truth.kept.at_door.items()}
                checks.same("door", "who is kept out", {one: each.at for one, each in door.kept_out.items()}, there)
            continue
        deployment.some_steps()
    return deployment, truth.erasures


def erase(deployment: Deployment, truth: ErasingTruth, door: Door, record: EraseRequest, hasty: bool) -> None:
    """Somebody asks to be erased; the privacy role lists who is known beforehand."""
    if not hasty:
        truth.erase(record, deployment.end("identity-edges"))
    if record.keep_out:
        door.list([record.identifier], record.received, record.request_id)


def rest_hastily(deployment: Deployment, truth: ErasingTruth, arrival: Rest) -> None:
    """Bring everything to rest and check what holds whomever the erasures found."""
    deployment.caught_up(arrival.now)
    deployment.come_to_rest()
    broker: checks.Topics = deployment.broker
    checks.check_nothing_refused(broker)
    checks.check_limits(truth, broker)
    checks.check_folds(truth, broker)
    checks.check_causes(broker)
    stores = deployment.stores()
    checks.check_store(stores)
    shown = sum(
        total["count"]
        for value in broker.compacted("profiles").values()
        for total in msgspec.json.decode(value).get("totals", {}).values()
    )
    gone = sum(counted(local, what) for local, _ in stores.values() for what in ("duplicates", "erased", "kept_out"))
    checks.same("8 accounting", "events", shown + gone, truth.sent)


def counted(local: Mapping[bytes, Any], what: str) -> int:
    """How often a task has counted something, by its store."""
    stored = local.get(actor.META_KEY)
    if stored is None:
        return 0
    data = stored[1] if isinstance(stored, tuple) else stored[_CHANGELOG_HEADER:]
    meta: actor.Meta = forms.decode(actor.META_KEY, data)
    return meta.counts.get(what, 0)


def check_nothing_names(deployment: Deployment, gone: set[str]) -> None:
    """Neither the stores nor the tables name whoever was erased and not heard of since."""
    if not gone:
        return
    kept = [
        (task, key, stored[1] if isinstance(stored, tuple) else stored)
        for task, (local, _) in deployment.stores().items()
        for key, stored in local.items()
    ]
    for name in ("profiles", "identities", "segment-members", "identity-decisions"):
        kept += [(name, key, value) for key, value in deployment.broker.compacted(name).items()]
    for one in sorted(gone):
        text = one.encode()
        for where, key, value in kept:
            if text in key or text in value:
                raise checks.Violation("erased", f"{one} stands in {where} under {key!r}: {value!r}")


def try_seed(seed: int) -> str | None:
    """Run one seed; what went wrong, or None."""
    rng = random.Random(f"erasures {seed}")
    hasty = rng.random() < 0.4
    engine = ("light", "real")[seed % 2]
    world = make_world(seed, make_segments, story=HastyStory if hasty else ErasingStory)
    world.calm = False
    try:
        deployment, _ = play(world, engine, rng, world.partitions, hasty)
        if isinstance(deployment, Simulation):
            for task in deployment.tasks:
                said, kept = replayed(task, rng)
                checks.same_said(task, said, said_by_records(task.state.store), said_by_records(kept))
        if not hasty and rng.random() < 0.25:
            again, _ = play(world, "light", rng, world.partitions % 4 + 1, hasty)
            checks.same("10 same end", "two deployments", end_of(again, world), end_of(deployment, world))
    except checks.Violation as violation:
        return str(violation)
    except Exception:  # noqa: BLE001 -- whatever a stage raises is a failure of the seed
        return traceback.format_exc()
    return None


def end_of(deployment: Deployment, world: World) -> list[Any]:
    """Profiles and memberships without profile_ids: those of the erased depend on where in the log they were erased,
    and so do the buckets of a rule."""
    found, in_buckets = [], "bucket" in str(world.segments)
    for value in deployment.broker.compacted("profiles").values():
        document = msgspec.json.decode(value)
        del document["profile_id"]
        document["segments"] = [] if in_buckets else sorted(document.get("segments", {}))
        document.pop("unfollowed", None)
        found.append(document)
    return sorted(found, key=str)


if __name__ == "__main__":
    sys.exit(seeds.main("tests.simulation.erasures", __doc__, try_seed, 200))
