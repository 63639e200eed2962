"""The identity cases of CASES.md at the level of this room. Three people: ann, bob, cid."""

import itertools
import random

import msgspec
import pytest

from pipeline.definitions.identity import parse_identity
from pipeline.identity import Bounds, IdentityRules, Namespace, Sizes, builtin_rules
from pipeline.records import (
    Assign,
    BackfillDone,
    Erase,
    Erased,
    EraseRequest,
    Evidence,
    Forget,
    Readmitted,
    Ready,
    Release,
    Relink,
    ResolveOn,
    RulesChanged,
    Unfollowed,
    Unlink,
    decode_edges_record,
    encode,
)
from tests.rooms.identity.harness import KEYS, World, rules_with, saw

ANN, BOB, CID = "user_id:ann", "user_id:bob", "user_id:cid"
ANN_MAIL, BOB_MAIL = "email:ann@x.io", "email:bob@x.io"
BROWSER, PHONE, LAPTOP = "anonymous_id:browser", "device_id:phone", "device_id:laptop"


def test_case_02_two_logins_on_one_browser_leave_it_with_the_first() -> None:
    for log in itertools.permutations((saw(BROWSER, ANN, 10), saw(BROWSER, BOB, 20))):
        world = World().say(*log)
        assert world.together(ANN, BROWSER)
        assert not world.together(BOB, BROWSER)
        assert [(each.a, each.b, each.reason, each.detail) for each in world.conflicts][-1] == (
            (BROWSER, BOB, "unique", "user_id")
        )


def test_case_03_logins_a_b_a_on_one_device() -> None:
    log = (saw(PHONE, ANN, 10), saw(PHONE, BOB, 20), saw(PHONE, ANN, 30))
    latest = rules_with(Namespace("user_id", 10, unique=True, on_conflict="latest"))
    for order in itertools.permutations(log):
        assert World().say(*order).together(ANN, PHONE)
        # Newest first by first seen: returning to the earlier login does not switch back.
        assert World(latest).say(*order).together(BOB, PHONE)


def test_case_04_a_family_that_shares_an_address_stays_apart() -> None:
    family = "email:family@x.io"
    log = [saw(family, ANN, 10), saw(family, BOB, 20), saw(family, CID, 30), saw(ANN, PHONE, 5), saw(BOB, LAPTOP, 6)]
    world = World().say(*log)
    assert world.groups({ANN, BOB, CID, family, PHONE, LAPTOP}) == {
        frozenset({ANN, family, PHONE}),
        frozenset({BOB, LAPTOP}),
        frozenset({CID}),
    }


def test_case_05_a_test_address_on_ten_thousand_users_links_none_of_them() -> None:
    address = "email:test@test.com"
    world = World(batch=500)
    world.say(*(saw(address, f"user_id:u{number}", number) for number in range(10_000)))
    assert all(world.name(f"user_id:u{number}") == f"user_id:u{number}" for number in range(10_000))
    assert world.name(address) == address
    # The first was followed, the quarantine took that back, and nothing after it resolved anything.
    assert world.stage.counters.resolved == 1
    assert {each.reason for each in world.conflicts} == {"unique", "quarantined"}
    # Each edge is written at both its ends, in records of their own.
    assert world.written_bytes < 10_000 * 400


def test_case_07_a_to_b_and_b_to_a_at_the_same_moment() -> None:
    pairs = ((ANN_MAIL, PHONE), (BOB_MAIL, PHONE), (ANN_MAIL, BROWSER), (BOB_MAIL, BROWSER))
    results = set()
    for order in itertools.permutations([saw(a, b, 10) for a, b in pairs]):
        world = World().say(*order)
        assert world.together(ANN_MAIL, BOB_MAIL, PHONE, BROWSER)
        results.add(world.name(PHONE))
    assert len(results) == 1


