"""An erasure goes on where the last process left it, whatever had happened by then; and it is about nobody else."""

import time

import pytest

from pipeline.privacy import role
from pipeline.privacy.requests import export_folder
from pipeline.privacy.work import TOLD_WAIT_MS
from pipeline.records import (
    Suppression,
    encode,
)
from pipeline.vault import KeyRing, leaf_of
from tests.rooms.privacy.log import ADA, KEYS, MAIL, WITHIN_MS, Log, turn


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
    assert log.asked() == ["user_id:ada"] and set(log.kept_out()) == {ADA, MAIL}
    return one


def test_who_has_forgotten_while_the_role_was_down_is_done_in_whatever_order_that_is_read(log: Log) -> None:
    asked_of_identity(log)
    log.decide(ADA, MAIL)
    log.now_ms += 500
    log.forget(ADA, MAIL)
    forgotten_at = log.now_ms
    turn(role.PrivacyRole(log.settings), log)
    assert (log.receipt().state, log.receipt().finished_at) == ("done", forgotten_at)


def test_an_erasure_that_a_replay_copied_makes_the_topics_let_go_too(log: Log) -> None:
    one = role.PrivacyRole(log.settings)
    log.decide(ADA, MAIL, request_id="")
    turn(one, log)
    assert set(log.kept_out()) == {ADA, MAIL} and log.hastened()
    one = role.PrivacyRole(log.settings)
    turn(one, log, WITHIN_MS // 3)
    assert log.hastened(), "whoever begins in the middle of it goes on"
    turn(one, log, WITHIN_MS)
    assert not log.hastened()
    turn(role.PrivacyRole(log.settings), log)
    assert not log.hastened(), "and that was it"


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


def test_whoever_is_erased_while_profiles_are_behind_is_not_let_in_by_a_second_request(log: Log) -> None:
    """Somebody asks twice, and unify is away: of the second request identity finds only whom it is asked about."""
    one = asked_of_identity(log)
    log.decide(ADA, MAIL)
    turn(one, log)
    log.ask(identifier="email:ada@example.org", request_id="r2")
    turn(one, log)
    turn(one, log, TOLD_WAIT_MS)
    log.decide(MAIL, epoch=9, request_id="r2")
    turn(one, log)
    assert {actor: (kept.epoch, kept.consented_at) for actor, kept in log.kept_out().items()} == {
        ADA: (7, 0),
        MAIL: (9, 0),
    }


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
    assert log.asked() == ["user_id:ada"]


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
