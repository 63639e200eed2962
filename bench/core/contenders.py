"""Those who do the core job: how each is built and started, and how its results are read."""

import subprocess
import venv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from bench.core.job import Outcome, rules_as_yaml
from bench.core.measure import Measured, Stuck, run
from bench.workspace import SECRET, Broker, Committed, Headwater, as_json, last_words, start_pinned, stop
from pipeline.identifiers import Keys

PEERS = Path(__file__).parents[1] / "peers"
_decode = msgspec.json.Decoder().decode


class Contender(ABC):
    """One way to do the core job. `share`: of the events, where a contender is too slow for all of them."""

    name: str
    share = 1.0

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Make ready what does not belong to a run. `folder` is kept between calls."""

    @abstractmethod
    def do(self, job: "Job") -> tuple[Measured, Outcome]:
        """Do the job once."""


class Job:
    """One run: where it happens and what there is to do. `topic` is filled with the first `events` of the job."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        topic: str,
        partitions: int,
        events: int,
        records: Callable[[], Iterable[tuple[bytes | None, bytes]]],
        rules_file: Path,
        folder: Path,
        cores: set[int] | None,
        warm_up: float,
    ) -> None:
        self.broker = broker
        self.name = name
        self.topic = topic
        self.partitions = partitions
        self.events = events
        self.records = records
        self.rules_file = rules_file
        self.folder = folder
        self.cores = cores
        self.warm_up = warm_up


class Ours(Contender):
    """`headwater run unify` with rules in YAML. Identity runs beside, for it says when the rules are in force."""

    name = "headwater"

    def build(self, folder: Path) -> None:
        """Nothing: it is installed."""

    def do(self, job: Job) -> tuple[Measured, Outcome]:
        prefix = f"{job.name}."
        workspace = Headwater.begin(job.broker, prefix, job.partitions, job.folder, rules_as_yaml(), job.partitions)
        try:
            workspace.become_ready()
            topic = workspace.settings.topic("events")
            start = job.broker.ends(topic)
            job.broker.fill(topic, job.records())
            committed = Committed(job.broker, f"{prefix}unify", topic, job.partitions, start)
            measured = run(workspace.start("unify", job.cores), committed, job.events, job.warm_up, job.broker.pid)
        finally:
            workspace.stop()
        outcome = self._outcome(job, prefix)
        job.broker.delete(job.broker.topics(prefix))
        return measured, outcome

    def _outcome(self, job: Job, prefix: str) -> Outcome:
        keys = Keys(SECRET.encode())
        outcome = Outcome()
        people: dict[str, str] = {}

        def person_of(profile_id: str, change: dict[str, Any]) -> str:
            found = people.get(profile_id)
            if found is None:
                one = change["identifiers"][0]
                found = people[profile_id] = f"{one['namespace']}:{one['value']}"
                assert keys.profile_id(found) == profile_id
            return found

        for _, value in job.broker.read(f"{prefix}profile-changes"):
            change = _decode(value or b"")
            added = change.get("set", {})
            totals = outcome.totals.setdefault(person_of(change["profile_id"], added), {})
            for event, total in added.get("totals", {}).items():
                totals[event] = [total["count"], total["first"], total["last"]]
        for _, value in job.broker.read(f"{prefix}segment-changes"):
            change = _decode(value or b"")
            _flip(outcome, person_of(change["profile_id"], change), change)
        return outcome