def test_case_08_an_identifier_linked_to_itself_says_nothing() -> None:
    world = World().say(Evidence(ANN, ANN, 10, 10, ANN), Unlink(ANN, 20, ANN), Relink(ANN, 20, ANN))
    assert world.messages == []
    assert world.conflicts == []
    assert world.stage.counters.self_edges == 1


def test_case_09_a_late_event_that_lowers_a_first_seen_moves_the_browser() -> None:
    world = World().say(saw(BROWSER, ANN, 10), saw(BROWSER, BOB, 20))
    assert world.together(ANN, BROWSER)
    world.say(saw(BROWSER, BOB, 5, 30))
    assert world.together(BOB, BROWSER)
    assert not world.together(ANN, BROWSER)


def test_case_09_a_late_event_names_the_profile_anew() -> None:
    world = World().say(saw(ANN_MAIL, PHONE, 10), saw(BOB_MAIL, PHONE, 20))
    assert world.name(PHONE) == ANN_MAIL
    world.say(saw(BOB_MAIL, BROWSER, 5, 30))
    assert {world.name(each) for each in (ANN_MAIL, BOB_MAIL, PHONE, BROWSER)} == {BOB_MAIL}


def test_case_10_equal_timestamps_are_decided_by_hash_whatever_the_order() -> None:
    log = [saw(BROWSER, user, 10) for user in (ANN, BOB, CID)]
    assert len({World().say(*order).name(BROWSER) for order in itertools.permutations(log)}) == 1


def test_case_12_an_identifier_used_again_after_its_profile_was_erased() -> None:
    world = World().say(saw(ANN, ANN_MAIL, 10), saw(ANN, PHONE, 11), saw(ANN_MAIL, PHONE, 11), saw(BOB, BOB_MAIL, 12))
    world.say(EraseRequest(ANN_MAIL, 100, "r1"))
    assert {(each.identifier, each.name, each.request_id) for each in world.of(Erase)} == {
        (each, ANN, "r1") for each in (ANN, ANN_MAIL, PHONE)
    }
    assert set(world.erased.values()) == {5}
    # What a route had sent before does not bring the person back; it is asked whether it has seen more.
    world.say(saw(ANN, ANN_MAIL, 10, 90), saw(ANN_MAIL, PHONE, 10, 100, BOB))
    assert world.groups({ANN, ANN_MAIL, PHONE}) == {frozenset({each}) for each in (ANN, ANN_MAIL, PHONE)}
    assert [(each.route, each.received) for each in world.of(Forget)] == [(ANN, 100), (BOB, 100)]
    world.say(saw(BOB, ANN_MAIL, 150))
    assert world.together(BOB, BOB_MAIL, ANN_MAIL)
    assert not world.together(ANN, ANN_MAIL)
    kept = {key for key, value in world.decisions.items() if value is not None}
    assert kept == {b"erase\t" + KEYS.actor(each) for each in (ANN, ANN_MAIL, PHONE)}


def test_who_is_kept_out_is_linked_to_nobody_however_late_an_event_got_past_the_door() -> None:
    world = World().say(saw(ANN, ANN_MAIL, 10), EraseRequest(ANN, 100, "r1", keep_out=True))
    world.say(saw(ANN_MAIL, BOB, 150, 150, BOB), saw(ANN_MAIL, BOB, 150, 170, BOB))
    assert not world.together(ANN_MAIL, BOB)
    assert ANN_MAIL.partition(":")[2].encode() not in b"".join(world.store.values.values())
    # Its route, too, forgets that it has said so, and says it again if it sees it again.
    assert [(each.route, each.received) for each in world.of(Forget)] == [(BOB, 150), (BOB, 170)]
    # A consent of before the erasure lets in nobody; of those that consent, each is let in by name.
    world.say(Readmitted(ANN_MAIL, 100, 180), saw(ANN_MAIL, BOB, 185))
    assert not world.together(ANN_MAIL, BOB)
    world.say(Readmitted(ANN_MAIL, 101, 190), saw(ANN_MAIL, BOB, 195), saw(ANN, PHONE, 195))
    assert world.together(ANN_MAIL, BOB)
    assert not world.together(ANN, PHONE)
    # Erased again, and not to be kept out: known as anybody who is named since.
    world.say(Readmitted(ANN, 195, 196), EraseRequest(ANN, 200), saw(ANN, PHONE, 205))
    assert world.together(ANN, PHONE)


