"""A broker that comes back from a SIGKILL without the markers of a commit: each raw record comes out once all the same.

Which markers Kafka drops is a matter of milliseconds (KAFKA-20734). So they are cut out of the segments of a broker
that is down: when it starts, it finds a transaction that its coordinator takes for complete, as after that fault.
"""

import secrets
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException

from pipeline.admin import create_topics
from pipeline.broker import LocalKafka
from pipeline.runtime.failpoints import VARIABLE
from pipeline.settings import Settings, load
from pipeline.topology import TOPICS
from tests.attack.launcher import Launcher
from tests.kafka.checker import check_inputs, open_transactions
from tests.kafka.deployment import Deployment

OFFSETS = "__consumer_offsets"
# What loses its marker, by what is then to be done with the rest.
CASES: dict[str, tuple[str, ...]] = {
    "all of it hangs": (OFFSETS, "events-0", "events-1", "dead-letters-0", "dead-letters-1"),
    "part of it is committed": (OFFSETS, "events-0"),
    "its positions are committed": ("events-1",),
}
_RECORDS = 40
_HEAD = struct.Struct(">qiibIhiqqqhii")
_CONTROL = 0x20


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.close()


def offsets_partition(group: str) -> int:
    """Where a broker of eight such partitions keeps a group: Java's hash of the name."""
    hashed = 0
    for character in group:
        hashed = (31 * hashed + ord(character)) & 0xFFFFFFFF
    return (hashed & 0x7FFFFFFF) % 8


def batches(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """(position in the file, producer id, whether it is a marker) of each batch in a segment."""
    at = 0
    while at + _HEAD.size <= len(data):
        head = _HEAD.unpack_from(data, at)
        if head[1] <= 0:
            return
        yield at, head[9], bool(head[5] & _CONTROL)
        at += 12 + head[1]


def cut_last_marker(segment: Path, producer: int) -> bool:
    """Cut a segment off before the last marker of this producer. False if it has none: the transaction was not here."""
    data = segment.read_bytes()
    markers = [at for at, of, marker in batches(data) if marker and of == producer]
    if markers:
        segment.write_bytes(data[: markers[-1]])
    return bool(markers)


def eventually(what: str, condition: Callable[[], Any], within_s: float = 180.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def stream(first: int) -> list[dict[str, Any] | bytes]:
    """Events of as many people, and of each ten what nobody can decode."""
    return [
        b"not json" if n % 10 == 9 else {"type": "track", "event": "Seen", "userId": f"u{n}", "messageId": f"m{n}"}
        for n in range(first, first + _RECORDS)
    ]


def test_case_51_each_raw_record_comes_out_once_whatever_of_its_transaction_hangs(
    tmp_path: Path, launcher: Launcher
) -> None:
    kafka = LocalKafka(load().cache_dir)
    try:
        worlds = {what: deployment(kafka, tmp_path, n) for n, what in enumerate(CASES)}
        for each in worlds.values():
            each.produce(stream(0))
        # Killed right after the commit was answered; whether it was told so makes no difference to what is in the log.
        run_each(launcher, worlds, -signal.SIGKILL, **{VARIABLE: "after_commit:1"})
        for each in worlds.values():
            eventually("the markers", lambda each=each: not hanging(each))  # type: ignore[misc]
        kafka.kill()
        data = kafka.logs()[0].parent / "data"
        held: dict[str, set[str]] = {}
        for what, each in worlds.items():
            prefix = each.settings.prefix
            segment = data / f"{prefix}events-0" / f"{0:020}.log"
            producer = [of for _, of, marker in batches(segment.read_bytes()) if marker][-1]
            held[what] = set()
            for cut in CASES[what]:
                name = f"{OFFSETS}-{offsets_partition(prefix + 'ingest')}" if cut == OFFSETS else prefix + cut
                if cut_last_marker(data / name / f"{0:020}.log", producer) and cut != OFFSETS:
                    topic, _, number = cut.rpartition("-")
                    held[what].add(f"{topic}/{number}")
        kafka.restart()
        assert all(held.values())
        assert {what: hanging(each) for what, each in worlds.items()} == held
        for each in worlds.values():
            each.produce(stream(_RECORDS))
        pids = [start(launcher, each) for each in worlds.values()]
        for what, each in worlds.items():
            eventually(f"{what}: {log_of(each)}", lambda each=each: outputs(each) >= 2 * _RECORDS)  # type: ignore[misc]
        time.sleep(1.0)
        for pid in pids:
            assert launcher.ended.get(pid) is None
        for what, each in worlds.items():
            try:
                check_inputs(each.read("raw"), each.read("events"), each.read("dead-letters"))
            except AssertionError as wrong:
                raise AssertionError(f"{what}: {wrong}\n{log_of(each)}") from None
            eventually(f"{what}: nothing hangs", lambda each=each: not hanging(each))  # type: ignore[misc]
    finally:
        kafka.stop()


def deployment(kafka: LocalKafka, folder: Path, number: int) -> Deployment:
    """A workspace whose group stands in an offsets partition of its own."""
    while True:
        prefix = f"lost{number}-{secrets.token_hex(3)}."
        if offsets_partition(prefix + "ingest") % 4 == number:
            break
    values = {"bootstrap_servers": kafka.bootstrap_servers, "prefix": prefix, "secret": "of lost markers"}
    settings = Settings.model_validate({**values, "partitions": 2, "state_dir": folder / prefix})
    create_topics(settings)
    (folder / prefix).mkdir()
    return Deployment(settings, folder / prefix)


def start(launcher: Launcher, each: Deployment, **more: str) -> int:
    return launcher.start("ingest", each.environment(**more), each.folder / "ingest.log")


def run_each(launcher: Launcher, worlds: dict[str, Deployment], code: int, **more: str) -> None:
    for pid in [start(launcher, each, **more) for each in worlds.values()]:
        eventually("the end of ingest", lambda pid=pid: pid in launcher.ended)  # type: ignore[misc]
        assert launcher.ended[pid][0] == code


def hanging(each: Deployment) -> set[str]:
    until = time.monotonic() + 120
    while True:
        try:
            return set(open_transactions(each.settings, [topic.name for topic in TOPICS]))
        except KafkaException:
            # A broker that has only just come back leads nothing for a moment.
            assert time.monotonic() < until
            time.sleep(0.2)


def outputs(each: Deployment) -> int:
    """Events and dead letters that a reader sees; records that say something else do not count."""
    events = [record for record in each.read("events") if b'"kind":"event"' in (record.value or b"")]
    return len(events) + len(each.read("dead-letters"))


def log_of(each: Deployment) -> str:
    text = (each.folder / "ingest.log").read_text(errors="replace")
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))[-2_000:]
