"""Each golden folder is read by today's code, which goes on with it: from the stores, and from the changelogs alone."""

import tarfile
from pathlib import Path

import pytest

from pipeline.runtime.rocksdb import RocksStores
from tests.golden.make import FOLDER, LOGS, STATE, make
from tests.golden.world import PARTITIONS, TABLES, Workspace

VERSIONS = sorted(path.name for path in FOLDER.iterdir() if (path / LOGS).exists())
CHANGELOGS = {"unify": "unify-changelog", "identity": "identity-changelog"}


def gone_on(version: str, folder: Path, with_stores: bool) -> Workspace:
    """What today's code makes of a golden folder."""
    if with_stores:
        with tarfile.open(FOLDER / version / STATE) as packed:
            packed.extractall(folder, filter="data")
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
    with tarfile.open(FOLDER / version / STATE) as packed:
        packed.extractall(tmp_path, filter="data")
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
    with tarfile.open(FOLDER / version / STATE) as packed:
        packed.extractall(tmp_path, filter="data")
    workspace = Workspace(tmp_path)
    workspace.load(FOLDER / version / LOGS)
    before = {topic: workspace.ends(topic) for topic in workspace.broker.topics}
    workspace.work()
    assert {topic: workspace.ends(topic) for topic in workspace.broker.topics} == before, "it did something by itself"


def test_making_one_is_one_command(tmp_path: Path) -> None:
    make(tmp_path / "made")
    assert {file.name for file in (tmp_path / "made").iterdir()} == {STATE, LOGS}
    assert sum(file.stat().st_size for file in (tmp_path / "made").iterdir()) < 400_000
