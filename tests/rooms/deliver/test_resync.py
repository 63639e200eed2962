"""A re-sync of profiles beside what happens meanwhile: it ends with what is true, whatever has changed under way."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pipeline.activation import ActivationPlan, Destination
from pipeline.deliver import resync
from pipeline.records import Delivery, IdentifierPair, Membership, ProfileDocument, SegmentMember, encode
from pipeline.runtime.ports import Record
from pipeline.settings import Settings

MIRROR = Destination("crm", "file", mode="audience", profile_sections=frozenset({"traits"}), purposes=("mails",))
Round = dict[str, ProfileDocument | None]


def profile(name: str, granted: bool = True, **traits: Any) -> ProfileDocument:
    return ProfileDocument(
        name, "person", [IdentifierPair("user_id", name)], 1, traits=traits, consents={"mails": granted}, last_seen=7
    )


class World:
    """The topic `profiles` as it goes on between the rounds, and what was produced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rounds: list[Round]) -> None:
        self.rounds = iter(rounds)
        self.said: list[Delivery] = []
        world = self

        class Reader:
            def __init__(self, *_: object) -> None: ...
            def __enter__(self) -> "Reader":
                return self

            def __exit__(self, *_: object) -> None: ...
            def read_to_end(self) -> Iterator[Record]:
                for name, document in next(world.rounds, {}).items():
                    value = encode(document) if document is not None else None
                    yield Record("profiles", 0, 0, name.encode(), value)

        def produce(_: Any, topic: str, records: Any, progress: Any) -> int:
            found = [msgspec.json.decode(value, type=Delivery) for _, value in records]
            world.said += found
            assert topic == "deliveries.crm"
            return len(found)

        monkeypatch.setattr(resync, "TopicReader", Reader)
        monkeypatch.setattr(resync, "produce_all", produce)
        monkeypatch.setattr(resync, "wait_until_decided", lambda *_: None)

    def run(self) -> list[tuple[str, str, Any]]:
        resync._profiles(Settings(), ActivationPlan((MIRROR,)), "crm", lambda _: None)
        return [(one.profile_id, one.action, one.body.get("set", {}).get("traits")) for one in self.said]


def test_each_profile_once_with_what_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, [{"a": profile("a", n=1), "b": profile("b", granted=False, n=2), "c": None}])
    assert world.run() == [("a", "profile_changed", {"n": 1})]
    assert world.said[0].body["change"] == "created" and world.said[0].cause == "sync"


def test_what_has_changed_meanwhile_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    same = msgspec.structs.replace(profile("b", n=2), last_seen=99)
    rounds: list[Round] = [{"a": profile("a", n=1), "b": profile("b", n=2)}, {"a": profile("a", n=3), "b": same}]
    assert World(monkeypatch, rounds).run() == [
        ("a", "profile_changed", {"n": 1}),
        ("b", "profile_changed", {"n": 2}),
        ("a", "profile_changed", {"n": 3}),
    ]


def test_what_changes_when_it_was_the_last_word_is_left_to_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would not end where much happens, and each time it is told is one more that may come too late."""
    rounds: list[Round] = [
        {"a": profile("a", n=1), "b": profile("b", n=1)},
        {"a": profile("a", n=2), "new": profile("new", n=1)},
        {"b": profile("b", n=2)},
        {"a": profile("a", n=3)},
    ]
    world = World(monkeypatch, rounds)
    assert world.run() == [(who, "profile_changed", {"n": n}) for who, n in (("a", 1), ("b", 1), ("a", 2))]


def test_what_never_rests_is_told_so_often_and_the_log_says_that_it_is_not_sure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds: list[Round] = [{"bot": profile("bot", n=n), "calm": profile("calm")} for n in range(200)]
    world = World(monkeypatch, rounds)
    assert len([who for who, *_ in world.run() if who == "bot"]) == 50
    assert "1 profiles changed each of the 50 times" in caplog.text


def test_who_has_ended_or_took_consent_back_meanwhile_is_told_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[Round] = [
        {"a": profile("a", n=1), "b": profile("b", n=2)},
        {"a": None, "b": profile("b", granted=False)},
        {"a": None},
    ]
    assert World(monkeypatch, rounds).run()[2:] == [("a", "profile_deleted", None), ("b", "profile_deleted", None)]


def test_a_second_one_says_the_same_under_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (World(monkeypatch, [{"a": profile("a", n=1)}]) for _ in range(2))
    first.run()
    monkeypatch.undo()
    second = World(monkeypatch, [{"a": profile("a", n=1)}])
    second.run()
    one = [each.delivery_id for each in first.said + second.said]
    assert len(set(one)) == 1 and len(one) >= 1


def test_a_consent_that_turns_while_memberships_are_sent_again_has_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exit of the pipeline has the sequence of the membership, and may stand before what is written here."""
    plan = ActivationPlan((Destination("crm", "file", mode="audience", segments=None, purposes=("mails",)),))
    held = {"s": Membership(5, 3, 1), "t": Membership(6, 4, 1)}

    def member(name: str, granted: bool = True) -> ProfileDocument:
        return msgspec.structs.replace(profile(name, granted), segments=held)

    left = msgspec.structs.replace(member("c", False), segments={"t": held["t"]})
    world = World(
        monkeypatch,
        [
            {name: member(name) for name in "abc"} | {"d": member("d", False)},
            {"a": member("a"), "b": member("b", False), "c": left, "d": member("d")},
            {"a": None, "b": member("b")},
        ],
    )
    rows = [SegmentMember(s, who, "person", 1, one.since, one.sequence) for who in "abcd" for s, one in held.items()]
    monkeypatch.setattr(
        resync, "current_values", lambda _, topic: {f"{r.segment}/{r.profile_id}".encode(): encode(r) for r in rows}
    )
    resync._memberships(Settings(), plan, "crm", lambda _: None)
    said = [(one.profile_id, one.segment, one.action[8:], one.cause, one.body["sequence"]) for one in world.said]
    first = [(who, s, "entered", "sync", one.sequence) for who in "abc" for s, one in held.items()]
    assert said[:6] == first
    assert said[6:] == [
        ("b", "s", "exited", "consent", 3),
        ("b", "t", "exited", "consent", 4),
        ("c", "t", "exited", "consent", 4),
        ("b", "s", "entered", "consent", 3),
        ("b", "t", "entered", "consent", 4),
    ]
    assert len({one.delivery_id for one in world.said}) == len(said)
