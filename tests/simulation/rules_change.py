"""Worlds whose rules change while everything runs: `python -m tests.simulation.rules_change --seeds N --first M`.

Segments of people and of accounts, the rules by which accounts are found, and those of who is who are added, edited,
edited back, removed, paused and resumed at any moment, amid merges, unlinks, people who leave, duplicates, crashes and
rebalances, on the real worker. At every rest the profiles and members are those of the rules in force as if they had
always been there (DESIGN section 9, invariants 1, 2, 4, 6 and 7), and of a paused segment those it had.
"""

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from pydantic import ValidationError

from pipeline.accounts import GROUPS_ONLY
from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import SegmentDefinition
from pipeline.definitions.traits import TraitDefinition
from pipeline.identifiers import partition_of
from pipeline.identity import IdentityStage
from pipeline.plans import GenerationPlan
from pipeline.records import Marker, RulesChanged, SegmentChange, SegmentMember, encode
from pipeline.runtime.memory import memory_adapters
from pipeline.runtime.ports import Stage
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from pipeline.segments import SegmentsPlan, compile_plan
from pipeline.unify import UnifyStage, account, generations
from tests.oracle.accounts import AccountRules
from tests.oracle.identity import Rules
from tests.simulation import checks, seeds
from tests.simulation.accounts import (
    AccountAuthor,
    check_accounts,
    check_alerts,
    make_account_rules,
    put_accounts,
    room_rules,
    world_of,
)
from tests.simulation.cluster import Cluster, Slot
from tests.simulation.definitions import Rule, make_segments
from tests.simulation.run import KEYS
from tests.simulation.vocabulary import EVENT_NAMES
from tests.simulation.wiring import NEVER_DAYS, identity_rules, lay_out
from tests.simulation.world import Operate, Send, World, make_rules, make_world


@dataclass
class Versions:
    """Every generation of a world's rules. `definitions` are those in force, `paused` the names of the paused."""

    world: World
    plans: list[GenerationPlan]
    definitions: list[Rule]
    numbers: dict[str, int]
    paused: frozenset[str] = frozenset()
    accounts: AccountRules | None = None
    who: Rules | None = None
    expire_ms: int | None = None

    def put_in_force(
        self, definitions: list[Rule], paused: frozenset[str], accounts: AccountRules | None = None
    ) -> bool:
        """A new generation; False if these rules do not fit together."""
        births = self.plans[-1].segments.births if self.plans else None
        try:
            plan = _compiled(definitions, self.numbers, len(self.plans), births)
        except (ValueError, ValidationError):
            return False
        plan = plan.with_paused(paused)
        identity = replace(identity_rules(self.who or self.world.rules), expire_after_ms=self.expire_ms)
        of_accounts = GROUPS_ONLY if accounts is None else room_rules(accounts)
        self.plans.append(GenerationPlan(len(self.plans), identity, plan, ActivationPlan(), accounts=of_accounts))
        self.definitions, self.paused, self.accounts = definitions, paused, accounts
        return True


def _compiled(
    definitions: Sequence[Rule], numbers: dict[str, int], generation: int, births: dict[str, int] | None
) -> SegmentsPlan:
    return compile_plan(
        [
            SegmentDefinition.model_validate(one).compiled(numbers[one["segment"]])
            for one in definitions
            if "segment" in one
        ],
        [TraitDefinition.model_validate(one).compiled() for one in definitions if "computed" in one],
        generation,
        births,
    )


