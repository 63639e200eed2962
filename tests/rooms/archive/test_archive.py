"""The files of the archive: each record once whatever happens, joined with the topic, without who was erased."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

pytest.importorskip("pyarrow")

from pipeline.archive.expired import take_out_expired
from pipeline.archive.files import Archive, Part
from pipeline.archive.joined import JoinedLogReader
from pipeline.archive.role import TOLD_PROGRESS, ArchiveRole, open_archive
from pipeline.archive.scrub import PROGRESS, scrub
from pipeline.cli import build
from pipeline.errors import BrokerError, PositionError, SettingsError
from pipeline.records import encode
from pipeline.runtime.errors import Retriable
from pipeline.runtime.memory.broker import MemoryBroker
from pipeline.runtime.memory.clients import MemoryLogReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import SEED_BYTES, KeyRing, Sealer, leaf_of

EVENTS = ("events", 0)


def records(first: int, end: int, topic: str = "events", step: int = 1) -> list[Record]:
    """Records whose offsets have holes, as control records leave them."""
    return [Record(topic, 0, n, b"k%d" % n, b"\x01value %d" % n, 1_000 + n) for n in range(first, end, step)]


@pytest.fixture(params=["folder", "memory"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    """On a disk, and in what behaves like an object store."""
    made = Archive(str(tmp_path / "archive") if request.param == "folder" else f"memory://{tmp_path.name}")
    yield made
    if request.param == "memory":
        made._fs.rm(f"/{tmp_path.name}", recursive=True)


def test_what_is_written_is_read_each_once_in_order(archive: Archive) -> None:
    assert archive.end(*EVENTS) is None
    for first, end in ((0, 10), (10, 25), (25, 26)):
        archive.write(*EVENTS, records(first, end, step=2), first, end)
    assert archive.partitions("events") == [0] and archive.end(*EVENTS) == 26
    assert [one.offset for one in archive.records(*EVENTS)] == [*range(0, 10, 2), *range(10, 25, 2), 25]
    assert list(archive.records(*EVENTS, start=12)) == [*records(12, 25, step=2), *records(25, 26)]


def test_two_writers_leave_nothing_twice(archive: Archive) -> None:
    for first, end in ((0, 10), (0, 15), (10, 30), (15, 20), (30, 31)):
        archive.write(*EVENTS, records(first, end), first, end)
    assert [one.offset for one in archive.records(*EVENTS)] == list(range(31))


def small(archive: Archive, count: int) -> None:
    for number in range(count):
        archive.write(*EVENTS, records(number * 3, number * 3 + 3), number * 3, number * 3 + 3)


def test_small_files_are_put_together_and_nothing_is_missing_while_that_is_done(archive: Archive) -> None:
    small(archive, 40)
    reading = archive.records(*EVENTS)
    found = [next(reading).offset for _ in range(4)]
    assert archive.merge(*EVENTS, rows=60) == 38
    assert [(one.first, one.next) for one in archive.parts(*EVENTS)] == [(0, 60), (60, 120)]
    assert found + [one.offset for one in reading] == list(range(120))
    assert archive.merge(*EVENTS, rows=60) == 0, "they have their size"
    # A gap stays one.
    for number in (200, 203):
        archive.write(*EVENTS, records(number, number + 3), number, number + 3)
    assert archive.merge(*EVENTS, rows=1_000, at_least=2) == 2
    assert [(one.first, one.next) for one in archive.parts(*EVENTS)] == [(0, 120), (200, 206)]


def test_a_merge_that_is_killed_loses_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    small(archive, 20)
    with monkeypatch.context() as patch:
        removed = iter(range(100))
        remove = archive._fs.rm_file

        def killed(path: str) -> None:
            if next(removed) >= 7:
                raise KeyboardInterrupt
            remove(path)

        patch.setattr(archive._fs, "rm_file", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.merge(*EVENTS, rows=1_000)
    assert [one.offset for one in archive.records(*EVENTS)] == list(range(60))
    assert archive.end(*EVENTS) == 60
    archive.write(*EVENTS, records(60, 70), 60, 70)
    assert [one.offset for one in archive.records(*EVENTS)] == list(range(70))


def test_what_a_killed_writer_left_keeps_nobody_who_is_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    archive, log = Archive(str(tmp_path)), ("profile-changes", 0)
    for number in range(20):
        archive.write(*log, [change(number, "bob" if number % 3 else "ada", "updated")], number, number + 1)
    archive.write(*log, [change(20, "ada", "erased")], 20, 21)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in ("fsspec.implementations.local.LocalFileSystem.rm_file", "pipeline.archive.files.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(step, killed)
            with pytest.raises(KeyboardInterrupt):
                archive.merge(*log, rows=1_000)
    assert len(list(tmp_path.rglob("*.parquet*"))) == 23, "a file of all, and the beginning of one of nearly all"
    assert archive.tidy(*log) == 22
    scrub(archive)
    held = [one for path in tmp_path.rglob("*.parquet*") for one in pyarrow.parquet.read_table(path).to_pylist()]
    assert sorted((one["offset"], one["profile_id"]) for one in held) == [
        *((number, "bob") for number in range(20) if number % 3),
        (20, "ada"),
    ]


def test_a_crash_at_any_step_leaves_a_file_whole_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(str(tmp_path))
    archive.write(*EVENTS, records(0, 5), 0, 5)
    for step in ("os.fsync", "Path.replace"):
        with monkeypatch.context() as patch:

            def killed(*_: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(f"pipeline.archive.files.{step}", killed)
            with pytest.raises(KeyboardInterrupt):
                archive.write(*EVENTS, records(5, 9), 5, 9)
        assert archive.end(*EVENTS) == 5 and len(list(archive.records(*EVENTS))) == 5
    archive.write(*EVENTS, records(5, 12), 5, 12)
    assert [one.offset for one in archive.records(*EVENTS)] == list(range(12))


def topic(end: int, low: int) -> MemoryBroker:
    """A partition whose beginning was deleted by retention."""
    broker = MemoryBroker()
    broker.create_topic("events", 1)
    for one in records(0, end):
        broker.produce("events", one.key, one.value, partition=0)
    broker.log(EVENTS).delete_below(low)
    return broker


@pytest.mark.parametrize("low", [0, 1, 7, 20, 30])
@pytest.mark.parametrize("archived", [0, 1, 7, 20, 30])
@pytest.mark.parametrize("start", [0, 5, 12])
def test_archive_and_topic_are_one_log(tmp_path: Path, low: int, archived: int, start: int) -> None:
    archive = Archive(str(tmp_path))
    rng = random.Random(low * 100 + archived)
    first = 0
    while first < archived:
        end = min(archived, first + rng.randrange(1, 6))
        archive.write(*EVENTS, records(first, end), first, end)
        first = end
    reader = JoinedLogReader(MemoryLogReader(topic(30, low)), archive)
    begin = reader.bounds(EVENTS, 1)[0]
    assert begin == (0 if archived else low)
    reader.open(EVENTS, max(start, begin))
    found: list[int] = []
    while reader.position(EVENTS) < 30:
        read = reader.read(rng.randrange(1, 5), 0)
        found += [one.offset for one in read]
        assert not read or reader.position(EVENTS) >= read[-1].offset + 1
    # What is in neither is gone; all else comes once, in order.
    assert found == [n for n in range(start, 30) if n < archived or n >= low]


def test_only_whose_keys_are_asked_for_comes_of_the_archive(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    written = [one._replace(key=b"ada" if one.offset % 7 == 3 else b"bob") for one in records(0, 20)]
    archive.write(*EVENTS, written[:9], 0, 9)
    archive.write(*EVENTS, written[9:], 9, 20)
    reader = JoinedLogReader(MemoryLogReader(topic(30, 12)), archive, keys={b"ada", b"eve"})
    reader.open(EVENTS, 0)
    found: list[int] = []
    while reader.position(EVENTS) < 30:
        found += [one.offset for one in reader.read(4, 0)]
    assert found == [3, 10, *range(12, 30)], "the topic gives all, and nothing twice"


class Unsteady(MemoryLogReader):
    """A topic that does not always answer."""

    answers: Callable[[], bool]

    def bounds(self, partition: tuple[str, int], timeout_s: float) -> tuple[int, int]:
        if not self.answers():
            raise Retriable("no answer")
        return super().bounds(partition, timeout_s)

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        if not self.answers():
            raise Retriable("no answer")
        return super().read(limit, timeout_s)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_missing_where_archive_or_topic_do_not_always_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    archive, broker = Archive(str(tmp_path)), MemoryBroker()
    broker.create_topic("events", 3)
    for number in range(3):
        for one in records(0, 40):
            broker.produce("events", one.key, one.value, partition=number)
        broker.log(("events", number)).delete_below((0, 10, 30)[number])
        for first in range(0, 30, 10):
            written = [one._replace(partition=number) for one in records(first, first + 10)]
            archive.write("events", number, written, first, first + 10)

    def unsteady(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*of: Any) -> Any:
            if rng.random() < 0.2:
                raise TimeoutError("the store does not answer")
            return ask(*of)

        return asked

    monkeypatch.setattr("pipeline.archive.files._ROWS_AT_ONCE", 3)
    monkeypatch.setattr(archive, "_list", unsteady(archive._list))
    monkeypatch.setattr(archive._fs, "open", unsteady(archive._fs.open))
    topic = Unsteady(broker)
    topic.answers = lambda: rng.random() < 0.7
    reader = JoinedLogReader(topic, archive, patient=itertools.count(step=11.0).__next__)
    found: dict[int, list[int]] = {number: [] for number in range(3)}
    opened: set[int] = set()
    for _ in range(2_000):
        try:
            for number in sorted(found.keys() - opened):
                reader.bounds(("events", number), 1)
                reader.open(("events", number), 0)
                opened.add(number)
            for one in reader.read(rng.randrange(1, 8), 0):
                found[one.partition].append(one.offset)
        except Retriable:
            continue
    assert found == {number: list(range(40)) for number in range(3)}


def test_partitions_are_read_side_by_side(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    broker = MemoryBroker()
    broker.create_topic("events", 3)
    for number in range(3):
        for one in records(0, 40):
            broker.produce("events", one.key, one.value, partition=number)
        broker.log(("events", number)).delete_below(40 if number < 2 else 0)
        archive.write("events", number, [one._replace(partition=number) for one in records(0, 40)], 0, 40)
    reader = JoinedLogReader(MemoryLogReader(broker), archive)
    for number in range(3):
        reader.open(("events", number), 0)
    read = reader.read(30, 0)
    assert [sum(one.partition == number for one in read) for number in range(2)] == [15, 15], "no one waits for another"
    while len(read) < 120:
        read += reader.read(30, 0)
    for number in range(3):
        assert [one.offset for one in read if one.partition == number] == list(range(40))


@pytest.mark.parametrize(
    ("files", "low", "gap"),
    [
        ([(0, 10)], 10, ""),
        ([(0, 10)], 5, ""),
        ([(0, 10)], 12, "10 to 12"),
        ([(0, 4), (6, 10)], 10, "4 to 6"),
        ([(0, 4), (6, 10)], 4, ""),
        ([(3, 10)], 10, ""),
    ],
)
def test_what_neither_has_is_refused_by_who_needs_all_of_it(
    tmp_path: Path, files: list[tuple[int, int]], low: int, gap: str
) -> None:
    archive = Archive(str(tmp_path))
    for first, end in files:
        archive.write(*EVENTS, records(first, end), first, end)
    reader = JoinedLogReader(MemoryLogReader(topic(30, low)), archive, whole=True)
    begin, _ = reader.bounds(EVENTS, 1)
    if gap:
        with pytest.raises(PositionError, match=gap):
            reader.open(EVENTS, begin)
        return
    reader.open(EVENTS, begin)
    found: list[int] = []
    while reader.position(EVENTS) < 30:
        found += [one.offset for one in reader.read(7, 0)]
    assert found == list(range(begin, 30))


def test_a_topic_that_forgets_while_the_archive_is_read_is_read_in_the_archive(tmp_path: Path) -> None:
    archive, broker = Archive(str(tmp_path)), topic(30, 10)
    archive.write(*EVENTS, records(0, 25), 0, 25)
    reader = JoinedLogReader(MemoryLogReader(broker), archive, whole=True)
    reader.open(EVENTS, 0)
    found = [one.offset for one in reader.read(6, 0)]
    broker.log(EVENTS).delete_below(20)
    while reader.position(EVENTS) < 30:
        found += [one.offset for one in reader.read(6, 0)]
    assert found == list(range(30))


def test_a_topic_that_forgets_faster_than_the_archive_is_read_is_refused(tmp_path: Path) -> None:
    archive, broker = Archive(str(tmp_path)), topic(30, 10)
    archive.write(*EVENTS, records(0, 10), 0, 10)
    reader = JoinedLogReader(MemoryLogReader(broker), archive, whole=True)
    reader.open(EVENTS, 0)
    assert len(reader.read(10, 0)) == 10
    broker.log(EVENTS).delete_below(20)
    with pytest.raises(PositionError, match="10 to 20"):
        reader.read(10, 0)


def test_status_tells_what_is_missing_and_nothing_that_another_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(str(tmp_path))
    for first, end in ((0, 90), (6, 12), (95, 97)):
        archive.write(*EVENTS, records(first, end), first, end)
    monkeypatch.setenv("HEADWATER_ARCHIVE", str(tmp_path))
    shown = CliRunner().invoke(build(["archive"]), ["archive", "status"]).stdout
    assert "90 to 95" in shown and "12 to 95" not in shown


def change(offset: int, profile: str, kind: str, **more: Any) -> Record:
    value = {"profile_id": profile, "change": kind, "decided_at": offset, "cause": "event", **more}
    return Record("profile-changes", 0, offset, profile.encode(), encode(value), offset)


def test_who_was_erased_leaves_with_all_that_had_become_a_part_of_them(archive: Archive) -> None:
    log = [
        change(0, "old", "created", set={"traits": {"email": "ada@example.org"}}),
        change(1, "older", "merged", into="old"),
        change(2, "old", "merged", into="ada"),
        change(3, "ada", "updated", set={"traits": {"name": "Ada"}}),
        change(4, "bob", "updated", set={"traits": {"name": "Bob"}}),
    ]
    archive.write("profile-changes", 0, log, 0, 5)
    segment = Record("segment-changes", 1, 9, b"old", log[0].value, 9)
    of_accounts = [
        Record(
            "segment-changes",
            1,
            10 + n,
            b"acme",
            encode({"profile_id": "acme", "entity": "account", "context": who}),
            9,
        )
        for n, who in enumerate(({"who": ["ada"]}, {"who": ["bob"]}))
    ]
    archive.write("segment-changes", 1, [segment, *of_accounts], 9, 12)
    assert scrub(archive) == 0
    archive.write("profile-changes", 0, [change(5, "ada", "erased")], 5, 6)
    assert scrub(archive, note=False) == 2
    left = list(archive.records("profile-changes", 0))
    assert [(one.offset, one.key) for one in left if b"into" not in (one.value or b"")] == [(4, b"bob"), (5, b"ada")]
    assert [one.offset for one in archive.records("segment-changes", 1)] == [11]
    assert [archive.end("profile-changes", 0), archive.end("segment-changes", 1)] == [6, 12], "they end as before"
    # What was on its way then comes into files later, also of those who had become a part of them.
    late = [segment._replace(offset=12, key=b"ada", value=log[3].value), segment._replace(offset=13)]
    archive.write("segment-changes", 1, late, 12, 14)
    assert scrub(archive) == 2 and [one.offset for one in archive.records("segment-changes", 1)] == [11]
    assert [one.offset for one in archive.records("profile-changes", 0)] == [4, 5]
    assert scrub(archive) == 0 and archive.text(PROGRESS) == '{"0":6}'
    # The one who comes back has another profile_id; who was killed before it was noted does it again.
    archive.write("profile-changes", 0, [change(6, "ada2", "created")], 6, 7)
    archive.put_text(PROGRESS, '{"0":5}')
    assert scrub(archive) == 0
    assert [one.key for one in archive.records("profile-changes", 0)] == [b"bob", b"ada", b"ada2"]


def test_a_change_of_somebody_else_names_nobody_who_could_be_erased(archive: Archive) -> None:
    """Evidence that is not followed stands with both ends, and no record leads from the one to the other."""
    beside = {
        "identifier": {"namespace": "user_id", "value": "bob"},
        "other": {"namespace": "email", "value": "ada@x.io"},
    }
    own = {"traits": {"unfollowed": "ada"}, "unfollowed": [{**beside, "reason": "limits", "since": 3}]}
    archive.write("profile-changes", 0, [change(3, "bob", "updated", set=own)], 3, 4)
    archive.write("profile-changes", 0, [change(4, "bob", "updated", set={"unfollowed": []})], 4, 5)
    kept = [json.loads(one.value or b"") for one in archive.records("profile-changes", 0)]
    assert [(one["change"], one["decided_at"], one["set"]) for one in kept] == [
        ("updated", 3, {"traits": {"unfollowed": "ada"}}),
        ("updated", 4, {}),
    ]


def test_who_was_a_part_of_somebody_by_mistake_stays_when_they_are_erased(archive: Archive) -> None:
    """An unlink gave them back: what is said of them is not said of who was erased."""
    log = [
        change(0, "eve", "merged", into="bob"),
        change(1, "bob", "created"),
        change(2, "bob", "merged", into="ada"),
        change(3, "bob", "split", origin="ada"),
        change(4, "bob", "updated", set={"traits": {"name": "Bob"}}),
        change(5, "ada", "erased"),
    ]
    archive.write("profile-changes", 0, log[:4], 0, 4)
    archive.write("profile-changes", 0, log[1:2], 1, 2)
    archive.write("profile-changes", 0, log[4:], 4, 6)
    assert scrub(archive) == 1
    # Of who had become a part of both, nobody can say with whom they went.
    assert [(one.offset, one.key) for one in archive.records("profile-changes", 0)] == [
        *((n, b"bob") for n in (1, 2, 3, 4)),
        (5, b"ada"),
    ]
    archive.write("profile-changes", 0, [change(6, "bob", "merged", into="ida"), change(7, "ida", "erased")], 6, 8)
    assert scrub(archive) == 4
    assert [one.offset for one in archive.records("profile-changes", 0)] == [5, 7]


def test_changes_can_be_queried_by_their_columns(tmp_path: Path) -> None:
    import duckdb

    archive = Archive(str(tmp_path))
    value = {"profile_id": "p", "segment": "trial", "change": "entered", "decided_at": 7, "identifiers": []}
    part: Part = archive.write("segment-changes", 3, [Record("segment-changes", 3, 5, b"p", encode(value), 7)], 5, 6)
    assert part.path.endswith("/segment-changes/partition=3/00000000000000000005-00000000000000000006.parquet")
    files = f"{tmp_path}/segment-changes/*/*.parquet"
    asked = f"SELECT profile_id, segment, change, partition, \"offset\" FROM read_parquet('{files}')"
    assert duckdb.sql(asked).fetchall() == [("p", "trial", "entered", 3, 5)]


def role_of(
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    come: list[list[Record] | BrokerError],
    reached: dict[tuple[str, int], int],
    registry: CollectorRegistry | None = None,
) -> ArchiveRole:
    """The role of an archive, where these records come one after the other, and the positions then are `reached`."""

    class Reader:
        positions: ClassVar = reached

        def __init__(self, *_: Any, **__: Any) -> None:
            """Gives what has come."""

        def read(self, *_: Any) -> list[Record]:
            one = come.pop(0) if come else []
            if isinstance(one, BrokerError):
                raise one
            return one

        def ends(self) -> dict[tuple[str, int], int]:
            return {(f"headwater.{topic}", number): 9 for topic, number in reached}

    monkeypatch.setattr("pipeline.archive.role.TopicReader", Reader)
    monkeypatch.setattr("pipeline.archive.role._starts", lambda *_: {})
    return ArchiveRole(Settings.model_validate({"archive_every_s": 60}), archive, registry or CollectorRegistry())


def test_who_was_erased_is_looked_for_again_when_what_was_on_its_way_is_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a downtime the erasure may be read long before what was said of them."""
    archive, segments = Archive(str(tmp_path)), ("segment-changes", 0)
    reached = {("profile-changes", 0): 9, segments: 0, EVENTS: 0}
    said = Record(*segments, 8, b"ada", encode({"profile_id": "ada", "change": "exited", "segment": "vip"}), 8)
    come: list[list[Record] | BrokerError] = [[change(8, "ada", "erased")]]
    role = role_of(archive, monkeypatch, come, reached)
    for now_s in range(0, 600, 10):
        role.turn(now_s)
    assert archive.text(PROGRESS) == "", "much is still to be read"
    reached[segments] = 9
    come.append([said])
    role.turn(600)
    assert not archive.parts(*segments) and archive.text(PROGRESS) == ""
    role.turn(660)
    assert archive.parts(*segments) and list(archive.records(*segments)) == []
    assert archive.text(PROGRESS) == '{"0":9}'


