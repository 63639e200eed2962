"""Worlds that are replayed while they go on: `python -m tests.simulation.replays --seeds N --first M`.

An old deployment lives through a world whose rules change; at any moment a copier begins to replay it into a second
one, with another number of partitions and, often, other identity rules. The copier is killed and started again, and so
are the workers of both. In the end both are at rest, and the profiles and members of the new one are those of its rules
over everything that was sent (DESIGN section 9, invariants 1, 7, 8 and 10), whatever the old one did on its way.
In a third of the worlds profiles of pseudonyms expire, in both: in the new one as they do in the order of time.
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import replace

import msgspec

from pipeline.accounts import GROUPS_ONLY
from pipeline.activation import ActivationPlan
from pipeline.identifiers import partition_of
from pipeline.identity import IdentityStage
from pipeline.plans import GenerationPlan
from pipeline.records import Event, Marker, Release, SegmentChange, SegmentMember, encode
from pipeline.replay.copier import Copier
from pipeline.replay.cuts import read_cuts
from pipeline.replay.ports import Committed, CopySettings, Ports
from pipeline.replay.told import read_told, takeovers
from pipeline.runtime.errors import Abortable, Retriable, RuntimeFault
from pipeline.runtime.memory import MemoryLogReader, MemoryProducer
from pipeline.unify import UnifyStage, generations
from pipeline.workspaces import ErasureCopied, ReplayPosition, UnlinkCopied, decision_key, decode_workspace_record
from tests.oracle.accounts import AccountRules
from tests.oracle.identity import Rules
from tests.simulation import checks, seeds
from tests.simulation.accounts import check_accounts, make_account_rules, put_accounts, room_rules, world_of
from tests.simulation.cluster import Cluster, Killed, compacted
from tests.simulation.definitions import make_segments
from tests.simulation.lives import MortalTruth
from tests.simulation.rules_change import ChangingCluster, Editor, Versions
from tests.simulation.run import KEYS
from tests.simulation.wiring import NEVER_DAYS, identity_rules, lay_out
from tests.simulation.world import DAY, Arrival, Operate, Rest, Send, World, make_rules, make_world

MOST_TURNS = 20_000


class Replay:
    """A second deployment and the copier that fills it."""

    def __init__(
        self, old: Cluster, rng: random.Random, plan: GenerationPlan, rules: Rules, crash_rate: float, days: int
    ) -> None:
        self.old, self.rng, self.rules, self.crash_rate = old, rng, rules, crash_rate
        partitions = rng.choice([n for n in (1, 2, 3, 4) if n != old.partitions])
        self.new = Cluster(
            partitions,
            rng,
            lambda partition: IdentityStage(KEYS, lambda generation: plan, partitions),
            lambda partition: UnifyStage(partition, KEYS, lambda generation: plan, days, partitions),
            crash_rate,
        )
        self.ports = Ports(
            old=lambda: MemoryLogReader(old.memory),
            partitions=old.partitions,
            new_partitions=partitions,
            producer=MemoryProducer(self.new.memory, "replay-0", "replay"),
            committed=self.committed,
            in_flight=self.in_flight,
            at_rest=lambda: self.in_flight() == 0 and not self.new.memory.open_transactions(),
            cuts=lambda erased: read_cuts(MemoryLogReader(old.memory), old.partitions, erased),
            names=self.names,
            rules=lambda: plan.identity,
            keys=KEYS,
            clock=lambda: old.now,
            settings=CopySettings(
                batch=rng.choice((1, 3, 20)),
                ahead=rng.choice((1, 5, 100)),
                at_hand=rng.choice((1, 4, 100)),
                read=5,
                apart_ms=None if days == NEVER_DAYS else 0,
            ),
        )
        self.copier: Copier | None = None

    def committed(self) -> Committed:
        """How far it came, as whoever starts again reads it."""
        position, erasures, unlinks = None, {}, {}
        for key, value in compacted(self.new.memory.read("workspace")).items():
            found = decode_workspace_record(value)
            if isinstance(found, ReplayPosition):
                position = found
            elif isinstance(found, ErasureCopied):
                erasures[found.actor.encode()] = found.received
            elif isinstance(found, UnlinkCopied):
                unlinks[decision_key(key)] = found
        return Committed(position, erasures, unlinks)

    def names(self, actors: Collection[bytes]) -> dict[bytes, str]:
        """The names of those whom the new deployment knows."""
        known = [key.decode() for key in compacted(self.new.memory.read("identities"))]
        return {KEYS.actor(text): text for text in known if KEYS.actor(text) in actors}

    def in_flight(self) -> int:
        """Records that the new deployment has not taken in."""
        memory = self.new.memory
        waiting = 0
        for group, topics in (("unify", ("events", "links")), ("identity", ("identity-edges",))):
            for topic in topics:
                for number, log in enumerate(memory.topics[topic]):
                    committed = memory.groups[group].offsets.get((topic, number))
                    waiting += len(log.read(committed.position if committed is not None else 0, 1_000_000)[0])
        return waiting

    def steps(self, number: int) -> None:
        """Let the copier and the new deployment work, and die."""
        for _ in range(number):
            self.new.now = self.old.now
            if self.rng.random() < 0.5:
                self.new.turn(self.rng.choice(self.new.slots))
            else:
                self.copy()

    def copy(self) -> int:
        """One turn of the copier; one that died is started again."""
        memory = self.new.memory
        # A fault that nobody has met yet is enough: more would be met one after the other, and nothing else.
        if self.rng.random() < self.crash_rate and not any(memory.faults.values()):
            match self.rng.choice(("killed", "abort", "unanswered", "lost")):
                case "killed":
                    self.copier = None
                case "abort":
                    memory.fail_next(self.rng.choice(("flush", "commit")), Abortable("the broker says no"))
                case "unanswered":
                    memory.fail_next("commit", Retriable("no answer"), applied=True)
                case "lost":
                    memory.fail_next("commit", Retriable("no answer"))
        try:
            if self.copier is None:
                copier = Copier(self.ports, self._beat)
                copier.start()
                self.copier = copier
            return self.copier.run_once()
        except (Killed, RuntimeFault):
            self.copier = None
            return 0

    def _beat(self) -> None:
        if self.rng.random() < self.crash_rate / 10:
            raise Killed("copier")

    def come_to_the_end(self) -> None:
        """Copy everything there is, and bring the new deployment to rest."""
        for _ in range(MOST_TURNS):
            moved = self.copy()
            for slot in self.rng.sample(self.new.slots, len(self.new.slots)):
                self.new.now = self.old.now
                self.new.turn(slot)
            copier = self.copier
            if moved or copier is None:
                continue
            copier.look()
            if copier.at_end and copier.is_idle:
                self.new.come_to_rest()
                return
        copier = self.copier
        told = (copier.state, copier.left, copier.is_idle) if copier is not None else "nobody copies"
        waiting = self.in_flight(), self.new.memory.open_transactions()
        raise AssertionError(f"the copy did not come to its end in {MOST_TURNS} turns: {told}, in flight {waiting}")


def run_world(world: World, days: int = NEVER_DAYS) -> None:
    """Play one world into the old deployment, replay it beside, and check the new one at the end."""
    rng = random.Random(f"replay {world.seed}")
    lay_out(world.seed)
    generations._BUCKETS = tuple(f"a{number:x}".encode() for number in range(16))
    versions = Versions(world, [], [], {one["segment"]: 1 for one in world.segments if "segment" in one})
    assert versions.put_in_force(world.segments, frozenset(), world.accounts)
    sends = [one.event.received for one in world.arrivals if isinstance(one, Send)]
    editor = Editor(rng, versions, min(sends, default=1_700_000_000_000))
    crash_rate = rng.choice((0.0, 0.03, 0.15))
    old = ChangingCluster(
        world.partitions,
        rng,
        lambda partition: IdentityStage(KEYS, versions.plans.__getitem__, world.partitions),
        lambda partition: UnifyStage(partition, KEYS, versions.plans.__getitem__, days, world.partitions),
        crash_rate,
    )
    rules = _other_rules(rng, world.rules)
    accounts = _other_accounts(rng, world)
    of_accounts = GROUPS_ONLY if accounts is None else room_rules(accounts)
    plan = GenerationPlan(0, identity_rules(rules), versions.plans[0].segments, ActivationPlan(), accounts=of_accounts)
    definitions = list(versions.definitions)
    truth = checks.Truth(rules, KEYS)
    replay: Replay | None = None
    begin_at = rng.randrange(len(world.arrivals) + 1)
    for number, arrival in enumerate(_told_apart(world.arrivals)):
        if number == begin_at:
            replay = Replay(old, rng, plan, rules, crash_rate, days)
        if rng.random() < 0.1 and (generation := editor.change()) is not None:
            for partition in range(world.partitions):
                old.write("events", None, encode(Marker(generation, old.now)), partition)
        if isinstance(arrival, Send):
            key = KEYS.actor(arrival.event.identifiers[0])
            old.write("events", key, encode(arrival.event))
            old.now = max(old.now, arrival.event.received)
        elif isinstance(arrival, Operate):
            old.write("identity-edges", None, encode(arrival.record), 0)
            old.now = max(old.now, getattr(arrival.record, "received", 0))
        else:
            old.caught_up(arrival.now)
            old.come_to_rest()
            if rng.random() < 0.3:
                old.memory.compact("identity-decisions")
        old.some_steps()
        if replay is not None:
            replay.steps(rng.choice((0, 1, 3, 8)))
    if replay is None:
        replay = Replay(old, rng, plan, rules, crash_rate, days)
    now = world.end
    if days != NEVER_DAYS:
        # Whose time was over when they were parted from others lives for one instant.
        now += 1
        old.caught_up(now)
        truth = MortalTruth(world, KEYS, days * DAY)
        truth.rules = rules
    old.come_to_rest()
    replay.come_to_the_end()
    if isinstance(truth, MortalTruth):
        _tell_in_time(truth, world, rules, replay.new.partitions, now)
    else:
        _tell(truth, world, rules, replay.new.partitions)
    _check(truth, replay.new, definitions, now, accounts)
    _check_subscribers(old, replay)


def _other_rules(rng: random.Random, rules: Rules) -> Rules:
    """Rules that group otherwise, or the same ones. The order of namespaces is turned round now and then."""
    draw = rng.random()
    if draw < 0.4:
        return rules
    other = make_rules(rng)
    if draw < 0.7:
        return other
    turned = {
        one.name: replace(one, priority=len(other.namespaces) + 2 - one.priority if one.name != "user_id" else 1)
        for one in other.namespaces.values()
    }
    return Rules(turned, other.quarantine_after)


def _other_accounts(rng: random.Random, world: World) -> AccountRules | None:
    """How the new workspace finds accounts: as the old one, or otherwise. Nobody is alerted anew."""
    if world.accounts is None or rng.random() < 0.5:
        return world.accounts
    identifiers = {one for sent in world.arrivals if isinstance(sent, Send) for one in sent.event.identifiers}
    return make_account_rules(rng, sorted(identifiers) or ["user_id:u0"])


def _told_apart(arrivals: list[Arrival]) -> Iterator[Arrival]:
    """Nothing is received in the very millisecond of a release, or before it but after it was made."""
    released = 0
    for arrival in arrivals:
        if isinstance(arrival, Operate) and isinstance(arrival.record, Release):
            released = arrival.record.received
        elif isinstance(arrival, Send) and arrival.event.received <= released:
            arrival.event.received = released + 1
        yield arrival


def _tell(truth: checks.Truth, world: World, rules: Rules, partitions: int) -> None:
    """What the oracle has to know: the events under the names that the new rules give them."""
    for arrival in world.arrivals:
        if isinstance(arrival, Send):
            event: Event = msgspec.structs.replace(
                arrival.event, identifiers=sorted(arrival.event.identifiers, key=rules.rank)
            )
            truth.send(partition_of(KEYS.actor(event.identifiers[0]), partitions), event)
        elif isinstance(arrival, Operate):
            truth.operate(arrival.record)
        elif isinstance(arrival, Rest):
            truth.settle()
    truth.settle()


def expires_after(seed: int) -> int:
    """After how many days without an event pseudonyms are forgotten in this world."""
    own = random.Random(f"expires {seed}")
    return own.choice((1, 2, 3, 9)) if own.random() < 0.33 else NEVER_DAYS


def _tell_in_time(truth: MortalTruth, world: World, rules: Rules, partitions: int, now: int) -> None:
    """The same in the order of time, as a replay has it: by the clock of the partition where each event stands."""
    clocks: dict[int, int] = {}
    happened: list[tuple[int, Event]] = []
    for arrival in world.arrivals:
        if isinstance(arrival, Send):
            stands = partition_of(KEYS.actor(arrival.event.identifiers[0]), world.partitions)
            clocks[stands] = max(clocks.get(stands, 0), arrival.event.received)
            happened.append((clocks[stands], arrival.event))
    passed = -1
    for at, event in sorted(happened, key=lambda one: one[0]):
        if at > passed:
            # Whose time was over when they were parted from others lives for this instant.
            truth.pass_time(at)
            passed = at
        names = sorted(event.identifiers, key=rules.rank)
        event = msgspec.structs.replace(event, identifiers=names)
        truth.send(partition_of(KEYS.actor(names[0]), partitions), event)
    truth.pass_time(now)
    truth.settle()


def _check(
    truth: checks.Truth,
    new: Cluster,
    definitions: list[dict[str, object]],
    now: int,
    accounts: AccountRules | None,
) -> None:
    broker: checks.Topics = new.broker
    checks.check_nothing_refused(broker)
    checks.check_profiles(truth, broker)
    checks.check_limits(truth, broker)
    checks.check_accounting(truth, broker)
    checks.check_folds(truth, broker)
    segments = [one for one in definitions if "segment" in one]
    if accounts is not None:
        due = world_of(truth, definitions, accounts, now)
        check_accounts(due, broker)
        expected = {str(one["segment"]): due.members(one) for one in segments}
    else:
        expected = checks.members_due(truth, definitions, segments, now)
    checks.check_members(truth, broker, expected, now)
    checks.check_computed(truth, broker, definitions, now)
    checks.check_store(new.stores())


def _check_subscribers(old: Cluster, replay: Replay) -> None:
    """The switch: who knows what the old deployment said, and reads on in the new one, knows what that one says. Per
    profile and segment entered and exited alternate, with sequences that rise."""
    new = replay.new
    starts = [log.end for log in new.memory.topics["segment-changes"]]
    tables = [read_told(MemoryLogReader(one.memory), one.partitions, KEYS) for one in (old, new)]
    told = list(takeovers(tables[0], tables[1], old.now))
    while replay.copier is None or not replay.copier.state.handed_over:
        try:
            if replay.copier is None:
                replay.copier = Copier(replay.ports)
                replay.copier.start()
            else:
                replay.copier.hand_over(told)
        except (Killed, RuntimeFault):
            replay.copier = None
    new.come_to_rest()
    known: dict[tuple[str, str], SegmentChange] = {}
    heard = [record.value for record in old.memory.read("segment-changes")]
    for number, start in enumerate(starts):
        heard += [one.value for one in new.memory.read("segment-changes", number) if one.offset >= start]
    for value in heard:
        assert value is not None
        change = msgspec.json.decode(value, type=SegmentChange)
        before = known.get((change.segment, change.profile_id))
        expected = "exited" if before is not None and before.change == "entered" else "entered"
        if change.change != expected or (before is not None and change.sequence <= before.sequence):
            raise checks.Violation("switch", f"a subscriber hears {change} after {before}")
        known[change.segment, change.profile_id] = change
    members = {pair for pair, change in known.items() if change.change == "entered"}
    rows = {}
    for value in compacted(new.memory.read("segment-members")).values():
        row = msgspec.json.decode(value, type=SegmentMember)
        rows[row.segment, row.profile_id] = row
    if rows.keys() != members:
        raise checks.Violation("switch", f"a subscriber knows {members}, the table says {rows.keys()}")
    for pair, row in rows.items():
        if row.sequence < known[pair].sequence:
            raise checks.Violation("switch", f"{pair} stands at {row.sequence}, heard of was {known[pair].sequence}")
    checks.check_store(new.stores())


def try_seed(seed: int, with_accounts: bool = True, expires: bool = True) -> str | None:
    """Run one seed; what went wrong, or None. Two of five worlds have accounts, in a third profiles expire, unless they
    are to do neither."""
    days = expires_after(seed) if expires else NEVER_DAYS
    expires = days != NEVER_DAYS
    world = make_world(seed, make_segments, put_accounts if with_accounts and not expires else None)
    if expires:
        # Of what was decided and undone nobody need hear, and who ended in between depends on it.
        world.arrivals = [one for one in world.arrivals if not isinstance(one, Operate)]
    world.calm = False
    ordinary = generations._BUCKETS
    try:
        run_world(world, days)
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is told
        return f"{type(error).__name__}: {error}"
    finally:
        generations._BUCKETS = ordinary
    return None


if __name__ == "__main__":
    raise SystemExit(seeds.main(__spec__.name if __spec__ else __name__, __doc__, try_seed, seeds=200))
