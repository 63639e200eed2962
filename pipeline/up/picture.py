"""What the live view knows: a fold of the output topics and of the groups' positions. No I/O, no clock."""

from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec

from pipeline.records import SegmentChange
from pipeline.runtime.ports import Record

SHOWN_CHANGES = 10
RATE_OVER_S = 5.0

_decode_change = msgspec.json.Decoder(SegmentChange).decode


@dataclass(slots=True)
class Picture:
    """Profiles, members per segment, the last changes; how much was consumed, and how much waits. `resting`: so far a
    role may be behind when nothing waits for it."""

    profiles: set[bytes] = field(default_factory=set)
    members: Counter[str] = field(default_factory=Counter)
    changes: deque[SegmentChange] = field(default_factory=lambda: deque(maxlen=SHOWN_CHANGES))
    dead_letters: int = 0
    lags: dict[str, int] = field(default_factory=dict)
    resting: dict[str, int] = field(default_factory=dict)
    consumed: deque[tuple[float, int]] = field(default_factory=deque)
    last_moved_s: float = 0.0
    _member_keys: set[bytes] = field(default_factory=set)

    def take(self, record: Record, now_s: float) -> None:
        """Fold one record of `profiles`, `segment-members`, `segment-changes` or `dead-letters`."""
        self.last_moved_s = now_s
        key = record.key or b""
        if record.topic == "profiles":
            if record.value is None:
                self.profiles.discard(key)
            else:
                self.profiles.add(key)
        elif record.topic == "segment-members":
            segment = key.partition(b"/")[0].decode()
            if record.value is None and key in self._member_keys:
                self._member_keys.remove(key)
                self.members[segment] -= 1
            elif record.value is not None and key not in self._member_keys:
                self._member_keys.add(key)
                self.members[segment] += 1
        elif record.topic == "segment-changes" and record.value is not None:
            self.changes.append(_decode_change(record.value))
        elif record.topic == "dead-letters":
            self.dead_letters += 1

    def measure(self, positions: dict[str, tuple[int, int]], now_s: float) -> None:
        """Take the (committed, end) positions of each role's group, summed over its partitions."""
        self.lags = {role: max(0, end - committed) for role, (committed, end) in positions.items()}
        # Not those of unify: in `events` stand marks of time and ends of transactions too, also when nothing comes.
        committed = positions.get("ingest", (0, 0))[0]
        self.consumed.append((now_s, committed))
        while len(self.consumed) > 2 and self.consumed[0][0] < now_s - RATE_OVER_S:
            self.consumed.popleft()

    def rate(self) -> float:
        """Records of the sources that ingest took in per second over the last seconds."""
        if len(self.consumed) < 2:
            return 0.0
        (then_s, then), (now_s, now) = self.consumed[0], self.consumed[-1]
        return max(0.0, (now - then) / (now_s - then_s)) if now_s > then_s else 0.0

    def waiting(self) -> dict[str, int]:
        """What waits for each role; of one that is only behind the ends of transactions, as at rest, 0."""
        return {role: lag if lag > self.resting.get(role, 0) else 0 for role, lag in self.lags.items()}

    def sizes(self, segments: list[str]) -> list[tuple[str, int]]:
        """Each segment with its size, in the order given, then those nobody named."""
        unnamed = sorted(name for name, count in self.members.items() if count and name not in segments)
        return [(name, self.members[name]) for name in [*segments, *unnamed]]