def test_who_had_expired_before_they_were_erased_leaves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No change says that they were erased: there was no profile any more that could be."""
    archive, told = Archive(str(tmp_path)), ("privacy-progress", 0)
    log = [change(6, "ada", "created", set={"traits": {"name": "Ada"}}), change(7, "ada", "expired")]
    archive.write("profile-changes", 0, [*log, change(8, "bob", "created")], 6, 9)
    reached = {("profile-changes", 0): 9, ("segment-changes", 0): 9, EVENTS: 9, told: 5}
    answered = {"kind": "destination_erased", "request_id": "r1", "destination": "kept", "actor": "a1", "at": 5}
    said = [{"kind": "forgotten", "request_id": "r1", "actor": "a1", "at": 5, "profile_id": "ada"}, answered]
    role = role_of(
        archive, monkeypatch, [[Record(*told, 3 + n, b"r1", encode(one), 5) for n, one in enumerate(said)]], reached
    )
    for now_s in range(0, 100, 10):
        role.turn(now_s)
    assert [one.key for one in archive.records("profile-changes", 0)] == [b"bob"]
    assert archive.text(TOLD_PROGRESS) == "5", "and the next process begins there"


def test_what_was_read_is_kept_when_reading_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic may have forgotten it when the role starts again. Nothing is said to be there that was read with it."""
    archive = Archive(str(tmp_path))
    role = role_of(archive, monkeypatch, [records(0, 5), BrokerError("What comes next is gone.", "")], {EVENTS: 9})
    role.turn(0)
    with pytest.raises(BrokerError):
        role.turn(1)
    assert [(one.first, one.next) for one in archive.parts(*EVENTS)] == [(0, 5)]


