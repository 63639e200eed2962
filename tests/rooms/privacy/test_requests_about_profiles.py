"""A request may name a profile: whoever is known by a spelling of before a normaliser changed has no other name that
can be typed. And who is forgotten by such a spelling does not come back by the one of today."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.definitions.identity import identity_rules
from pipeline.errors import InputError, LookupFailed
from pipeline.identity import builtin_rules
from pipeline.lookup import as_kept, find_person, person_or_profile
from pipeline.privacy import asking, whom
from pipeline.privacy.role import PrivacyRole
from pipeline.privacy.whom import NotTakenInError, Whom
from pipeline.privacy.work import TOLD_WAIT_MS
from pipeline.records import IdentifierPair, IdentityPointer, PrivacyRequest, ProfileDocument, Suppression, encode
from tests.rooms.privacy.log import ADA, KEYS, MAIL, Log, turn

LOWER = identity_rules({"namespaces": {"loyalty": {"normaliser": "lower"}}})
CARD_TODAY = KEYS.actor("loyalty:ab-1").decode()


def asked_about(log: Log, text: str = "") -> PrivacyRole:
    """A role that has asked identity about a profile."""
    one = PrivacyRole(log.settings)
    log.ask(identifier=text or log.profile_id)
    turn(one, log)
    turn(one, log, TOLD_WAIT_MS)
    return one


def requests(log: Log) -> dict[str, str]:
    """What was asked for, by anybody: the identifiers by the requests' ids."""
    found = [msgspec.json.decode(one.value or b"", type=PrivacyRequest) for one in log.of("privacy-requests")]
    return {one.request_id: one.identifier for one in found}


# -------------------------------------------------------------------------------------------------------------- erased


@pytest.mark.parametrize("typed", ["{}", " {} ", "upper"])
def test_whoever_a_profile_is_of_is_erased_under_all_identifiers(log: Log, typed: str) -> None:
    one = asked_about(log, log.profile_id.upper() if typed == "upper" else typed.format(log.profile_id))
    assert log.asked() == ["user_id:ada"] and set(log.kept_out()) == {ADA, MAIL}
    log.decide(ADA, MAIL)
    log.known = []
    log.forget(ADA, MAIL)
    turn(one, log)
    receipt = log.receipt()
    assert (receipt.state, receipt.subject, receipt.identifiers, receipt.detail) == ("done", ADA, 2, "")


@pytest.mark.parametrize("epoch", [0, 7])
def test_meant_is_who_the_profile_is_named_after_and_not_who_is_first_in_it(log: Log, epoch: int) -> None:
    """`profiles` may be behind an unlink: then the first of the list is somebody else, and the name never is. Who was
    erased before, and came back, has another id."""
    log.known = ["user_id:eve", "user_id:ada"]
    log.profile_id = KEYS.profile_id("user_id:ada", epoch)
    if epoch:
        log.add("suppressions", ADA.encode(), encode(Suppression(50, "r0", epoch, 60)))
    asked_about(log)
    assert log.asked() == ["user_id:ada"] and log.receipt().subject == ADA


def test_a_profile_that_is_nobodys_has_a_receipt_that_says_so(log: Log) -> None:
    log.known = []
    asked_about(log)
    receipt = log.receipt()
    assert (receipt.state, receipt.subject) == ("failed", KEYS.actor(log.profile_id).decode())
    assert "nobody is known" in receipt.detail and not log.asked() and not log.kept_out()


def test_what_was_decided_while_the_role_was_down_is_gone_on_with_though_the_profile_is_gone(log: Log) -> None:
    """The decision may be read a moment after the profile was looked for in vain."""
    asked_about(log)
    log.known = []
    one = PrivacyRole(log.settings)
    turn(one, log)
    assert log.receipt().state == "failed"
    log.decide(ADA, MAIL)
    log.forget(ADA, MAIL)
    turn(one, log)
    receipt = log.receipt()
    assert (receipt.state, receipt.subject, receipt.identifiers) == ("done", ADA, 2)
    assert {kept.epoch for kept in log.kept_out().values()} == {7}, "and their keys are destroyed"


def test_whoever_was_listed_for_a_profile_that_has_ended_before_it_was_decided_is_let_in_again(log: Log) -> None:
    """It expired, say: nobody was erased."""
    asked_about(log)
    log.known = []
    turn(PrivacyRole(log.settings), log)
    assert log.receipt().state == "failed" and log.kept_out() == {}


