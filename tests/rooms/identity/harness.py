"""The identity stage over a task's real state on a store in memory, and actors that believe what it tells them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec

from pipeline.identifiers import Keys
from pipeline.identity import Bounds, IdentityRules, IdentityStage, Namespace, Sizes, builtin_rules
from pipeline.records import (
    Assign,
    Erase,
    Evidence,
    Forget,
    IdentityConflict,
    ResolveOn,
    decode_links_record,
    encode,
)
from pipeline.runtime.overlay import Outbox, TaskState
from pipeline.runtime.ports import Record

KEYS = Keys(b"identity tests")
_conflict = msgspec.json.Decoder(IdentityConflict).decode


class DictStore:
    """Committed bytes by key, and how often each was written."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._keys: list[bytes] | None = None

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._keys is None:
            self._keys = sorted(self.values)
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                return
            yield key, self.values[key]

    def timers(self) -> Iterator[tuple[int, bytes]]:
        return iter(())

    def write(self, values: Iterable[tuple[bytes, bytes | None]]) -> int:
        """Write a batch; gives its bytes."""
        written = 0
        for key, value in values:
            if (key in self.values) != (value is not None):
                self._keys = None
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
                written += len(key) + len(value)
        return written


class World:
    """A log of `identity-edges`, the stage that consumes it, and what the actors were told.

    `names` is where each identifier points, `erased` the epoch of its erasure: the believing actor of DESIGN section 4,
    which ignores what is not newer.
    """

    def __init__(
        self,
        rules: IdentityRules | None = None,
        bounds: Bounds | None = None,
        sizes: Sizes | None = None,
        batch: int = 1,
        partitions: int = 3,
    ) -> None:
        self.rules = {0: rules or builtin_rules()}
        self._make = lambda: IdentityStage(
            KEYS,
            lambda generation: SimpleNamespace(identity=self.rules[generation]),
            partitions,
            bounds or Bounds(),
            sizes or Sizes(),
        )
        self.batch = batch
        self.stage = self._make()
        self.store = DictStore()
        self.state: Any = self._open()
        self.log: list[bytes] = []
        self.position = 0
        self.names: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.erased: dict[str, int] = {}
        self.messages: list[Any] = []
        self.conflicts: list[IdentityConflict] = []
        self.decisions: dict[bytes, bytes | None] = {}
        self.ready: list[tuple[int, bytes]] = []
        self.written_bytes = 0

    def _open(self) -> TaskState:
        return TaskState(self.store, self.stage.encode, self.stage.decode, 1_000_000, 1 << 40)  # type: ignore[arg-type]

    def say(self, *records: Any) -> "World":
        """Append records to the log and consume everything, what the stage writes to itself included."""
        self.log.extend(encode(record) for record in records)
        while self.position < len(self.log):
            self.consume(min(self.batch, len(self.log) - self.position))
        return self

    def consume(self, count: int) -> None:
        """Consume one batch and commit it."""
        out = Outbox()
        for offset in range(self.position, self.position + count):
            self.stage.step(Record("identity-edges", 0, offset, None, self.log[offset]), self.state, out)
        self.stage.finish(self.state, out)
        self.position += count
        self.written_bytes += self.store.write(self.state.changes().values)
        self.state.committed()
        self._deliver(out)

    def abort(self, count: int) -> None:
        """Run a batch and lose it."""
        out = Outbox()
        for offset in range(self.position, self.position + count):
            self.stage.step(Record("identity-edges", 0, offset, None, self.log[offset]), self.state, out)
        self.state.drop()
        self.stage.forget()

    def restart(self) -> None:
        """Lose everything that is not committed bytes."""
        self.stage = self._make()
        self.state = self._open()

    def _deliver(self, out: Outbox) -> None:
        for topic, value, key, partition in out.take_logged():
            assert value is not None
            if topic == "identity-edges":
                assert isinstance(msgspec.json.decode(value, type=ResolveOn), ResolveOn)
                assert partition == 0
                self.log.append(value)
            elif topic == "identity-conflicts":
                self.conflicts.append(_conflict(value))
            elif topic == "events":
                self.ready.append((partition, value))
            else:
                assert topic == "links"
                self._tell(decode_links_record(value), key)
        for (topic, key), (value, _) in out.upserts.items():
            assert topic == "identity-decisions"
            self.decisions[key] = value

    def _tell(self, message: Any, key: bytes | None) -> None:
        self.messages.append(message)
        match message:
            case Assign():
                assert key == KEYS.actor(message.identifier)
                assert message.epoch > self.epochs.get(message.identifier, 0), "an epoch that does not rise is ignored"
                self.epochs[message.identifier] = message.epoch
                self.names[message.identifier] = message.name
            case Erase():
                assert key == KEYS.actor(message.identifier)
                assert message.epoch > self.epochs.get(message.identifier, 0)
                self.epochs[message.identifier] = message.epoch
                self.erased[message.identifier] = message.epoch
                self.names[message.identifier] = message.identifier
            case Forget():
                assert key == KEYS.actor(message.route)

    def name(self, text: str) -> str:
        """The name of an identifier's profile, as its actor was told."""
        return self.names.get(text, text)

    def groups(self, texts: Iterable[str]) -> set[frozenset[str]]:
        """The identifiers `texts` by profile."""
        groups: dict[str, set[str]] = {}
        for text in texts:
            groups.setdefault(self.name(text), set()).add(text)
        return {frozenset(group) for group in groups.values()}

    def together(self, *texts: str) -> bool:
        """Whether these identifiers are one profile."""
        return len({self.name(text) for text in texts}) == 1

    def of(self, kind: type[Any]) -> list[Any]:
        """The messages of one kind sent so far."""
        return [message for message in self.messages if isinstance(message, kind)]

    def state_bytes(self) -> int:
        """The size of the committed state, keys and the runtime's headers included."""
        return sum(len(key) + len(value) for key, value in self.store.values.items())


def saw(a: str, b: str, first: int, last: int | None = None, route: str | None = None) -> Evidence:
    """Evidence of a pair, in the order and with the defaults a route would give it."""
    a, b = sorted((a, b))
    return Evidence(a, b, first, first if last is None else last, route or b)


def rules_with(*changed: Namespace, quarantine_after: int = 10) -> IdentityRules:
    """The built-in rules with some namespaces changed or added."""
    namespaces = {**builtin_rules().namespaces, **{namespace.name: namespace for namespace in changed}}
    return IdentityRules(namespaces, quarantine_after=quarantine_after)
