"""One run of `headwater up`: a broker, the topics, the roles, the definitions, the sample, and a window on it all."""

import base64
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live

from pipeline.admin import create_topics, refuse_other_partitions
from pipeline.broker import Kafka, running_kafka
from pipeline.definitions.loader import Written, load, load_text
from pipeline.definitions.log import Readiness, apply, read_catalog
from pipeline.errors import BrokerError, HeadwaterError, InputError
from pipeline.runtime.kafka.doors import GroupPositions, TopicReader, produce_all
from pipeline.sample import raw_events
from pipeline.secret_check import refuse_another_secret
from pipeline.settings import Settings
from pipeline.up.picture import Picture
from pipeline.up.place import alone, see_that_metrics_have_ports, see_that_port_is_free
from pipeline.up.processes import Processes
from pipeline.up.receiver import Receiver
from pipeline.up.view import plain_line, print_end, screen

ROLES = (("ingest",), ("identity",), ("unify",), ("deliver",), ("privacy",))
GROUPS = {"ingest": ("raw",), "identity": ("identity-edges",), "unify": ("events", "links")}
WATCHED = ("profiles", "segment-members", "segment-changes", "dead-letters")
SAMPLE_SECRET = "HEADWATER_SAMPLE_WEBHOOK_SECRET"
_READY_WITHIN_S = 120.0
_MEASURE_EVERY_S = 1.0
_PLAIN_LINE_EVERY_S = 5.0
_FRAMES_PER_SECOND = 4
# An election of leaders takes less.
_SILENT_AFTER_S = 8.0
# Control records stand between a group at rest and the end: two for each partition it reads are no lag.
_RESTING_LAG_PER_PARTITION = 4


class _Kept(msgspec.Struct):
    secret: str = ""
    port: int = 0
    played: bool = False


