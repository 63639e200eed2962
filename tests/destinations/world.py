"""Five destinations of one workspace, the worker that serves them, and what became of each delivery."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition

from pipeline.admin import create_topics
from pipeline.definitions.loader import Written
from pipeline.definitions.log import apply
from pipeline.deliver.progress import read_note
from pipeline.records import DeadLetter, Delivery, IdentifierPair, encode
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings

BEHAVIOURS = {"first": "well", "second": "well", "dead": "dead", "slow": "slow", "flapping": "flapping"}
WELL = dict.fromkeys(BEHAVIOURS, "well")
PROFILES = 300
_decode = msgspec.json.Decoder(Delivery).decode
_decode_letter = msgspec.json.Decoder(DeadLetter).decode


class Arrival(NamedTuple):
    """A request that a receiver has answered."""

    at: float
    status: int
    delivery_id: str
    profile_id: str
    sequence: int


@dataclass(slots=True)
class Verdict:
    """What became of the deliveries of one destination. `lost` and `disordered` must be empty, `both` (delivered, and
    given up too) unless the worker was killed between the two."""

    decided: int = 0
    delivered: int = 0
    dead_letters: int = 0
    pending: int = 0
    repeated: int = 0
    both: int = 0
    lost: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f"{self.decided:,} decided = {self.delivered:,} delivered + {self.dead_letters:,} dead letters + "
            f"{self.pending:,} pending"
        )
        if self.both:
            text += f" - {self.both:,} that are two of these, for a kill came between"
        return text + f"; {self.repeated:,} came again"


class Receivers:
    """The process of the receivers, and what it has written down."""

    def __init__(self, folder: Path, behaviours: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        words = [f"{name}={behaviour}" for name, behaviour in behaviours.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.destinations.receiver", str(folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        lines = (self._process.stdout.readline().split() for _ in behaviours)
        self.urls = {name: f"http://127.0.0.1:{port}/hook" for name, port in lines}

    def arrivals(self, name: str) -> list[Arrival]:
        """What has come to a destination, in its order."""
        path = self._folder / f"{name}.log"
        found = []
        for line in path.read_text().splitlines() if path.exists() else ():
            at, status, delivery_id, profile_id, sequence = line.split()
            found.append(Arrival(float(at), int(status), delivery_id, profile_id, int(sequence)))
        return found

    def count(self, name: str) -> int:
        """How many requests were answered."""
        path = self._folder / f"{name}.log"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def close(self) -> None:
        self._process.communicate()


class World:
    """One workspace with its destinations. Leaving it ends the worker and the receivers."""

    def __init__(self, settings: Settings, folder: Path, behaviours: Mapping[str, str] = BEHAVIOURS) -> None:
        self.settings = settings
        self.names = list(behaviours)
        self.starts: list[float] = []
        self._folder = folder
        self._sequence = 0
        self._role: subprocess.Popen[bytes] | None = None
        create_topics(settings, self.names)
        self.receivers = Receivers(folder / "receivers", behaviours)
        apply(settings, [self._written(name, url) for name, url in self.receivers.urls.items()])

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        if self._role is not None:
            self.kill()
        self.receivers.close()

    @property
    def decided(self) -> int:
        """How many deliveries each destination was to get."""
        return self._sequence

    def _written(self, name: str, url: str) -> Written:
        body = {
            "destination": name,
            "kind": "webhook",
            "url": url,
            "unsigned": True,
            "allow_private": True,
            "timeout_seconds": 3,
            "delivery": {"attempts": 4, "first_retry": "100ms"},
        }
        return Written("destination", name, body)

    def decide(self, count: int) -> None:
        """Put so many deliveries on the topic of each destination, as unify does."""
        now_ms = time.time_ns() // 1_000_000
        numbers = range(self._sequence, self._sequence + count)
        self._sequence += count
        for name in self.names:
            produce_all(self.settings, f"deliveries.{name}", (delivery_of(name, number, now_ms) for number in numbers))

    def start(self) -> None:
        """Start `headwater run deliver`."""
        environment = {
            **os.environ,
            "HEADWATER_BOOTSTRAP_SERVERS": str(self.settings.bootstrap_servers),
            "HEADWATER_PREFIX": self.settings.prefix,
            "HEADWATER_PARTITIONS": str(self.settings.partitions),
            "HEADWATER_STATE_DIR": str(self.settings.state_dir),
            "HEADWATER_SECRET": self.settings.secret_bytes().decode(),
        }
        self.starts.append(time.time())
        with (self._folder / "deliver.log").open("ab") as log:
            self._role = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "run", "deliver", "--end-with", str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End in order."""
        assert self._end(signal.SIGTERM) == 0, (self._folder / "deliver.log").read_text()[-2_000:]

    def _end(self, number: int) -> int:
        assert self._role is not None
        self._role.send_signal(number)
        code = self._role.wait(60)
        self._role = None
        return code

    # ---------------------------------------------------------------------------------------------------- the judgement

    def judge(self) -> dict[str, Verdict]:
        """What became of everything that was decided. To be asked while no worker runs: what is pending is what the
        next one would begin with."""
        letters: dict[str, set[str]] = defaultdict(set)
        with TopicReader(self.settings, ["dead-letters"]) as reader:
            for record in reader.read_to_end():
                letter = _decode_letter(record.value or b"")
                letters[letter.topic].add(_decode(letter.value or b"").delivery_id)
        return {name: self._judge(name, letters[f"deliveries.{name}"]) for name in self.names}

    def _judge(self, name: str, letters: set[str]) -> Verdict:
        pending: set[str] = set()
        decided: dict[str, int] = {}
        known = {n: (position, read_note(position, note)) for n, (position, note) in self._positions(name).items()}
        with TopicReader(self.settings, [f"deliveries.{name}"]) as reader:
            for record in reader.read_to_end():
                delivery = _decode(record.value or b"")
                decided[delivery.delivery_id] = record.offset
                position, note = known[record.partition]
                if record.offset >= position and not note.is_done(record.offset):
                    pending.add(delivery.delivery_id)
        taken = [one for one in self.receivers.arrivals(name) if one.status == 200]
        delivered = {one.delivery_id for one in taken}
        # Of what was delivered in a life that was killed the progress may not be known: it is pending still.
        both = len(delivered & letters) + len((delivered | letters) & pending)
        return Verdict(
            decided=len(decided),
            delivered=len(delivered),
            dead_letters=len(letters),
            pending=len(pending),
            repeated=len(taken) - len(delivered),
            both=both,
            lost=sorted(decided.keys() - delivered - letters - pending),
            disordered=list(self._disordered(taken, letters)),
        )

    def _disordered(self, taken: list[Arrival], letters: set[str]) -> Iterator[str]:
        """Deliveries that came behind a later one of their profile: within one life of the worker any, over all lives
        the first of each (but of those that were given up, and came again because a kill came between)."""
        last: dict[tuple[int, str], int] = {}
        newest: dict[str, int] = {}
        known: set[str] = set()
        for one in taken:
            life = sum(start <= one.at for start in self.starts)
            if one.sequence <= last.get((life, one.profile_id), -1):
                yield f"{one} in life {life}"
            last[life, one.profile_id] = one.sequence
            if one.delivery_id not in known and one.delivery_id not in letters:
                if one.sequence < newest.get(one.profile_id, -1):
                    yield f"{one} for the first time"
                newest[one.profile_id] = one.sequence
            known.add(one.delivery_id)

    def _positions(self, name: str) -> dict[int, tuple[int, str]]:
        group = f"{self.settings.prefix}deliver-{name}"
        consumer = Consumer({**self.settings.client_properties(), "group.id": group, "log_level": 3})
        try:
            asked = [
                TopicPartition(self.settings.topic(f"deliveries.{name}"), n) for n in range(self.settings.partitions)
            ]
            told = consumer.committed(asked, timeout=30)
            return {each.partition: (max(0, each.offset), each.metadata or "") for each in told}
        finally:
            consumer.close()


def delivery_of(name: str, number: int, now_ms: int) -> tuple[bytes, bytes]:
    """The record (key, value) of one delivery."""
    profile = f"p{number % PROFILES}"
    delivery = Delivery(
        delivery_id=f"dlv_{name}_{number}",
        destination=name,
        profile_id=profile,
        action="segment_entered",
        at=now_ms,
        decided_at=now_ms,
        identifiers=[IdentifierPair("user_id", profile)],
        segment="trial",
        body={"sequence": number},
    )
    return profile.encode(), encode(delivery)
