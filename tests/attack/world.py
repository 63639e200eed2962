"""A world of the campaign: one workspace, its roles as processes that can be hurt, traffic, and a clock on recovery."""

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from pipeline.admin import create_topics, delete_topics
from pipeline.settings import Settings
from pipeline.topology import TOPICS
from tests.attack import broken, rests, sessions
from tests.attack.expected import expected_of
from tests.attack.judge import STATEFUL, Findings, Verdict, judge, settled
from tests.attack.launcher import Launcher
from tests.attack.traffic import DEFINITIONS, Traffic, later_segments
from tests.kafka.deployment import Deployment

INPUTS = {"ingest": "raw", "identity": "identity-edges", "unify": "events"}
ROLES = tuple(INPUTS)
HUNG = "has not come back"
SESSION_MS = 6_000
TRANSACTION_MS = 5_000
KILLED = -signal.SIGKILL
# Compaction as often as Kafka lets it, so that changelogs get their holes while they are being restored.
_COMPACT_NOW = {
    "segment.ms": "1500",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "2000",
    "min.compaction.lag.ms": "0",
}
# What a role may say when it ends by itself and no fault accounts for it: these mean that something was lost.
LOUD = ("changed from outside", "truncated or", "are gone and with", "raised ", "Traceback", "other positions")


@dataclass
class Running:
    """A process of a role."""

    pid: int
    log: Path
    began: float
    environment: dict[str, str]


@dataclass
class Pending:
    """A fault that ends when every partition of the role's input has been committed further."""

    fault: str
    role: str
    at: float
    committed: dict[int, int] | None = None


@dataclass
class Ended:
    """A role that ended by itself, and its last words."""

    role: str
    code: int
    words: str


