"""How the pipeline does, as the API tells it: rates, lag, what is stuck, destinations, dead letters, growth."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.api.access import SCOPES, Token, hashed
from pipeline.api.pulse import RealKafka
from pipeline.deliver.health import Health, health_file, noted
from pipeline.errors import LookupFailed
from pipeline.letters import Letter
from pipeline.records import CaughtUp, DeadLetter, Marker, Ready, encode
from pipeline.replay.backfills import Backfill
from pipeline.settings import Settings
from tests.rooms.api.harness import World, body, enter, leave

HOUR = 3_600_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def pass_time(world: World, seconds: int, **moves: tuple[int, int]) -> None:
    """Look every five seconds, while groups do and get so many records a second."""
    for _ in range(seconds // 5):
        world.now_ms += 5_000
        for group, (done, came) in moves.items():
            committed, end = world.kafka.groups.get(group, (0, 0))
            world.kafka.groups[group] = committed + done * 5, end + came * 5
        assert world.service.pulse is not None
        world.service.pulse.look()


def overview(world: World) -> Any:
    answer = world.ask("/v1/operations")
    assert answer.status_code == 200, answer.text
    return body(answer)


def role(world: World, group: str) -> dict[str, Any]:
    return next(one for one in overview(world)["roles"] if one["group"] == group)


def test_rates_and_lag_are_those_of_the_groups(world: World) -> None:
    world.kafka.members = {"ingest": 1, "unify": 2}
    pass_time(world, 120, ingest=(10, 10), unify=(20, 30))
    found = role(world, "unify")
    assert found == {
        "group": "unify", "working": 2, "behind": 1_200, "done_per_second": 20.0, "came_per_second": 30.0,
        "stuck": False, "waits": True,
    }  # fmt: skip
    assert not role(world, "ingest")["waits"]
    stretches = overview(world)["throughput"]
    assert {one["groups"]["ingest"]["done"] for one in stretches} == {10.0}
    assert [one["groups"]["unify"]["behind"] for one in stretches] == [50 * n for n in range(2, 25)]


def test_what_does_nothing_while_something_waits_is_stuck(world: World) -> None:
    pass_time(world, 60, unify=(10, 40))
    assert not role(world, "unify")["stuck"]
    pass_time(world, 65, unify=(0, 5))
    assert role(world, "unify")["stuck"]
    pass_time(world, 5, unify=(1, 0))
    assert not role(world, "unify")["stuck"]


def test_a_record_or_two_that_wait_are_told_from_ends_of_transactions(world: World) -> None:
    world.kafka.members = {"unify": 1, "ingest": 0, "identity": 1}
    world.kafka.groups = {"unify": (100, 103), "ingest": (100, 103), "identity": (100, 103)}
    world.kafka.waits = {"unify": 1, "ingest": 0, "identity": None}
    pass_time(world, 5)
    assert not role(world, "unify")["waits"], "positions that were seen once may be moving"
    pass_time(world, 65)
    assert (role(world, "unify")["behind"], role(world, "unify")["waits"], role(world, "unify")["stuck"]) == (
        1, True, True,
    )  # fmt: skip
    assert (role(world, "ingest")["behind"], role(world, "ingest")["waits"]) == (0, False)
    assert (role(world, "identity")["behind"], role(world, "identity")["waits"]) == (3, False), "it may not be read"
    assert sorted(world.kafka.counted) == ["identity", "ingest", "unify"], "nobody reads again what has not changed"
    world.kafka.groups["unify"] = (103, 103)
    pass_time(world, 10)
    assert (role(world, "unify")["behind"], role(world, "unify")["waits"], role(world, "unify")["stuck"]) == (
        0, False, False,
    )  # fmt: skip


def test_who_moves_or_has_much_before_them_is_not_counted_by_reading(world: World) -> None:
    world.kafka.groups = {"unify": (100, 103), "ingest": (100, 500)}
    world.kafka.waits = {"unify": 1, "ingest": 1}
    pass_time(world, 30, unify=(10, 10))
    assert world.kafka.counted == []
    assert (role(world, "unify")["waits"], role(world, "ingest")["behind"]) == (False, 400)


def test_what_came_since_the_first_look_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["deliveries.crm"]

    class Facts:
        """Keep what they were told of the topics, as the real ones do."""

        def __init__(self, _: Settings) -> None:
            self.topics = list(there)

        def waiting(self, groups: dict[str, tuple[str, ...]]) -> dict[str, int]:
            return {group: sum(topic in self.topics for topic in topics) for group, topics in groups.items()}

    monkeypatch.setattr("pipeline.api.pulse.KafkaFacts", Facts)
    kafka = RealKafka(Settings(state_dir=tmp_path))
    there.append("deliveries.mails")
    assert kafka.waiting({"deliver-mails": ("deliveries.mails",)}) == {"deliver-mails": 1}


def test_a_delivery_that_waits_shows_its_destination_behind(world: World) -> None:
    from pipeline.records import Definition, Generation

    latest = world.catalog.latest
    made = Definition("destination", "crm", 1, {"destination": "crm", "kind": "file", "path": "x"})
    world.catalog.add(b"destination/crm/1", encode(made))
    world.catalog.add(b"generation/y", encode(Generation(latest.number + 9, {"destination/crm": 1})))
    world.kafka.members = {"deliver-crm": 1}
    world.kafka.groups, world.kafka.waits = {"deliver-crm": (10, 12)}, {"deliver-crm": 1}
    pass_time(world, 90)
    (found,) = overview(world)["destinations"]
    assert (found["state"], found["behind"]) == ("behind", 1)


def test_an_hour_is_kept_and_no_more(world: World) -> None:
    pass_time(world, 7_300, unify=(10, 10))
    assert world.service.pulse is not None and len(world.service.pulse.samples()) == 720
    assert 50 <= len(overview(world)["throughput"]) <= 61


def test_what_may_not_be_seen_is_said_and_the_rest_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Any) -> Any:
        raise RuntimeError("not allowed to describe groups")

    monkeypatch.setattr(world.kafka, "working", refused)
    pass_time(world, 10, unify=(10, 10))
    found = overview(world)
    assert "not allowed" in found["troubles"]["members"] and found["roles"][0]["working"] is None
    monkeypatch.undo()
    pass_time(world, 5, unify=(10, 10))
    assert overview(world)["troubles"] == {}


def _letter(offset: int, reason: str, topic: str = "raw", at: int = 0) -> Letter:
    return Letter(0, offset, DeadLetter(reason, f"detail {offset}", topic, 1, offset, at))


def test_destinations_and_their_errors(world: World, tmp_path: Path) -> None:
    latest = world.catalog.latest
    for name in ("crm", "hook", "idle"):
        world.segment(f"s_{name}")
    from pipeline.records import Definition, Generation

    members = {f"destination/{name}": 1 for name in ("crm", "hook", "idle")}
    for name in ("crm", "hook", "idle"):
        made = Definition("destination", name, 1, {"destination": name, "kind": "file", "path": "x"})
        world.catalog.add(f"destination/{name}/1".encode(), encode(made))
    world.catalog.add(b"generation/y", encode(Generation(latest.number + 9, members, paused=["destination/idle"])))
    world.kafka.members = {"deliver-crm": 1, "deliver-hook": 0, "deliver-idle": 1}
    world.kafka.new_letters = [_letter(1, "refused", "deliveries.crm", 5), _letter(2, "not_json")]
    tell = health_file(tmp_path, "0")
    tell(Health("crm", True, 1))
    pass_time(world, 10, **{"deliver-crm": (1, 1), "deliver-hook": (0, 0), "deliver-idle": (0, 0)})
    found = {one["destination"]: one for one in overview(world)["destinations"]}
    assert {name: one["state"] for name, one in found.items()} == {
        "crm": "well", "hook": "nobody delivers", "idle": "paused",
    }  # fmt: skip
    assert found["crm"]["errors"] == [{"at": 5, "reason": "refused", "detail": "detail 1"}]
    tell(Health("crm", False, 7, "503: come back later"))
    [crm] = [one for one in overview(world)["destinations"] if one["destination"] == "crm"]
    assert (crm["state"], crm["failure"], crm["since"]) == ("fails", "503: come back later", 7)
    assert (tmp_path / "deliver" / "health-crm-0.json").stat().st_mode & 0o077 == 0
    # A worker on another machine says it beside its position, in fewer words.
    world.kafka.members["deliver-hook"] = 1
    said = noted("1;a;", Health("hook", False, 8, "HTTP 503: ada@example.org is not welcome"))
    world.kafka.kept = {"deliver-hook": ["1;2;", said], "deliver-crm": [noted("", Health("crm", False, 6, "else"))]}
    pass_time(world, 5, **{"deliver-crm": (1, 1), "deliver-hook": (0, 9), "deliver-idle": (0, 0)})
    found = {one["destination"]: one for one in overview(world)["destinations"]}
    assert [found["hook"][name] for name in ("state", "failure", "since")] == ["fails", "HTTP 503", 8]
    assert found["crm"]["failure"] == "503: come back later"
    world.kafka.kept = {"deliver-hook": [noted("1;2;", Health("hook", True, 9)), "1;2;|x|", "|"]}
    pass_time(world, 5, **{"deliver-crm": (1, 1), "deliver-hook": (9, 9), "deliver-idle": (0, 0)})
    assert {one["destination"]: one["state"] for one in overview(world)["destinations"]}["hook"] == "behind"


def test_dead_letters_newest_first_by_reason_and_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.kafka.new_letters = [_letter(n, "not_json" if n % 2 else "empty", at=n) for n in range(6)]
    pass_time(world, 5)
    found = body(world.ask("/v1/dead-letters?reason=not_json&limit=2"))
    assert [one["id"] for one in found["letters"]] == ["0/5", "0/3"] and found["known"] == 3
    assert found["reasons"] == {"not_json": 3, "empty": 3}
    sent: list[Any] = []
    held = [Letter(0, 5, DeadLetter("not_json", "d", "raw", 1, 5, 0, value=b"{no", key=b"k"))]
    monkeypatch.setattr("pipeline.api.operating.named", lambda settings, ids: held[: len(ids)])
    monkeypatch.setattr("pipeline.letters.produce_all", lambda _, topic, records: sent.append((topic, records)) or 1)
    again = world.ask("/v1/dead-letters/replay", method="POST", content=b'{"ids": ["0/5"]}')
    assert body(again) == {"sent": {"raw": 1}} and sent == [("raw", [(b"k", b"{no", 0)])]
    world.ask("/v1/dead-letters/replay", method="POST", content=b'{"ids": ["0/5"], "value": "{}"}')
    assert sent[1] == ("raw", [(b"k", b"{}", 0)])
    for junk in (b"", b"{}", b'{"ids": []}', b'{"ids": ["0/1", "0/2"], "value": "x"}'):
        assert world.ask("/v1/dead-letters/replay", method="POST", content=junk).status_code == 422, junk

    def missing(*_: Any) -> Any:
        raise LookupFailed("There is no dead letter 0/9.", "", "")

    with monkeypatch.context() as gone:
        gone.setattr("pipeline.api.operating.named", missing)
        assert world.ask("/v1/dead-letters/0/9").status_code == 404
    # Content is shown to who may see whole events, and to nobody from whom a field is hidden.
    one = body(world.ask("/v1/dead-letters/0/5"))
    assert (one["value"], one["key"]) == ("{no", "k")
    tokens = [
        Token(name="shy", sha256=hashed("shy"), scopes=("operations:read", "events:read"), hide=("traits.phone",)),
        Token(name="ops", sha256=hashed("ops"), scopes=("operations:read",)),
        Token(name="all", sha256=hashed("all"), scopes=SCOPES),  # type: ignore[arg-type]
    ]
    world.service.access.replace(tokens)
    for token in ("shy", "ops"):
        assert "value" not in body(world.ask("/v1/dead-letters/0/5", token))
        refused = world.ask("/v1/dead-letters/replay", token, "POST", content=b'{"ids": ["0/5"]}')
        assert refused.status_code == 403
    assert len(sent) == 2


def test_a_generation_is_behind_until_every_partition_is_ready(world: World) -> None:
    def say(partition: int, message: Any) -> None:
        world.follower.read([world.record("events", "x", encode(message), partition)])

    assert body(world.ask("/v1/backfills"))["not_in_force"] == 0
    for partition in (0, 1):
        say(partition, Marker(3, 1))
        say(partition, CaughtUp(1))
    world.kafka.history = [Backfill(0, 2, 3, 3, 10, 40), Backfill(1, 2, 3)]
    found = body(world.ask("/v1/backfills"))
    assert found["not_in_force"] == 3 and found["partitions"][0]["until"] == 40
    say(0, Ready(3, 2))
    assert body(world.ask("/v1/backfills"))["not_in_force"] == 3
    say(1, Ready(3, 2))
    assert body(world.ask("/v1/backfills"))["not_in_force"] == 0
    kept = msgspec.json.decode(world.kept["meta"][b"generations"])
    assert kept == {"0": [3, 3], "1": [3, 3]}


def test_growth_of_the_largest_segments_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.api.operating._now_ms", lambda: 5 * HOUR)
    for name, count in (("a", 2), ("b", 5)):
        world.segment(name)
        world.follower.read([record for n in range(count) for record in enter(world, name, f"p{n}")])
    world.follower.read(leave(world, "b", "p0"))
    found = body(world.ask("/v1/growth"))
    assert [(one["segment"], one["size"]) for one in found["segments"]] == [("b", 4), ("a", 2)]
    assert found["segments"][0]["hours"] == [{"at": 0, "entered": 5, "exited": 1}]
    assert body(world.ask("/v1/growth?segment=a&days=1"))["all"] == 1
    assert world.ask("/v1/growth?segment=nothing").status_code == 404


def test_latency_is_from_received_to_the_first_effect(world: World) -> None:
    latencies = world.follower.visible.latencies
    clock = [600_000]
    latencies._now_ms = lambda: clock[0]
    for offset in range(100):
        latencies.came(0, offset, clock[0] - offset)
        latencies.had_effect(0, offset)
        latencies.had_effect(0, offset)
    latencies.had_effect(0, 1_000_000)
    [minute] = overview(world)["latency"]
    assert (minute["events"], minute["p50_ms"], minute["p99_ms"]) == (100, 49, 98)
