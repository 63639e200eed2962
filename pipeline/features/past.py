"""The pipeline's own stages on a part of the history, in memory, with the clock stopped at an instant.

Nothing is computed in a second way: the history up to the instant goes through identity and unify as it did when it was
new, in one partition, and whatever is due by then happens. What was received later is not there.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from pipeline.identifiers import Keys
from pipeline.identity import IdentityStage
from pipeline.plans import GenerationPlan
from pipeline.records import CaughtUp, ProfileDocument, encode
from pipeline.runtime.ports import Record, Stage
from pipeline.unify import UnifyStage

_decode_document = msgspec.json.Decoder(ProfileDocument).decode


class Happened(NamedTuple):
    """A record of the history and when it was received: of `events` (with its key), or of `identity-edges`: an
    operator's decision."""

    received: int
    topic: str
    key: bytes | None
    value: bytes


class Past:
    """One partition of everything, in memory."""

    def __init__(self, keys: Keys, plan: GenerationPlan, expire_after_days: int) -> None:
        identity: Stage = IdentityStage(keys, lambda generation: plan, 1)
        self._unify = UnifyStage(0, keys, lambda generation: plan, expire_after_days, 1)
        self._stages: dict[str, tuple[Stage, _State]] = {}
        self._stages["identity-edges"] = (identity, _State())
        of_unify = _State()
        self._stages["events"] = self._stages["links"] = (self._unify, of_unify)
        self._offsets = dict.fromkeys(self._stages, 0)
        self._waiting: deque[tuple[str, bytes | None, bytes]] = deque()
        self._out = _Outputs(self._waiting)

    def take(self, happened: Happened) -> None:
        """The next record of the history, and everything it leads to."""
        self._waiting.append((happened.topic, happened.key, happened.value))
        self._work()

    def stop(self, at: int) -> dict[str, ProfileDocument]:
        """Let time come to `at`; gives the profiles as they are then, by profile_id."""
        self.take(Happened(at, "events", None, encode(CaughtUp(at))))
        stage, state = self._stages["links"]
        while True:
            stage.wake(state, self._out, at)
            if not self._waiting:
                break
            self._work()
        stage.finish(state, self._out)
        return {key.decode(): _decode_document(value) for key, value in self._out.profiles.items()}

    def _work(self) -> None:
        while self._waiting:
            topic, key, value = self._waiting.popleft()
            stage, state = self._stages[topic]
            offset = self._offsets[topic]
            self._offsets[topic] = offset + 1
            stage.step(Record(topic, 0, offset, key, value), state, self._out)


def profiles_at(
    at: int, history: Iterable[Happened], keys: Keys, plan: GenerationPlan, expire_after_days: int = 90
) -> dict[str, ProfileDocument]:
    """The profiles as of `at` (ms): of the history, in the order in which it was received, only what was by then."""
    past = Past(keys, plan, expire_after_days)
    for happened in history:
        if happened.received <= at:
            past.take(happened)
    return past.stop(at)


class _State:
    """The State of a stage: a dictionary, and a heap of wake-up times of which some are outdated."""

    def __init__(self) -> None:
        self._values: dict[bytes, Any] = {}
        self._wakes: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []
        self._below: dict[bytes, set[bytes]] = {}

    def get(self, key: bytes) -> Any | None:
        return self._values.get(key)

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        if key not in self._values:
            self._below.setdefault(key[:33], set()).add(key)
        self._values[key] = value
        if wake_at != self._wakes.get(key, 0):
            self._wakes[key] = wake_at
            if wake_at:
                heapq.heappush(self._heap, (wake_at, key))

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        return iter(keys)

    def rest(self, prefix: bytes) -> None:
        """Nothing need rest: all of it is gone in a moment."""

    def delete(self, key: bytes) -> None:
        if self._values.pop(key, None) is not None:
            self._below[key[:33]].discard(key)
        self._wakes.pop(key, None)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        # Whatever belongs to one actor begins with its key of 33 bytes; a shorter prefix asks for everybody's.
        among = self._below.get(prefix[:33], ()) if len(prefix) >= 33 else self._values
        return iter([(key, self._values[key]) for key in sorted(key for key in among if key.startswith(prefix))])

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while self._heap and self._heap[0][0] <= until_ms and len(found) < limit:
            row = heapq.heappop(self._heap)
            if self._wakes.get(row[1]) == row[0] and row not in found[-1:]:
                found.append(row)
        for row in found:
            # It stays until its key is put again.
            heapq.heappush(self._heap, row)
        return found

    def scrub(self, prefix: bytes) -> None:
        """There is no disk."""

    def first_wake(self) -> int | None:
        while self._heap and self._wakes.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


class _Outputs:
    def __init__(self, waiting: deque[tuple[str, bytes | None, bytes]]) -> None:
        self._waiting = waiting
        self.profiles: dict[bytes, bytes] = {}

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        if topic in ("links", "identity-edges", "events"):
            self._waiting.append((topic, key, value))

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        if topic == "profiles":
            if value is None:
                self.profiles.pop(key, None)
            else:
                self.profiles[key] = value
