"""The thread that follows the topics: how old answers are, where it goes on after a restart, and when it may not."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaException

from pipeline.admin import DELETE_RETENTION_MS
from pipeline.api import follower, server, service
from pipeline.api.follower import TOPICS, Follower
from pipeline.api.service import Ends
from pipeline.api.tables import TABLES
from pipeline.identifiers import Keys
from pipeline.records import Suppression, encode
from pipeline.runtime.ports import Record
from pipeline.runtime.rocksdb import RocksTables
from pipeline.settings import Settings
from pipeline.topology import DAY_MS
from tests.rooms.api.harness import ADA, BOB, PARTITIONS, World, body, changed, enter, event, profile, show

Place = tuple[str, int]
LATER = "55555555-5555-5555-8555-555555555555"
BEGIN_MS = 1_790_000_000_000


class At(NamedTuple):
    topic: str
    partition: int


class Topics:
    """Stand where a Kafka does: what a world has recorded, a clock, and answers that come when the test lets them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now_ms = BEGIN_MS
        self.partitions = PARTITIONS
        self.lows: dict[Place, int] = {}
        self.held: set[str] = set()
        self.given_up_to: dict[Place, int] = {}
        self.reads = 0
        self.away = False
        self.tombstones_ms = DELETE_RETENTION_MS
        self.answers: threading.Semaphore | None = None
        self.asked = 0

    def places(self, topics: Iterable[str]) -> list[Place]:
        return [(topic, number) for topic in topics for number in range(self.partitions)]

    def watermarks(self, _: Any, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        return {place: (self.lows.get(place, 0), self.world.offsets.get(place, 0)) for place in self.places(topics)}

    def positions_at(self, _: Any, topics: Iterable[str], __: int) -> dict[Place, int]:
        return {place: self.lows.get(place, 0) for place in self.places(topics)}

    def topic_partitions(self, _: Any, topics: Iterable[str]) -> list[tuple[Place, At]]:
        return [(place, At(*place)) for place in self.places(topics)]

    def list_offsets(self, _: Any, asked: Iterable[At], latest: bool) -> dict[Place, int]:
        assert latest
        self.asked += 1
        if self.answers is not None:
            self.answers.acquire()
        if self.away:
            raise KafkaException("away")
        return {(at.topic, at.partition): self.world.offsets.get((at.topic, at.partition), 0) for at in asked}

    def current_values(self, _: Any, topic: str) -> dict[bytes, bytes]:
        of_topic = [one for one in self.world.log if one.topic == topic and one.key is not None]
        return {one.key: one.value for one in of_topic if one.key is not None and one.value is not None}

    def reader(self, _: Any, topics: Iterable[str], *, start_at: Mapping[Place, int], patient: bool) -> "Reader":
        assert patient
        return Reader(self, self.places(topics), start_at)


class Reader:
    """Stands where `TopicReader` does."""

    def __init__(self, topics: Topics, places: list[Place], start_at: Mapping[Place, int]) -> None:
        assert all(at >= topics.lows.get(place, 0) for place, at in start_at.items()), "nothing is kept there"
        self._topics = topics
        self.partitions = places
        self.positions = dict(start_at)

    def read(self, limit: int, _: float) -> list[Record]:
        topics = self._topics
        topics.reads += 1
        time.sleep(0.001)
        given = [place for place in self.partitions if place[0] not in topics.held]
        ends = {
            place: min(topics.world.offsets.get(place, 0), topics.given_up_to.get(place, 1 << 60)) for place in given
        }
        found = [
            one
            for one in list(topics.world.log)
            if (one.topic, one.partition) in ends
            and self.positions.get((one.topic, one.partition), 0) <= one.offset < ends[one.topic, one.partition]
        ]
        self.positions |= {place: max(end, self.positions.get(place, 0)) for place, end in ends.items()}
        assert len(found) < limit
        return found

    def close(self) -> None:
        """There is nothing to let go of."""


class Process:
    """A process of the API on these topics, from its start to its end."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        world = topics.world
        self.follower = Follower(world.service.settings)
        world.service.follower = self.follower
        world.service._ends = Ends(self.follower.ends)
        self.heard: list[Record] = []
        self.follower.told = self.heard.extend
        self.follower.start()

    def ask(self, path: str, **more: Any) -> Any:
        return self.topics.world.ask(path, **more)

    def age_ms(self) -> int:
        return int(self.ask("/v1/profiles/user_id:1").headers["headwater-age-ms"])

    def has_read_on(self) -> None:
        """Wait until whatever stands in the topics was read, if they give it."""
        reads = self.topics.reads
        until(lambda: self.topics.reads > reads + 2)

    def was_answered(self) -> None:
        """Let one question for the ends be answered, and wait for what follows of it."""
        topics = self.topics
        assert topics.answers is not None
        until(lambda: topics.asked > 0)
        asked = topics.asked
        topics.answers.release()
        until(lambda: topics.asked > asked)
        self.has_read_on()

    def end(self) -> None:
        if self.topics.answers is not None:
            self.topics.answers.release(1_000)
        self.follower.close()
        assert self.follower.failure is None


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.002)


@pytest.fixture
def topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Topics:
    found = Topics(World(tmp_path))
    clock = SimpleNamespace(time_ns=lambda: found.now_ms * 1_000_000, monotonic=time.monotonic)
    for module in (follower, service):
        monkeypatch.setattr(module, "time", clock)
    for name in ("watermarks", "positions_at", "topic_partitions", "list_offsets", "current_values"):
        monkeypatch.setattr(follower, name, getattr(found, name))
    monkeypatch.setattr(follower, "TopicReader", found.reader)
    monkeypatch.setattr(follower, "admin_client", lambda _: None)
    monkeypatch.setattr(follower, "tombstones_kept_ms", lambda *_: found.tombstones_ms)
    monkeypatch.setattr(follower, "_ASK_EVERY_S", 0.002)
    show(found.world, profile(ADA, "user_id:1"))
    return found


@pytest.fixture
def process(topics: Topics) -> Iterator[Callable[[], Process]]:
    running: list[Process] = []

    def begin() -> Process:
        if running:
            running.pop().end()
        running.append(Process(topics))
        return running[-1]

    yield begin
    for one in running:
        one.end()


# -------------------------------------------------------------------------------------------------- how old answers are


def test_an_answer_is_as_old_as_the_question_whose_answer_was_read_up_to(
    topics: Topics, process: Callable[[], Process]
) -> None:
    topics.answers = threading.Semaphore(0)
    api = process()
    until(lambda: api.follower.is_ready and topics.asked == 1)
    topics.now_ms += 5_000
    assert api.age_ms() == 5_000, "nothing was heard since it began"
    api.was_answered()
    assert api.age_ms() == 5_000, "the question was put when it began, however late its answer came"
    topics.now_ms += 1_000
    api.was_answered()
    assert api.age_ms() == 1_000, "the next was put a second ago"


def test_what_is_committed_and_was_not_read_makes_answers_older(topics: Topics, process: Callable[[], Process]) -> None:
    topics.answers = threading.Semaphore(0)
    api = process()
    until(lambda: api.follower.is_ready and topics.asked == 1)
    api.was_answered()
    topics.held = set(TOPICS)
    show(topics.world, profile(BOB, "user_id:2"))
    topics.now_ms += 7_000
    api.was_answered()
    api.was_answered()
    assert api.age_ms() == 7_000
    topics.held = set()
    api.has_read_on()
    assert api.age_ms() == 0 and api.ask("/v1/profiles/user_id:2").status_code == 200


def test_while_the_kafka_does_not_answer_answers_get_older(topics: Topics, process: Callable[[], Process]) -> None:
    api = process()
    until(lambda: api.follower.is_ready)
    topics.away = True
    asked = topics.asked
    until(lambda: topics.asked > asked + 1)
    topics.now_ms += 9_000
    asked = topics.asked
    until(lambda: topics.asked > asked + 1)
    api.has_read_on()
    assert api.age_ms() == 9_000
    topics.away = False
    until(lambda: api.age_ms() == 0)


def test_nothing_is_answered_before_everything_was_read_that_stood_there_at_the_start(
    topics: Topics, process: Callable[[], Process]
) -> None:
    topics.held = set(TOPICS)
    api = process()
    api.has_read_on()
    assert api.ask("/readyz", token=None).status_code == 503
    assert api.ask("/v1/profiles/user_id:1").status_code == 503
    topics.held = set()
    until(lambda: api.ask("/readyz", token=None).status_code == 200)
    assert api.ask("/v1/profiles/user_id:1").status_code == 200


# ----------------------------------------------------------------------------------------------------- after a restart


def _gone_on(topics: Topics, api: Process) -> bool:
    """Whether its tables are those of the process before: who is in no topic any more is known by them only."""
    until(lambda: api.follower.is_ready)
    assert api.ask("/v1/profiles/user_id:1").status_code == 200, "who is in the topics is known in any case"
    return bool(api.ask("/v1/profiles/user_id:2").status_code == 200)


def _keep_bob_in_the_tables_only(topics: Topics, process: Callable[[], Process]) -> None:
    world = topics.world
    shown = show(world, profile(BOB, "user_id:2"))
    event(world, "user_id:1", BEGIN_MS)
    api = process()
    until(lambda: api.follower.is_ready)
    assert _gone_on(topics, api)
    api.end()
    world.log = [one for one in world.log if one not in shown]


def _tables(topics: Topics) -> RocksTables:
    settings = topics.world.service.settings
    return RocksTables(settings.state_dir / "api" / settings.slot, TABLES, compressed=settings.compress_stores)


def _write(topics: Topics, key: bytes, value: bytes | None) -> None:
    tables = _tables(topics)
    tables.write([("meta", key, value)])
    tables.close()


def _later(topics: Topics, ms: int) -> None:
    topics.now_ms += ms


def _kept_for_a_day(topics: Topics, away_ms: int) -> None:
    """Somebody made the topics by hand, and Kafka's own default is a day."""
    topics.tombstones_ms = DAY_MS
    _later(topics, away_ms)


def _without(topics: Topics, topic: str, less: int) -> None:
    """The topic was made anew, and has less in it than was read of the old one."""
    for place in topics.places([topic]):
        topics.world.offsets[place] = max(0, topics.world.offsets.get(place, 0) - less)


def _beginning_later(topics: Topics, topic: str, more: int) -> None:
    """The topic begins (and ends) behind what was read of it."""
    for place in topics.places([topic]):
        end = topics.world.offsets.get(place, 0) + more
        topics.world.offsets[place] = topics.lows[place] = end
    if topic == "profiles":
        show(topics.world, profile(ADA, "user_id:1"))


@pytest.mark.parametrize(
    ("what", "goes_on"),
    [
        (lambda topics: None, True),
        (lambda topics: _write(topics, b"format", b"3"), False),
        (lambda topics: _write(topics, b"positions", None), False),
        (lambda topics: _write(topics, b"positions", b"{}"), False),
        (lambda topics: _later(topics, DELETE_RETENTION_MS // 2), True),
        (lambda topics: _later(topics, DELETE_RETENTION_MS // 2 + 1), False),
        (lambda topics: _kept_for_a_day(topics, DAY_MS // 2), True),
        (lambda topics: _kept_for_a_day(topics, DAY_MS // 2 + 1), False),
        (lambda topics: _without(topics, "identity-edges", 1), True),
        (lambda topics: _without(topics, "events", 1), False),
        (lambda topics: _beginning_later(topics, "profiles", 0), True),
        (lambda topics: _beginning_later(topics, "profiles", 1), False),
        (lambda topics: _beginning_later(topics, "identities", 1), False),
        (lambda topics: _beginning_later(topics, "suppressions", 1), False),
        (lambda topics: _beginning_later(topics, "events", 1), True),
        (lambda topics: _beginning_later(topics, "segment-changes", 1), True),
        (lambda topics: _beginning_later(topics, "account-alerts", 1), True),
    ],
    ids=[
        "nothing", "another release", "no positions", "of nothing", "old", "too old", "kept for a day",
        "too old for it", "not followed", "shorter",
        "read whole", "profiles lost", "identities lost", "suppressions lost", "old events", "old changes",
        "old alerts",
    ],
)  # fmt: skip
def test_after_a_restart_the_tables_are_gone_on_with_or_made_anew(
    topics: Topics, process: Callable[[], Process], what: Callable[[Topics], None], goes_on: bool
) -> None:
    _keep_bob_in_the_tables_only(topics, process)
    what(topics)
    assert _gone_on(topics, process()) is goes_on


def test_a_partition_that_is_there_no_more_lets_the_tables_be_made_anew(
    topics: Topics, process: Callable[[], Process]
) -> None:
    _keep_bob_in_the_tables_only(topics, process)
    topics.partitions = 1
    for one in show(topics.world, profile(ADA, "user_id:1")):
        topics.world.record(one.topic, (one.key or b"").decode(), one.value, 0)
    assert not _gone_on(topics, process())


@pytest.mark.parametrize("came_back", [False, True])
def test_who_was_erased_while_nobody_followed_leaves_the_tables_though_the_tombstone_is_gone(
    topics: Topics, process: Callable[[], Process], came_back: bool
) -> None:
    world = topics.world
    show(world, profile(BOB, "user_id:zanthia"))
    event(world, "user_id:zanthia", BEGIN_MS)
    show(world, profile(ADA, "user_id:1"))
    api = process()
    until(lambda: api.follower.is_ready)
    assert len(body(api.ask("/v1/profiles/user_id:zanthia/events"))["events"]) == 1
    api.end()
    # Tombstones of `identities` go a minute after an erasure; those of other topics stay a week.
    _later(topics, 3_600_000)
    keys = Keys(b"s")
    told = Suppression(topics.now_ms, "r1", 1, topics.now_ms + 1 if came_back else 0)
    world.log = [one for one in world.log if one.key != b"user_id:zanthia"]
    world.record("suppressions", keys.actor("user_id:zanthia").decode(), encode(told), 0)
    world.record("profiles", BOB, None)
    if came_back:
        show(world, profile(LATER, "user_id:zanthia"))
    api = process()
    until(lambda: api.follower.is_ready)
    api.has_read_on()
    if came_back:
        answer = api.ask("/v1/profiles/user_id:zanthia/events")
        assert answer.status_code == 200 and body(answer)["events"] == []
    else:
        assert api.ask("/v1/profiles/user_id:zanthia").status_code == 404
    api.end()
    tables = _tables(topics)
    kept = [key + value for name in TABLES for key, value in tables.scan(name, b"")]
    tables.close()
    assert came_back or not [row for row in kept if b"zanthia" in row]


def test_that_the_tables_are_made_anew_is_said_and_why(
    topics: Topics, process: Callable[[], Process], caplog: pytest.LogCaptureFixture
) -> None:
    process().end()
    assert "made anew" not in caplog.text, "a new one is not"
    _later(topics, 5 * DELETE_RETENTION_MS)
    with caplog.at_level(logging.WARNING):
        process()
    assert "made anew: it is so old" in caplog.text


def test_tables_that_are_followed_do_not_grow_old_where_nothing_happens(
    topics: Topics, process: Callable[[], Process]
) -> None:
    _keep_bob_in_the_tables_only(topics, process)
    api = process()
    until(lambda: api.follower.is_ready)
    for _ in range(3):
        _later(topics, DELETE_RETENTION_MS // 3)
        api.has_read_on()
    api.end()
    assert _gone_on(topics, process())


def _reads_nothing(topics: Topics) -> None:
    show(topics.world, profile(ADA, "user_id:1"))
    topics.held = set(TOPICS)


def _is_away(topics: Topics) -> None:
    topics.away = True


@pytest.mark.parametrize(("fault", "thirds"), [(_reads_nothing, 1), (_is_away, 2)])
def test_tables_that_may_miss_something_do_grow_old_while_a_process_runs(
    topics: Topics, process: Callable[[], Process], fault: Callable[[Topics], None], thirds: int
) -> None:
    _keep_bob_in_the_tables_only(topics, process)
    _later(topics, DELETE_RETENTION_MS // 3)
    fault(topics)
    api = process()
    for _ in range(thirds):
        api.has_read_on()
        _later(topics, DELETE_RETENTION_MS // 3)
    api.has_read_on()
    api.end()
    topics.held, topics.away = set(), False
    assert not _gone_on(topics, process())


def test_who_was_killed_before_everything_was_read_goes_on_there(
    topics: Topics, process: Callable[[], Process]
) -> None:
    shown = show(topics.world, profile(BOB, "user_id:2"))
    enter(topics.world, "a", ADA)
    topics.held = {"segment-members"}
    api = process()
    api.has_read_on()
    assert not api.follower.is_ready
    api.end()
    topics.held = set()
    topics.world.log = [one for one in topics.world.log if one not in shown]
    assert _gone_on(topics, process())


def test_what_had_its_effect_before_a_restart_can_be_waited_for_and_is_not_counted_twice(
    topics: Topics, process: Callable[[], Process]
) -> None:
    world = topics.world
    event(world, "user_id:1", BEGIN_MS)
    changed(world, ADA, (0, 0))
    api = process()
    until(lambda: api.follower.is_ready)

    def days(api: Process) -> list[int]:
        return [one["events"] for one in body(api.ask("/v1/profiles/user_id:1/provenance"))["days"]]

    assert days(api) == [1]
    api = process()
    until(lambda: api.follower.is_ready)
    api.has_read_on()
    assert api.ask("/v1/profiles/user_id:1?wait_for=raw:0:0&timeout_ms=2000").status_code == 200
    assert days(api) == [1]
    event(world, "user_id:1", BEGIN_MS)
    until(lambda: days(api) == [2])
    assert body(api.ask("/v1/events"))["events"][0]["offset"] == 1
    assert len(body(api.ask("/v1/events"))["events"]) == 1, "what was there before is no news"
    assert [(one.topic, one.offset) for one in api.heard] == [("events", 1)], "nor for who listens"


def test_who_ends_while_it_reads_again_what_it_had_counts_nothing_twice(
    topics: Topics, process: Callable[[], Process]
) -> None:
    for _ in range(3):
        event(topics.world, "user_id:1", BEGIN_MS)
    api = process()
    until(lambda: api.follower.is_ready)

    def days(api: Process) -> list[int]:
        until(lambda: api.follower.is_ready)
        api.has_read_on()
        return [one["events"] for one in body(api.ask("/v1/profiles/user_id:1/provenance"))["days"]]

    topics.given_up_to = {("events", 0): 1}
    assert days(process()) == [3]
    api = process()
    api.has_read_on()
    topics.given_up_to = {}
    assert days(api) == [3]
    assert days(process()) == [3]


def test_a_position_that_was_given_out_is_not_gone_back_behind(topics: Topics, process: Callable[[], Process]) -> None:
    event(topics.world, "user_id:1", BEGIN_MS)
    api = process()
    until(lambda: api.follower.is_ready)
    at = api.ask("/v1/profiles/user_id:1").headers["headwater-position"]
    topics.held = set(TOPICS)
    api = process()
    api.has_read_on()
    topics.held = set()
    until(lambda: api.follower.is_ready)
    answer = api.ask("/v1/profiles/user_id:1", headers={"Headwater-Position": at})
    assert answer.status_code == 200 and answer.headers["headwater-position"] == at


def test_a_failure_while_following_is_told(topics: Topics, process: Callable[[], Process]) -> None:
    api = process()
    until(lambda: api.follower.is_ready)
    assert api.ask("/livez", token=None).status_code == 200
    topics.world.record("segment-changes", ADA, b"{")
    until(lambda: api.ask("/livez", token=None).status_code == 503)
    assert api.ask("/readyz", token=None).status_code == 503
    api.follower.failure = None


# ---------------------------------------------------------------------------------------------------------- its garbage


def test_from_the_first_on_nothing_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def begins(_: Path) -> Any:
        assert held == [True]
        raise InterruptedError

    monkeypatch.setattr(server.garbage, "hold", lambda: held.append(True))
    monkeypatch.setattr(server.sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(server, "TokensFollowed", begins)
    with pytest.raises(InterruptedError):
        server.run(Settings(state_dir=tmp_path), lambda: True)


def test_what_was_read_is_walked_over_before_anybody_is_served(
    topics: Topics, process: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full walk stops every request; while it catches up there were several a second, and the first comes at once."""
    walks: list[bool] = []
    monkeypatch.setattr(follower.garbage, "begin", lambda: walks.append(True))
    api = process()
    until(lambda: api.follower.is_ready)
    api.has_read_on()
    assert walks == [True]
