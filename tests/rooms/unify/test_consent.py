"""Consent, as destinations live it: exits at once to exactly those who held the person, nothing after, and never more
than is allowed, through merges, splits and changes of the definitions. Cases by name, and lives from seeds."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pipeline.activation import ActivationPlan, ConsentPolicy, Destination, Region
from pipeline.records import Delivery, Unlink
from tests.rooms.unify.harness import HOUR, MINUTE, NOON, SECOND, World, id_of

ANN, BOB, MAIL, BROWSER = "user_id:ann", "user_id:bob", "email:ann@example.org", "anonymous_id:b1"
SEEN: dict[str, Any] = {"segment": "seen", "when": {"performed": {"event": "Page Viewed"}}}
BUYERS: dict[str, Any] = {"segment": "buyers", "when": {"performed": {"event": "Order Completed"}}}
CALM: dict[str, Any] = {"segment": "calm", "when": {"not": {"performed": {"event": "Order Completed", "within": "1h"}}}}

ADS = Destination("ads", "http", mode="audience", segments=None, purposes=("marketing",))
MAILS = Destination("mails", "webhook", segments=None, purposes=("marketing",), channel="email")
MIRROR = Destination(
    "mirror", "webhook", mode="audience", profile_sections=frozenset({"traits", "segments"}), purposes=("analysis",)
)
ORDERS = Destination("orders", "webhook", events=("Order Completed",), purposes=("marketing",))
OPEN = Destination("open", "webhook", mode="audience", segments=None)
HOOK = Destination("hook", "webhook", segments=None)
REGIONAL: tuple[tuple[str, tuple[str, ...]], ...] = (("moved", ("marketing",)), ("changed", ()))
ALL = (ADS, MAILS, MIRROR, ORDERS, OPEN, HOOK)


def world(*destinations: Destination, segments: Any = (SEEN, BUYERS), policy: Any = None, **kwargs: Any) -> World:
    plan = ActivationPlan(destinations or ALL, policy or ConsentPolicy())
    return World(segments, activation=plan, **kwargs)


def says(one: World, who: str, at: int = 0, *others: str, **consents: Any) -> None:
    spoken = {"*" if name == "everything" else name: given for name, given in consents.items()}
    one.send(who, *others, event="Preferences", at=at, context={"consent": spoken})


def told(one: World, destination: str) -> list[tuple[str, str | None, str]]:
    """What a destination was told: (action, segment, cause), in order."""
    return [(each.action, each.segment, each.cause) for each in deliveries(one, destination)]


def deliveries(one: World, destination: str) -> list[Delivery]:
    return [msgspec.json.decode(each, type=Delivery) for each in one.said.get(f"deliveries.{destination}", [])]


def believed(one: World, destination: str) -> set[tuple[str, str]]:
    """(profile_id, segment or `profile`) as a destination believes by now."""
    found: set[tuple[str, str]] = set()
    for each in deliveries(one, destination):
        what = (each.profile_id, each.segment or "profile")
        if each.action in ("segment_entered", "profile_changed"):
            found.add(what)
        elif each.action in ("segment_exited", "profile_deleted"):
            found.discard(what)
    return found


# --------------------------------------------------------------------------------------------------------- revocation


def test_a_revocation_sends_exits_to_those_who_held_the_person_and_to_no_other() -> None:
    one = world()
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    one.work()
    assert told(one, "ads") == [("segment_entered", "seen", "event")] and believed(one, "mirror") == set()
    before = {name: told(one, name) for name in ("mirror", "orders", "open", "hook")}
    says(one, ANN, 2, marketing=False)
    one.work()
    for name in ("ads", "mails"):
        assert told(one, name) == [("segment_entered", "seen", "event"), ("segment_exited", "seen", "consent")], name
    assert {name: told(one, name) for name in before} == before, "these never held the person, or do not ask"
    one.send(ANN, event="Order Completed", at=3, traits={"plan": "pro"})
    one.rest(HOUR)
    assert len(told(one, "ads")) == len(told(one, "mails")) == 2 and not told(one, "orders"), "nothing after it"
    assert ("segment_entered", "buyers", "event") in told(one, "open")
    one.check()


def test_the_exit_is_of_the_same_transaction_as_its_cause() -> None:
    one = world(ADS, partitions=1)
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    one.work()
    says(one, ANN, 2, marketing=False)
    one.work(most_batches=1)
    assert told(one, "ads")[-1] == ("segment_exited", "seen", "consent")


def test_one_that_was_told_nothing_hears_nothing() -> None:
    one = world()
    one.send(ANN)
    says(one, ANN, 1, marketing=False)
    says(one, ANN, 2, marketing="denied")
    one.send(ANN, at=3)
    one.rest(MINUTE)
    assert not any(told(one, name) for name in ("ads", "mails", "mirror", "orders"))


def test_of_a_yes_and_a_no_at_the_same_instant_the_no_counts() -> None:
    for first in (True, False):
        one = world(ADS)
        one.send(ANN)
        says(one, ANN, 5, marketing=first)
        says(one, ANN, 5, marketing=not first)
        one.rest(MINUTE)
        assert believed(one, "ads") == set()


def test_a_late_no_that_is_older_than_a_yes_changes_nothing() -> None:
    one = world(ADS)
    one.send(ANN)
    says(one, ANN, 10, marketing=True)
    one.work()
    one.send(ANN, event="Preferences", at=5, received=20, context={"consent": {"marketing": False}})
    one.rest(MINUTE)
    assert told(one, "ads") == [("segment_entered", "seen", "consent")]


def test_consent_anew_tells_an_audience_anew_and_a_trigger_of_what_comes() -> None:
    one = world()
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    says(one, ANN, 2, marketing=False)
    says(one, ANN, 3, marketing=True)
    one.send(ANN, event="Order Completed", at=4)
    one.rest(MINUTE)
    assert told(one, "ads")[2:] == [("segment_entered", "seen", "consent"), ("segment_entered", "buyers", "event")]
    assert told(one, "mails")[2:] == [("segment_entered", "buyers", "event")]
    ids = [each.delivery_id for each in deliveries(one, "ads")]
    assert len(set(ids)) == len(ids)


def test_an_exit_goes_also_to_who_takes_entries_only() -> None:
    one = world(Destination("mails", "webhook", segments=None, changes=frozenset({"entered"}), purposes=("marketing",)))
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    says(one, ANN, 2, marketing=False)
    one.rest(MINUTE)
    assert told(one, "mails") == [("segment_entered", "seen", "event"), ("segment_exited", "seen", "consent")]


def test_a_trigger_that_was_not_told_of_an_old_entry_is_not_told_of_its_end() -> None:
    one = world(MAILS)
    says(one, ANN, marketing=True)
    one.send(ANN, at=1, received=1 + 2 * HOUR)
    says(one, ANN, 3 * HOUR, marketing=False)
    one.rest(4 * HOUR)
    assert told(one, "mails") == []


def test_a_mirrored_profile_is_deleted_and_comes_back_whole() -> None:
    one = world(MIRROR)
    says(one, ANN, analysis=True)
    one.send(ANN, at=1, traits={"plan": "pro"})
    says(one, ANN, 2, analysis=False)
    one.send(ANN, at=3, traits={"plan": "free"})
    one.work()
    assert [each.action for each in deliveries(one, "mirror")][-1] == "profile_deleted"
    says(one, ANN, 4, analysis=True)
    one.rest(MINUTE)
    last = deliveries(one, "mirror")[-1]
    assert (last.action, last.body["change"]) == ("profile_changed", "created")
    assert last.body["set"]["traits"] == {"plan": "free"} and "seen" in last.body["set"]["segments"]


# ----------------------------------------------------------------------------------------------- channels, everything


def test_a_closed_channel_suppresses_like_a_denied_purpose() -> None:
    one = world()
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    says(one, ANN, 2, channels={"email": False})
    one.send(ANN, event="Order Completed", at=3)
    one.rest(MINUTE)
    assert told(one, "mails") == [("segment_entered", "seen", "event"), ("segment_exited", "seen", "consent")]
    assert believed(one, "ads") == {(id_of(ANN), "seen"), (id_of(ANN), "buyers")}, "another channel"


def test_no_to_everything_empties_every_destination() -> None:
    one = world()
    says(one, ANN, marketing=True, analysis=True)
    one.send(ANN, at=1)
    one.work()
    assert all(believed(one, each.name) for each in ALL if each is not ORDERS)
    says(one, ANN, 2, everything=False)
    one.send(ANN, event="Order Completed", at=3)
    one.work()
    counts = {each.name: len(told(one, each.name)) for each in ALL}
    assert not any(believed(one, each.name) for each in ALL) and not counts["orders"]
    says(one, ANN, 4, everything=True)
    one.rest(MINUTE)
    assert believed(one, "open") == believed(one, "ads") == {(id_of(ANN), "seen"), (id_of(ANN), "buyers")}


# ------------------------------------------------------------------------------------------------------------ regions

EU = Region("eu", frozenset({"DE", "FR"}))
US = Region("us", frozenset({"US"}), frozenset({"marketing"}))


@pytest.mark.parametrize(
    ("traits", "allowed"),
    [
        ({}, False),
        ({"country": "US"}, True),
        ({"country": "us"}, True),
        ({"country": "DE"}, False),
        ({"country": "JP"}, False),
        ({"region": "eu", "country": "US"}, False),
        ({"region": "us", "country": "DE"}, True),
        ({"region": "mars", "country": "US"}, True),
    ],
)
def test_who_said_nothing_is_treated_as_where_they_live(traits: dict[str, str], allowed: bool) -> None:
    one = world(ADS, policy=ConsentPolicy((EU, US)))
    one.send(ANN, traits=traits)
    one.rest(MINUTE)
    assert bool(believed(one, "ads")) is allowed


def test_who_moves_to_a_stricter_region_is_taken_out() -> None:
    one = world(ADS, policy=ConsentPolicy((EU, US)))
    one.send(ANN, traits={"country": "US"})
    one.work()
    one.send(ANN, at=1, event="Identify", traits={"country": "DE"})
    one.rest(MINUTE)
    assert told(one, "ads") == [("segment_entered", "seen", "event"), ("segment_exited", "seen", "consent")]


def test_a_basis_other_than_consent() -> None:
    bases = {"fraud": "legitimate_interests", "shipping": "contract"}
    fraud = Destination("fraud", "webhook", mode="audience", segments=None, purposes=("fraud",))
    shipping = Destination("shipping", "webhook", mode="audience", segments=None, purposes=("shipping",))
    one = world(fraud, shipping, policy=ConsentPolicy(bases=bases))  # type: ignore[arg-type]
    one.send(ANN)
    one.work()
    assert believed(one, "fraud") and believed(one, "shipping")
    says(one, ANN, 1, fraud=False, shipping=False)
    one.rest(MINUTE)
    assert not believed(one, "fraud") and believed(one, "shipping")


# ----------------------------------------------------------------------------------------------------- who is who, time


@pytest.mark.parametrize("seed", range(6))
def test_a_merge_with_somebody_who_said_no_takes_both_out(seed: int) -> None:
    one = world(seed=seed)
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    one.rest(SECOND)
    says(one, BROWSER, 2 * SECOND, marketing=False)
    one.send(BROWSER, at=3 * SECOND)
    one.rest(4 * SECOND)
    assert believed(one, "ads")
    one.send(ANN, BROWSER, at=5 * SECOND, event="Identify")
    one.rest(MINUTE)
    assert not believed(one, "ads")
    assert told(one, "ads") == [("segment_entered", "seen", "event"), ("segment_exited", "seen", "consent")]
    one.check()


@pytest.mark.parametrize("seed", range(6))
def test_a_trigger_that_knew_a_person_under_a_former_id_hears_of_the_revocation(seed: int) -> None:
    one = world(MAILS, seed=seed)
    says(one, BROWSER, marketing=True)
    one.send(BROWSER, at=1)
    one.rest(SECOND)
    one.send(ANN, BROWSER, at=2 * SECOND, event="Identify")
    one.rest(10 * SECOND)
    assert told(one, "mails") == [("segment_entered", "seen", "event")], "nobody is welcomed twice"
    says(one, ANN, 11 * SECOND, marketing=False)
    one.rest(MINUTE)
    assert told(one, "mails")[1:] == [("segment_exited", "seen", "consent")]
    assert deliveries(one, "mails")[-1].profile_id == id_of(ANN)


PARTS = ("anonymous_id:b1", "anonymous_id:b2", "anonymous_id:b3", "anonymous_id:b4")


def _somebody_of_parts(one: World, at: int) -> None:
    """A person under an address, of whom one part says yes, a later one no, and one knows a secret."""
    for number, part in enumerate(PARTS):
        one.send(MAIL, part, event="Identify", at=at + number)
    one.send(PARTS[0], event="Identify", at=at + 4, traits={"secret": "s"}, context={"consent": {"analysis": True}})
    says(one, PARTS[1], at + 5, analysis=False)
    one.send(PARTS[2], at=at + 6, traits={"secret": "s"})
    one.rest(at + 10 * SECOND)


@pytest.mark.parametrize("said", [None, True])
@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_let_in_while_the_part_that_says_no_may_be_on_its_way(seed: int, said: bool | None) -> None:
    one = world(MIRROR, ADS, seed=seed)
    _somebody_of_parts(one, MINUTE)
    if said is not None:
        says(one, ANN, 2 * MINUTE, analysis=said)
        one.send(ANN, at=2 * MINUTE + 1)
        one.rest(3 * MINUTE)
        says(one, PARTS[1], 3 * MINUTE, analysis=False)
        one.rest(4 * MINUTE)
    before = len(deliveries(one, "mirror"))
    one.send(ANN, MAIL, event="Identify", at=5 * MINUTE)
    one.rest(6 * MINUTE)
    after = [each.action for each in deliveries(one, "mirror")[before:]]
    assert after == (["profile_deleted"] if said else []), "nothing of somebody who said no"
    one.operate(Unlink(ANN, NOON + 6 * MINUTE, MAIL))
    one.rest(8 * MINUTE)
    parted = deliveries(one, "mirror")[before + len(after) :]
    assert all(each.profile_id == id_of(ANN) for each in parted), "who said no is parted, and stays out"
    one.check()


def test_what_was_told_of_somebody_who_expired_is_forgotten() -> None:
    mails = Destination("mails", "webhook", segments=None, changes=frozenset({"entered"}), purposes=("marketing",))
    one = world(mails, expire_after_days=1, partitions=1)
    says(one, BROWSER, marketing=True)
    one.send(BROWSER, at=1)
    one.rest(30 * HOUR)
    assert one.document(BROWSER) is None
    says(one, BROWSER, 31 * HOUR, marketing=False)
    one.rest(32 * HOUR)
    assert [each.action for each in deliveries(one, "mails")] == ["segment_entered"]


def test_who_is_erased_is_told_of_where_they_were_and_nowhere_else() -> None:
    from pipeline.records import EraseRequest

    one = world()
    says(one, ANN, marketing=True)
    one.send(ANN, at=1)
    says(one, ANN, 2, marketing=False)
    one.work()
    counts = {name: len(deliveries(one, name)) for name in ("ads", "mails", "mirror")}
    one.operate(EraseRequest(ANN, NOON + 5))
    one.rest(MINUTE)
    # Who let go of them may still have them on a disk, and is asked to delete: that, and nothing else.
    more = {name: [each.action for each in deliveries(one, name)[count:]] for name, count in counts.items()}
    assert more == {"ads": ["profile_erased"], "mails": ["profile_erased"], "mirror": []}
    assert not believed(one, "open") and not believed(one, "hook")


def test_who_was_taken_out_without_a_word_of_theirs_is_erased_where_they_were() -> None:
    """They moved, or the destination's purposes changed: they never said anything, and yet it had them."""
    from pipeline.records import EraseRequest

    policy = ConsentPolicy((EU, US))
    moved, changed = (Destination(n, "webhook", mode="audience", segments=None, purposes=p) for n, p in REGIONAL)
    one = world(moved, changed, segments=(SEEN,), policy=policy, partitions=1)
    one.send(ANN, traits={"country": "US"})
    one.send(BOB, traits={"country": "DE"})
    one.send(ANN, traits={"country": "DE"}, at=1)
    one.rest(SECOND)
    asks = dataclasses.replace(changed, purposes=("marketing",))
    one.mark(one.define((SEEN,), ActivationPlan((moved, asks), policy)), SECOND)
    one.rest(MINUTE)
    assert not believed(one, "moved") and not believed(one, "changed")
    for who in (ANN, BOB):
        one.operate(EraseRequest(who, NOON + MINUTE))
    one.rest(2 * MINUTE)
    asked = {n: [d.profile_id for d in deliveries(one, n) if d.action == "profile_erased"] for n, _ in REGIONAL}
    assert asked == {"moved": [id_of(ANN)], "changed": [id_of(ANN), id_of(BOB)]}


