"""The switch, attacked: run twice at once, with a copier that is started again, and with what people ask meanwhile."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.admin import create_topics
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.errors import BrokerError
from pipeline.in_charge import NotInChargeError
from pipeline.privacy.asking import ask
from pipeline.records import Delivery, EraseRequest, encode
from pipeline.replay import switch as switching
from pipeline.replay.copier import Copier
from pipeline.replay.errors import ReplayError
from pipeline.replay.run import make_ports
from pipeline.replay.run import run as copy_on
from pipeline.replay.switch import switch
from pipeline.replay.workspace import begin, old_settings, origin_of, write_successor
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.runtime.kafka.groups import final_positions
from pipeline.runtime.kafka.rest import AtRest
from pipeline.settings import Settings
from pipeline.sources.role import KafkaPullLog, hand_over_positions, position_of
from pipeline.workspace_view import view_of
from pipeline.workspaces import Successor
from tests.kafka.deployment import WAIT_S, Deployment
from tests.kafka.test_replay import past_the_door, replayed, seen_by

DEFINITIONS = "segment: all\nwhen: {performed: {event: Seen}}\n"


def silently(_: str) -> None:
    pass


@pytest.fixture
def two(new_workspace: Callable[..., Settings]) -> tuple[Settings, Settings]:
    """A workspace in which nothing has happened, and its replay: both are at rest without any role."""
    old = new_workspace(partitions=1)
    create_topics(old)
    new = old.model_copy(
        update={"prefix": f"new.{old.prefix}", "sources_prefix": old.prefix, "state_dir": old.state_dir / "new"}
    )
    begin(old, new)
    return old, new


def somebody_is_told(new: Settings) -> None:
    produce_all(new, "segment-changes", [(b"p", b"{}")], partition=0)


def places(old: Settings) -> dict[str, list[int]]:
    successor = view_of(old).successor
    assert successor is not None
    return dict(successor.starts)


def test_a_switch_that_overtook_this_one_has_chosen_the_places(
    two: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two
    chosen: list[Any] = []
    members = switching.members

    def after_another(settings: Settings, group: str) -> int | None:
        monkeypatch.setattr(switching, "members", members)
        chosen.append(switch(new, silently, WAIT_S).starts)
        somebody_is_told(new)
        return members(settings, group)

    monkeypatch.setattr(switching, "members", after_another)
    assert switch(new, silently, WAIT_S).starts == chosen[0] == places(old)


def test_a_switch_that_was_overtaken_writes_no_places(
    two: tuple[Settings, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two
    chosen: list[Any] = []

    class Overtaken(AtRest):
        def __call__(self) -> bool:
            monkeypatch.setattr(switching, "AtRest", AtRest)
            if not chosen:
                chosen.append(None)
                chosen[0] = switch(new, silently, WAIT_S).starts
                somebody_is_told(new)
            return super().__call__()

    monkeypatch.setattr(switching, "AtRest", Overtaken)
    with pytest.raises(ReplayError, match="This switch was ended"):
        switch(new, silently, WAIT_S)
    assert places(old) == chosen[0]


def test_a_copier_that_is_started_again_does_not_end_the_switch(two: tuple[Settings, Settings]) -> None:
    old, new = two
    copier = Copier(make_ports(new, old_settings(new, origin_of(new))))
    copier.start()
    write_successor(old, Successor(new.prefix, 1))
    copy_on(new, lambda: False)
    copier.end()
    copier.close()
    assert not view_of(new).is_copy


def test_a_copy_in_the_past_is_not_decided_in(two: tuple[Settings, Settings]) -> None:
    """What is decided carries the time that it is now: it took the copy there, and people expired in it before they had
    logged in (tests/rooms/replay/test_ahead.py)."""
    _, new = two
    with pytest.raises(NotInChargeError, match="is a copy of"):
        ask(new, "erase", "user_id:ada", "test")
    with pytest.raises(NotInChargeError, match="has not come to the present"):
        apply(new, load_text(DEFINITIONS, "test"))
    assert apply(new, load_text(DEFINITIONS, "test"), dry_run=True).generation is not None
    copier = Copier(make_ports(new, old_settings(new, origin_of(new))))
    copier.start()
    copier._commit([], {}, clock=int(time.time() * 1000))
    assert apply(new, load_text(DEFINITIONS, "test")).generation is not None
    copier.end()
    copier.close()
    ask(new, "erase", "user_id:ada", "test")


def test_who_still_pulls_for_the_old_workspace_writes_no_more(two: tuple[Settings, Settings]) -> None:
    old, new = two
    log = KafkaPullLog(old, "orders", "raw")
    log.write([(b"1", b"{}")], "one")
    hand_over_positions(old, new)
    with pytest.raises(BrokerError, match="does another process pull the same source"):
        log.write([(b"2", b"{}")], "two")  # its source had taken long to answer
    log.close()
    assert (position_of(old, "orders"), position_of(new, "orders")) == ("one", "one")
    with TopicReader(old, ["raw"]) as reader:
        assert [record.key for record in reader.read_to_end()] == [b"1"]


def test_of_a_source_that_is_not_there_nothing_was_read(workspace: Settings) -> None:
    create_topics(workspace)
    assert set(final_positions(workspace, "ingest", ["raw", "/nowhere"])) == {("raw", 0), ("raw", 1)}


@pytest.fixture
def old(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        running.start("identity")
        running.start("unify")
        yield running


@pytest.fixture
def new(old: Deployment) -> Iterator[Deployment]:
    past_the_door(old, "user_id:ada")
    past_the_door(old, "user_id:bob")
    with replayed(old, "new", 3) as running:
        running.start("identity")
        running.start("unify")
        yield running


def test_who_is_erased_while_the_switch_is_under_way_does_not_live_on(
    old: Deployment, new: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time: list[str] = []

    def handing_over(copier: Copier, settings: Settings, former: Settings) -> int:
        count = hand_over(copier, settings, former)
        asked = EraseRequest("user_id:ada", int(time.time() * 1000), "r1", keep_out=True)
        produce_all(old.settings, "identity-edges", [(None, encode(asked))])
        old.wait_until(lambda: "user_id:ada" not in old.table("identities"), "she is erased")
        return count

    def choosing(settings: Settings, topics: list[str]) -> dict[str, list[int]]:
        # Nobody carries it out there any more.
        in_time.append(ask(old.settings, "erase", "user_id:bob", "test"))
        return ends(settings, topics)

    hand_over, ends = switching._hand_over, switching._ends
    monkeypatch.setattr(switching, "_hand_over", handing_over)
    monkeypatch.setattr(switching, "_ends", choosing)
    switch(new.settings, silently, WAIT_S)
    assert set(seen_by(new)) == {"user_id:bob"}
    assert [one["request_id"] for one in new.values("privacy-requests")] == in_time
    with pytest.raises(NotInChargeError, match=f"goes on in {new.settings.prefix}"):
        ask(old.settings, "erase", "user_id:bob", "test")
    assert len(old.read("privacy-requests")) == 1
    new.start("privacy")
    new.wait_until(lambda: not seen_by(new), "the request is carried out where he lives on")


def test_what_becomes_readable_late_is_copied_and_a_switch_that_is_over_can_be_run_again(
    old: Deployment, new: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[bool] = []

    class Late(AtRest):
        def __call__(self) -> bool:
            if not late:
                late.append(True)
                past_the_door(old, "user_id:eve")
            return super().__call__()

    monkeypatch.setattr(switching, "AtRest", Late)
    told = switch(new.settings, silently, WAIT_S)
    new.wait_until(lambda: set(seen_by(new)) == {"user_id:ada", "user_id:bob", "user_id:eve"}, "all came along", 30)
    for role in list(new._started):
        role.stop()
    past_the_door(new, "user_id:fay")  # it never rests now
    assert switch(new.settings, silently, 3).starts == told.starts


def test_what_waited_for_a_destination_in_the_old_workspace_goes_out_first(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    """Else an entry that had waited would undo the exit that came behind it, or name again who was erased."""
    out, settings = tmp_path / "out.jsonl", new_workspace(partitions=1)
    create_topics(settings)

    def waits(settings: Settings, id: str, action: Any, sequence: int) -> None:
        one = Delivery(id, "out", "p1", action, 1, 1, [], "vip", body={"sequence": sequence})
        produce_all(settings, "deliveries.out", [(b"p1", encode(one))])

    def gone_out() -> list[str]:
        lines = out.read_text().splitlines() if out.exists() else []
        return [json.loads(line)["delivery_id"] for line in lines]

    with Deployment(settings, tmp_path) as old:
        for role in ("identity", "unify"):
            old.start(role)
        old.apply(f"destination: out\nkind: file\nprofiles: true\npath: {out}\n")
        waits(settings, "entered", "segment_entered", 1)
        with replayed(old, "new", 1) as new:
            for role in ("identity", "unify", "deliver"):
                new.start(role)
            switch(new.settings, silently, WAIT_S)
            waits(new.settings, "exited", "segment_exited", 2)
            time.sleep(8)
            assert not gone_out()
            old.start("deliver")
            new.wait_until(lambda: len(gone_out()) == 2, "both")
            assert gone_out() == ["entered", "exited"]
            # Where it has begun it does not wait again, whatever is said there now.
            for running in (old, new):
                running._started[-1].stop()
            waits(settings, "forgotten", "segment_entered", 3)
            waits(new.settings, "later", "segment_entered", 4)
            new.start("deliver")
            new.wait_until(lambda: len(gone_out()) == 3, "the later one")
            assert gone_out() == ["entered", "exited", "later"]