def test_a_role_begins_with_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(str(tmp_path))
    for end in (5, 10):
        archive.write(*EVENTS, records(0, end), 0, end)
    role_of(archive, monkeypatch, [], {})
    assert [path.name for path in tmp_path.rglob("*.parquet")] == [f"{0:020}-{10:020}.parquet"]


def test_the_age_of_what_is_in_no_file_yet_is_told_also_while_the_store_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    monkeypatch.setattr("pipeline.archive.role.time.time", lambda: 61.0)
    archive = Archive(str(tmp_path / "archive"))
    # Its position is behind the control records that end a transaction.
    role = role_of(archive, monkeypatch, [records(0, 5), records(5, 7), []], {EVENTS: 9}, registry)

    def lag() -> tuple[float | None, float | None]:
        names = "headwater_archive_lag_records", "headwater_archive_lag_seconds"
        return tuple(registry.get_sample_value(name) for name in names)  # type: ignore[return-value]

    assert lag() == (0.0, 0.0)
    role.turn(0.0)
    assert lag() == (5.0, 60.0)
    hung: list[Any] = []
    monkeypatch.setattr(archive, "write", lambda *written: hung.append((*lag(), *written[3:])))
    role.turn(60.0)
    assert hung == [(7.0, 60.0, 0, 9)] and lag() == (0.0, 0.0), "a file ends behind what was passed"