def test_nothing_kept_says_who_was_erased() -> None:
    third = "user_id:third"
    world = World(sizes=Sizes(inline=2))
    # ANN's event also told the edge of two who are not erased; unlinked, they go on without her.
    world.say(*(saw(ANN, other, 10) for other in (ANN_MAIL, PHONE, BROWSER)), saw(third, BOB_MAIL, 11, route=ANN))
    world.say(saw(PHONE, third, 12), Unlink(PHONE, 20, third), Unlink(ANN_MAIL, 20), Relink(ANN_MAIL, 21))
    world.say(Unlink(ANN, 21, BOB), Relink(ANN, 22, BOB), Release(BROWSER, 23), saw(ANN, ANN_MAIL, 24))
    world.say(EraseRequest(BROWSER, 100), saw(ANN, PHONE, 10, 50))
    kept = b"".join(key + value for key, value in world.store.values.items())
    told = b"".join(key + (value or b"") for key, value in world.decisions.items())
    for text in (ANN, ANN_MAIL, PHONE, BROWSER):
        assert text.partition(":")[2].encode() not in kept + told
    assert third.encode() in kept
    assert world.erased.keys() >= {ANN, ANN_MAIL, PHONE, BROWSER}
    # The route that was erased is still asked again, by its hash, when the edge it told is unlinked.
    world.say(Unlink(BOB_MAIL, 200, third))
    assert [each.route for each in world.of(Forget)][-1] == KEYS.buried(ANN)


def test_case_12_an_erased_identifier_nobody_knew_is_still_told() -> None:
    world = World().say(EraseRequest(ANN, 100))
    assert [each.identifier for each in world.of(Erase)] == [ANN]
    world.say(saw(ANN, PHONE, 10, 99))
    assert not world.together(ANN, PHONE)


def test_case_13_a_recycled_phone_number_can_be_given_to_its_new_owner() -> None:
    number = "phone:+3225551234"
    world = World().say(saw(number, ANN, 10), saw(number, BOB, 1_000))
    assert world.together(number, ANN)
    world.say(Unlink(ANN, 2_000, number))
    assert world.together(number, BOB)
    for latest in (
        rules_with(Namespace("user_id", 10, unique=True, on_conflict="latest")),
        rules_with(Namespace("phone", 30, normaliser="phone", on_conflict="latest")),
    ):
        assert World(latest).say(saw(number, ANN, 10), saw(number, BOB, 1_000)).together(number, BOB)


def test_of_a_limited_namespace_the_newest_value_stays_where_it_says_latest() -> None:
    log = [saw(f"phone:+322555123{number}", ANN, number) for number in range(3)]
    for order in itertools.permutations(log):
        world = World(rules_with(Namespace("phone", 30, limit=1, normaliser="phone", on_conflict="latest"))).say(*order)
        assert [world.together(link.a, ANN) for link in log] == [False, False, True]


