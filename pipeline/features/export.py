"""Features out of a workspace: its history is read, and played again up to the instant."""

from pathlib import Path
from typing import Any

from pipeline.definitions.catalog import generation_plan
from pipeline.definitions.log import read_catalog
from pipeline.errors import InputError
from pipeline.features.past import Happened, profiles_at
from pipeline.features.table import Table, table
from pipeline.identifiers import Keys
from pipeline.privacy.vault import FollowedVault
from pipeline.records import Erased, encode
from pipeline.replay.passage import Erasure, EventGlance, LeftOut, decision, glance, passage
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.unify.task import SEALED_FIRST


def features_at(settings: Settings, at: int, entity: str) -> Table:
    """The features of all profiles of a workspace as of `at` (ms), by the definitions in force now.

    Whoever was erased since is not in them, though a system stopped then would have had them.

    Raises:
        BrokerError: the Kafka does not answer.
    """
    catalog = read_catalog(settings)
    plan = generation_plan(catalog, catalog.latest)
    keys = Keys(settings.secret_bytes())
    happened, erasures = _decisions(settings, at)
    with TopicReader(settings, ["events"]) as reader, FollowedVault(settings) as vault:
        for record in reader.read_to_end():
            if record.value is not None and record.value[:1] == SEALED_FIRST:
                # Whose key was destroyed is not in it.
                record = record._replace(value=vault.open(record.value))
            seen = glance(record.value)
            if isinstance(seen, EventGlance) and seen.received <= at:
                passed = passage(record, seen, plan.identity, keys, erasures)
                if not isinstance(passed, LeftOut):
                    happened.append(Happened(seen.received, "events", passed.key, passed.value))
    # A partition's own order is kept: sorting is stable, and a partition is received almost in order.
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


def _decisions(settings: Settings, at: int) -> tuple[list[Happened], dict[bytes, Erasure]]:
    happened: list[Happened] = []
    erasures: dict[bytes, Erasure] = {}
    present: dict[bytes, Record] = {}
    with TopicReader(settings, ["identity-decisions"]) as reader:
        for record in reader.read_to_end():
            if record.key is not None:
                present[record.key] = record
    for record in present.values():
        if record.value is None:
            continue
        decided = decision(record.value)
        if isinstance(decided, Erased):
            erasures[decided.actor.encode()] = Erasure(decided.received)
        elif decided.received <= at:
            happened.append(Happened(decided.received, "identity-edges", None, encode(decided)))
    return happened, erasures


def write_parquet(found: Table, path: Path) -> None:
    """Write a table as a Parquet file.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "Parquet needs the package pyarrow.", str(path), "install it: pip install 'headwater[parquet]'"
        ) from None
    columns: dict[str, Any] = dict(found.columns)
    for name in ("as_of", "first_seen", "last_seen", *(one for one in columns if one.startswith("last."))):
        columns[name] = pyarrow.array(columns[name], pyarrow.timestamp("ms", tz="UTC"))
    made = pyarrow.table(columns)
    partial = path.with_name(path.name + ".part")
    pyarrow.parquet.write_table(made, partial, compression="zstd")
    # Whoever reads it finds the whole file or none.
    partial.replace(path)
