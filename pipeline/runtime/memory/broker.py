"""A broker in memory: topics, transactions with fencing, consumer groups of static members."""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipeline.identifiers import partition_of
from pipeline.runtime.adapters import CHOOSE_BY_KEY, NO_NOTES, Committed, Membership, Partition
from pipeline.runtime.errors import Abortable, Fatal, Retriable, RuntimeFault
from pipeline.runtime.memory.log import Entry, Log, Transaction
from pipeline.runtime.ports import Record


class Fault(NamedTuple):
    """What the next call of an operation meets. `applied`: the broker does it all the same, only the answer is lost."""

    error: RuntimeFault
    applied: bool = False


@dataclass(slots=True, eq=False)
class Member:
    """One member of a group: `generation` is the one it has been told of, `joined` whether it is in the next one."""

    instance: str
    generation: int = -1
    joined: bool = True


@dataclass(slots=True)
class Group:
    """A group under the classic protocol with the range assignor and static members."""

    topics: tuple[str, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    preparing: bool = False
    assignment: dict[str, list[Partition]] = field(default_factory=dict)
    offsets: dict[Partition, Committed] = field(default_factory=dict)


class MemoryBroker:
    """Everything a Kafka keeps. Workers reach it through the clients; tests through the methods here.

    `interleave` set to a seeded generator makes consumers draw short runs from partitions at random (in order within
    a partition), instead of one partition after the other. `now_ms` stamps records.
    """

    def __init__(self) -> None:
        self.topics: dict[str, list[Log]] = {}
        self.topic_ids: dict[str, str] = {}
        self.groups: defaultdict[str, Group] = defaultdict(Group)
        self.interleave: random.Random | None = None
        self.now_ms = 0
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}
        self._hanging: list[Transaction] = []
        self._without_key = 0

    # ------------------------------------------------------------------------------------------------- topics

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic; an existing one stays."""
        if name not in self.topics:
            self.topics[name] = [Log() for _ in range(partitions)]
            self.topic_ids[name] = f"{name} #1"

    def recreate_topic(self, name: str) -> None:
        """Delete a topic and make it again, empty. Groups forget their positions in it, as Kafka lets them; consumers
        that read it do not notice."""
        self.topics[name] = [Log() for _ in self.topics[name]]
        made = int(self.topic_ids[name].rpartition("#")[2])
        self.topic_ids[name] = f"{name} #{made + 1}"
        for group in self.groups.values():
            group.offsets = {at: told for at, told in group.offsets.items() if at[0] != name}

    def log(self, partition: Partition) -> Log:
        """The log of a partition. Fatal if there is none."""
        try:
            return self.topics[partition[0]][partition[1]]
        except (KeyError, IndexError):
            raise Fatal(f"there is no partition {partition[0]}/{partition[1]}") from None

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | bytes = CHOOSE_BY_KEY,
        transaction: Transaction | None = None,
    ) -> int:
        """Append one record, outside a transaction unless one is given; gives its offset."""
        logs = self.topics.get(topic)
        if logs is None:
            raise Fatal(f"there is no topic {topic}")
        if isinstance(partition, bytes):
            partition = partition_of(partition, len(logs))
        elif partition == CHOOSE_BY_KEY:
            if key is None:
                self._without_key += 1
                partition = self._without_key % len(logs)
            else:
                partition = partition_of(key, len(logs))
        if transaction is not None:
            transaction.partitions.add((topic, partition))
        return self.log((topic, partition)).append(key, value, self.now_ms, transaction)

    def read(self, topic: str, partition: int | None = None, committed: bool = True) -> list[Record]:
        """All records of a topic (or of one partition), as a consumer would see them."""
        numbers = range(len(self.topics[topic])) if partition is None else (partition,)
        return [
            Record(topic, number, entry.offset, entry.key, entry.value, entry.timestamp_ms)
            for number in numbers
            for entry in self._read_all((topic, number), committed)
        ]

    def _read_all(self, partition: Partition, committed: bool) -> list[Entry]:
        log = self.log(partition)
        return log.read(log.start, len(log.entries) + 1, committed)[0]

    def compact(self, topic: str, drop_tombstones: bool = False) -> None:
        """Run the log cleaner to its end."""
        for log in self.topics[topic]:
            log.compact(drop_tombstones)

    def delete_records(self, positions: Mapping[Partition, int]) -> None:
        """Delete the records below these positions."""
        for partition, position in positions.items():
            self.log(partition).delete_below(position)

    def fail_next(self, operation: str, error: RuntimeFault, applied: bool = False) -> None:
        """Let the next call of a producer's operation (`begin`, `send`, `flush`, `send_offsets`, `commit`, `abort`) or
        of `committed` fail."""
        self.faults[operation].append(Fault(error, applied))

    def next_fault(self, operation: str) -> Fault | None:
        """Take the fault the next call of an operation meets."""
        waiting = self.faults.get(operation)
        return waiting.popleft() if waiting else None

    # ------------------------------------------------------------------------------------------- transactions

    def init_transactions(self, transactional_id: str) -> int:
        """Fence former producers of this id, abort what they left open, give the new epoch."""
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        left = self._open.pop(transactional_id, None)
        if left is not None:
            self._end(left, "aborted")
        return self._epochs[transactional_id]

    def expire_transaction(self, transactional_id: str) -> None:
        """What the broker does when an open transaction passes its timeout."""
        if transactional_id in self._open:
            self.init_transactions(transactional_id)

    def lose_transaction(
        self, transactional_id: str, committed: Iterable[Partition] = (), positions_are: bool = False
    ) -> None:
        """A transaction stays open that its coordinator takes for ended: the next marker of the same id in one of its
        partitions, and for one of its groups, ends what is there of it. `committed` are partitions that got the marker
        of its commit, and `positions_are` whether its groups did."""
        lost, kept = self._open.pop(transactional_id), set(committed)
        for partition in sorted(lost.partitions):
            part = Transaction(transactional_id, partitions={partition})
            self.log(partition).pass_on(lost, part)
            self._lose(part, partition in kept)
        for group, positions in lost.offsets.items():
            self._lose(Transaction(transactional_id, offsets={group: positions}), positions_are)

    def _lose(self, part: Transaction, committed: bool) -> None:
        if committed:
            self._end(part, "committed")
        else:
            self._hanging.append(part)

    def open_transactions(self) -> list[str]:
        """The transactional ids with an open transaction."""
        return list(self._open)

    def begin(self, transactional_id: str, epoch: int) -> Transaction:
        """Open a transaction."""
        self.check_epoch(transactional_id, epoch)
        transaction = self._open[transactional_id] = Transaction(transactional_id)
        return transaction

    def check_epoch(self, transactional_id: str, epoch: int) -> None:
        """Fatal when another producer has taken the id over."""
        if self._epochs.get(transactional_id) != epoch:
            raise Fatal(f"producer {transactional_id} was fenced")

    def end(self, transaction: Transaction, epoch: int, commit: bool) -> None:
        """Commit or abort; the repetition of an answered commit changes nothing."""
        if transaction.state == "committed" and commit:
            return
        self.check_epoch(transaction.transactional_id, epoch)
        if transaction.state != "open":
            raise Fatal(f"the transaction of {transaction.transactional_id} has been {transaction.state}")
        del self._open[transaction.transactional_id]
        self._end(transaction, "committed" if commit else "aborted")

    def _end(self, transaction: Transaction, state: Literal["committed", "aborted"]) -> None:
        transaction.state = state
        for part in list(self._hanging):
            if (
                part.transactional_id == transaction.transactional_id
                and part.partitions <= transaction.partitions
                and part.offsets.keys() <= transaction.offsets.keys()
            ):
                self._hanging.remove(part)
                self._end(part, state)
        for partition in sorted(transaction.partitions):
            self.log(partition).append(None, None, self.now_ms, transaction, control=True)
        if state == "committed":
            for group, positions in transaction.offsets.items():
                self.groups[group].offsets.update(positions)

    def send_offsets(
        self,
        transaction: Transaction,
        group_id: str,
        positions: Mapping[Partition, int],
        membership: Membership,
        notes: Mapping[Partition, str] = NO_NOTES,
    ) -> None:
        """Put positions into a transaction. Abortable for one who is no member of the present generation; like the
        real one, this does not check who owns the partitions, and lets generation -1 without a member pass."""
        group = self.groups[group_id]
        member: Member | None = membership.token
        if not (member is None and membership.generation == -1):
            if member is None or group.members.get(member.instance) is not member:
                raise Abortable("the group does not know this member")
            if membership.generation != group.generation:
                raise Abortable(f"generation {membership.generation} is over, the group is at {group.generation}")
        told = {at: Committed(position, notes.get(at, "")) for at, position in positions.items()}
        transaction.offsets.setdefault(group_id, {}).update(told)

    # ------------------------------------------------------------------------------------------------- groups

    def committed(self, group_id: str, partitions: Iterable[Partition]) -> dict[Partition, Committed | None]:
        """The group's positions. Retriable while an open transaction holds others."""
        wanted = list(partitions)
        for transaction in (*self._open.values(), *self._hanging):
            pending = transaction.offsets.get(group_id, {})
            if any(partition in pending for partition in wanted):
                raise Retriable(f"offsets of {group_id} wait for the transaction of {transaction.transactional_id}")
        offsets = self.groups[group_id].offsets
        return {partition: offsets.get(partition) for partition in wanted}

    def forget_offsets(self, group_id: str) -> None:
        """Let the group's positions expire."""
        self.groups[group_id].offsets.clear()

    def join(self, group_id: str, instance: str, topics: Sequence[str]) -> Member:
        """Join a group. An instance that is in it already is replaced, without a rebalance, and its old self fenced."""
        group = self.groups[group_id]
        group.topics = tuple(topics)
        member = Member(instance)
        known = group.members.get(instance)
        group.members[instance] = member
        if known is None:
            self._prepare(group, joined=member)
        elif group.preparing:
            self._try_complete(group)
        return member

    def expire_member(self, group_id: str, instance: str) -> None:
        """End a member's session, as the broker does when its heartbeats stay away."""
        group = self.groups[group_id]
        if group.members.pop(instance, None) is not None:
            group.assignment.pop(instance, None)
            self._prepare(group)

    def rejoin(self, group_id: str, member: Member) -> None:
        """The member has given up its partitions and waits for the next generation."""
        member.joined = True
        self._try_complete(self.groups[group_id])

    def rebalance(self, group_id: str) -> None:
        """Start a rebalance for no reason."""
        self._prepare(self.groups[group_id])

    def _prepare(self, group: Group, joined: Member | None = None) -> None:
        group.preparing = True
        for member in group.members.values():
            # A member that never had an assignment has nothing to give up first.
            member.joined = member is joined or (member.joined and member.generation == -1)
        self._try_complete(group)

    def _try_complete(self, group: Group) -> None:
        if not group.preparing or not group.members or not all(m.joined for m in group.members.values()):
            return
        group.preparing = False
        group.generation += 1
        instances = sorted(group.members)
        group.assignment = {instance: [] for instance in instances}
        for topic in group.topics:
            count = len(self.topics[topic])
            each, extra = divmod(count, len(instances))
            first = 0
            for index, instance in enumerate(instances):
                size = each + (1 if index < extra else 0)
                group.assignment[instance] += [(topic, number) for number in range(first, first + size)]
                first += size