def test_the_next_process_says_of_whom_it_was_by_the_receipt(log: Log) -> None:
    one = asked_about(log)
    log.decide(ADA, MAIL)
    turn(one, log)
    log.known = []
    one = PrivacyRole(log.settings)
    log.forget(ADA, MAIL)
    turn(one, log)
    assert (log.receipt().state, log.receipt().subject) == ("done", ADA)


# ------------------------------------------------------------------------------------------------- a spelling of before


@pytest.mark.parametrize("known", [["loyalty:AB-1"], ["email:ada@example.org", "loyalty:AB-1"]])
def test_who_is_forgotten_by_a_spelling_of_before_does_not_come_back_by_the_one_of_today(
    log: Log, known: list[str]
) -> None:
    log.rules, log.known = LOWER, known
    log.profile_id = KEYS.profile_id(known[0])
    one = asked_about(log)
    assert log.asked() == [known[0]]
    [(child, spelled)] = [each for each in requests(log).items() if each[0] != "r1"]
    assert spelled == "loyalty:ab-1" and child in log.receipt().detail
    turn(one, log, TOLD_WAIT_MS)
    assert log.asked() == [known[0], "loyalty:ab-1"] and log.receipt(child).subject == CARD_TODAY
    actors = [KEYS.actor(text).decode() for text in known]
    log.decide(*actors)
    log.decide(CARD_TODAY, request_id=child)
    log.forget(*actors)
    log.forget(CARD_TODAY, request_id=child)
    turn(one, log)
    assert (log.receipt().state, log.receipt(child).state) == ("done", "done")
    assert set(log.kept_out()) == {*actors, CARD_TODAY}


def test_the_next_process_knows_that_the_spelling_of_today_was_asked_for(log: Log) -> None:
    log.rules, log.known, log.profile_id = LOWER, ["loyalty:AB-1"], KEYS.profile_id("loyalty:AB-1")
    asked_about(log)
    turn(PrivacyRole(log.settings), log)
    assert [one.key == b"r1" for one in log.of("privacy-requests")] == [True, False]
    card = KEYS.actor("loyalty:AB-1").decode()
    log.decide(card)
    log.forget(card)
    turn(PrivacyRole(log.settings), log)
    [child] = set(requests(log)) - {"r1"}
    assert log.receipt().state == "done" and child in log.receipt().detail


def test_two_erasures_whose_long_ids_begin_alike_ask_for_the_spelling_of_today_each(log: Log) -> None:
    """They came back in between, by a consent anew: the second request is not the first one's."""
    log.rules, log.known, log.profile_id = LOWER, ["loyalty:AB-1"], KEYS.profile_id("loyalty:AB-1")
    one, alike = PrivacyRole(log.settings), "erasure-of-2027-" + "0" * 60
    for turns, request_id in enumerate((f"{alike}-1", f"{alike}-2"), start=1):
        log.ask(identifier=log.profile_id, request_id=request_id)
        for _ in range(3):
            turn(one, log, TOLD_WAIT_MS)
        assert log.asked() == ["loyalty:AB-1", "loyalty:ab-1"] * turns
        child = log.receipt(request_id).detail.rpartition(" ")[2]
        assert child.startswith(request_id[:60]) and len(child) <= 100
        for text, asked in (("loyalty:AB-1", request_id), ("loyalty:ab-1", child)):
            actor = KEYS.actor(text).decode()
            log.decide(actor, request_id=asked, epoch=turns)
            log.forget(actor, request_id=asked)
            turn(one, log)
            assert log.receipt(asked).state == "done"
            log.add("suppressions", actor.encode(), encode(Suppression(log.now_ms, asked, turns, log.now_ms + 1)))


def test_who_is_erased_by_the_spelling_of_today_already_is_not_erased_again(log: Log) -> None:
    log.rules, log.known, log.profile_id = LOWER, ["loyalty:AB-1"], KEYS.profile_id("loyalty:AB-1")
    log.add("suppressions", CARD_TODAY.encode(), encode(Suppression(50, "r0", 3)))
    asked_about(log)
    assert list(requests(log)) == ["r1"]


@pytest.mark.parametrize("known", [["loyalty:AB-1", "loyalty:ab-1"], ["loyalty:ab-1"], ["user_id:ada"]])
def test_who_is_known_by_the_spelling_of_today_is_asked_for_by_nothing_more(log: Log, known: list[str]) -> None:
    log.rules, log.known, log.profile_id = LOWER, known, KEYS.profile_id(known[0])
    asked_about(log)
    assert list(requests(log)) == ["r1"] and not log.receipt().detail