def test_a_destination_whose_purposes_change_lets_go_of_those_who_did_not_allow_them() -> None:
    one = world(OPEN, segments=(SEEN,))
    one.send(ANN)
    says(one, BOB, marketing=True)
    one.send(BOB, at=1)
    one.rest(SECOND)
    assert len(believed(one, "open")) == 2
    asks = Destination("open", "webhook", mode="audience", segments=None, purposes=("marketing",))
    new = Destination("new", "webhook", mode="audience", segments=None, purposes=("ads",))
    one.mark(one.define((SEEN,), ActivationPlan((asks, new))), SECOND)
    one.rest(MINUTE)
    assert believed(one, "open") == {(id_of(BOB), "seen")} and not told(one, "new")
    says(one, BOB, 2 * MINUTE, ads=False)
    one.rest(3 * MINUTE)
    assert not told(one, "new"), "it never had anybody"


# --------------------------------------------------------------------------------------------------- lives from seeds


def allowed(destination: Destination, consents: Mapping[str, Any]) -> bool:
    """Written again, from docs/privacy.md: no regions, every basis is consent."""
    if consents.get("*") is False or (destination.channel and consents.get(f"channel:{destination.channel}") is False):
        return False
    return all(consents.get(purpose) is True for purpose in destination.purposes)


