"""One event followed: what cleaning changed, which rules it touches, what of the topics is its doing, what was told."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.activation import segment_delivery_id
from pipeline.api import trace
from pipeline.api.access import Token, hashed
from pipeline.definitions.segments import SegmentDefinition
from pipeline.letters import Letter
from pipeline.records import Cause, DeadLetter, Delivery, Event, IdentifierPair, ProfileChange, SegmentChange, encode
from pipeline.runtime.ports import Record
from pipeline.segments import compile_plan
from tests.rooms.api.harness import ADA, World, body, event, profile, show

SEEN = Event("m1", "track", "Page Viewed", ["user_id:42"], 5, 5, "raw/0/3", {"path": "/pricing"}, {"plan": "pro"})


def plan(**whens: Any) -> Any:
    return compile_plan(
        [SegmentDefinition.model_validate({"segment": name, "when": when}).compiled() for name, when in whens.items()]
    )


def test_the_rules_it_touches_are_those_that_take_it() -> None:
    found = trace.touched_by(
        plan(
            keen={"performed": {"event": "Page Viewed", "where": {"properties.path": {"starts_with": "/pricing"}}}},
            bored={"not": {"performed": {"event": "Page Viewed", "within": "7d"}}},
            docs={"performed": {"event": "Page Viewed", "where": {"properties.path": "/docs"}}},
            buyers={"performed": {"event": "Order Completed"}},
            pros={"all": [{"trait": {"plan": "pro"}}, {"trait": {"city": "Oslo"}}]},
            path={"sequence": {"steps": [{"event": "Page Viewed"}, {"event": "Order Completed", "within": "1h"}]}},
        ),
        SEEN,
    )
    assert [(one.segment, one.by) for one in found] == [
        ("bored", "leaf"), ("keen", "leaf"), ("path", "leaf"), ("pros", "trait"),
    ]  # fmt: skip
    assert "plan" in found[-1].rule


def test_what_cleaning_changed_is_told_by_path() -> None:
    raw = {"type": "track", "event": "Page Viewed", "userId": "42", "properties": {"path": "/PRICING", "x": 1}}
    assert trace.differences(json.dumps(raw).encode(), SEEN) == [
        {"path": "properties.path", "before": "/PRICING", "after": "/pricing"},
        {"path": "properties.x", "before": 1, "after": None},
    ]
    for other in (None, b"{", b"[]", b'{"a": 1}', b"\xff"):
        assert trace.differences(other, SEEN) == []


def _record(topic: str, value: Any, offset: int, key: str = ADA) -> Record:
    return Record(topic, 0, offset, key.encode(), encode(value), 0)


def test_what_changed_and_what_was_told_is_that_of_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [IdentifierPair("user_id", "42")]

    def flip(segment: str, offset: int) -> SegmentChange:
        return SegmentChange(
            ADA, "person", segment, 1, "entered", 9, 9, 4, "event", Cause("m1", 1, offset), False, pair
        )

    def delivery(name: str, segment: str | None, decided_at: int, action: Any = "segment_entered") -> Delivery:
        id = segment_delivery_id(name, ADA, segment, 4) if segment else f"{name}-{decided_at}"
        return Delivery(id, name, ADA, action, 9, decided_at, pair, segment)

    change = ProfileChange(ADA, "person", "updated", 9, 9, "event", Cause("m1", 1, 7), {"traits": {"plan": "pro"}})
    held = {
        "profile-changes": [_record("profile-changes", change, 0)],
        "segment-changes": [
            _record("segment-changes", flip("keen", 7), 0), _record("segment-changes", flip("other", 8), 1)
        ],
        "deliveries.crm": [
            _record("deliveries.crm", delivery("crm", "keen", 9), 4),
            _record("deliveries.crm", delivery("crm", "other", 9), 5),
            _record("deliveries.crm", delivery("crm", None, 9, "event"), 6),
            _record("deliveries.crm", delivery("crm", None, 8, "event"), 7),
        ],
        "deliveries.hook": [_record("deliveries.hook", delivery("hook", "keen", 9), 4)],
    }  # fmt: skip
    monkeypatch.setattr(
        trace, "_since", lambda _, topics, *__: ([one for topic in topics for one in held[topic]], True)
    )
    letters = [Letter(0, 1, DeadLetter("refused", "422", "deliveries.hook", 0, 4, 9))]
    found = trace.effects(
        None, SEEN, (1, 7), ADA, ["crm", "hook"], letters, lambda: {("deliveries.crm", 0): 5}, 1.0  # type: ignore[arg-type]
    )  # fmt: skip
    assert [one["change"] for one in found.changes] == ["updated"]
    assert [one["segment"] for one in found.flips] == ["keen"]
    assert [(one["destination"], one["segment"], one["became"], one["why"]) for one in found.deliveries] == [
        ("crm", "keen", "handed over", ""), ("crm", None, "waits", ""), ("hook", "keen", "given up", "refused: 422"),
    ]  # fmt: skip


def test_the_newest_are_told_without_who_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follower.read(
        [*show(world, profile(ADA, "user_id:42")), event(world, "user_id:42", 5), event(world, "user_id:43", 6)]
    )
    found = body(world.ask("/v1/events?limit=1"))
    assert [one["message_id"] for one in found["events"]] == ["m-1"] and found["found"] is None
    assert "user_id" not in json.dumps(body(world.ask("/v1/events")))
    assert body(world.ask("/v1/events?message_id=m-0"))["found"] == [0, 0]
    assert world.ask("/v1/events", "web").status_code == 403


def test_what_is_hidden_is_not_in_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.follower.read(show(world, profile(ADA, "user_id:42")))
    seen = Event("m1", "track", "Page Viewed", ["user_id:42"], 5, 5, "raw/0/3", {"total": 12, "path": "/a"})
    raw = b'{"type": "track", "properties": {"total": "12", "path": "/a"}}'
    monkeypatch.setattr("pipeline.api.tracing.event_at", lambda *_: seen)
    monkeypatch.setattr("pipeline.api.tracing.raw_of", lambda *_: raw)
    monkeypatch.setattr("pipeline.api.tracing.effects", lambda *_: trace.Effects([], [], [], True))
    whole = body(world.ask("/v1/events/0/3"))
    assert whole["raw"] == raw.decode() and whole["profile_id"] == ADA
    assert whole["cleaned"] == [{"path": "properties.total", "before": "12", "after": 12}]
    shy = body(world.ask("/v1/events/0/3", "shy"))
    assert shy["raw"] is None and shy["raw_kept"] and "12" not in json.dumps([shy["event"], shy["cleaned"]])
    assert shy["event"]["properties"] == {"path": "/a"}
    monkeypatch.setattr("pipeline.api.tracing.event_at", lambda *_: None)
    assert world.ask("/v1/events/0/3").status_code == 404


def test_who_may_not_know_who_is_in_a_segment_is_told_no_flip_and_no_delivery_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.follower.read(show(world, profile(ADA, "user_id:42")))
    flips = [{"segment": name, "change": "entered"} for name in ("vip", "buyers")]
    deliveries = [{"segment": name, "destination": "crm", "why": ""} for name in ("vip", "buyers", None)]
    monkeypatch.setattr("pipeline.api.tracing.event_at", lambda *_: SEEN)
    monkeypatch.setattr("pipeline.api.tracing.raw_of", lambda *_: None)
    monkeypatch.setattr("pipeline.api.tracing.effects", lambda *_: trace.Effects([], flips, deliveries, True))

    def told(hide: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
        token = Token(name="some", sha256=hashed("some"), scopes=("events:read",), hide=hide)
        world.service.access.replace([token])
        found = body(world.ask("/v1/events/0/3", "some"))
        return [one["segment"] for one in found["flips"]], [one["segment"] for one in found["deliveries"]]

    assert told(()) == (["vip", "buyers"], ["vip", "buyers", None])
    assert told(("segments.vip",)) == (["buyers"], ["buyers", None])
    assert told(("segments",))[0] == []