@pytest.mark.parametrize("sizes", [Sizes(), Sizes(inline=2, sweep=3, small=1)])
def test_case_14_rules_tightened_after_merges_happened_take_them_apart(sizes: Sizes) -> None:
    world = World(sizes=sizes, batch=7)
    for number in range(20):
        user, browser = f"user_id:u{number}", f"anonymous_id:b{number}"
        world.say(*(saw(f"email:m{number}.{each}@x.io", user, each + 1) for each in range(3)), saw(user, browser, 9))
    world.rules[1] = rules_with(Namespace("email", 20, limit=1), Namespace("anonymous_id", 50, blocked=("^b7$",)))
    world.say(RulesChanged(1, 100))
    for number in range(20):
        user, mail = f"user_id:u{number}", f"email:m{number}.{{}}@x.io"
        assert world.together(user, mail.format(0))
        assert world.name(mail.format(1)) == mail.format(1)
        assert world.together(user, f"anonymous_id:b{number}") == (number != 7)
    assert {each.reason for each in world.of(Assign) if each.epoch > 80} == {"rules"}
    # Back again, while the sweep under way is overtaken by a new one.
    world.rules[2], world.rules[3] = builtin_rules(), world.rules[1]
    length = len(world.log)
    world.say(RulesChanged(3, 105), RulesChanged(2, 110), RulesChanged(3, 115), RulesChanged(2, 120))
    went_on = [decode_edges_record(value) for value in world.log[length:]]
    assert sum(isinstance(each, ResolveOn) and each.generation == 3 for each in went_on) <= 2
    assert all(world.together(f"user_id:u{number}", f"email:m{number}.2@x.io") for number in range(20))
    assert world.together("user_id:u7", "anonymous_id:b7")


def test_case_14_strict_rules_take_a_shared_browser_from_its_first_login_and_give_it_back() -> None:
    """`preset: strict`, chosen while a workspace lives and taken back."""
    junk, everybody = "email:test@test.com", {ANN, BOB, BROWSER, CID, PHONE, "email:test@test.com"}
    log = [saw(BROWSER, ANN, 10), saw(BROWSER, BOB, 20), saw(PHONE, CID, 30), saw(junk, CID, 31)]
    strict = parse_identity({"preset": "strict"}).to_rules()
    for order in itertools.permutations(log):
        world = World().say(*order)
        shipped = world.groups(everybody)
        assert shipped == {frozenset({ANN, BROWSER}), frozenset({BOB}), frozenset({CID, PHONE, junk})}
        world.rules[1], world.rules[2] = strict, builtin_rules()
        world.say(RulesChanged(1, 100))
        apart = {frozenset({CID, PHONE}), *(frozenset({each}) for each in (ANN, BOB, BROWSER, junk))}
        assert world.groups(everybody) == World(strict).say(*order).groups(everybody) == apart
        world.say(RulesChanged(2, 110))
        assert world.groups(everybody) == shipped


def test_case_14_rules_that_are_equal_resolve_nothing() -> None:
    world = World().say(saw(ANN, PHONE, 1))
    world.rules[1] = builtin_rules()
    world.say(RulesChanged(1, 100))
    assert len(world.log) == 2


def test_an_erasure_while_new_rules_are_under_way_resolves_whom_they_had_not_reached() -> None:
    """The kiosk links nobody, so the rules reach it alone; without it the other group has another name."""

    def rules(limit: int | None) -> IdentityRules:
        return rules_with(Namespace("email", 20, limit=limit), Namespace("crm", 25, unique=True), quarantine_after=1)

    kiosk, one, two, mail = "device_id:kiosk", "email:one@x.io", "email:two@x.io", "email:other@x.io"
    world = World(rules(2), sizes=Sizes(sweep=1, small=0)).say(
        saw("crm:8", kiosk, 2),
        saw("crm:9", kiosk, 3),
        saw(kiosk, one, 1),
        saw(mail, "crm:1", 10),
        saw(BROWSER, mail, 11),
        saw(LAPTOP, two, 5),
        saw(one, two, 12),
        saw("crm:2", two, 12),
        saw(BROWSER, one, 13),
    )
    assert world.name(two) == one and not world.together(BROWSER, one)
    world.rules[1] = rules(None)
    world.log += map(encode, (RulesChanged(1, 30), EraseRequest(kiosk, 31)))
    world.consume(2)
    assert world.name(one) == two
    world.say()
    assert world.groups({one, two, mail, BROWSER, LAPTOP, "crm:1", "crm:2"}) == {
        frozenset({one, two, LAPTOP, "crm:2"}),
        frozenset({mail, BROWSER, "crm:1"}),
    }


