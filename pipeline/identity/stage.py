"""The identity stage: consumes `identity-edges` and tells the actors what their profile is called.

A pure function of the log. One record is one step: whatever a batch holds, each identifier whose name a record changed
gets one Assign, with the epoch of that record (its offset plus one, because an actor nobody assigned is at epoch 0).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.identifiers import Keys
from pipeline.identity import decisions, evidence, state
from pipeline.identity.graph import Graph
from pipeline.identity.resolution import BOUNDS, Bounds, Ruling
from pipeline.identity.rules import IdentityRules
from pipeline.identity.turn import Counters, Turn
from pipeline.records import (
    BackfillDone,
    EraseRequest,
    Evidence,
    Readmitted,
    Ready,
    Release,
    Relink,
    ResolveOn,
    RulesChanged,
    Unlink,
    decode_edges_record,
    encode,
)
from pipeline.runtime.ports import Outputs, Record, State


class Plan(Protocol):
    """What this stage needs of a generation's plan."""

    @property
    def identity(self) -> IdentityRules:
        """The identity rules."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """How the stage lays out and paces its work. None of it changes what is resolved.

    `inline`: edges of an identifier, or members of a group, kept in one record. `sweep`: identifiers looked at by one
    step of a sweep, about; `small`: up to so many identifiers a step of a sweep takes them all.
    """

    inline: int = 32
    sweep: int = 500
    small: int = 1_000


SIZES = Sizes()


class IdentityStage:
    """The Stage behind `identity-edges`. `plans` gives a generation's plan; `partitions` is the workspace's count."""

    def __init__(
        self,
        keys: Keys,
        plans: Callable[[int], Plan],
        partitions: int,
        bounds: Bounds = BOUNDS,
        sizes: Sizes = SIZES,
    ) -> None:
        self.counters = Counters()
        self._keys = keys
        self._plans = plans
        self._partitions = partitions
        self._bounds = bounds
        self._sizes = sizes
        self._ruling: tuple[int, Ruling] | None = None

    def step(self, record: Record, state: State, out: Outputs) -> None:
        """Consume one record of `identity-edges`."""
        if record.value is None:
            return
        graph = Graph(state, self._keys, self._sizes.inline)
        graph.ruling = self._ruling_of(graph.meta.generation)
        turn = Turn(graph, out, self._keys, record.offset + 1, self.counters)
        match decode_edges_record(record.value):
            case Evidence() as message:
                turn.advance(message.last_received)
                evidence.take(turn, message)
            case Unlink() as message:
                turn.advance(message.received)
                decisions.unlink(turn, message)
            case Relink() as message:
                turn.advance(message.received)
                decisions.relink(turn, message)
            case Release() as message:
                turn.advance(message.received)
                decisions.release(turn, message)
            case EraseRequest() as message:
                turn.advance(message.received)
                decisions.erase(turn, message)
            case Readmitted() as message:
                turn.advance(message.received)
                decisions.readmit(turn, message)
            case RulesChanged() as message:
                turn.advance(message.received)
                self._change_rules(turn, message)
            case ResolveOn() as message:
                self._sweep(turn, message, state)
            case BackfillDone() as message:
                turn.advance(message.received)
                self._collect(turn, message)
        turn.end()

    def finish(self, state: State, out: Outputs) -> None:
        """Nothing is sent once per batch: every record has said what it caused."""

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        """Nothing here happens by time alone."""

    def forget(self) -> None:
        """Drop every cache: there is only that of the rules in force, which an aborted batch may have raised."""
        self._ruling = None

    def encode(self, key: bytes, value: Any) -> bytes:
        """The stored form of a value."""
        return state.encode(key, value)

    def decode(self, key: bytes, data: bytes) -> Any:
        """The value of a stored form. Raises ValueError for a version this release does not know."""
        return state.decode(key, data)

    def _ruling_of(self, generation: int) -> Ruling:
        if self._ruling is None or self._ruling[0] != generation:
            self._ruling = generation, Ruling(self._plans(generation).identity, self._bounds)
        return self._ruling[1]

    def _change_rules(self, turn: Turn, message: RulesChanged) -> None:
        if self._plans(message.generation).identity == turn.graph.ruling.rules:
            return
        turn.graph.meta.generation = message.generation
        self._go_on(turn, message.generation, 0)

    def _sweep(self, turn: Turn, message: ResolveOn, state_port: State) -> None:
        """Resolve the next identifiers under the rules in force. What an event touches before it is resolved then."""
        meta = turn.graph.meta
        if message.generation != meta.generation:
            return
        turn.reason = "rules"
        bucket, looked = message.bucket, 0
        while bucket < state.BUCKETS and looked < self._sizes.sweep:
            if meta.identifiers <= self._sizes.small:
                prefix, width = b"n", state.BUCKETS
            elif meta.identifiers <= 256 * self._sizes.small:
                prefix, width = b"n" + bytes([bucket >> 8]), 256
            else:
                prefix, width = b"n" + bucket.to_bytes(2, "big"), 1
            texts = [node.text for _, node in state_port.scan(prefix)]
            for text in texts:
                if text:
                    turn.renew(text)
            looked += max(len(texts), 1)
            bucket += width
        self.counters.swept += looked
        if bucket < state.BUCKETS:
            self._go_on(turn, message.generation, bucket)

    def _go_on(self, turn: Turn, generation: int, bucket: int) -> None:
        message = ResolveOn(generation, turn.graph.meta.clock, bucket)
        turn.out.log("identity-edges", None, encode(message), partition=0)

    def _collect(self, turn: Turn, message: BackfillDone) -> None:
        meta = turn.graph.meta
        if message.generation <= meta.ready:
            return
        reported = meta.reported.setdefault(message.generation, [])
        if message.partition not in reported:
            reported.append(message.partition)
        if len(reported) < self._partitions:
            return
        meta.ready = message.generation
        meta.reported = {each: who for each, who in meta.reported.items() if each > message.generation}
        value = encode(Ready(message.generation, meta.clock))
        for partition in range(self._partitions):
            turn.out.log("events", None, value, partition=partition)
