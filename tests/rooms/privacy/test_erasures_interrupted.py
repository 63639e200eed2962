"""An erasure goes on where the last process left it, whatever had happened by then; and it is about nobody else."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.errors import LookupFailed
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.privacy import role
from pipeline.privacy.requests import export_folder
from pipeline.privacy.stores import COMPACTED, TRIMMED, is_hastened
from pipeline.privacy.work import TOLD_WAIT_MS
from pipeline.records import (
    Erased,
    EraseRequest,
    Forgotten,
    IdentifierPair,
    PrivacyReceipt,
    PrivacyRequest,
    ProfileDocument,
    Suppression,
    encode,
)
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing, leaf_of

KEYS = Keys(b"of a test")
ADA, MAIL, EVE = (KEYS.actor(one).decode() for one in ("user_id:ada", "email:ada@example.org", "email:eve@example.org"))
WITHIN_MS = 600_000


class Log:
    """The topics the role reads and writes, and the settings it gives them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now_ms = 1_000_000
        self.records: list[Record] = []
        self.known: list[str] = ["user_id:ada", "email:ada@example.org"]
        self.settings_given: list[bool] = []
        self.asked_for_settings = 0
        self.carried_out: list[str] = []
        self.may_end = threading.Event()
        self.may_end.set()
        for key, value in KeyRing().begin(b"0123456789abcdef"):
            self.add("keys", key, value)

    def add(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self.records.append(Record(topic, 0, len(self.records), key, value, self.now_ms))

    def of(self, topic: str) -> Iterator[Record]:
        return (one for one in self.records if one.topic == topic)

    def receipt(self, request_id: str = "r1") -> PrivacyReceipt:
        found = [one.value for one in self.of("privacy-receipts") if one.key == request_id.encode()]
        return msgspec.json.decode(found[-1] or b"", type=PrivacyReceipt)

    def store(self, name: str) -> Any:
        return next(one for one in self.receipt().stores if one.store == name)

    def kept_out(self) -> dict[str, Suppression]:
        table = {(one.key or b"").decode(): one.value for one in self.of("suppressions")}
        return {key: msgspec.json.decode(value, type=Suppression) for key, value in table.items() if value is not None}

    def asked(self) -> int:
        return len([msgspec.json.decode(one.value or b"", type=EraseRequest) for one in self.of("identity-edges")])

    def hastened(self) -> bool:
        return self.settings_given[-1:] == [True]

    def ask(self, request: Any = "erase", identifier: str = "user_id:ada", request_id: str = "r1") -> None:
        asked = PrivacyRequest(request_id, request, identifier, self.now_ms, "test")
        self.add("privacy-requests", request_id.encode(), encode(asked))

    def decide(self, *actors: str, epoch: int = 7, request_id: str = "r1") -> None:
        for actor in actors:
            decided = Erased(actor, self.now_ms, epoch, len(actors), request_id, True)
            self.add("identity-decisions", b"erase\t" + actor.encode(), encode(decided))

    def forget(self, *actors: str, request_id: str = "r1") -> None:
        for actor in actors:
            told = encode(Forgotten(request_id, actor, self.now_ms))
            self.add("privacy-progress", request_id.encode(), told)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    settings = Settings(prefix="a.", secret="of a test", bootstrap_servers="127.0.0.1:1", state_dir=tmp_path)
    log = Log(settings)

    class Reader:
        def __init__(self, settings: Settings, topics: list[str]) -> None:
            self.topics, self.at = topics, 0

        def read_to_end(self) -> Iterable[Record]:
            # As a consumer may give them: one partition after the other.
            return sorted(self.read(), key=lambda one: (one.topic != "privacy-progress", one.offset))

        def read(self, *_: Any) -> list[Record]:
            found = [one for one in log.records[self.at :] if one.topic in self.topics]
            self.at = len(log.records)
            return found

        def close(self) -> None:
            pass

    class Transaction:
        def __init__(self, *_: Any) -> None:
            pass

        def write(self, records: Iterable[Any]) -> None:
            for topic, _, key, value in records:
                log.add(topic, key, value)

        def close(self) -> None:
            pass

    def produce_all(settings: Settings, topic: str, records: Iterable[Any]) -> None:
        for key, value in records:
            log.add(topic, key, value)

    def find_profile(identifier: str, value: Any) -> ProfileDocument:
        if identifier not in log.known:
            raise LookupFailed("nobody")
        pairs = [IdentifierPair(*one.split(":", 1)) for one in log.known]
        return ProfileDocument("p1", "person", pairs, len(pairs))

    def alter_topics(settings: Settings, changes: Any) -> None:
        log.settings_given.append(any(is_hastened(config) for config in changes.values()))

    def topic_configs(settings: Settings, names: Iterable[str]) -> Any:
        log.asked_for_settings += settings.topic("raw") in names
        config = {"file.delete.delay.ms": "1001"} if log.hastened() else {}
        return {name: {"retention.ms": "1000", **config} for name in names}

    def carry_out(settings: Settings, request: PrivacyRequest) -> Any:
        assert log.may_end.wait(20)
        if request.request == "export":
            export_folder(settings, request.request_id).mkdir(parents=True)
        log.carried_out.append(request.request_id)
        return [], ""

    plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=builtin_rules()), close=lambda: None)
    fakes: dict[str, Callable[..., Any]] = {
        "TopicReader": Reader,
        "ApplyTransaction": Transaction,
        "KafkaPlans": lambda settings: plans,
        "produce_all": produce_all,
        "produce_to": lambda settings, records: None,
        "topic_partitions": lambda settings: dict.fromkeys(map(settings.topic, (*COMPACTED, *TRIMMED)), 1),
        "find_profile": find_profile,
        "alter_topics": alter_topics,
        "topic_configs": topic_configs,
        "carry_out": carry_out,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(role, name, fake)
    return log


def turn(one: role.PrivacyRole, log: Log, after_ms: int = 1) -> None:
    log.now_ms += after_ms
    one.turn(log.now_ms)


def until_exported(one: role.PrivacyRole, log: Log) -> None:
    give_up = time.monotonic() + 20
    while one._exporting is not None and time.monotonic() < give_up:
        turn(one, log)


def asked_of_identity(log: Log) -> role.PrivacyRole:
    """A role that has just asked the identity stage for ada's erasure."""
    one = role.PrivacyRole(log.settings)
    log.ask()
    turn(one, log)
    turn(one, log, TOLD_WAIT_MS)
    turn(one, log)
    assert log.asked() == 1 and set(log.kept_out()) == {ADA, MAIL}
    return one


def test_who_has_forgotten_while_the_role_was_down_is_done_in_whatever_order_that_is_read(log: Log) -> None:
    asked_of_identity(log)
    log.decide(ADA, MAIL)
    log.now_ms += 500
    log.forget(ADA, MAIL)
    forgotten_at = log.now_ms
    turn(role.PrivacyRole(log.settings), log)
    assert (log.receipt().state, log.receipt().finished_at) == ("done", forgotten_at)


def test_a_process_that_begins_goes_on_making_the_topics_let_go(log: Log) -> None:
    one = asked_of_identity(log)
    log.decide(ADA, MAIL)
    log.forget(ADA, MAIL)
    turn(one, log)
    promised = log.store("profiles").at
    assert log.receipt().state == "done" and log.hastened()
    one = role.PrivacyRole(log.settings)
    turn(one, log, WITHIN_MS // 3)
    assert log.hastened() and log.store("profiles").state == "by" and log.store("profiles").at == promised
    turn(one, log, WITHIN_MS)
    assert not log.hastened()
    assert {log.store(name).state for name in ("profiles", "links", "files of the stores")} == {"done"}
    assert log.store("raw").state == "by"
    before = len(log.records)
    turn(role.PrivacyRole(log.settings), log)
    assert not log.hastened() and len(log.records) == before, "and that was it"


@pytest.mark.parametrize("is_done", [True, False])
def test_what_nobody_did_while_the_role_was_down_is_not_said_to_be_done(log: Log, is_done: bool) -> None:
    one = asked_of_identity(log)
    log.decide(ADA, MAIL)
    log.forget(ADA, MAIL)
    if is_done:
        turn(one, log)
    log.now_ms += 10 * WITHIN_MS
    one = role.PrivacyRole(log.settings)
    turn(one, log)
    assert log.hastened() and log.receipt().state == "done"
    assert (log.store("profiles").state, log.store("profiles").at) == ("by", log.now_ms + WITHIN_MS)
    turn(one, log, WITHIN_MS)
    assert not log.hastened() and log.store("profiles").state == "done"


def test_whoever_was_taken_for_them_by_an_older_profile_is_kept_out_no_longer(log: Log) -> None:
    """An unlink that identity has followed and unify has not: profiles still show both as one."""
    one = asked_of_identity(log)
    log.decide(ADA)
    turn(one, log)
    assert set(log.kept_out()) == {ADA} and log.kept_out()[ADA].epoch == 7
    ring = KeyRing()
    for record in log.of("keys"):
        ring.add(record.key or b"", record.value)
    assert ring.is_destroyed(leaf_of(ADA.encode(), 0)) and not ring.is_destroyed(leaf_of(MAIL.encode(), 0))


def test_whoever_was_taken_for_them_and_had_been_erased_and_consented_before_lives_on(log: Log) -> None:
    log.decide(MAIL, epoch=3, request_id="r0")
    log.add("suppressions", MAIL.encode(), encode(Suppression(50, "r0", 3, 60)))
    one = asked_of_identity(log)
    log.decide(ADA)
    turn(one, log)
    mail = log.kept_out()[MAIL]
    assert mail.consented_at > mail.at and mail.epoch == 3
    destroyed = list(log.of("keys"))
    turn(role.PrivacyRole(log.settings), log)
    assert list(log.of("keys")) == destroyed, "and no key of theirs is destroyed at the next start"


@pytest.mark.parametrize("request_", ["export", "rectify", "suppress"])
def test_of_whoever_is_being_erased_nothing_else_is_done(log: Log, request_: str) -> None:
    """Unify is away: their profile still stands there. An export would stay, a correction or a word would be theirs."""
    one = asked_of_identity(log)
    log.decide(ADA, MAIL)
    turn(one, log)
    log.ask(request_, "email:ada@example.org", "r2")
    turn(one, log)
    assert not log.carried_out
    assert log.receipt("r2").state == "failed" and "nobody is known" in log.receipt("r2").detail
    log.add("suppressions", MAIL.encode(), encode(Suppression(log.now_ms, "r1", 7, log.now_ms + 1)))
    log.ask(request_, "email:ada@example.org", "r3")
    turn(one, log)
    until_exported(one, log)
    assert log.carried_out == ["r3"] and log.receipt("r3").state == "done", "who has consented anew is somebody again"


def test_nobodys_erasure_waits_for_an_export_and_their_own_leaves_nothing_of_it(log: Log) -> None:
    """It reads whole sources, which may take hours."""
    log.may_end.clear()
    one = role.PrivacyRole(log.settings)
    log.ask("export", "email:ada@example.org", "r2")
    turn(one, log)
    log.ask("export", "user_id:bob", "r3")
    log.ask()
    turn(one, log)
    turn(one, log, TOLD_WAIT_MS)
    log.decide(ADA, MAIL)
    log.forget(ADA, MAIL)
    turn(one, log)
    assert log.receipt().state == "done" and not log.carried_out and one.working == 2
    log.may_end.set()
    until_exported(one, log)
    assert [log.receipt(name).state for name in ("r2", "r3")] == ["failed", "done"]
    assert [export_folder(log.settings, name).exists() for name in ("r2", "r3")] == [False, True]


def test_a_later_erasure_of_one_of_them_leaves_the_earlier_one_not_without_end(log: Log) -> None:
    """`identity-decisions` keeps the newest of each identifier: of who consented anew and was erased again, that."""
    asked_of_identity(log)
    log.decide(ADA, MAIL)
    log.decide(MAIL, epoch=9, request_id="r2")
    kept = {one.key: one for one in log.of("identity-decisions")}
    log.records = [one for one in log.records if one.topic != "identity-decisions" or kept[one.key] is one]
    one = role.PrivacyRole(log.settings)
    turn(one, log)
    assert log.receipt().state == "working"
    log.forget(ADA, MAIL)
    turn(one, log)
    assert log.receipt().state == "done"


@pytest.mark.parametrize("is_decided", [True, False])
def test_what_the_topic_of_requests_let_go_of_in_the_meantime_has_an_end(log: Log, is_decided: bool) -> None:
    one = asked_of_identity(log)
    if is_decided:
        log.decide(ADA, MAIL)
        turn(one, log)
    log.records = [one for one in log.records if one.topic != "privacy-requests"]
    one = role.PrivacyRole(log.settings)
    turn(one, log)
    if is_decided:
        log.forget(ADA, MAIL)
        turn(one, log)
        assert log.receipt().state == "done" and log.receipt().subject == ADA
    else:
        assert log.receipt().state == "failed" and "ask again" in log.receipt().detail
    assert log.asked() == 1


def test_many_erasures_at_once_make_the_topics_let_go_once(log: Log) -> None:
    """A second for each: with a hundred, the last had waited for two minutes."""
    one = role.PrivacyRole(log.settings)
    for number in range(20):
        log.ask(identifier=f"user_id:u{number}", request_id=f"r{number}")
    turn(one, log)
    for number in range(20):
        actor = KEYS.actor(f"user_id:u{number}").decode()
        log.decide(actor, request_id=f"r{number}")
        log.forget(actor, request_id=f"r{number}")
    turn(one, log)
    assert {log.receipt(f"r{number}").state for number in range(20)} == {"done"}
    assert log.settings_given == [True] and log.asked_for_settings == 1
    turn(one, log, WITHIN_MS + 1)
    assert not log.hastened()
