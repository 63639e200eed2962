"""Making a workspace that is the replay of another, and what the two have to do with each other."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.admin import create_topics
from pipeline.archive.reading import with_archive
from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import records as catalog_records
from pipeline.definitions.loader import Written
from pipeline.definitions.log import checked_leaves, read_catalog
from pipeline.errors import InputError
from pipeline.records import Definition, Generation, Marker, RulesChanged, encode
from pipeline.replay.errors import ReplayError
from pipeline.runtime.kafka.apply_log import ApplyTransaction
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaLogReader
from pipeline.runtime.kafka.doors import TopicReader, current_values, produce_all
from pipeline.settings import Settings
from pipeline.workspace_view import view_of
from pipeline.workspaces import ORIGIN_KEY, SUCCESSOR_KEY, TOPIC, ReplayOrigin, ReplayPosition, Successor

_DEFINITIONS = "definitions"
# What stands before all time: nothing of a replay is received before it.
_BEFORE_ALL_MS = 0
_TIMEOUT_S = 15.0


def origin_of(settings: Settings) -> ReplayOrigin:
    """Whose replay a workspace is. ReplayError if it is none."""
    origin = view_of(settings).origin
    if origin is None:
        raise ReplayError(
            f"The workspace {settings.prefix} is no replay.",
            settings.topic(TOPIC),
            "make one with `headwater replay begin NEW_PREFIX`, then name its settings: HEADWATER_CONFIG=FILE",
        )
    return origin


def old_settings(settings: Settings, origin: ReplayOrigin) -> Settings:
    """The settings of the workspace that is replayed. ReplayError: the new one would write into its archive."""
    if origin.archive and _place(settings.archive) == origin.archive:
        raise ReplayError(
            f"{settings.prefix} has the archive of {origin.prefix}: there, two workspaces would be one.",
            origin.archive,
            "set HEADWATER_ARCHIVE to an archive of its own, or unset it",
        )
    replayed = {"prefix": origin.prefix, "partitions": origin.partitions, "archive": origin.archive or None}
    return settings.model_copy(update=replayed)


def _place(archive: str | None) -> str:
    """The address of an archive, from wherever a process is started."""
    if not archive or "://" in archive:
        return archive or ""
    return str(Path(archive).resolve())


def _refuse_gaps(old: Settings, partitions: int) -> None:
    """PositionError: archive and topic of the old workspace, together, lack some of its history."""
    if old.archive is None:
        return
    config = KafkaConfig(old.client_properties(), old.prefix)
    reader = with_archive(old, lambda: KafkaLogReader(config, "replay"), whole=True)()
    try:
        for number in range(partitions):
            low, _ = reader.bounds(("events", number), _TIMEOUT_S)
            reader.open(("events", number), low)
    finally:
        reader.close()


def write_successor(settings: Settings, successor: Successor) -> None:
    """Say in a workspace where it goes on."""
    produce_all(settings, TOPIC, [(SUCCESSOR_KEY, encode(successor))])


def partition_count(settings: Settings, topic: str) -> int:
    """The partitions a topic has."""
    with TopicReader(settings, [topic], from_end=True) as reader:
        return len(reader.ends())


def begin(old: Settings, new: Settings, written: Sequence[Written] = (), applied_by: str = "") -> ReplayOrigin:
    """Make the new workspace: its topics, the definitions of the old one, and over these what was `written` for it.

    They are in force before the first event, so all history is seen under them. ReplayError if there is something in
    the new workspace already that this did not put there.
    """
    if old.prefix == new.prefix:
        raise InputError("A replay goes into another workspace.", new.prefix, "name another prefix")
    if new.secret_bytes() != old.secret_bytes():
        raise ReplayError(
            "The new workspace has another secret: every profile would get another id.",
            "secret",
            "give both the same: HEADWATER_SECRET, or a copy of the old state folder's file `secret`",
        )
    catalog = read_catalog(old)
    now_ms = time.time_ns() // 1_000_000
    planned = plan_apply(
        catalog, written, leaves_of=checked_leaves, take_over=True, applied_at=now_ms, applied_by=applied_by
    )
    in_force = planned.generation or catalog.latest
    create_topics(new, [key.partition("/")[2] for key in in_force.members if key.startswith("destination/")])
    transaction = ApplyTransaction(new)
    try:
        there = view_of(new).origin
        if there is not None:
            if there.prefix != old.prefix:
                raise ReplayError(f"{new.prefix} is a replay of {there.prefix} already.", new.prefix, "take another")
            return there
        _refuse_what_is_there(new)
        partitions = partition_count(old, "events")
        _refuse_gaps(old, partitions)
        origin = ReplayOrigin(old.prefix, partitions, now_ms, _place(old.archive))
        to_write: list[tuple[str, int, bytes | None, bytes]] = [(TOPIC, 0, ORIGIN_KEY, encode(origin))]
        to_write += _definitions(old, planned.definitions, in_force, now_ms)
        if in_force.number:
            marker = encode(Marker(generation=1, received=_BEFORE_ALL_MS))
            to_write += [("events", number, None, marker) for number in range(transaction.partitions("events"))]
            if any(key.startswith("identity/") for key in in_force.members):
                rules = RulesChanged(generation=1, received=_BEFORE_ALL_MS)
                to_write.append(("identity-edges", 0, None, encode(rules)))
        transaction.write(to_write)
        return origin
    finally:
        transaction.close()


def _definitions(
    old: Settings, planned: Sequence[Definition], in_force: Generation, now_ms: int
) -> list[tuple[str, int, bytes | None, bytes]]:
    """Every version there ever was, so that the next one has the next number; and one generation of those in force."""
    found = [
        (key, value) for key, value in current_values(old, _DEFINITIONS).items() if not key.startswith(b"generation/")
    ]
    generation = None
    if in_force.number:
        generation = Generation(
            number=1,
            members=in_force.members,
            leaves=dict.fromkeys(in_force.leaves, 1),
            paused=in_force.paused,
            applied_at=now_ms,
        )
    return [(_DEFINITIONS, 0, key, value) for key, value in found + catalog_records(planned, generation)]


def _refuse_what_is_there(new: Settings) -> None:
    for topic in ("events", _DEFINITIONS, "identity-edges"):
        with TopicReader(new, [topic]) as reader:
            if next(iter(reader.read_to_end()), None) is not None:
                raise ReplayError(
                    f"There is something in {new.topic(topic)} already.",
                    new.prefix,
                    "a replay begins in an empty workspace: name another prefix",
                )


def settings_file(old: Settings, new: Settings) -> str:
    """The settings of the new workspace as YAML. Nothing secret is in it."""
    values: dict[str, Any] = {
        "prefix": new.prefix,
        "partitions": new.partitions,
        "sources": list(new.sources),
        "sources_prefix": new.sources_prefix,
        "state_dir": str(new.state_dir),
    }
    if old.bootstrap_servers:
        values["bootstrap_servers"] = old.bootstrap_servers
    # A prefix may be empty, or look like a number: YAML has to be told.
    told = yaml.safe_dump(values, sort_keys=False, width=1_000)
    return f"# A replay of {old.prefix}: made by `headwater replay begin`.\n{told}"


def share_secret(old: Settings, new: Settings) -> None:
    """Where the secret is a file of the state folder, put it into the new one as well."""
    if old.secret is not None:
        return
    kept = Path(new.state_dir) / "secret"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch(mode=0o600)
        kept.write_text(old.secret_bytes().decode() + "\n")


def positions_left(old: Settings, position: ReplayPosition) -> int:
    """Positions of the old `events` that are not copied yet."""
    with TopicReader(old, ["events"], from_end=True) as reader:
        ends = {number: end for (_, number), end in reader.ends().items()}
    return sum(max(0, ends.get(number, 0) - at) for number, at in enumerate(position.positions))