class World:
    """Leaving the context ends every process and removes the topics."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        launcher: Launcher,
        seed: int,
        *,
        via: str = "",
        partitions: int = 2,
        output_partitions: int | None = None,
        transactional_ids: int = 1,
        resting: bool = False,
        broken_rule: str = "",
        per_second: int = 60,
        wait_s: float = 120.0,
        offsets_stuck_s: float | None = None,
    ) -> None:
        self.folder = folder
        self.wait_s = wait_s
        self.ended: list[Ended] = []
        self.recovered: list[tuple[str, str, float]] = []
        self.later = 0
        self.settings = Settings.model_validate(
            {
                "bootstrap_servers": bootstrap,
                "prefix": f"a{seed}-{secrets.token_hex(3)}.",
                "state_dir": folder / "state-0",
                "secret": "of an attacked workspace",
                "partitions": partitions,
                "output_partitions": output_partitions,
                "transactional_ids": transactional_ids,
            }
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.deployment = Deployment(self.settings, folder)
        self.running: dict[tuple[str, str], Running] = {}
        self.wanted: dict[tuple[str, str], dict[str, str]] = {}
        self._via = via or bootstrap
        self._launcher = launcher
        self._broken = broken_rule
        self._resting = resting
        self._patience = {} if offsets_stuck_s is None else {sessions.OFFSETS_STUCK_S: str(offsets_stuck_s)}
        self._per_second = per_second
        self._seed = seed
        # The broker will be away; nobody wants to read that every second.
        self._admin = AdminClient({**self.settings.client_properties(), "log_level": 0})
        self._slots: set[str] = set()
        self._askers: dict[str, Consumer] = {}
        self._pending: list[Pending] = []
        self._watching = threading.Event()
        self._lock = threading.Lock()
        self._traffic: Traffic | None = None
        self._applying: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------- begin and end

    def __enter__(self) -> "World":
        create_topics(self.settings)
        self._compact_often()
        for role in ROLES:
            self.start(role)
        self.deployment.apply(DEFINITIONS)
        self._traffic = Traffic(self.settings, self._seed, self._per_second)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watching.set()
        if self._traffic is not None:
            self._traffic.stop()
        for key in list(self.running):
            self.kill(*key)
        try:
            delete_topics(self.settings, [self.settings.topic(topic.name) for topic in TOPICS])
        except Exception as error:  # noqa: BLE001 - a broker that was hurt may not answer; the topics only take space
            print(f"topics of {self.settings.prefix} were not deleted: {error}")

    def _compact_often(self) -> None:
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in _COMPACT_NOW.items()
        ]
        resources = [
            ConfigResource(ResourceType.TOPIC, self.settings.topic(topic.name), incremental_configs=entries)
            for topic in TOPICS
            if topic.name.endswith("changelog")
        ]
        for future in self._admin.incremental_alter_configs(resources).values():
            future.result(30)

    def add_segment(self) -> None:
        """Apply one segment more, beside whatever else happens: its history is then read. Not while one is applied."""
        if self._applying is not None and self._applying.is_alive():
            return
        self.later += 1
        text = DEFINITIONS + later_segments(self.later)
        self._applying = threading.Thread(target=self.deployment.apply, args=(text,), daemon=True)
        self._applying.start()

    def crowd(self, people: int) -> None:
        """So many who come at once, and are fresh no more at once."""
        assert self._traffic is not None
        self._traffic.crowd(people)

    # -------------------------------------------------------------------------------------------- its processes

    def state_dir(self, slot: str) -> Path:
        """The state folder of a slot: each is a machine of its own."""
        return self.folder / f"state-{slot}"

    def start(self, role: str, slot: str = "0", **more: str) -> Running:
        """Start a role under a slot; `more` are environment variables. It is kept running until `stop`."""
        environment = self.deployment.environment(
            slot,
            HEADWATER_BOOTSTRAP_SERVERS=self._via,
            HEADWATER_STATE_DIR=str(self.state_dir(slot)),
            **{
                sessions.SESSION_MS: str(SESSION_MS),
                sessions.TRANSACTION_MS: str(TRANSACTION_MS),
                broken.BROKEN: self._broken,
                **({rests.RESTING: "1"} if self._resting else {}),
                **self._patience,
                "HEADWATER_TRANSACTIONAL_IDS": str(self.settings.transactional_ids),
                **more,
            },
        )
        log = self.folder / f"{role}-{slot}.log"
        pid = self._launcher.start(role, environment, log)
        running = Running(pid, log, time.monotonic(), more)
        self.running[role, slot] = running
        self._slots.add(f"{role}-{slot}")
        self.wanted[role, slot] = {}
        return running

    def signal(self, role: str, number: int, slot: str = "0") -> None:
        """Send a signal to a role's process, if it still runs."""
        running = self.running.get((role, slot))
        if running is not None and self.exit_code(running) is None:
            try:
                os.kill(running.pid, number)
            except ProcessLookupError:
                pass  # it ended a moment ago

    def exit_code(self, running: Running) -> int | None:
        """How a process ended, or None while it runs."""
        ended = self._launcher.ended.get(running.pid)
        return None if ended is None else ended[0]

    def kill(self, role: str, slot: str = "0") -> None:
        """SIGKILL; it is not started again by itself."""
        self._end(role, slot, signal.SIGKILL)

    def stop(self, role: str, slot: str = "0", patience_s: float = 60.0) -> int:
        """SIGTERM; its exit code. One that does not end is killed."""
        return self._end(role, slot, signal.SIGTERM, patience_s)

    def _end(self, role: str, slot: str, number: int, patience_s: float = 60.0) -> int:
        running = self.running.pop((role, slot))
        self.wanted.pop((role, slot), None)
        self.running_signal(running, number)
        until = time.monotonic() + patience_s
        while self.exit_code(running) is None:
            if time.monotonic() > until:
                self.ended.append(Ended(role, KILLED, f"did not end within {patience_s} s of signal {number}"))
                self.running_signal(running, signal.SIGKILL)
                until += 60
            time.sleep(0.01)
        return self.exit_code(running) or 0

    def running_signal(self, running: Running, number: int) -> None:
        if self.exit_code(running) is None:
            try:
                os.kill(running.pid, number)
            except ProcessLookupError:
                pass  # it ended a moment ago

    def lose_store(self, slot: str = "0") -> None:
        """Delete the local state of a slot none of whose roles run."""
        shutil.rmtree(self.state_dir(slot), ignore_errors=True)

    def tend(self) -> None:
        """Start again what ended by itself, as whatever runs a container would, and keep its last words."""
        for (role, slot), running in list(self.running.items()):
            code = self.exit_code(running)
            if code is None:
                continue
            del self.running[role, slot]
            self.ended.append(Ended(role, code, last_words(running.log) if code >= 0 else f"ended by signal {-code}"))
            if len(self.ended) > 200:
                raise AssertionError(f"roles end again and again: {self.ended[-1]}")
            time.sleep(0.1)
            self.start(role, slot)

    def wait(self, what: str, condition: Callable[[], Any], timeout_s: float | None = None) -> None:
        """Wait until a condition holds, tending the roles meanwhile."""
        until = time.monotonic() + (timeout_s or self.wait_s)
        while not condition():
            assert time.monotonic() < until, f"{what} did not happen\n{self.last_lines()}"
            self.tend()
            time.sleep(0.03)

    def last_lines(self) -> str:
        """The end of every log."""
        texts = []
        for log in sorted(self.folder.glob("*.log")):
            texts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-12:]))
        return "\n".join(texts)

    # ------------------------------------------------------------------------------------- recovery and the end

    def hurt(self, fault: str, role: str, at: float | None = None) -> None:
        """Start the clock of a fault; it stops at the role's next commit."""
        with self._lock:
            self._pending.append(Pending(fault, role, at or time.monotonic()))

    def committed(self, role: str) -> dict[int, int]:
        """A group's committed positions in the partitions of its (first) input."""
        if role not in self._askers:
            # Not the admin client's request for the same: librdkafka 2.16.0 dies in it when the broker goes away.
            self._askers[role] = Consumer(
                {**self.settings.client_properties(), "group.id": self.settings.prefix + role, "log_level": 0}
            )
        topic = self.settings.topic(INPUTS[role])
        wanted = [TopicPartition(topic, number) for number in range(self.inputs(role))]
        return {at.partition: at.offset for at in self._askers[role].committed(wanted, 2)}

    def inputs(self, role: str) -> int:
        """How many partitions a role's input has."""
        return 1 if role == "identity" else self.settings.partitions

    def _watch(self) -> None:
        while not self._watching.wait(0.1):
            with self._lock:
                pending = list(self._pending)
            for role in {each.role for each in pending}:
                try:
                    now = self.committed(role)
                except KafkaException:
                    continue  # the broker may be what was hurt
                at = time.monotonic()
                for each in pending:
                    if each.role != role:
                        continue
                    if each.committed is None:
                        each.committed = now
                    elif all(now.get(number, 0) > before for number, before in each.committed.items()):
                        with self._lock:
                            self._pending.remove(each)
                        self.recovered.append((each.fault, role, at - each.at))

    def is_recovering(self, role: str = "") -> bool:
        """Whether a fault's clock still runs."""
        with self._lock:
            return any(not role or each.role == role for each in self._pending)

    def wait_recovered(self) -> None:
        """Wait until every role has committed something new since it was hurt last."""
        self.wait(f"recovery from {[p.fault for p in self._pending]}", lambda: not self.is_recovering())

    def drain(self) -> None:
        """Stop the traffic and wait until everything has come out."""
        self.wait_recovered()
        assert self._traffic is not None
        self._traffic.finish()
        if self._applying is not None:
            self._applying.join()
        expected = expected_of(self.deployment.read("raw"))
        until = time.monotonic() + self.wait_s
        while difference := settled(self.deployment, expected, self.later):
            if time.monotonic() > until:
                raise AssertionError(f"not settled: {difference}\n{self.last_lines()}")
            pause = time.monotonic() + 0.5
            while time.monotonic() < pause:
                self.tend()
                time.sleep(0.05)

    def finish(self) -> Verdict:
        """Drain, stop every role in order, and judge; AssertionError has everything that is wrong."""
        findings = Findings()
        with findings.looking("the end of the traffic"):
            self.drain()
        for role in ROLES:
            for key in [key for key in self.running if key[0] == role]:
                with findings.looking("the end of the roles"):
                    code = self.stop(*key)
                    assert code == 0, f"{role} ended with {code} when asked to stop\n{self.last_lines()}"
        for role in STATEFUL:
            assert not [key for key in self.running if key[0] == role]
        dirs = {role: sorted(self.folder.glob(f"state-*/{role}")) for role in STATEFUL}
        verdict = judge(self.deployment, dirs, self._slots, findings, self.later)
        with findings.looking("roles that ended by themselves"):
            lost = [each for each in self.ended if any(text in each.words for text in LOUD)]
            assert not lost, f"over lost state: {lost[:3]}"
        findings.tell()
        return verdict


def last_words(log: Path) -> str:
    """The last line that a role wrote about its end: its own, the watchdog's, or what a traceback ends with."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("%")]
    for at in range(len(lines) - 1, max(-1, len(lines) - 60), -1):
        if HUNG in lines[at]:
            # Threads stand with the newest first: the last is the one that works. Its innermost call is its first line.
            worker = "\n".join(lines[at:]).split("\n\n")[-1].splitlines()
            own = [line for line in worker if "/pipeline/" in line]
            return lines[at] + (f" in {own[0].rpartition(' in ')[2]}" if own else "")
        if lines[at].startswith("stopped: "):
            return lines[at]
        if " runs in slot " in lines[at]:
            break
    return " | ".join(lines[-2:])
