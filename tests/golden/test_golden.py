"""Each golden folder is read by today's code, which goes on with it: from the stores, and from the changelogs alone."""

import tarfile
from pathlib import Path

import pytest

from pipeline.identity import builtin_rules
from pipeline.replay.copier import Copier
from pipeline.replay.ports import Committed, CopySettings, Ports
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.memory import MemoryLogReader, MemoryProducer
from pipeline.runtime.rocksdb import RocksStores
from tests.golden.layout import LAYOUT
from tests.golden.make import FOLDER, LOGS, STATE, make
from tests.golden.world import KEYS, PARTITIONS, TABLES, Workspace

# What the first version of the main job wrote, before there were golden folders, with today's make.py and world.py: its
# state has a form that is no longer read, so that its history is replayed.
FIRST = "2026-11-22"
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if (path / LOGS).exists() and path.name != FIRST)
CHANGELOGS = {"unify": "unify-changelog", "identity": "identity-changelog"}


def unpack(version: str, folder: Path) -> None:
    """The state folder of a version, as it was packed."""
    with tarfile.open(FOLDER / version / STATE) as packed:
        # Python 3.11 has filters since 3.11.4, and no warning of their absence.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)


def gone_on(version: str, folder: Path, with_stores: bool) -> Workspace:
    """What today's code makes of a golden folder."""
    if with_stores:
        unpack(version, folder)
    workspace = Workspace(folder)
    workspace.load(FOLDER / version / LOGS)
    workspace.after()
    return workspace


def from_the_beginning(version: str, folder: Path) -> Workspace:
    """The same with today's code from the first event on, as the golden folder has it."""
    workspace, golden = Workspace(folder), Workspace(folder)
    golden.load(FOLDER / version / LOGS)
    workspace.now_ms = workspace.broker.now_ms = golden.now_ms
    for record in golden.broker.read("events"):
        workspace.broker.now_ms = record.timestamp_ms
        workspace.broker.produce("events", record.key, record.value, record.partition)
    workspace.broker.now_ms = golden.now_ms
    workspace.work()
    workspace.after()
    return workspace


def test_there_is_a_golden_folder() -> None:
    assert VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stores_are_what_the_changelogs_say(version: str, tmp_path: Path) -> None:
    unpack(version, tmp_path)
    workspace = Workspace(tmp_path / "unused")
    workspace.load(FOLDER / version / LOGS)
    kept = 0
    for role, changelog in CHANGELOGS.items():
        for number, end in workspace.ends(changelog).items():
            store = RocksStores(tmp_path / role).open(number)
            meta, values = store.meta(), dict(store.scan(b""))
            store.close()
            last = {r.key: r.value for r in workspace.broker.read(changelog, number)}
            said = {
                key: value for key, value in last.items() if value is not None and not (key or b"").startswith(b"\x00")
            }
            assert meta is not None and values == said and meta.changelog <= end
            kept += len(values)
    assert kept > 100


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("with_stores", [True, False], ids=["from its stores", "from its changelogs"])
def test_a_golden_folder_is_read_and_gone_on_with(version: str, with_stores: bool, tmp_path: Path) -> None:
    workspace = gone_on(version, tmp_path / "golden", with_stores)
    whole = from_the_beginning(version, tmp_path / "whole")
    for table in TABLES:
        found, right = workspace.table(table), whole.table(table)
        assert found.keys() == right.keys() and len(right) >= 30
        differing = [key for key in right if found[key] != right[key]]
        assert not differing, f"{table} {differing[0]}: {found[differing[0]]} and not {right[differing[0]]}"
    changes = {change["segment"] for change in workspace.said("segment-changes")}
    assert changes == {"readers", "lately", "lapsed", "big", "abandoned", "pros"}
    assert workspace.ends("events").keys() == set(range(PARTITIONS))


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_read_back_where_the_store_is_there(version: str, tmp_path: Path) -> None:
    unpack(version, tmp_path)
    workspace = Workspace(tmp_path)
    workspace.load(FOLDER / version / LOGS)
    before = {topic: workspace.ends(topic) for topic in workspace.broker.topics}
    workspace.work()
    assert {topic: workspace.ends(topic) for topic in workspace.broker.topics} == before, "it did something by itself"


def test_making_one_is_one_command(tmp_path: Path) -> None:
    make(tmp_path / "made")
    assert {file.name for file in (tmp_path / "made").iterdir()} == {STATE, LOGS, LAYOUT}
    assert sum(file.stat().st_size for file in (tmp_path / "made").iterdir()) < 400_000


@pytest.mark.parametrize("with_stores", [True, False], ids=["its stores", "its changelogs"])
def test_state_of_the_first_version_is_refused_and_left_as_it_is(with_stores: bool, tmp_path: Path) -> None:
    if with_stores:
        unpack(FIRST, tmp_path)
    workspace = Workspace(tmp_path)
    workspace.load(FOLDER / FIRST / LOGS)
    before = {name: group.offsets.copy() for name, group in workspace.broker.groups.items()}
    with pytest.raises(WorkerStopped, match=r"written by another release.*headwater replay.*deploying.md"):
        workspace.after()
    # What the stage could not judge is no dead letter, and nobody has passed it.
    assert workspace.said("dead-letters") == []
    assert workspace.broker.groups["unify"].offsets == before["unify"]


def test_the_history_of_the_first_version_is_replayed(tmp_path: Path) -> None:
    old, new = Workspace(tmp_path / "unused"), Workspace(tmp_path / "new")
    old.load(FOLDER / FIRST / LOGS)
    new.now_ms = new.broker.now_ms = old.now_ms
    copy_all(old, new)
    assert old.table("profiles").keys() == new.table("profiles").keys() and len(old.table("profiles")) >= 30
    for key, document in old.table("profiles").items():
        found = new.table("profiles")[key]
        for part in ("identifiers", "traits", "totals", "computed"):
            assert found.get(part) == document.get(part), f"{key}: {part}"
    members, were = new.table("segment-members"), old.table("segment-members")
    assert {key: row["since"] for key, row in members.items()} == {key: row["since"] for key, row in were.items()}
    assert {key: row["profile_id"] for key, row in new.table("identities").items()} == {
        key: row["profile_id"] for key, row in old.table("identities").items()
    }
    new.after()
    assert {change["segment"] for change in new.said("segment-changes")} >= {"lapsed", "abandoned", "pros"}


def copy_all(old: Workspace, new: Workspace) -> None:
    """Let a copier of `headwater replay` bring all history over, while the new workspace works."""

    copier = Copier(
        Ports(
            old=lambda: MemoryLogReader(old.broker),
            partitions=PARTITIONS,
            new_partitions=PARTITIONS,
            producer=MemoryProducer(new.broker, "replay-0", "replay"),
            committed=lambda: Committed(None, {}, {}),
            in_flight=lambda: 0,
            at_rest=lambda: True,
            cuts=lambda erased: {},
            names=lambda actors: {},
            rules=builtin_rules,
            keys=KEYS,
            clock=lambda: old.now_ms,
            # As the golden workspace was made: all of it at once. Since when somebody is a member depends on it.
            settings=CopySettings(apart_ms=10**12),
        )
    )
    copier.start()
    for _ in range(1_000):
        moved = copier.run_once()
        new.work()
        copier.look()
        if not moved and copier.at_end and copier.is_idle:
            return
    raise AssertionError("the copy did not come to its end")