DAY = 86_400_000


def test_events_leave_the_archive_when_their_contract_says_so(archive: Archive) -> None:
    """By the mark of their name where they are sealed, by the name where they are not; nobody else's."""
    sealer = Sealer(KeyRing())
    for key, value in KeyRing().begin(b"s" * SEED_BYTES):
        sealer.take(key, value)

    def one(offset: int, name: str, sealed: bool) -> Record:
        plain = encode({"kind": "event", "event": name})
        value = sealer.seal(b"%032x" % offset, name, plain) if sealed else plain
        return Record("events", 0, offset, b"k", value, offset * DAY)

    names = ["Warranty Registered", "Order Completed"]
    everything = [one(n, names[n % 2], sealed=n % 3 > 0) for n in range(12)]
    odd = [Record("events", 0, 12, None, b"not json", 0), Record("events", 0, 13, None, None, 0)]
    archive.write(*EVENTS, everything[:6], 0, 6)
    archive.write(*EVENTS, [*everything[6:], *odd], 6, 14)
    assert take_out_expired(archive, {}, 100 * DAY) == 0
    keeps = {"Warranty Registered": 3 * DAY}
    assert take_out_expired(archive, keeps, 3 * DAY - 1) == 0
    assert take_out_expired(archive, keeps, 3 * DAY) == 1
    assert [each.offset for each in archive.records(*EVENTS)] == [*range(1, 14)], "at its millisecond"
    assert take_out_expired(archive, keeps, 9 * DAY) == 2
    assert [each.offset for each in archive.records(*EVENTS)] == [1, 3, 5, 7, 8, 9, 10, 11, 12, 13]
    assert archive.end(*EVENTS) == 14, "they end as before"
    read: list[Any] = []
    table = archive.table
    archive.table = lambda part, columns=None: read.append(columns) or table(part, columns)  # type: ignore[method-assign,func-returns-value]
    assert take_out_expired(archive, keeps, 9 * DAY + 1) == 0 and read.count(None) == 1, "the first is done"
    keeps["Order Completed"] = DAY
    assert take_out_expired(archive, keeps, 9 * DAY + 1) == 2, "other retentions: all again"
    assert [each.offset for each in archive.records(*EVENTS)] == [8, 9, 10, 11, 12, 13]
    archive.write(*EVENTS, [one(2, names[0], True)._replace(offset=14)], 14, 15)
    assert take_out_expired(archive, keeps, 9 * DAY + 2) == 1, "what was due before it came into the archive"
    assert 14 not in [each.offset for each in archive.records(*EVENTS)]