class Editor:
    """Draws one change of the rules after the other."""

    def __init__(self, rng: random.Random, versions: Versions, start_ms: int) -> None:
        self.rng = rng
        self.versions = versions
        self.start_ms = start_ms
        self.former: dict[str, Rule] = {}
        self.identifiers: list[str] = sorted(
            {one for sent in versions.world.arrivals if isinstance(sent, Send) for one in sent.event.identifiers}
        )

    def change(self) -> int | None:
        """Another generation, and its number; None if what was drawn cannot be."""
        versions, rng = self.versions, self.rng
        definitions, paused = list(versions.definitions), set(versions.paused)
        names = [one["segment"] for one in definitions if "segment" in one]
        numbers = dict(versions.numbers)
        accounts = versions.accounts
        kinds = ["add", "add", "add", "edit", "edit", "back", "remove", "trait", "pause", "resume"]
        if accounts is not None:
            kinds += ["account", "account", "asks", "edit", "remove", "belonging"]
        match rng.choice(kinds):
            case "add" | "account" | "asks" as kind:
                letter = {"add": "s", "account": "a", "asks": "t"}[kind]
                name = next(f"{letter}{n}" for n in range(100) if f"{letter}{n}" not in names)
                definitions.append(self.another(name))
                self.raise_version(name)
            case "belonging":
                drawn = make_account_rules(rng, self.identifiers or ["user_id:u0"])
                accounts = replace(drawn, alerts=accounts.alerts if accounts is not None else ())
            case "edit" if names:
                name = rng.choice(names)
                self.replace(definitions, name, self.another(name))
            case "back" if self.former.keys() & set(names):
                name = rng.choice(sorted(self.former.keys() & set(names)))
                self.replace(definitions, name, self.former[name])
            case "remove" if names:
                name = rng.choice(names)
                definitions = [one for one in definitions if one.get("segment") != name]
                paused.discard(name)
            case "trait":
                number = sum("computed" in one for one in definitions)
                definitions.insert(0, {**self.drawn("computed"), "computed": f"x{number}"})
            case "pause" if names:
                paused.add(rng.choice(names))
            case "resume" if paused:
                paused.discard(rng.choice(sorted(paused)))
            case _:
                return None
        if versions.put_in_force(definitions, frozenset(paused), accounts):
            return len(versions.plans) - 1
        versions.numbers = numbers
        return None

    def another(self, name: str) -> Rule:
        """A definition of the kind that its name tells: s of people, t of people asked for accounts, a of accounts."""
        if name[0] == "s":
            return {**self.drawn("segment"), "segment": name}
        people = [one["segment"] for one in self.versions.definitions if "segment" in one and "entity" not in one]
        author = AccountAuthor(self.rng, self.start_ms, people)
        author.segments = [one["segment"] for one in self.versions.definitions if "entity" in one]
        return author.of_accounts(name) if name[0] == "a" else author.that_asks(name)

    def change_who(self, rng: random.Random) -> int:
        """A generation with other identity rules: who is who is found anew. The order of namespaces stays."""
        versions = self.versions
        versions.who = make_rules(rng)
        assert versions.put_in_force(versions.definitions, versions.paused, versions.accounts)
        return len(versions.plans) - 1

    def drawn(self, kind: str) -> Rule:
        if kind == "segment" and self.rng.random() < 0.4:
            # Nothing shows so well whether an event was folded once.
            count = {"exactly": self.rng.randint(1, 4)}
            return {"segment": "", "when": {"performed": {"event": self.rng.choice(EVENT_NAMES), "count": count}}}
        while True:
            found = [one for one in make_segments(self.rng, self.start_ms) if kind in one]
            if found:
                return self.rng.choice(found)

    def replace(self, definitions: list[Rule], name: str, by: Rule) -> None:
        place = next(n for n, one in enumerate(definitions) if one.get("segment") == name)
        self.former[name] = definitions[place]
        definitions[place] = by
        self.raise_version(name)

    def raise_version(self, name: str) -> None:
        self.versions.numbers = {**self.versions.numbers, name: self.versions.numbers.get(name, 0) + 1}


