"""A whole Headwater on a real broker, each role a process of its own, as a user would run it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import TopicMissing
from pipeline.runtime.kafka.doors import (
    GroupPositions,
    TopicReader,
    committed_positions,
    current_values,
    produce_all,
)
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

WAIT_S = 180.0  # far more than anything takes: a busy machine fails no test
_CAUGHT_UP = b'"kind":"caught_up"'
GROUPS = {"ingest": ("raw",), "identity": ("identity-edges",), "unify": ("events", "links")}


class Role:
    """One role process."""

    def __init__(self, words: tuple[str, ...], process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.words = words
        self.process = process
        self.log = log

    def kill(self) -> None:
        """SIGKILL: nothing of it runs on."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait for it to end in order; its exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Deployment:
    """Roles of one workspace. Leaving the context ends every process that was started."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self._started: list[Role] = []

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        for role in self._started:
            if role.process.poll() is None:
                role.process.send_signal(signal.SIGCONT)
                role.process.terminate()
        for role in self._started:
            try:
                role.process.wait(15)
            except subprocess.TimeoutExpired:
                role.kill()

    def environment(self, slot: str = "0", **more: str) -> dict[str, str]:
        """The environment variables that make a process part of this workspace."""
        settings = self.settings
        return {
            **os.environ,
            "HEADWATER_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
            "HEADWATER_PREFIX": settings.prefix,
            "HEADWATER_PARTITIONS": str(settings.partitions),
            "HEADWATER_STATE_DIR": str(settings.state_dir),
            "HEADWATER_SECRET": settings.secret_bytes().decode(),
            "HEADWATER_SLOT": slot,
            "HEADWATER_FORMAT": settings.format,
            "HEADWATER_SOURCES": ",".join(settings.sources),
            **({"HEADWATER_SOURCES_PREFIX": settings.sources_prefix} if settings.sources_prefix else {}),
            **{
                f"HEADWATER_SCHEMA_REGISTRY__{name.upper().replace('.', '_')}": str(value)
                for name, value in settings.schema_registry.items()
            },
            **more,
        }

    def command(self, *words: str, timeout_s: float = WAIT_S, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a `headwater` command to its end; an exit code other than 0 fails the test, with what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"headwater {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str, slot: str = "0", **more: str) -> Role:
        """Start `headwater run WORDS` under a slot."""
        log = self.folder / f"{'-'.join(words)}-{slot}-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "run", *words],
                env=self.environment(slot, **more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        role = Role(words, process, log)
        self._started.append(role)
        return role

    def apply(self, text: str, wait_s: float = 150) -> None:
        """Write a definitions file and apply it; waits until it is in force, if it can come to that."""
        path = self.folder / "definitions.yaml"
        path.write_text(text)
        running = {role.words[0] for role in self._started if role.process.poll() is None}
        self.command("apply", str(path), "--wait", str(wait_s if {"identity", "unify"} <= running else 0))

    def produce(self, events: Iterable[dict[str, Any] | bytes], topic: str = "raw") -> int:
        """Produce raw events; a mapping is keyed by its userId or anonymousId."""

        def records() -> Iterator[tuple[bytes | None, bytes]]:
            for event in events:
                if isinstance(event, bytes):
                    yield None, event
                else:
                    key = str(event.get("userId") or event.get("anonymousId") or "")
                    yield key.encode() or None, msgspec.json.encode(event)

        return produce_all(self.settings, topic, records())

    def read(self, topic: str) -> list[Record]:
        """Every committed record of a topic, in the order of its partitions."""
        with TopicReader(self.settings, [topic]) as reader:
            return sorted(reader.read_to_end(), key=lambda record: (record.partition, record.offset))

    def values(self, topic: str) -> list[Any]:
        """Every committed record's value of a log topic, decoded."""
        return [msgspec.json.decode(record.value) for record in self.read(topic) if record.value is not None]

    def table(self, topic: str) -> dict[str, Any]:
        """The present content of a compacted topic, decoded."""
        current = current_values(self.settings, topic)
        return {key.decode(): msgspec.json.decode(value) for key, value in current.items()}

    def members(self, segment: str) -> set[str]:
        """The profile_ids of a segment's present members."""
        return {row["profile_id"] for row in self.table("segment-members").values() if row["segment"] == segment}

    def wait_until(self, true: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait for a condition; a role that ended by itself, or the time-out, fails the test with the logs' ends."""
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s: {what}\n{self._logs()}")
            time.sleep(0.1)

    def wait_until_idle(self, timeout_s: float = WAIT_S) -> None:
        """Wait until every group has read all that was there, and nothing more comes from it.

        A group's committed position does not pass the control records at the end of a partition. So neither the ends of
        the internal topics (but for ingest's once-a-second records) nor the lag may move for a moment, and then what
        waits for the roles that run is counted: on a busy machine nothing moves although much is still to be done.
        """
        # Nobody can tell from the new workspace whether a copier that makes a pause has come to its end.
        moment_s = 1.5 if self.settings.sources_prefix else 0.5
        ask = GroupPositions(self.settings)
        groups = {**GROUPS, "unify": ("links",)}
        if self.settings.sources_prefix and not any(role.words[0] == "ingest" for role in self._started):
            del groups["ingest"]  # what waits in the sources waits for the switch
        steady_since, before = time.monotonic(), None
        deadline = time.monotonic() + timeout_s
        while True:
            positions, of_events = ask.now(groups), ask.now({"unify": ("events",)})
            # A busy broker may have no leaders to tell of for a moment.
            is_told = bool(positions) and bool(of_events)
            lag = sum(end - committed for committed, end in positions.values())
            events = of_events.get("unify", (0, 0))
            partitions = self.settings.partitions
            now = (positions, lag)
            behind = events[1] - events[0] > 4 * partitions or lag > 4 * partitions
            if now != before or behind or not is_told:
                steady_since, before = time.monotonic(), now
            elif time.monotonic() - steady_since > moment_s and not self._waits():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"not idle within {timeout_s} s: {positions}, events {events}\n{self._logs()}")
            time.sleep(0.15)

    def _waits(self) -> bool:
        at_work = {role.words[0] for role in self._started if role.process.poll() is None}
        if self.settings.sources_prefix:
            at_work.discard("ingest")  # what waits in the sources may wait for the switch
        return any(self._waits_in(topic, group) for group in GROUPS.keys() & at_work for topic in GROUPS[group])

    def _waits_in(self, topic: str, group: str) -> bool:
        committed = committed_positions(self.settings, {group: topic})
        places = {at: max(0, position) for at, position in committed.items()}
        try:
            with TopicReader(self.settings, [topic], only=places) as reader:
                # Ingest says once a second that it has caught up: on a busy machine one of these always waits.
                return any(_CAUGHT_UP not in (record.value or b"") for record in reader.read_to_end())
        except TopicMissing:
            return False  # a workspace that took over has no sources of its own

    def _logs(self) -> str:
        shown = []
        for role in self._started:
            end = role.log.read_text(errors="replace").splitlines()[-12:]
            shown.append(f"--- {role.log.name} (exit {role.process.poll()})\n" + "\n".join(end))
        return "\n".join(shown)