def test_why_a_link_is_not_followed_is_told_anew_where_rules_were_overtaken_under_way() -> None:
    """The first change reaches the browser, by an event, and not the address: to that it is as if it had never been."""
    address = "email:office@x.io"
    rules = rules_with(Namespace("email", 20, blocked=("^office@",)), quarantine_after=1)
    world = World(rules).say(saw(ANN, address, 1), saw(BOB, address, 2), saw(BROWSER, address, 3))
    world.rules[1], world.rules[2] = rules_with(quarantine_after=1), rules
    world.log += map(encode, (RulesChanged(1, 10), saw(BROWSER, LAPTOP, 11), RulesChanged(2, 12)))
    world.consume(3)
    world.say()
    told = [each.reason for each in world.of(Unfollowed) if (each.identifier, each.other) == (BROWSER, address)]
    assert told == ["blocked", "quarantined", "blocked"]


def test_case_18_the_same_value_in_two_namespaces_is_two_identifiers() -> None:
    world = World().say(saw("device_id:42", "user_id:42", 10), saw("anonymous_id:42", "user_id:7", 20))
    assert world.groups({"device_id:42", "user_id:42", "anonymous_id:42", "user_id:7"}) == {
        frozenset({"device_id:42", "user_id:42"}),
        frozenset({"anonymous_id:42", "user_id:7"}),
    }


def bot_log(count: int, chance: random.Random) -> list[Evidence]:
    """A bot that shows a new browser with every event, late and in any order, some of them beside another login."""
    log = [saw("user_id:bot", f"anonymous_id:b{number}", chance.randrange(10**6), 10**6) for number in range(count)]
    log += [saw(f"user_id:u{number}", f"anonymous_id:b{number}", 2 * 10**6 + number) for number in range(0, count, 50)]
    return log


def test_case_20_a_bot_costs_the_same_with_every_browser() -> None:
    log = bot_log(10_000, random.Random(1))
    world = World(batch=1_000).say(*log)
    assert all(world.name(f"anonymous_id:b{number}") == "user_id:bot" for number in range(10_000))
    assert world.name("user_id:u50") == "user_id:u50"
    # Not one edge made the stage look at the group again.
    assert world.stage.counters.resolved == 0
    assert world.stage.counters.refused_plainly == 200
    assert world.written_bytes < len(log) * 400


def test_case_20_past_the_bound_a_bot_is_followed_no_more_and_the_conflict_says_so() -> None:
    log = bot_log(300, random.Random(2))
    for seed in range(3):
        random.Random(seed).shuffle(log)
        world = World(bounds=Bounds(neighbours=200), batch=50).say(*log)
        assert world.name("anonymous_id:b1") == "anonymous_id:b1"
        assert world.together("anonymous_id:b50", "user_id:u50")
        assert "crowded" in {each.reason for each in world.conflicts}
        assert world.stage.counters.quarantined == 1
        world.say(Release("user_id:bot", 10**7))
        assert world.together("anonymous_id:b1", "user_id:bot")


def test_case_20_a_group_is_bounded_too() -> None:
    chain = [saw(f"device_id:d{number}", f"device_id:d{number + 1}", number) for number in range(30)]
    first = World(bounds=Bounds(members=10)).say(*chain)
    texts = {text for link in chain for text in (link.a, link.b)}
    assert max(map(len, first.groups(texts))) == 10
    assert {each.reason for each in first.conflicts} == {"group_size"}
    for seed in range(5):
        random.Random(seed).shuffle(chain)
        assert World(bounds=Bounds(members=10)).say(*chain).groups(texts) == first.groups(texts)