class ChangingCluster(Cluster):
    """A cluster whose workers read history in small slices."""

    history_records = 3

    def _start(self, slot: Slot) -> Worker:
        adapters = memory_adapters(self.memory, slot.role.name, slot.number, lambda: self.now, slot.stores)
        settings = WorkerSettings(
            batch_records=self.batch_records,
            history_records=self.history_records,
            history_records_beside=max(1, self.history_records // 2),
            history_records_alone=self.history_records,
            trim_interval_ms=86_400_000,
            cache_objects=self.rng.choice((2, 1_000)),
        )
        worker = Worker(slot.role, slot.make_stage, adapters, settings, self._reach)
        slot.worker = worker
        worker.start()
        return worker


def run_world(world: World, with_identity: bool = True) -> None:
    """Run one world to its end and check it whenever it rests. Raises Violation, or whatever a stage raises."""
    # Drawn apart: a world whose identity rules stay is what it was before they could change.
    of_identity = random.Random(f"identity {world.seed}")
    turns = of_identity.choice((0.0, 0.0, 0.05, 0.2)) if with_identity else 0.0
    rng = random.Random(f"rules change {world.seed}")
    lay_out(world.seed)
    # A sweep asks the store bucket by bucket: for a dozen people, few will do.
    generations._BUCKETS = tuple(f"a{number:x}".encode() for number in range(16))
    generations.PROFILES_PER_SWEEP = rng.choice((1, 2, 1_000))
    account._BUCKETS = tuple(f"{number:x}".encode() for number in range(16))
    numbers = {one["segment"]: 1 for one in world.segments if "segment" in one}
    versions = Versions(world, [], [], numbers)
    if not versions.put_in_force(world.segments if rng.random() < 0.7 else [], frozenset(), world.accounts):
        raise AssertionError("the first rules do not fit together")
    sends = [one.event.received for one in world.arrivals if isinstance(one, Send)]
    editor = Editor(rng, versions, min(sends, default=1_700_000_000_000))
    cluster = ChangingCluster(
        world.partitions,
        rng,
        _identity(world, versions),
        lambda partition: UnifyStage(partition, KEYS, versions.plans.__getitem__, NEVER_DAYS, world.partitions),
        rng.choice((0.0, 0.03, 0.15)),
    )
    cluster.history_records = rng.choice((1, 2, 5, 100))
    truth = checks.Truth(world.rules, KEYS)
    eager = rng.choice((0.05, 0.2, 0.5))
    rests = rng.choice((0.0, 0.05, 0.2))
    paused = Paused()
    sent_under: dict[int, AccountRules] = {}
    for arrival in world.arrivals:
        if rng.random() < eager:
            generation = editor.change()
            if generation is not None:
                paused.members = {one: ids for one, ids in paused.members.items() if one in versions.paused}
                for partition in range(world.partitions):
                    cluster.write("events", None, encode(Marker(generation, cluster.now)), partition)
        if of_identity.random() < turns:
            generation = editor.change_who(of_identity)
            for partition in range(world.partitions):
                cluster.write("events", None, encode(Marker(generation, cluster.now)), partition)
            cluster.write("identity-edges", None, encode(RulesChanged(generation, cluster.now)), 0)
            assert versions.who is not None
            truth.rules = versions.who
        if isinstance(arrival, Send):
            key = KEYS.actor(arrival.event.identifiers[0])
            cluster.write("events", key, encode(arrival.event))
            truth.send(partition_of(key, world.partitions), arrival.event)
            if versions.accounts is not None:
                sent_under[id(arrival.event)] = versions.accounts
            cluster.now = max(cluster.now, arrival.event.received)
        elif isinstance(arrival, Operate):
            cluster.write("identity-edges", None, encode(arrival.record), 0)
            truth.operate(arrival.record)
            # It carries the time to every task it reaches.
            cluster.now = max(cluster.now, getattr(arrival.record, "received", 0))
        else:
            _rest(cluster, truth, versions, arrival.now, paused, sent_under)
            continue
        cluster.some_steps()
        if rng.random() < rests:
            _rest(cluster, truth, versions, cluster.now, paused, sent_under)


def _identity(world: World, versions: Versions) -> Callable[[int], Stage]:
    return lambda partition: IdentityStage(KEYS, versions.plans.__getitem__, world.partitions)


@dataclass
class Paused:
    """Of segments that have been paused since the last rest, who their members were then."""

    members: dict[str, set[str]] = field(default_factory=dict)


def _rest(
    cluster: Cluster,
    truth: checks.Truth,
    versions: Versions,
    now: int,
    paused: Paused,
    sent_under: Mapping[int, AccountRules],
) -> None:
    """Bring everything to rest and check it under the rules in force. `sent_under`: event, by its id → the rules about
    accounts that were in force where it stands."""
    cluster.caught_up(now)
    cluster.come_to_rest()
    truth.settle()
    broker: checks.Topics = cluster.broker
    checks.check_what_is_told(truth, broker)
    checks.check_causes(broker)
    asked = [one for one in versions.definitions if "segment" in one and one["segment"] not in versions.paused]
    if versions.accounts is not None:
        due = world_of(truth, versions.definitions, versions.accounts, now, lambda event: sent_under[id(event)])
        check_accounts(due, broker)
        check_alerts(broker, versions.accounts.alerts)
        expected = {one["segment"]: due.members(one) for one in asked}
    else:
        expected = checks.members_due(truth, versions.definitions, asked, now)
    paused_members(broker, versions, paused)
    checks.check_members(truth, broker, {**expected, **paused.members}, now)
    checks.check_computed(truth, broker, versions.definitions, now)
    checks.check_store(cluster.stores())


def paused_members(broker: checks.Topics, versions: Versions, paused: Paused) -> None:
    """Nobody enters or leaves a segment while it is paused. Notes who is in those that are paused now."""
    published = members_of(broker)
    for segment, before in paused.members.items():
        if entered := published.get(segment, set()) - before:
            raise checks.Violation("paused", f"{segment} was entered by {entered}")
        if left := {one for one in before - published.get(segment, set()) if _ends_otherwise(broker, segment, one)}:
            raise checks.Violation("paused", f"{segment} was left by {left}")
    paused.members = {segment: published.get(segment, set()) for segment in versions.paused}


def members_of(broker: checks.Topics) -> dict[str, set[str]]:
    published: dict[str, set[str]] = {}
    for value in broker.compacted("segment-members").values():
        member = msgspec.json.decode(value, type=SegmentMember)
        published.setdefault(member.segment, set()).add(member.profile_id)
    return published


def _ends_otherwise(broker: checks.Topics, segment: str, profile_id: str) -> bool:
    """Whether a member left for another reason than that the profile itself ended."""
    changes = [
        change
        for written in broker.records("segment-changes")
        if written.value is not None
        and (change := msgspec.json.decode(written.value, type=SegmentChange)).profile_id == profile_id
        and change.segment == segment
    ]
    return changes[-1].cause not in ("merge", "split", "erase", "expired")


def try_seed(seed: int, with_accounts: bool = True, with_identity: bool = True) -> str | None:
    """Run one seed; what went wrong, or None. Two of five worlds have accounts, half of them change their identity
    rules, unless they are to do neither."""
    world = make_world(seed, make_segments, put_accounts if with_accounts else None)
    world.calm = False
    ordinary = generations._BUCKETS, generations.PROFILES_PER_SWEEP, account._BUCKETS
    try:
        run_world(world, with_identity)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is told
        return f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
    finally:
        generations._BUCKETS, generations.PROFILES_PER_SWEEP, account._BUCKETS = ordinary
    return None


if __name__ == "__main__":
    raise SystemExit(seeds.main(__spec__.name if __spec__ else __name__, __doc__, try_seed, seeds=200))