class Peer(Contender):
    """A program of its own that reads its settings from BENCH_JOB. `recognises_duplicates`: by message id, as ours
    does; else what comes twice counts twice."""

    recognises_duplicates = False

    def build(self, folder: Path) -> None:
        self.folder = folder / self.name.replace(" ", "-")

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    def group(self, application: str) -> str:
        """Its consumer group."""
        return application

    def do(self, job: Job) -> tuple[Measured, Outcome]:
        outputs = {name: f"{job.name}.{name}" for name in ("segment-changes", "profile-changes")}
        for topic in outputs.values():
            job.broker.create(topic, job.partitions)
        settings = as_json(
            bootstrap=job.broker.address,
            application=job.name,
            input=job.topic,
            segment_changes=outputs["segment-changes"],
            profile_changes=outputs["profile-changes"],
            rules=str(job.rules_file),
            state_dir=str(job.folder / "state"),
            partitions=job.partitions,
            recognises_duplicates=self.recognises_duplicates,
        )
        process = start_pinned(self.command(), {"BENCH_JOB": settings}, job.folder / "log", job.cores)
        try:
            group = self.group(job.name)
            committed = Committed(job.broker, group, job.topic, job.partitions, [0] * job.partitions)
            measured = run(process, committed, job.events, job.warm_up, job.broker.pid)
        except Stuck as stuck:
            raise Stuck(f"{stuck}; it said: {last_words(job.folder / 'log')}") from stuck
        finally:
            stop(process)
        outcome = Outcome()
        for _, value in job.broker.read(outputs["profile-changes"]):
            change = _decode(value or b"")
            outcome.totals.setdefault(change["person"], {}).update(change["totals"])
        for _, value in job.broker.read(outputs["segment-changes"]):
            change = _decode(value or b"")
            _flip(outcome, change["person"], change)
        job.broker.delete(job.broker.topics(job.name))
        return measured, outcome


class KafkaStreams(Peer):
    """Kafka Streams, in Java, built by Maven."""

    name = "kafka streams"

    def build(self, folder: Path) -> None:
        super().build(folder)
        source = PEERS / "kafka_streams"
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(source / "pom.xml"), f"-DbuildIn={self.folder}", "package"], check=True
        )

    def command(self) -> list[str]:
        jars = f"{self.folder}/*:{self.folder}/dependency/*"
        options = ["-Xms512m", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        return ["java", *options, "-cp", jars, "bench.CoreJob"]


class KafkaStreamsDeduplicating(KafkaStreams):
    """The same with what ours does besides: duplicates are recognised."""

    name = "kafka streams deduplicating"
    recognises_duplicates = True


class PythonPeer(Peer):
    """A peer in Python, in an environment of its own."""

    source: str

    def build(self, folder: Path) -> None:
        super().build(folder)
        wanted = (PEERS / self.source / "requirements.txt").read_text()
        done = self.folder / "installed"
        if not done.exists() or done.read_text() != wanted:
            venv.create(self.folder, with_pip=True, clear=True)
            subprocess.run(
                [self._python(), "-m", "pip", "install", "-q", "-r", str(PEERS / self.source / "requirements.txt")],
                check=True,
            )
            done.write_text(wanted)

    def _python(self) -> str:
        return str(self.folder / "bin" / "python")

    def command(self) -> list[str]:
        return [self._python(), str(PEERS / self.source / "core_job.py")]


class QuixStreams(PythonPeer):
    """Quix Streams, with its stateful `apply`."""

    name = "quix streams"
    source = "quix"


class QuixStreamsDeduplicating(QuixStreams):
    """The same with what ours does besides: duplicates are recognised."""

    name = "quix streams deduplicating"
    recognises_duplicates = True


class Faust(PythonPeer):
    """faust-streaming, with a table."""

    name = "faust-streaming"
    source = "faust"
    share = 0.05

    def command(self) -> list[str]:
        return [*super().command(), "worker", "-l", "warn"]


CONTENDERS: dict[str, type[Contender]] = {
    "headwater": Ours,
    "kafka-streams": KafkaStreams,
    "kafka-streams-deduplicating": KafkaStreamsDeduplicating,
    "quix": QuixStreams,
    "quix-deduplicating": QuixStreamsDeduplicating,
    "faust": Faust,
}


def _flip(outcome: Outcome, person: str, change: dict[str, Any]) -> None:
    outcome.changes += 1
    members = outcome.members.setdefault(person, set())
    if change["change"] == "entered":
        members.add(change["segment"])
    else:
        members.discard(change["segment"])