SEEN, SEEN_AGAIN, TAKEN_BACK = saw(ANN, BROWSER, 10, 15), saw(ANN, BROWSER, 10, 50), Unlink(ANN, 40, BROWSER)


@pytest.mark.parametrize("order", list(itertools.permutations((SEEN, TAKEN_BACK, SEEN_AGAIN))), ids=str)
def test_case_22_evidence_unlink_and_the_same_evidence_again_in_every_order(order: tuple[object, ...]) -> None:
    assert World().say(*order).together(ANN, BROWSER)
    assert not World().say(*(each for each in order if each is not SEEN_AGAIN)).together(ANN, BROWSER)
    forever = [Unlink(ANN, 40, "", forever=True) if each is TAKEN_BACK else each for each in order]
    world = World().say(*forever)
    assert not world.together(ANN, BROWSER)
    assert world.say(Relink(ANN, 60)).together(ANN, BROWSER)


@pytest.mark.parametrize("whole", [True, False])
def test_case_22_an_undone_unlink_is_as_if_it_had_never_been(whole: bool) -> None:
    log = [saw(ANN, BROWSER, 10), saw(ANN, PHONE, 11), saw(PHONE, BROWSER, 11), saw(BOB, BROWSER, 12)]
    world = World().say(*log)
    before = dict(world.names)
    other = "" if whole else ANN
    world.say(Unlink(BROWSER, 40, other), *([] if whole else [Unlink(BROWSER, 40, PHONE)]))
    assert not world.together(ANN, BROWSER)
    assert world.together(BOB, BROWSER) == (not whole)
    world.say(Relink(BROWSER, 50, other), *([] if whole else [Relink(BROWSER, 50, PHONE)]))
    assert world.names == {**before, BOB: BOB} or world.names == before


def test_case_22_an_unlink_behind_one_for_good_asks_the_routes_once_that_is_undone() -> None:
    world = World().say(Unlink(ANN, 40, BROWSER), Unlink(ANN, 60, forever=True), saw(ANN, BROWSER, 10, 20, route=ANN))
    assert world.of(Forget) == []
    world.say(Relink(ANN, 70))
    # The route may have seen the pair until then, and has had no reason to say so.
    assert [(each.route, each.received) for each in world.of(Forget)] == [(ANN, 40)]
    assert not world.together(ANN, BROWSER)
    assert world.say(saw(ANN, BROWSER, 10, 55, route=ANN)).together(ANN, BROWSER)


def test_an_unlink_asks_every_route_that_had_sent_the_edge() -> None:
    world = World().say(saw(ANN_MAIL, BROWSER, 10, route=ANN), saw(ANN_MAIL, BROWSER, 11, route=BOB))
    world.say(Unlink(BROWSER, 40, ANN_MAIL))
    assert [(each.route, each.a, each.b, each.received) for each in world.of(Forget)] == [
        (KEYS.buried(ANN), BROWSER, ANN_MAIL, 40),
        (KEYS.buried(BOB), BROWSER, ANN_MAIL, 40),
    ]
    # Evidence that the unlink overtook: its route is asked again, or it would never send the edge anew.
    world.say(saw(ANN_MAIL, BROWSER, 9, 30, route=CID))
    assert world.of(Forget)[-1].route == CID
    world.say(Unlink(BROWSER, 60, ANN_MAIL))
    assert len(world.of(Forget)) == 3


def test_evidence_that_a_relink_brings_back_and_the_rules_forbid_is_in_conflict() -> None:
    # All of it was one person until ann was unlinked; the browser then took bob, and there is no way back to ann.
    world = World().say(saw(BROWSER, ANN, 10), Unlink(BROWSER, 20, ANN), saw(BROWSER, BOB, 5, 30))
    assert world.conflicts == []
    world.say(Relink(BROWSER, 40, ANN))
    assert not world.together(ANN, BROWSER)
    told = [(each.a, each.b, each.first, each.reason, each.detail, each.epoch) for each in world.conflicts]
    assert told == [(BROWSER, ANN, 10, "unique", "user_id", 4)]