@pytest.mark.parametrize("seed", range(60))
def test_lives(seed: int) -> None:
    rng = random.Random(seed)
    one = world(segments=(SEEN, BUYERS, CALM), seed=seed, partitions=rng.choice((1, 3)))
    people = [ANN, BOB, MAIL, BROWSER, "anonymous_id:b2", "email:bob@example.org"]
    at = 0
    for _ in range(rng.randrange(10, 60)):
        at += rng.choice((0, 1, SECOND, 20 * MINUTE))
        who = rng.choice(people)
        others = rng.sample(people, rng.choice((0, 0, 0, 1, 2)))
        names = sorted({who, *others}, key=one_order)
        match rng.randrange(6):
            case 0 | 1:
                said = {rng.choice(("marketing", "analysis", "*")): rng.random() < 0.6}
                if rng.random() < 0.3:
                    said["channels"] = {"email": rng.random() < 0.5}  # type: ignore[assignment]
                late = rng.choice((0, 0, 5 * MINUTE))
                one.send(*names, event="Preferences", at=at, received=at + late, context={"consent": said})
            case 2:
                one.send(*names, event="Order Completed", at=at)
            case 3 if rng.random() < 0.5:
                a, b = sorted(rng.sample(people, 2))
                one.operate(Unlink(a, NOON + at, b))
            case _:
                one.send(*names, at=at, traits={"plan": rng.choice(("free", "pro"))})
        if rng.random() < 0.4:
            one.work(rng.choice((1, 3, 1_000)))
        if rng.random() < 0.1:
            one.rest(at)
    one.rest(at + 10 * SECOND)
    one.check()

    profiles = one.profiles()
    for destination in ALL:
        may = {key for key, document in profiles.items() if allowed(destination, document.consents)}
        there = believed(one, destination.name)
        if destination.mode == "audience":
            right = {
                (key, what)
                for key in may
                for what in (["profile"] if destination is MIRROR else sorted(profiles[key].segments))
            }
            assert there == right, destination.name
        else:
            assert {key for key, _ in there if key in profiles} <= may, destination.name
    for destination in ALL:
        _nothing_comes_after_an_end(one, destination)


def _nothing_comes_after_an_end(one: World, destination: Destination) -> None:
    """An exit by consent is of something the destination believed, if it mirrors; and nothing is entered twice."""
    there: set[tuple[str, str]] = set()
    for each in deliveries(one, destination.name):
        what = (each.profile_id, each.segment or "profile")
        if each.action == "segment_entered":
            assert what not in there or destination.mode == "trigger", f"{destination.name} was told twice of {what}"
            there.add(what)
        elif each.action == "profile_changed":
            there.add(what)
        elif each.action in ("segment_exited", "profile_deleted"):
            assert what in there or destination.mode == "trigger", f"{destination.name} never had {what}"
            there.discard(what)


def one_order(identifier: str) -> tuple[int, str]:
    """Strongest first, as ingest does it."""
    return ("user_id", "email", "phone", "device_id", "anonymous_id").index(identifier.partition(":")[0]), identifier
