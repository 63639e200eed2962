"""What is wrong with a set-up: one finding per thing looked at, each with what to do about it."""

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from pipeline.admin import admin_client, alike, check_topics, unreachable
from pipeline.broker import find_kafka
from pipeline.errors import HeadwaterError
from pipeline.runtime.kafka.doors import GroupPositions
from pipeline.runtime.progress import Progress, reports_in
from pipeline.settings import ENV_PREFIX, SECRET_FILE, Settings
from pipeline.topology import DELIVERIES, IDENTITY, INGEST, UNIFY

_TIMEOUT_S = 10.0
_SLOW_ANSWER_MS = 500
_SPACE_WANTED = 2 * 1024**3
_SPACE_NEEDED = 200 * 1024**2
_SKEW_ALLOWED_MS = 60_000
# A worker that restores says so once a second.
_SILENT_S = 10.0

_COMING_UP = frozenset(
    {KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR}
)

_Answer = TypeVar("_Answer")
Verdict = Literal["good", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `wrong` keeps the pipeline from working; `warning` will, or may."""

    subject: str
    verdict: Verdict
    detail: str
    what_to_do: str = ""


def examine(settings: Settings, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Iterator[Finding]:
    """Look at everything; findings come as they are made. What needs a broker is left out when there is none."""
    yield from _environment()
    yield _secret(settings)
    yield _folder("state folder", settings.state_dir, "HEADWATER_STATE_DIR")
    yield _folder("cache folder", settings.cache_dir, "HEADWATER_CACHE_DIR")
    yield from _restores(settings, now_ms())
    try:
        settings = find_kafka(settings)
        client = admin_client(settings)
        broker, topics = _broker(client, settings)
        yield broker
        yield from _topics(settings, topics)
        yield from _groups(client, settings, topics)
        yield _clocks(client, settings, topics, now_ms)
    except HeadwaterError as error:
        yield Finding("Kafka", "wrong", f"{error.what} ({error.where})", error.what_to_do)


def _environment() -> Iterator[Finding]:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    unknown = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known)
    if unknown:
        yield Finding("environment", "warning", f"means nothing: {', '.join(unknown)}", "unset it, or correct its name")


def _secret(settings: Settings) -> Finding:
    try:
        settings.secret_bytes()
    except HeadwaterError as error:
        return Finding("secret", "wrong", error.what, error.what_to_do)
    if settings.secret is not None:
        return Finding("secret", "good", "configured")
    file = settings.state_dir / SECRET_FILE
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        return Finding("secret", "warning", f"others can read {file}", f"chmod 600 {file}")
    return Finding("secret", "good", f"kept in {file}")


def _folder(subject: str, folder: Path, variable: str) -> Finding:
    advice = f"set {variable} to a folder that can be written, on a disk with room"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(subject, "wrong", f"{folder}: {error.strerror}", advice)
    detail = f"{folder}: can be written, {free / 1024**3:.1f} GB free"
    if free < _SPACE_NEEDED:
        return Finding(subject, "wrong", detail, advice)
    if free < _SPACE_WANTED:
        return Finding(subject, "warning", detail, advice)
    return Finding(subject, "good", detail)


def _restores(settings: Settings, now_ms: int) -> Iterator[Finding]:
    """How far the workers of this machine have come with their state, by what they last said."""
    for role in (IDENTITY, UNIFY):
        for told in reports_in(settings.state_dir / role.name):
            subject = f"state of {role.name}, slot {told.slot}"
            silent_s = (now_ms - told.at_ms) / 1000
            if not told.restoring:
                took_s = (told.ready_ms - told.began_ms) / 1000
                detail = f"{_partitions(len(told.ready))} ready {took_s:.1f} s after they were assigned"
                yield Finding(
                    subject,
                    "good",
                    f"{detail}, at {datetime.fromtimestamp(told.ready_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC",
                )
            elif silent_s > _SILENT_S:
                detail = f"{_restoring(told)}; nothing was heard of it for {silent_s:.0f} s"
                advice = (
                    f"see its log: it has ended, or waits for the Kafka; headwater run {role.name} goes on from there"
                )
                yield Finding(subject, "warning", detail, advice)
            else:
                yield Finding(subject, "good", _restoring(told))


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _restoring(told: Progress) -> str:
    """Progress and time to ready, in words."""
    known = [each for each in told.restoring if each.target is not None]
    done = sum(each.position - each.start for each in known)
    left = sum((each.target or 0) - each.position for each in known)
    detail = f"restoring {len(told.restoring)} of {_partitions(len(told.restoring) + len(told.ready))}"
    if len(known) < len(told.restoring):
        return f"{detail}; waiting to hear from the Kafka how much there is"
    share = done / (done + left) if done + left else 1.0
    detail += f": {share:.0%} read back, {left:,} changelog offsets left"
    if told.seconds_left is None:
        return detail
    return f"{detail} at {told.records_per_second:,.0f} a second, ready in about {told.seconds_left:.0f} s"


def _broker(client: AdminClient, settings: Settings) -> tuple[Finding, dict[str, int]]:
    begun = time.monotonic()
    try:
        metadata = client.list_topics(timeout=_TIMEOUT_S)
    except KafkaException as error:
        raise unreachable(settings, error.args[0]) from None
    first_ms = (time.monotonic() - begun) * 1000
    begun = time.monotonic()
    client.list_topics(timeout=_TIMEOUT_S)
    again_ms = (time.monotonic() - begun) * 1000
    brokers = len(metadata.brokers)
    detail = (
        f"{settings.bootstrap_servers}: {brokers} broker{'s' if brokers > 1 else ''}, answers in {again_ms:.0f} ms"
        f" ({first_ms:.0f} ms with connecting)"
    )
    topics = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
    leaderless = sorted(
        f"{name}/{number}"
        for name, topic in metadata.topics.items()
        if name.startswith(settings.prefix)
        for number, partition in topic.partitions.items()
        if partition.leader < 0
    )
    if leaderless:
        what = f"{detail}; partitions without a leader: {_some(leaderless)}"
        return Finding("Kafka", "wrong", what, "bring the missing brokers back"), topics
    if again_ms > _SLOW_ANSWER_MS:
        return Finding(
            "Kafka", "warning", detail, "every transaction waits this long several times: move nearer"
        ), topics
    return Finding("Kafka", "good", detail), topics


def _topics(settings: Settings, topics: dict[str, int]) -> Iterator[Finding]:
    deliveries = settings.topic(DELIVERIES.name)
    destinations = sorted(name.removeprefix(deliveries) for name in topics if name.startswith(deliveries))
    differences = check_topics(settings, destinations)
    for (what, what_to_do, fatal), names in alike(differences).items():
        yield Finding("topics", "wrong" if fatal else "warning", f"{what}: {_some(names)}", what_to_do)
    if not differences:
        count = sum(name.startswith(settings.prefix) for name in topics)
        yield Finding("topics", "good", f"{count} under {settings.prefix!r}, as they must be")
    together = [settings.topic(name) for name in (*UNIFY.inputs, str(UNIFY.changelog))]
    counts = {name: topics[name] for name in together if name in topics}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        advice = "task p owns partition p of each: replay into a new workspace with one partition count"
        yield Finding("partitions", "wrong", f"differ where they must be equal: {shown}", advice)
    elif len(counts) == len(together):
        yield Finding("partitions", "good", f"{next(iter(counts.values()))} of each: {', '.join(counts)}")


def _groups(client: AdminClient, settings: Settings, topics: dict[str, int]) -> Iterator[Finding]:
    """The lag of each group of the workspace, in records."""
    reading = {role.name: role.inputs for role in (INGEST, IDENTITY, UNIFY)}
    reading[INGEST.name] = settings.sources
    deliveries = settings.topic(DELIVERIES.name)
    for name in topics:
        if name.startswith(deliveries):
            destination = name.removeprefix(deliveries)
            reading[f"deliver-{destination}"] = (DELIVERIES.name + destination,)
    try:
        members = _retried(lambda: _members(client, [settings.prefix + group for group in reading]))
        positions = _retried(lambda: GroupPositions(settings)(reading))
    except KafkaException as error:
        advice = "give this user the right to describe groups and topics"
        yield Finding("groups", "warning", f"could not be read: {error.args[0]}", advice)
        return
    for group, (committed, end) in positions.items():
        working, lag = members[settings.prefix + group], end - committed
        subject = f"group {settings.prefix}{group}"
        if not working and lag:
            advice = f"headwater up, or headwater run {group.partition('-')[0]}"
            yield Finding(subject, "warning", f"{lag:,} records behind, and nobody is working", advice)
        else:
            yield Finding(subject, "good", f"{working} working, {lag:,} records behind")


def _members(client: AdminClient, groups: list[str]) -> dict[str, int]:
    found = {}
    for group, future in client.describe_consumer_groups(groups, request_timeout=_TIMEOUT_S).items():
        try:
            found[group] = len(future.result().members)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            found[group] = 0
    return found


def _retried(ask: Callable[[], _Answer]) -> _Answer:
    """Ask again while the group coordinator is only just coming up, as it does when a Kafka is first used."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _COMING_UP or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _clocks(client: AdminClient, settings: Settings, topics: dict[str, int], now_ms: Callable[[], int]) -> Finding:
    """Whether records say they were written later than it is here."""
    name = settings.topic("events")
    spec: Any = OffsetSpec  # it ships no types
    try:
        wanted = {TopicPartition(name, number): spec.max_timestamp() for number in range(topics.get(name, 0))}
        futures = client.list_offsets(wanted, request_timeout=_TIMEOUT_S) if wanted else {}
        latest = [future.result().timestamp for future in futures.values()]
    except KafkaException as error:
        return Finding("clocks", "warning", f"could not be compared: {error.args[0].str()}")
    ahead_ms = max(latest, default=-1) - now_ms()
    if ahead_ms > _SKEW_ALLOWED_MS:
        detail = f"{name} holds records from {ahead_ms / 1000:.0f} s after now"
        return Finding("clocks", "warning", detail, "set the clock of the machine that runs ingest, or of this one")
    return Finding("clocks", "good", "no record comes from the future")


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