class Sample:
    """The sample shop in a folder of the project: its segments, its purchases, and a receiver for its webhooks.

    What must outlive a run (the receiver's port and secret, whether the purchases were played) is kept in the state
    folder.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if not (folder / "segments.yaml").is_file():
            raise InputError(
                "The sample shop is not here.", str(folder), "run this in a clone of the project, or name its folder"
            )
        self._folder = folder
        self._kept_in = settings.state_dir / "sample.json"
        kept = self._kept()
        self._secret = kept.secret or "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self.played = kept.played
        self.receiver = Receiver(self._secret, kept.port)
        self._keep()

    @property
    def environment(self) -> dict[str, str]:
        """What the deliver role must find in its environment."""
        return {SAMPLE_SECRET: self._secret}

    def definitions(self) -> list[Written]:
        """The segments, and the webhook that tells the receiver."""
        text = (self._folder / "destination.yaml").read_text()
        return load([self._folder / "segments.yaml"]) + load_text(text.replace("$URL", self.receiver.url))

    def play(self, settings: Settings, progress: Callable[[int], None]) -> None:
        """Produce the purchases, so shifted that the last one was yesterday. Done once for a state folder."""
        today = datetime.now(UTC).date()
        produce_all(settings, settings.sources[0], raw_events(self._folder / "cdnow.csv.gz", today), progress)
        self.played = True
        self._keep()

    def _kept(self) -> _Kept:
        try:
            return msgspec.json.decode(self._kept_in.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return _Kept()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise InputError(
                "What the sample shop keeps cannot be read.", str(self._kept_in), "remove it: the shop is played anew"
            ) from None

    def _keep(self) -> None:
        self._kept_in.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._kept_in.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.encode(_Kept(self._secret, self.receiver.port, self.played)))
        fresh.replace(self._kept_in)


class Session:
    """Runs until Ctrl-C, or until nothing has happened for `exit_when_idle_s`."""

    def __init__(
        self,
        settings: Settings,
        console: Console,
        definitions: Sequence[Path] = (),
        sample_folder: Path | None = None,
        exit_when_idle_s: float | None = None,
    ) -> None:
        self._settings = settings
        self._console = console
        self._definitions = definitions
        self._sample_folder = sample_folder
        self._exit_when_idle_s = exit_when_idle_s
        resting = _RESTING_LAG_PER_PARTITION * settings.partitions
        self._picture = Picture(resting={role: resting * len(topics) for role, topics in GROUPS.items()})
        self._segments: list[str] = []
        self._status = "starting"
        self._failure: HeadwaterError | None = None
        self._sample: Sample | None = None
        self._answered_s: float | None = None

    def run(self) -> None:
        """Start everything, show it, stop everything.

        Raises:
            HeadwaterError: something could not be started, or a role failed again and again.
        """
        with ExitStack() as stack:
            stack.enter_context(alone(self._settings.state_dir))
            see_that_port_is_free(self._settings.collector)
            collector = (("collector",),) if self._settings.collector.write_keys else ()
            archive = (("archive",),) if self._settings.archive else ()
            roles = (*ROLES, *collector, *archive)
            see_that_metrics_have_ports(self._settings, len(roles))
            self._say("looking for a Kafka")
            kafka = stack.enter_context(running_kafka(self._settings))
            self._settings = settings = self._settings.with_kafka(kafka.bootstrap_servers)
            self._say(f"Kafka at {kafka.bootstrap_servers} ({kafka.origin})")
            # Before topics that are missing are made with a number that is not that of the others.
            refuse_other_partitions(settings)
            create_topics(settings)
            # Every role would refuse it, again and again, and before that definitions would go to somebody else's.
            refuse_another_secret(settings)
            environment = {
                "HEADWATER_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
                "HEADWATER_STATE_DIR": str(settings.state_dir.resolve()),
                "HEADWATER_PREFIX": settings.prefix,
                "HEADWATER_PARTITIONS": str(settings.partitions),
                "HEADWATER_SECRET": settings.secret_bytes().decode(),
            }
            if self._sample_folder is not None:
                self._sample = Sample(self._sample_folder, settings)
                stack.callback(self._sample.receiver.close)
                environment |= self._sample.environment
            readiness = Readiness(settings)
            stack.callback(readiness.close)
            generation = self._apply()
            # A role must find its destinations, so the definitions come first: the stages read them from the log.
            processes = stack.enter_context(
                Processes(roles, environment, settings.state_dir / "logs", settings.metrics_port)
            )
            if settings.metrics_port:
                self._say(f"metrics from port {settings.metrics_port} on: {', '.join(words[0] for words in roles)}")
            reader = stack.enter_context(TopicReader(settings, WATCHED))
            if settings.collector.write_keys:
                place = f"http://{settings.collector.host}:{settings.collector.port}"
                self._say(f"collector at {place} (docs/collector.md)")
            player = threading.Thread(target=self._play, args=(readiness, generation), name="sample", daemon=True)
            player.start()
            stack.push(self._say_that_it_stops)
            self._watch(reader, processes, kafka)

    def _say_that_it_stops(self, why: type[BaseException] | None, *_: object) -> None:
        if why is KeyboardInterrupt:
            self._say("stopping")

    def _apply(self) -> int | None:
        """Put the definitions into force; the generation to wait for, if there is a new one."""
        planned = None
        written = load(self._definitions) if self._definitions else []
        if self._sample is not None:
            written += self._sample.definitions()
        if written:
            planned = apply(self._settings, written, take_over=False, applied_by="headwater up")
            for line in planned.waits_for:
                self._say(line)
        catalog = read_catalog(self._settings)
        self._segments = [each.name for each in catalog.of_kind(catalog.latest, "segment")]
        return planned.generation.number if planned is not None and planned.generation is not None else None

    def _play(self, readiness: Readiness, generation: int | None) -> None:
        if generation is not None:
            # What happens before its rules are in force is history to them, and history triggers nothing.
            self._status = "putting the definitions into force"
            if not readiness.wait(generation, _READY_WITHIN_S):
                self._failure = BrokerError(
                    f"The definitions were not in force after {_READY_WITHIN_S:.0f} s.",
                    str(self._settings.state_dir / "logs"),
                    "the logs of identity and unify say why",
                )
                return
        self._status = "waiting for the collector"
        if not self._collector_answers():
            self._failure = BrokerError(
                f"The collector did not answer within {_READY_WITHIN_S:.0f} s.",
                f"{self._settings.collector.host}:{self._settings.collector.port}",
                f"{self._settings.state_dir / 'logs'} has its log; its port may be another's (`collector.port`)",
            )
            return
        if self._sample is None or self._sample.played:
            self._status = "ready for your events"
            return
        self._status = "playing the sample"

        def progress(acknowledged: int) -> None:
            self._status = f"playing the sample: {acknowledged:,} purchases produced"

        try:
            self._sample.play(self._settings, progress)
            self._status = "the sample is produced; ready for your events"
        except HeadwaterError as error:
            self._failure = error

    def _collector_answers(self) -> bool:
        """Whether it takes connections, where there is one: whoever reads *ready* sends something at once."""
        collector = self._settings.collector
        if not collector.write_keys:
            return True
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(collector.host, collector.host)  # noqa: S104 (looked up)
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline_s:
            try:
                socket.create_connection((host, collector.port), 1.0).close()
                return True
            except OSError:
                time.sleep(0.1)
        return False

    def _watch(self, reader: TopicReader, processes: Processes, kafka: Kafka) -> None:
        positions = GroupPositions(self._settings)
        plain = not self._console.is_terminal
        measured_s = printed_s = 0.0
        self._picture.last_moved_s = time.monotonic()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                for record in reader.read(20_000, 1 / _FRAMES_PER_SECOND):
                    self._picture.take(record, time.monotonic())
                now_s = time.monotonic()
                if now_s - measured_s >= _MEASURE_EVERY_S:
                    measured_s = now_s
                    if kafka.is_down():
                        self._say("the Kafka had ended, and is started again", live)
                        kafka.restart()
                        self._answered_s = time.monotonic()
                    self._measure(positions, now_s)
                    for name, why in processes.tend():
                        self._say(f"{name} had ended and was started again: {why}", live)
                if self._failure is not None:
                    raise self._failure
                if plain and now_s - printed_s >= _PLAIN_LINE_EVERY_S:
                    printed_s = now_s
                    self._say(plain_line(self._picture, self._told_status(), self._calls()))
                if not plain:
                    live.update(screen(self._picture, self._segments, self._head(), self._calls()), refresh=True)
                if self._is_idle(now_s):
                    break
        self._say(f"nothing has happened for {self._exit_when_idle_s:.0f} s: stopping")

    def _measure(self, positions: GroupPositions, now_s: float) -> None:
        told = positions.now(GROUPS)
        if told:
            self._answered_s = now_s
            self._picture.measure(told, now_s)
        else:
            # The broker does not say just now: nothing is known to be caught up.
            self._picture.lags = {}

    def _told_status(self) -> str:
        silent = self._answered_s is not None and time.monotonic() - self._answered_s > _SILENT_AFTER_S
        return "the Kafka does not answer" if silent else self._status

    def end(self) -> None:
        """Leave the table of segments behind."""
        print_end(self._console, self._picture, self._segments, self._calls())

    def _is_idle(self, now_s: float) -> bool:
        if self._exit_when_idle_s is None or "ready" not in self._status:
            return False
        waiting = self._picture.waiting()
        caught_up = len(waiting) == len(GROUPS) and not any(waiting.values())
        if not caught_up:
            self._picture.last_moved_s = max(self._picture.last_moved_s, now_s - self._exit_when_idle_s + 1)
        return caught_up and now_s - self._picture.last_moved_s >= self._exit_when_idle_s

    def _calls(self) -> int | None:
        return self._sample.receiver.total() if self._sample is not None else None

    def _head(self) -> str:
        return f"{self._told_status()}   Kafka: {self._settings.bootstrap_servers}   Ctrl-C stops it"

    def _say(self, text: str, live: Live | None = None) -> None:
        console = live.console if live is not None else self._console
        console.print(text, highlight=False, markup=False, soft_wrap=True)