def test_evidence_that_a_release_lets_count_and_the_rules_forbid_is_in_conflict() -> None:
    rules = rules_with(quarantine_after=1)
    world = World(rules).say(saw(BROWSER, ANN, 10), saw(BROWSER, BOB, 20))
    before = len(world.conflicts)
    world.say(Release(BROWSER, 30))
    assert world.together(ANN, BROWSER)
    told = [(each.a, each.b, each.reason, each.detail) for each in world.conflicts[before:]]
    assert told == [(BROWSER, BOB, "unique", "user_id")]


def test_evidence_that_new_rules_do_not_follow_is_in_conflict() -> None:
    world = World().say(saw(BROWSER, ANN, 10), saw(PHONE, ANN, 11), saw(PHONE, BROWSER, 11))
    world.rules[1] = rules_with(Namespace("anonymous_id", 50, blocked=("^browser$",)))
    world.say(RulesChanged(1, 100))
    assert {(each.a, each.b, each.reason, each.detail) for each in world.conflicts} == {
        (BROWSER, ANN, "blocked", BROWSER),
        (BROWSER, PHONE, "blocked", BROWSER),
    }


def test_a_quarantine_holds_until_it_is_released_and_counts_anew_from_there() -> None:
    kiosk = "device_id:kiosk"
    world = World(rules_with(quarantine_after=2)).say(*(saw(kiosk, user, at) for at, user in enumerate((ANN, BOB))))
    assert world.together(kiosk, ANN)
    world.say(saw(kiosk, CID, 5))
    assert world.name(kiosk) == kiosk
    world.say(Unlink(kiosk, 10, CID))
    assert world.name(kiosk) == kiosk
    world.say(Release(kiosk, 20))
    assert world.together(kiosk, ANN)
    world.say(*(saw(kiosk, f"user_id:u{number}", 30 + number) for number in range(2)))
    assert world.together(kiosk, ANN)
    world.say(saw(kiosk, "user_id:u2", 40))
    assert world.name(kiosk) == kiosk


def test_people_are_counted_for_a_quarantine_namespace_by_namespace() -> None:
    kiosk = "device_id:kiosk"
    card = Namespace("loyalty_card", 15, limit=1)
    world = World(rules_with(card, quarantine_after=1)).say(saw(kiosk, ANN, 1), saw(kiosk, "loyalty_card:7", 2))
    # An account and a card: one person. Two cards are two, though that namespace has a limit only.
    assert world.together(kiosk, ANN, "loyalty_card:7")
    world.say(saw(kiosk, "loyalty_card:8", 3))
    assert world.name(kiosk) == kiosk


def test_an_erasure_lets_nobody_out_of_quarantine() -> None:
    kiosk = "device_id:kiosk"
    world = World(rules_with(quarantine_after=2))
    world.say(*(saw(kiosk, f"user_id:u{number}", number) for number in range(3)), EraseRequest("user_id:u2", 30))
    assert world.name(kiosk) == kiosk
    world.say(Release(kiosk, 40))
    assert world.together(kiosk, "user_id:u0")


def test_a_second_unlink_does_not_weaken_one_for_ever() -> None:
    world = World().say(saw(ANN, BROWSER, 1), Unlink(BROWSER, 10, ANN, forever=True), Unlink(BROWSER, 20, ANN))
    world.say(saw(ANN, BROWSER, 1, 30))
    assert not world.together(ANN, BROWSER)
    # Nor for a replay, which hears of the last one only once the topic is compacted.
    [kept] = [value for key, value in world.decisions.items() if value is not None]
    replayed = World().say(saw(ANN, BROWSER, 1, 30), msgspec.json.decode(kept, type=Unlink))
    assert not replayed.say(saw(ANN, BROWSER, 1, 40)).together(ANN, BROWSER)
    assert world.say(Relink(BROWSER, 40, ANN)).together(ANN, BROWSER)