def test_a_part_of_an_event_leaves_the_archive_when_its_contract_says_so(archive: Archive) -> None:
    """Sealed anew under the key it had; nobody else's, no sooner, and of whoever was erased nothing is opened."""
    ring = KeyRing()
    sealer, reader = Sealer(ring), Sealer(KeyRing())
    for key, value in KeyRing().begin(b"s" * SEED_BYTES):
        sealer.take(key, value)
        reader.take(key, value)
    erased = b"%032x" % 4

    def one(offset: int, sealed: bool) -> Record:
        lines = [{"sku": "a", "note": "x"}, {"sku": "b"}]
        properties = {"total": 12345678901234567890 + offset, "receipt_to": "ada@x.org", "lines": lines}
        name = "Order Completed" if offset != 3 else "Page Viewed"
        event = {"kind": "event", "event": name, "properties": properties, "traits": {"phone": "+1"}}
        plain = encode(event)
        return Record(
            "events", 0, offset, b"k", sealer.seal(b"%032x" % offset, name, plain) if sealed else plain, offset * DAY
        )

    def left() -> dict[int, Any]:
        opened = ((each.offset, reader.open(each.value or b"")) for each in archive.records(*EVENTS))
        return {offset: json.loads(value) if value is not None else None for offset, value in opened}

    archive.write(*EVENTS, [one(n, n % 2 == 0) for n in range(3)], 0, 3)
    archive.write(*EVENTS, [one(n, n % 2 == 0) for n in range(3, 6)], 3, 6)
    for key, value in ring.destroy(leaf_of(erased, 0)):
        reader.take(key, value)
    as_written = {each.offset: each.value for each in archive.records(*EVENTS)}
    order = "Order Completed"
    parts = {
        (order, ("properties", "receipt_to")): 2 * DAY,
        (order, ("properties", "lines", "*", "note")): 3 * DAY,
        (order, ("traits", "phone")): 30 * DAY,
    }
    asked: list[int] = []

    def vault() -> Sealer:
        asked.append(1)
        return reader

    assert take_out_expired(archive, {}, 2 * DAY - 1, {}, vault) == 0 and not asked, "the keys are not looked at"
    assert take_out_expired(archive, {}, 2 * DAY - 1, parts, vault) == 0
    assert {each.offset: each.value for each in archive.records(*EVENTS)} == as_written
    assert take_out_expired(archive, {}, 2 * DAY, parts, vault) == 1
    found = left()
    assert [offset for offset, event in found.items() if event and "receipt_to" not in event["properties"]] == [0]
    assert found[0]["properties"]["lines"][0] == {"sku": "a", "note": "x"} and found[0]["traits"] == {"phone": "+1"}
    assert take_out_expired(archive, {}, 8 * DAY, parts, vault) == 2
    found = left()
    assert found[4] is None and found[3]["properties"]["receipt_to"] == "ada@x.org"
    for offset in (0, 1, 2, 5):
        lines = [{"sku": "a"}, {"sku": "b"}]
        assert found[offset]["properties"] == {"total": 12345678901234567890 + offset, "lines": lines}
        assert found[offset]["traits"] == {"phone": "+1"}
    now = {each.offset: each.value for each in archive.records(*EVENTS)}
    assert now[3] == as_written[3] and now[4] == as_written[4]
    assert take_out_expired(archive, {}, 9 * DAY, parts, vault) == 0, "all that was due is done"
    # With another retention everything is looked at again, and what is gone stays gone.
    assert take_out_expired(archive, {}, 9 * DAY, {**parts, (order, ("traits", "phone")): DAY}, vault) == 2
    assert all("phone" not in event["traits"] for offset, event in left().items() if event and offset != 3)
    archive.write(*EVENTS, [one(0, True)._replace(offset=6)], 6, 7)
    assert take_out_expired(archive, {}, 9 * DAY + 1, {**parts, (order, ("traits", "phone")): DAY}, vault) == 1
    assert "receipt_to" not in left()[6]["properties"], "what was due before it came into the archive"


def test_an_archive_that_does_not_open_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("pipeline.archive.files.fsspec.core.url_to_fs", away)
    with pytest.raises(SettingsError, match="ftp://away/events cannot be opened: Connection refused"):
        open_archive(Settings(archive="ftp://away/events"))