# ------------------------------------------------------------------------------------------------- spoken for, exported


def request(kind: Any, text: str) -> PrivacyRequest:
    return PrivacyRequest("r1", kind, text, 5)


STRICT = identity_rules({"preset": "strict"})


@pytest.mark.parametrize(
    ("kind", "named", "known", "rules", "by"),
    [
        ("export", "profile", ["loyalty:AB-1"], LOWER, "loyalty:AB-1"),
        ("rectify", "profile", ["user_id:ada", "loyalty:AB-1"], LOWER, "user_id:ada"),
        ("suppress", "profile", ["loyalty:AB-1", "user_id:ada"], LOWER, "user_id:ada"),
        ("rectify", "profile", ["loyalty:AB-1"], LOWER, NotTakenInError),
        ("suppress", "profile", ["loyalty:AB-1"], LOWER, NotTakenInError),
        ("rectify", "email:test@example.org", ["email:test@example.org"], STRICT, NotTakenInError),
        ("suppress", "email:test@example.org", ["user_id:ada", "email:test@example.org"], STRICT, "user_id:ada"),
        ("suppress", "email:test@example.org", [], STRICT, LookupFailed),
        ("suppress", "user_id:new", [], STRICT, "user_id:new"),
        ("rectify", "profile", [], LOWER, LookupFailed),
    ],
)
def test_whoever_is_spoken_for_is_spoken_for_by_what_ingest_takes_in(
    kind: str, named: str, known: list[str], rules: Any, by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it says something of somebody else, or of nobody, and the receipt says that it was done."""
    profile_id = KEYS.profile_id(known[0] if known else "user_id:ada")

    def find(text: str, _: Any) -> ProfileDocument:
        if text not in (*known, profile_id if known else ""):
            raise LookupFailed("nobody")
        pairs = [IdentifierPair(*one.split(":", 1)) for one in known]
        return ProfileDocument(profile_id, "person", pairs, len(pairs))

    monkeypatch.setattr(whom, "find_person", find)
    meant = Whom(SimpleNamespace(), KEYS, lambda: rules, {})  # type: ignore[arg-type]
    asked = request(kind, profile_id if named == "profile" else named)
    if isinstance(by, str):
        assert meant.spoken_for(asked) == by
    else:
        with pytest.raises(by) as raised:
            meant.spoken_for(asked)
        assert type(raised.value) is by


@pytest.mark.parametrize("kind", ["export", "rectify", "suppress"])
def test_what_is_asked_of_a_profile_is_done_to_its_person_and_their_receipt_has_their_name(log: Log, kind: str) -> None:
    one = PrivacyRole(log.settings)
    log.ask(kind, log.profile_id, "r2")
    turn(one, log)
    if one._exporting is not None:
        one._exporting.join()
        turn(one, log)
    assert log.carried_out == ["r2"] and (log.receipt("r2").state, log.receipt("r2").subject) == ("done", ADA)


def test_who_cannot_be_spoken_for_has_a_receipt_that_says_why(log: Log) -> None:
    log.rules, log.known, log.profile_id = LOWER, ["loyalty:AB-1"], KEYS.profile_id("loyalty:AB-1")
    log.ask("rectify", log.profile_id, "r2")
    turn(PrivacyRole(log.settings), log)
    assert not log.carried_out and log.receipt("r2").state == "failed" and "ingest takes in" in log.receipt("r2").detail


def test_of_a_profile_whose_person_is_being_erased_nothing_else_is_done(log: Log) -> None:
    one = asked_about(log)
    log.ask("export", log.profile_id, "r2")
    log.ask("suppress", log.profile_id, "r3")
    turn(one, log)
    assert not log.carried_out and [log.receipt(name).state for name in ("r2", "r3")] == ["failed", "failed"]


@pytest.mark.parametrize("kind", ["erase", "export", "rectify"])
def test_a_profile_that_was_merged_leads_to_the_one_it_was_merged_into(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, between the request and its turn: meant is the person of then, under the name of then."""
    former, between, living = (KEYS.profile_id(f"user_id:{name}") for name in ("a", "b", "c"))
    pairs = [IdentifierPair("user_id", "b"), IdentifierPair("user_id", "c")]
    topics: dict[tuple[str, str], Any] = {
        ("identities", former): IdentityPointer(between, 1, retired=True),
        ("identities", between): IdentityPointer(living, 2, retired=True),
        ("profiles", living): ProfileDocument(living, "person", pairs, 2),
    }
    found = {(topic, key.encode()): encode(value) for (topic, key), value in topics.items()}
    monkeypatch.setattr(whom, "current_value", lambda _, topic, key: found.get((topic, key)))
    meant = Whom(SimpleNamespace(), KEYS, builtin_rules, {})  # type: ignore[arg-type]
    asked = request(kind, former)
    assert meant.asked_for(asked) == former, "it is looked up when it is carried out"
    assert (meant.known(former)[0] if kind == "erase" else meant.spoken_for(asked)) == "user_id:c"


# --------------------------------------------------------------------------------------------------------------- named


def test_a_request_names_a_person_or_a_profile() -> None:
    rules = builtin_rules()
    assert person_or_profile("email: Ada@example.org", rules) == "email:ada@example.org"
    assert person_or_profile("3E57D298-e2d2-5f9a-ac3c-68b3322459ff", rules) == "3e57d298-e2d2-5f9a-ac3c-68b3322459ff"
    for text in ("a-b-c-d-e", "3e57d298e2d25f9aac3c68b3322459ff", "account:acme", "ada", "", "user_id:null"):
        with pytest.raises(InputError):
            person_or_profile(text, rules)


@pytest.mark.parametrize(
    ("typed", "known", "whole", "meant"),
    [
        ("loyalty:AB-1", {"loyalty:AB-1": "p1"}, False, "p1"),
        ("loyalty:AB-1", {"loyalty:AB-1": "p1"}, True, "p1"),
        ("loyalty:AB-1", {"loyalty:AB-1": "p1", "loyalty:ab-1": "p2"}, False, "loyalty:ab-1"),
        ("loyalty:AB-1", {"loyalty:AB-1": "p1", "loyalty:ab-1": "p2"}, True, "p1"),
        ("loyalty:AB-1", {"loyalty:ab-1": "p2"}, True, "loyalty:ab-1"),
        (" loyalty:AB-1 ", {"loyalty:AB-1": "p1"}, False, "p1"),
        ("loyalty:ab-1", {"loyalty:AB-1": "p1"}, True, "loyalty:ab-1"),
        ("loyalty:AB-1", {}, True, "loyalty:ab-1"),
    ],
)
def test_what_was_typed_as_it_was_taken_in_leads_to_whoever_is_known_by_that(
    typed: str, known: dict[str, str], whole: bool, meant: str
) -> None:
    """A card has it printed so: else the receipt says that nobody is forgotten, and it is done."""
    assert as_kept(typed, person_or_profile(typed, LOWER), known.get, whole) == meant


@pytest.mark.parametrize("typed", ["loyalty:AB-1", " loyalty:AB-1"])
def test_a_program_that_writes_the_spelling_of_before_is_understood(
    log: Log, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.rules, log.known, log.profile_id = LOWER, ["loyalty:AB-1"], KEYS.profile_id("loyalty:AB-1")
    pointers = {b"loyalty:AB-1": encode(IdentityPointer(log.profile_id, 1))}
    monkeypatch.setattr(
        whom, "current_value", lambda _, topic, key: pointers.get(key) if topic == "identities" else None
    )
    one = asked_about(log, typed)
    turn(one, log, TOLD_WAIT_MS)
    assert sorted(log.asked()) == ["loyalty:AB-1", "loyalty:ab-1"]


def test_the_profile_of_an_account_is_no_persons() -> None:
    document = encode(
        ProfileDocument(KEYS.profile_id("account:acme"), "account", [IdentifierPair("account", "acme")], 1)
    )
    with pytest.raises(LookupFailed, match="account"):
        find_person(KEYS.profile_id("account:acme"), lambda topic, _: document if topic == "profiles" else None)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_workspace_that_takes_over_is_asked_by_an_identifier(is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the profile may have another id, and the identifier another spelling: the role writes it anew."""

    def find(text: str, _: Any) -> ProfileDocument:
        if not is_known:
            raise LookupFailed("nobody")
        return ProfileDocument(text, "person", [IdentifierPair("loyalty", "AB-1")], 1)

    monkeypatch.setattr(asking, "find_person", find)
    asked = request("erase", KEYS.profile_id("loyalty:AB-1"))
    handed = asking._handed_over(SimpleNamespace(), asked)  # type: ignore[arg-type]
    assert handed.identifier == ("loyalty:AB-1" if is_known else asked.identifier)
    by_name = request("erase", "user_id:ada")
    assert asking._handed_over(SimpleNamespace(), by_name) is by_name  # type: ignore[arg-type]