def test_a_second_unlink_of_all_does_not_weaken_one_for_ever() -> None:
    world = World().say(saw(ANN, BROWSER, 1), Unlink(BROWSER, 10, forever=True), Unlink(BROWSER, 20))
    [kept] = [value for value in world.decisions.values() if value is not None]
    assert msgspec.json.decode(kept, type=Unlink).forever


@pytest.mark.parametrize("other", [ANN, ""])
def test_an_unlink_of_a_clock_that_is_behind_does_not_shorten_the_one_before_it(other: str) -> None:
    """Nor for a replay, which hears of the last one only."""
    world = World().say(saw(ANN, BROWSER, 1, 5), Unlink(BROWSER, 30, other), Unlink(BROWSER, 20, other))
    assert not world.say(saw(ANN, BROWSER, 1, 25)).together(ANN, BROWSER)
    [kept] = [value for value in world.decisions.values() if value is not None]
    assert msgspec.json.decode(kept, type=Unlink).received == 30
    assert world.say(saw(ANN, BROWSER, 1, 31)).together(ANN, BROWSER)


def test_an_erasure_of_a_clock_that_is_behind_does_not_shorten_the_one_before_it() -> None:
    """What was received up to the earlier one must not come back from a replay."""
    world = World().say(saw(ANN, BROWSER, 1, 5), EraseRequest(ANN, 30), EraseRequest(ANN, 20))
    assert not world.say(saw(ANN, BROWSER, 1, 25)).together(ANN, BROWSER)
    kept = [msgspec.json.decode(value, type=Erased) for value in world.decisions.values() if value is not None]
    assert {each.actor: each.received for each in kept} == {KEYS.actor(one).decode(): 30 for one in (ANN, BROWSER)}


def test_an_erasure_takes_from_the_count_of_a_quarantine_only_what_is_in_it() -> None:
    kiosk = "device_id:kiosk"
    world = World(rules_with(quarantine_after=2))
    world.say(*(saw(kiosk, f"user_id:u{number}", number) for number in range(3)), Release(kiosk, 10))
    # u1 was counted before the release, u3 after it.
    world.say(saw(kiosk, "user_id:u3", 20), EraseRequest("user_id:u1", 30), saw(kiosk, "user_id:u4", 40))
    assert world.together(kiosk, "user_id:u0")
    world.say(EraseRequest("user_id:u3", 50), saw(kiosk, "user_id:u5", 60))
    assert world.together(kiosk, "user_id:u0")
    world.say(saw(kiosk, "user_id:u6", 70))
    assert world.name(kiosk) == kiosk


def test_ready_is_written_into_every_partition_once_all_have_reported() -> None:
    world = World(partitions=3).say(saw(ANN, PHONE, 77))
    world.say(BackfillDone(4, 0, 80), BackfillDone(4, 0, 81), BackfillDone(4, 2, 82))
    assert world.ready == []
    world.say(BackfillDone(4, 1, 90), BackfillDone(4, 1, 95))
    assert [partition for partition, _ in world.ready] == [0, 1, 2]
    assert [msgspec.json.decode(value, type=Ready) for _, value in world.ready] == [Ready(4, 90)] * 3


def test_the_first_record_of_the_log_is_newer_than_no_assignment() -> None:
    world = World().say(saw(ANN, PHONE, 77, 80))
    assert world.of(Assign) == [Assign(PHONE, ANN, 1, "evidence", 80)]


def test_state_of_another_version_is_refused() -> None:
    world = World().say(saw(ANN, PHONE, 77))
    for key, data in world.store.values.items():
        assert data[9] == 2
        with pytest.raises(ValueError, match="version 1"):
            world.stage.decode(key, data[8:9] + b"\x01" + data[10:])
