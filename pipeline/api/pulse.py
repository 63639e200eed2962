"""How the pipeline does: looked at every few seconds from a thread of its own, and kept for an hour.

Throughput and lag come from the positions of the groups, in records (those that end transactions are counted too; where
a group rests with few before it they are told from what waits, by reading); dead letters from their topic; how
destinations answer from what their workers keep beside their positions, and, in more words, from what they wrote into a
shared state folder, if there is one. What this user may not see on the Kafka is left out, and said.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pipeline.deliver.health import Health, health_in_notes, healths_in
from pipeline.doctor.facts import KafkaFacts
from pipeline.letters import Letter, NewestLetters
from pipeline.replay.backfills import Backfill, BackfillView
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES, IDENTITY, INGEST, UNIFY

EVERY_S = 5.0
KEPT_S = 3_600
MOST_LETTERS = 1_000
_BACKFILL_EVERY_S = 2.0
_STUCK_S = 60

_log = logging.getLogger(__name__)

Positions = Mapping[str, tuple[int, int]]
"""group → (committed, end)."""


class Sample(NamedTuple):
    """What was seen at one instant (ms): the positions of the groups."""

    at: int
    positions: Positions


class Kafka(Protocol):
    """What is asked of a Kafka."""

    def positions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]: ...

    def waiting(self, groups: Mapping[str, Sequence[str]]) -> dict[str, int | None]: ...

    def notes(self) -> Mapping[str, Sequence[str]]: ...

    def working(self, groups: Sequence[str]) -> dict[str, int]: ...

    def letters(self) -> list[Letter]: ...

    def backfills(self) -> list[Backfill]: ...


class RealKafka:
    """Asks a real one. Keeps its connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._facts = KafkaFacts(settings)
        self._letters: NewestLetters | None = None
        self._backfills: BackfillView | None = None

    def positions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
        """How far the groups are."""
        return self._facts.positions(groups)

    def waiting(self, groups: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
        """How many records each is still to be given; None: the topics may not be read."""
        # Topics may have come since these facts were first asked for.
        return KafkaFacts(self._settings).waiting(groups)

    def notes(self) -> Mapping[str, Sequence[str]]:
        """What they keep beside their positions."""
        return self._facts.notes()

    def working(self, groups: Sequence[str]) -> dict[str, int]:
        """How many members each group has."""
        prefix = self._settings.prefix
        found = self._facts.groups([prefix + group for group in groups])
        return {name.removeprefix(prefix): len(group.members) for name, group in found.items()}

    def letters(self) -> list[Letter]:
        """Dead letters that have come."""
        if self._letters is None:
            self._letters = NewestLetters(self._settings, MOST_LETTERS)
        return self._letters.look()

    def backfills(self) -> list[Backfill]:
        """How far each partition is with history."""
        if self._backfills is None:
            self._backfills = BackfillView(self._settings)
        return self._backfills.look()

    def close(self) -> None:
        """Let go of the connections."""
        if self._letters is not None:
            self._letters.close()
        if self._backfills is not None:
            self._backfills.close()


class Pulse:
    """Looks, and keeps what it saw. Any thread may ask."""

    def __init__(
        self,
        settings: Settings,
        destinations: Callable[[], Sequence[str]],
        kafka: Kafka,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`destinations` gives the names of those in force."""
        self._settings = settings
        self._destinations = destinations
        self._kafka = kafka
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._backfill_lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_S / EVERY_S))
        self._working: dict[str, int] = {}
        self._counted: dict[str, tuple[tuple[int, int], int | None]] = {}
        self._notes: Mapping[str, Sequence[str]] = {}
        self._letters: deque[Letter] = deque(maxlen=MOST_LETTERS)
        self._backfills: tuple[float, list[Backfill]] = (0.0, [])
        self.troubles: dict[str, str] = {}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(EVERY_S)

    def look(self) -> None:
        """Look once."""
        groups = self.groups()
        self._tried("groups", lambda: self._positions(groups))
        self._tried("what waits", lambda: self._count(groups))
        self._tried("members", lambda: self._members(list(groups)))
        self._tried("dead letters", self._take_letters)

    def _tried(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever a client raises: what cannot be seen is said, the rest goes on
            if what not in self.troubles:
                _log.warning("%s cannot be looked at: %s", what, error)
            self.troubles[what] = str(error)[:300]
        else:
            self.troubles.pop(what, None)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups and what each reads."""
        found: dict[str, tuple[str, ...]] = {role.name: role.inputs for role in (INGEST, IDENTITY, UNIFY)}
        found[INGEST.name] = tuple(self._settings.sources)
        return found | {f"deliver-{name}": (DELIVERIES.name + name,) for name in self._destinations()}

    def _positions(self, groups: Mapping[str, Sequence[str]]) -> None:
        found = self._kafka.positions(groups)
        with self._lock:
            self._samples.append(Sample(self._now_ms(), found))
            self._notes = self._kafka.notes()

    def _count(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Count what waits for groups that rest with few positions before them: these may be ends of transactions."""
        samples = self.samples()[-2:]
        if len(samples) < 2:
            return
        before, now = (sample.positions for sample in samples)
        resting = {
            group: topics
            for group, topics in groups.items()
            if (at := now.get(group)) is not None
            and at == before.get(group) != self._counted.get(group, (None, 0))[0]
            and 0 < at[1] - at[0] <= self._few(topics)
        }
        if not resting:
            return
        found = self._kafka.waiting(resting)
        with self._lock:
            self._counted |= {group: (now[group], found.get(group)) for group in resting}

    def _few(self, topics: Sequence[str]) -> int:
        """A group at rest stays a record or two per partition behind: those that end transactions."""
        return self._settings.partitions * len(topics) * 2

    def _members(self, groups: Sequence[str]) -> None:
        found = self._kafka.working(groups)
        with self._lock:
            self._working = found

    def _take_letters(self) -> None:
        found = self._kafka.letters()
        with self._lock:
            self._letters.extend(found)

    # ------------------------------------------------------------------------------------------------------ asking

    def samples(self) -> list[Sample]:
        """What was seen, the oldest first."""
        with self._lock:
            return list(self._samples)

    def letters(self) -> list[Letter]:
        """The newest dead letters, without content, the newest first."""
        with self._lock:
            found = list(self._letters)
        return sorted(found, key=lambda one: (-one.letter.at, one.partition, -one.offset))

    def healths(self) -> dict[str, Health]:
        """How destinations answer: of each that fails, what its worker says of it, wherever that runs."""
        found = healths_in(self._settings.state_dir)
        with self._lock:
            noted = dict(self._notes)
        for group, notes in noted.items():
            name = group.removeprefix("deliver-")
            told, known = health_in_notes(name, notes), found.get(name)
            # Who is on the same machine has it in more words.
            if told is not None and (known is None or known.up):
                found[name] = told
        return found

    def backfills(self) -> list[Backfill]:
        """How far each partition is with history, as of a moment ago. Reads from Kafka."""
        with self._backfill_lock:
            at, found = self._backfills
            if time.monotonic() - at > _BACKFILL_EVERY_S or not found:
                found = self._kafka.backfills()
                self._backfills = time.monotonic(), found
            return found

    def roles(self) -> list[dict[str, Any]]:
        """Each group: who works in it, how far it is behind, what it does a second, and whether it is stuck."""
        samples = self.samples()
        newest = samples[-1] if samples else Sample(0, {})
        with self._lock:
            working, counted = dict(self._working), dict(self._counted)
        found = []
        for group, topics in self.groups().items():
            if group not in newest.positions:
                continue
            committed, end = newest.positions[group]
            done, came = _rates(samples, group, newest.at - _STUCK_S * 1_000)
            behind = max(0, end - committed)
            at, count = counted.get(group, (None, None))
            can_be_stuck = True
            if at == newest.positions[group] and count is not None:
                behind, waits = count, count > 0
                # A delivery waits for as long as its destination is away, and those behind it do not.
                can_be_stuck = not group.startswith("deliver-")
            else:
                waits = behind > self._few(topics)
            found.append(
                {
                    "group": group,
                    "working": working.get(group),
                    "behind": behind,
                    "done_per_second": done,
                    "came_per_second": came,
                    "stuck": waits and can_be_stuck and _is_stuck(samples, group, newest.at - _STUCK_S * 1_000),
                    "waits": waits,
                }
            )
        return found

    def throughput(self, places: int = 60) -> list[dict[str, Any]]:
        """Up to `places` stretches of the last hour: when each began, and for each group what was done and what came a
        second, and how far it was behind at the end."""
        samples = self.samples()
        if len(samples) < 2:
            return []
        length_ms = max(int(EVERY_S * 1_000), -(-(samples[-1].at - samples[0].at) // places))
        found: list[dict[str, Any]] = []
        begin = samples[0]
        for sample in samples[1:]:
            if sample.at - begin.at < length_ms - EVERY_S * 500 and sample is not samples[-1]:
                continue
            span_s = max(0.001, (sample.at - begin.at) / 1_000)
            groups = {
                group: {
                    "done": round(max(0, committed - begin.positions[group][0]) / span_s, 2),
                    "came": round(max(0, end - begin.positions[group][1]) / span_s, 2),
                    "behind": max(0, end - committed),
                }
                for group, (committed, end) in sample.positions.items()
                if group in begin.positions
            }
            found.append({"at": begin.at, "groups": groups})
            begin = sample
        return found


def _since(samples: Sequence[Sample], group: str, since: int) -> list[Sample]:
    return [one for one in samples if one.at >= since and group in one.positions]


def _rates(samples: Sequence[Sample], group: str, since: int) -> tuple[float, float]:
    """What was done, and what came, a second."""
    known = _since(samples, group, since)
    if len(known) < 2:
        return 0.0, 0.0
    span_s = max(0.001, (known[-1].at - known[0].at) / 1_000)
    (done, end), (done_before, end_before) = known[-1].positions[group], known[0].positions[group]
    return round(max(0, done - done_before) / span_s, 2), round(max(0, end - end_before) / span_s, 2)


def _is_stuck(samples: Sequence[Sample], group: str, since: int) -> bool:
    """Whether nothing was done although something was waiting all the time."""
    known = _since(samples, group, since)
    if len(known) < 2 or known[-1].at - known[0].at < _STUCK_S * 800:
        return False
    committed = known[0].positions[group][0]
    return all(one.positions[group][0] == committed < one.positions[group][1] for one in known)
