"""Features out of a workspace: its history is read, and played again up to the instant."""

import errno
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.archive.reading import history_of
from pipeline.definitions.catalog import Catalog, generation_plan
from pipeline.definitions.log import read_catalog
from pipeline.errors import InputError
from pipeline.features.past import Happened, profiles_at
from pipeline.features.table import Table, table
from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules
from pipeline.plans import GenerationPlan
from pipeline.records import Erased, encode
from pipeline.replay.passage import Erasure, EventGlance, LeftOut, decision, glance, passage, readmitted
from pipeline.runtime.kafka.doors import TopicReader, topic_partitions
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.unify.actor import FOREVER


def features_at(settings: Settings, at: int, entity: str) -> Table:
    """The features of all profiles of a workspace as of `at` (ms), by the definitions in force now. The history begins
    in the workspace's archive, if it has one.

    Whoever was erased since is not in them, though a system stopped then would have had them.

    Raises:
        BrokerError: the Kafka does not answer. SettingsError, InputError: the archive cannot be read.
    """
    catalog = read_catalog(settings)
    plan = always_there(catalog)
    keys = Keys(settings.secret_bytes())
    with TopicReader(settings, ["identity-decisions"]) as reader:
        happened, erasures = decided(reader.read_to_end(), at)
    partitions = (number for (_, number), _ in topic_partitions(settings, ["events"]))
    happened += taken_in(history_of(settings, "events", partitions), at, plan.identity, keys, erasures)
    happened.sort(key=lambda one: one.received)
    documents = profiles_at(at, happened, keys, plan)
    segments = plan.segments if entity == "person" else plan.segments.accounts
    return table(
        documents,
        at,
        entity=entity,
        computed=sorted(plan.segments.computed_traits) if entity == "person" else ["people"],
        segments=sorted(one for one in (segments.segments if segments is not None else ()) if one[0] != "~"),
        namespaces=sorted(plan.identity.namespaces) if entity == "person" else ["account"],
    )


def always_there(catalog: Catalog) -> GenerationPlan:
    """The definitions in force now, as if they had always been there: of the generation in which a stage begins. What
    a later one asks of accounts, none has answered by then, and nobody is in a segment that asks."""
    return generation_plan(catalog, msgspec.structs.replace(catalog.latest, number=0, leaves={}))


def taken_in(
    records: Iterable[Record], at: int, rules: IdentityRules, keys: Keys, erasures: Mapping[bytes, Erasure]
) -> list[Happened]:
    """The events that were received by `at` and are of nobody who was erased, in the order of their receipt."""
    found: list[tuple[EventGlance, Record]] = []
    for record in records:
        # Whose key was destroyed is not in it.
        seen = glance(record.value)
        if isinstance(seen, EventGlance) and seen.received <= at:
            found.append((seen, record))
    # A partition's own order is kept: sorting is stable, and a partition is received almost in order.
    found.sort(key=lambda one: one[0].received)
    happened: list[Happened] = []
    # Whoever is kept out is nobody until a consent anew, whatever an ingest took in that had not heard of it.
    gone = {actor: one._replace(received=FOREVER) if one.keep_out else one for actor, one in erasures.items()}
    for seen, record in found:
        for actor in readmitted(record, seen, keys, erasures, ()) if record.key in gone else ():
            if actor in gone:
                gone[actor] = erasures[actor]
        passed = passage(record, seen, rules, keys, gone)
        if not isinstance(passed, LeftOut):
            happened.append(Happened(seen.received, "events", passed.key, passed.value))
    return happened


def decided(records: Iterable[Record], at: int) -> tuple[list[Happened], dict[bytes, Erasure]]:
    """What had been decided about identity by `at`, and whom erasures took, of the records of `identity-decisions`.

    What took a decision back later is no part of that past, so of one thing every record counts that is still there:
    the topic is compacted, and forgets what stood before a later decision in the end. A tombstone takes all: it is
    there for somebody who was erased.
    """
    found: dict[bytes, list[Record]] = {}
    for record in records:
        if record.key is None:
            continue
        if record.value is None:
            found.pop(record.key, None)
        else:
            found.setdefault(record.key, []).append(record)
    happened: list[Happened] = []
    erasures: dict[bytes, Erasure] = {}
    for several in found.values():
        decided_at = 0
        for record in several:
            assert record.value is not None
            made = decision(record.value)
            if isinstance(made, Erased):
                erasures[made.actor.encode()] = Erasure(made.received, keep_out=made.keep_out)
                continue
            # Clocks differ: of one thing, what was decided later came later.
            decided_at = max(decided_at, made.received)
            if decided_at <= at:
                happened.append(Happened(decided_at, "identity-edges", None, encode(made)))
    return happened, erasures


def check_parquet(path: Path) -> None:
    """Make sure that a Parquet file can be written there, before a long history is read for it.

    Raises:
        InputError: pyarrow is not installed; or there is a folder, or no file can be made.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            "Parquet needs the package pyarrow.", str(path), "install it: pip install 'headwater[parquet]'"
        )
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        _partial(path).touch()
        _partial(path).unlink()
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"No file can be written there: {why}.", str(path), "name another one by --out") from None


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def write_parquet(found: Table, path: Path) -> None:
    """Write a table as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, Any] = dict(found.columns)
    for name in ("as_of", "first_seen", "last_seen", *(one for one in columns if one.startswith("last."))):
        columns[name] = pyarrow.array(columns[name], pyarrow.timestamp("ms", tz="UTC"))
    made = pyarrow.table(columns)
    pyarrow.parquet.write_table(made, _partial(path), compression="zstd")
    # Whoever reads it finds the whole file or none.
    _partial(path).replace(path)
