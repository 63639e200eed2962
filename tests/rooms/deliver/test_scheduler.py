"""The deliver role's judgement, on a simulated clock: order, retries, circuits, dead letters, restarts."""

import random
from collections import defaultdict
from functools import partial
from typing import Any

import msgspec
import pytest

from connectors import Outcome, delivered, rejected, retry
from pipeline.deliver.circuit import Limits
from pipeline.deliver.forgotten import LONGEST_MS, ForgottenProfiles
from pipeline.deliver.progress import read_note
from pipeline.deliver.scheduler import Policy, Scheduler, backoff_ms
from pipeline.identifiers import Keys
from pipeline.records import Delivery, DestinationErased, Forgotten, IdentifierPair, encode
from pipeline.runtime.ports import Record
from tests.rooms.deliver.destination import Destination, record

HOUR = 3_600_000


def always(outcome: Outcome) -> Any:
    return lambda delivery, now: outcome


def assert_in_order(destination: Destination) -> None:
    """The first arrivals of each profile's deliveries stand in the order of their offsets."""
    seen: dict[str, list[int]] = defaultdict(list)
    known = set()
    for _, profile, delivery_id in destination.arrived:
        if delivery_id not in known:
            known.add(delivery_id)
            seen[profile].append(int(delivery_id.split("/")[1]))
    assert all(offsets == sorted(offsets) for offsets in seen.values())


def test_each_profile_in_order_and_profiles_beside_each_other() -> None:
    destination = Destination(Policy(concurrency=4), always(delivered()), latency_ms=100)
    destination.assign()
    for offset in range(40):
        destination.accept(offset, f"p{offset % 4}")
    destination.run(2_500)
    assert destination.scheduler.delivered == 40  # one after the other it would take 4 s at least
    assert_in_order(destination)
    assert destination.scheduler.positions() == {0: (40, "")}


def test_one_profile_that_fails_holds_up_no_other() -> None:
    def behaviour(delivery: Any, now: int) -> Outcome:
        return retry("HTTP 500") if delivery.profile_id == "bad" else delivered()

    destination = Destination(Policy(concurrency=2), behaviour)
    destination.assign()
    for offset in range(100):
        destination.accept(offset, "bad" if offset % 10 == 0 else f"p{offset}")
    destination.run(30_000)
    assert destination.scheduler.delivered == 90
    assert destination.scheduler.open == 10
    position, note = destination.scheduler.positions()[0]
    assert position == 0
    known = read_note(position, note)
    assert [offset for offset in range(100) if not known.is_done(offset)] == list(range(0, 100, 10))


def test_delays_double_with_jitter_and_end() -> None:
    policy = Policy(first_retry_ms=1_000, longest_retry_ms=60_000)
    waits = [backoff_ms("x", attempt, policy) for attempt in range(1, 12)]
    for attempt, wait in enumerate(waits, 1):
        full = min(1_000 << (attempt - 1), 60_000)
        assert full // 2 <= wait <= full
    assert len({backoff_ms(str(n), 1, policy) for n in range(100)}) > 50
    assert backoff_ms("x", 3, policy) == backoff_ms("x", 3, policy)
    assert backoff_ms("x", 10_000, policy) <= 60_000


def test_a_delivery_is_given_up_after_its_last_attempt_and_the_profile_goes_on() -> None:
    def behaviour(delivery: Any, now: int) -> Outcome:
        return retry("HTTP 500: no") if delivery.delivery_id == "0/0" else delivered()

    destination = Destination(Policy(attempts=3), behaviour)
    destination.assign()
    destination.accept(0, "p")
    destination.accept(1, "p")
    destination.run(60_000)
    assert destination.letters == [("0/0", "attempts used up")]
    assert [delivery for _, _, delivery in destination.arrived] == ["0/1"]
    assert destination.scheduler.positions() == {0: (2, "")}


@pytest.mark.parametrize("waiting", [1, 3, 40])
def test_an_outage_of_days_gives_up_nothing_however_little_waits(waiting: int) -> None:
    is_up = [False]
    destination = Destination(Policy(), lambda delivery, now: delivered() if is_up[0] else retry("refused"))
    destination.assign()
    for offset in range(waiting):
        destination.accept(offset, f"p{offset}")
    destination.run(60 * HOUR)
    assert destination.letters == [] and destination.requests < 60 * 60 + 20
    is_up[0] = True
    destination.run(120_000)
    assert destination.scheduler.delivered == waiting


def test_what_fails_beside_what_gets_through_is_given_up_after_its_own_delays_and_no_sooner() -> None:
    """Its circuit opens again and again, and each time it closes everything that waits goes out at once."""
    policy = Policy()
    destination = Destination(
        policy, lambda delivery, now: retry("HTTP 500") if delivery.profile_id.startswith("bad") else delivered()
    )
    destination.assign()
    for offset in range(10):
        destination.accept(offset, f"bad{offset}")
    offset, begun, first = 10, destination.now, 0
    while len(destination.letters) < 10:
        destination.accept(offset, f"p{offset}")
        offset += 1
        destination.run(60_000)
        first = first or (destination.now - begun if destination.letters else 0)
        assert destination.now - begun < 24 * HOUR
    assert first > sum(backoff_ms("0/0", attempt, policy) for attempt in range(1, policy.attempts)) // 2


def test_with_one_attempt_nothing_is_tried_twice_in_an_outage_either() -> None:
    tried: dict[str, int] = defaultdict(int)

    def behaviour(delivery: Any, now: int) -> Outcome:
        tried[delivery.delivery_id] += 1
        return retry("no answer")

    destination = Destination(Policy(attempts=1), behaviour)
    destination.assign()
    for offset in range(30):
        destination.accept(offset, f"p{offset}")
    destination.run(HOUR)
    assert len(tried) == 30 == len(destination.letters) and set(tried.values()) == {1}


def test_what_is_rejected_is_given_up_at_once() -> None:
    destination = Destination(Policy(), always(rejected("HTTP 422")))
    destination.assign()
    for offset in range(20):
        destination.accept(offset, "p")
    destination.run(1_000)
    assert len(destination.letters) == 20 and destination.requests == 20
    assert destination.scheduler.circuit.state == "closed"


def test_a_profile_waits_until_its_dead_letter_is_safe() -> None:
    destination = Destination(Policy(), always(rejected("no")))
    destination.assign()
    destination.accept(0, "p")
    destination.accept(1, "p")
    scheduler = destination.scheduler
    batch = scheduler.take(0)
    assert batch is not None
    [given] = scheduler.finish(batch, [rejected("no")], 1)
    assert scheduler.take(2) is None
    assert scheduler.positions()[0][0] == 0
    scheduler.settle(given, 3)
    following = scheduler.take(4)
    assert following is not None and following.items[0].record.offset == 1
    assert scheduler.positions()[0][0] == 1


def test_retry_after_is_obeyed_by_the_whole_destination() -> None:
    begun = 1_000_000
    answers = iter([retry("HTTP 429", 30_000)])
    destination = Destination(Policy(concurrency=1), lambda delivery, now: next(answers, delivered()))
    destination.assign()
    for offset in range(5):
        destination.accept(offset, f"p{offset}")
    destination.run(29_999)
    assert destination.requests == 1
    destination.run(10_000)
    assert destination.scheduler.delivered == 5
    assert min(when for when, _, _ in destination.arrived) >= begun + 30_000


def test_case_57_a_dead_destination_beside_healthy_ones() -> None:
    """A dead destination is probed, not hammered; it loses nothing; it catches up within a probe of its return."""
    alive_at = 1_000_000 + 2 * HOUR

    def behaviour(delivery: Any, now: int) -> Outcome:
        return delivered() if now >= alive_at else retry("no connection")

    destination = Destination(Policy(concurrency=8), behaviour)
    destination.assign()
    for offset in range(1_000):
        destination.accept(offset, f"p{offset % 300}")
    destination.run(2 * HOUR - 1)
    assert destination.requests < 200
    assert destination.scheduler.open == 1_000 and not destination.letters
    destination.run(61_000 + 3_000)
    assert destination.scheduler.delivered == 1_000
    assert_in_order(destination)


def test_a_destination_with_a_single_delivery_is_probed_before_its_time() -> None:
    alive_at = 1_000_000 + 3 * HOUR
    destination = Destination(Policy(), lambda d, now: delivered() if now >= alive_at else retry("no connection"))
    destination.assign()
    destination.accept(0, "p")
    destination.run(3 * HOUR + 65_000)
    assert destination.scheduler.delivered == 1 and not destination.letters


def test_case_58_a_destination_that_accepts_and_then_times_out() -> None:
    """Its deliveries arrive again and again, each time under the same id, in order, and never end as lost."""
    patience: dict[str, int] = defaultdict(int)

    def behaviour(delivery: Any, now: int) -> Outcome | None:
        patience[delivery.delivery_id] += 1
        return None if patience[delivery.delivery_id] < 3 else delivered()

    destination = Destination(Policy(concurrency=4), behaviour, latency_ms=5_000)
    destination.assign()
    for offset in range(40):
        destination.accept(offset, f"p{offset % 4}")
    destination.run(2 * HOUR)
    assert destination.scheduler.delivered == 40 and not destination.letters
    assert {delivery for _, _, delivery in destination.arrived} == {f"0/{offset}" for offset in range(40)}
    assert len(destination.arrived) == 3 * 40
    assert_in_order(destination)


def test_a_flapping_destination_gets_everything() -> None:
    def behaviour(delivery: Any, now: int) -> Outcome:
        return delivered() if now // 20_000 % 2 else retry("HTTP 503")

    destination = Destination(Policy(concurrency=4), behaviour)
    destination.assign()
    for offset in range(2_000):
        destination.accept(offset, f"p{offset % 100}")
    destination.run(HOUR)
    assert destination.scheduler.delivered == 2_000 and not destination.letters
    assert_in_order(destination)


def test_the_rate_is_limited() -> None:
    destination = Destination(Policy(concurrency=50, limits=Limits(per_second=10)), always(delivered()), latency_ms=1)
    destination.assign()
    for offset in range(1_000):
        destination.accept(offset, f"p{offset}")
    destination.run(20_000)
    assert 190 <= destination.requests <= 215
    moments = [when for when, _, _ in destination.arrived]
    assert max(sum(1 for m in moments if start <= m < start + 1_000) for start in moments) <= 21


def test_batches_hold_one_delivery_of_a_profile_unless_the_connector_keeps_order() -> None:
    for keeps_order, expected in ((False, 4), (True, 10)):
        destination = Destination(Policy(max_batch=10, keeps_order=keeps_order), always(delivered()))
        destination.assign()
        for offset in range(20):
            destination.accept(offset, f"p{offset % 4}")
        batch = destination.scheduler.take(destination.now)
        assert batch is not None and len(batch.items) == expected


def test_in_a_batch_what_stands_behind_a_failure_was_not_tried() -> None:
    destination = Destination(Policy(max_batch=10, keeps_order=True, attempts=2), always(delivered()))
    destination.assign()
    for offset in range(4):
        destination.accept(offset, "p")
    scheduler = destination.scheduler
    batch = scheduler.take(0)
    assert batch is not None
    # A connector that said "delivered" behind a failure would break the order: it is not believed.
    scheduler.finish(batch, [delivered(), retry("no"), delivered(), retry("no")], 0)
    assert scheduler.delivered == 1 and scheduler.open == 3
    again = scheduler.take(2_000)
    assert again is not None and [item.record.offset for item in again.items] == [1, 2, 3]
    assert [item.attempts for item in again.items] == [1, 0, 0]
    # And what stands behind one that is given up was not tried either.
    assert len(scheduler.finish(again, [retry("no"), retry("no"), retry("no")], 2_000)) == 1
    assert [item.attempts for item in again.items] == [2, 0, 0]


def test_a_partition_that_goes_elsewhere_takes_its_deliveries_along() -> None:
    destination = Destination(Policy(concurrency=10), always(delivered()))
    destination.assign(0)
    destination.assign(1)
    for offset in range(4):
        destination.accept(offset, "p", partition=0)
        destination.accept(offset, "q", partition=1)
    scheduler = destination.scheduler
    batches = [scheduler.take(0), scheduler.take(0)]
    scheduler.revoke(0)
    assert scheduler.open == 4
    scheduler.assign(0)
    for offset in range(4):
        destination.accept(offset, "p", partition=0)
    for batch in batches:
        assert batch is not None
        scheduler.finish(batch, [delivered()], 1)
    # The late answer for the old holding of partition 0 is not one for the new.
    assert scheduler.positions()[0][0] == 0 and scheduler.positions()[1][0] == 1
    destination.run(10_000)
    assert scheduler.open == 0


@pytest.mark.parametrize("seed", [*range(30), 2749])
def test_delivered_and_dead_letters_and_open_are_what_was_decided(seed: int) -> None:
    """Random failures, batches, kills and hand-overs: nothing is lost, order holds, repetitions carry their ids."""
    rng = random.Random(seed)
    policy = Policy(
        concurrency=rng.choice([1, 3, 8]),
        max_batch=rng.choice([1, 1, 7]),
        keeps_order=rng.random() < 0.5,
        attempts=rng.choice([2, 5, 16]),
        first_retry_ms=rng.choice([10, 1_000]),
    )
    failing = rng.random() * 0.6

    def behaviour(delivery: Any, now: int) -> Outcome | None:
        if now // 60_000 % 3 == 0 and failing > 0.3:
            return retry("down", rng.choice([None, 5_000]))
        if delivery.at % 38 == 0:  # once rejected, always rejected
            return rejected("bad")
        drawn = rng.random()
        if drawn < failing * 0.5:
            return None
        return retry("busy") if drawn < failing else delivered()

    destination = Destination(policy, behaviour, latency_ms=rng.choice([5, 200]), seed=seed)
    log = [(offset, f"p{rng.randrange(20)}") for offset in range(0, 600, 2)]
    destination.assign()
    read = 0
    kills = 0
    for _ in range(400):
        while read < len(log) and rng.random() < 0.8 and destination.scheduler.room > 0:
            destination.accept(*log[read])
            read += 1
        destination.run(rng.choice([0, 50, 2_000, 30_000]))
        scheduler = destination.scheduler
        assert scheduler.delivered + scheduler.given_up + scheduler.skipped + scheduler.open == (
            read - getattr(destination, "first", 0)
        )
        if rng.random() < 0.05 and kills < 5 and scheduler.positions():
            kills += 1
            position = scheduler.positions()[0][0]
            destination = destination.restarted(policy)
            read = next((n for n, (offset, _) in enumerate(log) if offset >= position), len(log))
            destination.first = read  # type: ignore[attr-defined]
    while read < len(log):
        destination.accept(*log[read])
        read += 1
    destination.run(1_000 * HOUR)
    assert destination.scheduler.open == 0
    arrived = {delivery for _, _, delivery in destination.arrived}
    letters = {delivery for delivery, _ in destination.letters}
    assert arrived | letters == {f"0/{offset}" for offset, _ in log}
    assert_in_order(destination)
    assert destination.scheduler.positions() in ({0: (599, "")}, {})  # nothing, if the last kill came after the end


def test_a_restart_repeats_only_what_was_open() -> None:
    destination = Destination(Policy(concurrency=2), always(delivered()))
    destination.behaviour = lambda d, now: retry("no") if d.profile_id == "bad" else delivered()
    destination.assign()
    destination.accept(0, "bad")
    for offset in range(1, 2_000):
        destination.accept(offset, f"p{offset}")
    destination.run(60_000)
    restarted = destination.restarted(Policy())
    for offset in range(2_000):
        restarted.accept(offset, "bad" if offset == 0 else f"p{offset}")
    assert restarted.scheduler.skipped == 1_999 and restarted.scheduler.open == 1


def test_a_record_that_is_no_delivery_is_refused_once() -> None:
    destination = Destination(Policy(), always(delivered()))
    destination.assign()
    given = destination.scheduler.refuse(record(0, "p")[0], "not a delivery", "Expected `object`")
    assert given is not None
    assert destination.scheduler.positions()[0][0] == 0
    destination.put_aside([given])
    assert destination.scheduler.positions() == {0: (1, "")}


def erased(offset: int, profile: str) -> tuple[Record, Delivery]:
    one, delivery = record(offset, profile)
    return one, msgspec.structs.replace(delivery, action="profile_erased", segment=None)


KEYS = Keys(b"deliver tests")


def forgets(profile_id: str, identifier: str = "user_id:ada", at: int = 5) -> Record:
    told = Forgotten("r1", KEYS.actor(identifier).decode(), at, ["d"], profile_id)
    return Record("privacy-progress", 0, 0, b"r1", encode(told), 5)


def test_of_whoever_was_erased_nothing_waits_but_what_takes_back() -> None:
    forgotten = ForgottenProfiles(KEYS)
    destination = Destination(Policy(concurrency=1, first_retry_ms=HOUR), lambda one, now: answers[0])
    destination.scheduler = Scheduler(destination.scheduler.policy, forgotten.left_of)
    destination.assign()
    answers = [retry("HTTP 503")]
    for offset, profile in enumerate(("ada", "bob", "ada", "ada")):
        destination.accept(offset, profile)
    one, exit_ = record(4, "ada")
    destination.scheduler.accept(one, msgspec.structs.replace(exit_, action="segment_exited"))
    destination.scheduler.accept(*erased(5, "ada"))
    destination.run(1_000)
    assert destination.scheduler.open == 6, "the first has failed, and all wait behind it for an hour"
    forgotten.take([forgets("ada"), Record("privacy-progress", 0, 1, b"r1", None, 5)])
    destination.scheduler.overtake(destination.now)
    destination.accept(6, "ada")
    assert (destination.scheduler.overtaken, destination.scheduler.open) == (4, 3)
    answers[0] = delivered()
    destination.run(2 * HOUR)
    assert [one[2] for one in destination.arrived if one[1] == "ada"] == ["0/4", "0/5"]
    assert [one[2] for one in destination.arrived if one[1] == "bob"] == ["0/1"]
    assert destination.scheduler.positions() == {0: (7, "")} and destination.scheduler.open == 0


def come_back(offset: int, profile: str, at: int, identifier: str = "ada") -> tuple[Record, Delivery]:
    one, delivery = record(offset, profile)
    named = [IdentifierPair("user_id", identifier)]
    delivery = msgspec.structs.replace(delivery, identifiers=named, decided_at=at)
    return one._replace(value=encode(delivery)), delivery


def answers_for(actor: str, request_id: str = "r1", destination: str = "d") -> Record:
    told = DestinationErased(request_id, KEYS.actor(actor).decode(), destination, 9)
    return Record("privacy-progress", 0, 2, b"r1", encode(told), 9)


@pytest.mark.parametrize("keeps_order", [False, True])
def test_who_has_come_back_waits_until_the_destination_has_deleted_who_they_were(keeps_order: bool) -> None:
    """Of another profile, they would pass the request to delete them by their address, and be deleted by it."""
    forgotten = ForgottenProfiles(KEYS)
    policy = Policy(concurrency=8, max_batch=8 if keeps_order else 1, keeps_order=keeps_order)
    destination = Destination(policy, always(delivered()))
    destination.scheduler = Scheduler(policy, forgotten.left_of, partial(forgotten.is_early, "d"))
    destination.assign()
    # The request names both; it is asked for in the name of the one who held them.
    forgotten.take([forgets("ada"), forgets("", "user_id:ada2")])
    for offset, given in enumerate((("new", 6, "ada"), ("new", 7, "ada"), ("new2", 7, "ada2"), ("bob", 7, "bob"))):
        destination.scheduler.accept(*come_back(offset, *given))
    destination.run(1_000)
    assert [one[1] for one in destination.arrived] == ["bob"] and destination.scheduler.wakes_at(2_000) is None
    forgotten.take([answers_for("user_id:ada2"), answers_for("user_id:ada", destination="other")])
    destination.scheduler.release_held(destination.now)
    destination.run(2_000)
    assert len(destination.arrived) == 1, "the request that has been answered is another destination's, or no whole one"
    forgotten.take([answers_for("user_id:ada")])
    destination.scheduler.release_held(destination.now)
    destination.run(3_000)
    assert [one[2] for one in destination.arrived if one[1] == "new"] == ["0/0", "0/1"]
    assert destination.scheduler.positions() == {0: (4, "")}


def test_who_has_come_back_does_not_wait_for_good_nor_hold_up_what_they_wait_for() -> None:
    forgotten = ForgottenProfiles(KEYS)
    policy = Policy(concurrency=8, max_open=8)
    destination = Destination(policy, always(delivered()))
    destination.scheduler = Scheduler(policy, forgotten.left_of, partial(forgotten.is_early, "d"))
    destination.assign()
    forgotten.take([forgets("ada")])
    destination.scheduler.accept(*come_back(0, "late", 6 + LONGEST_MS))
    destination.run(1_000)
    assert destination.scheduler.delivered == 1
    for offset in range(1, 6):
        destination.scheduler.accept(*come_back(offset, f"new{offset}", 6))
    destination.run(2_000)
    assert destination.scheduler.delivered == 1 and destination.scheduler.room == 3
    destination.scheduler.accept(*come_back(6, "new6", 6))
    destination.run(3_000)
    assert destination.scheduler.delivered == 7, "there was no room left to read the request that they wait for"
    # Erased again while they waited: nothing of it goes out; and what is held of a partition goes with it.
    destination.scheduler.accept(*come_back(7, "new", 6))
    destination.run(4_000)
    forgotten.take([forgets("new", at=8)])
    destination.scheduler.overtake(destination.now)
    assert destination.scheduler.overtaken == 1 and destination.scheduler.open == 0
    destination.scheduler.accept(*come_back(8, "newest", 10))
    destination.run(5_000)
    destination.scheduler.revoke(0)
    destination.scheduler.release_held(destination.now)
    assert destination.scheduler.take(destination.now) is None


def changes(offset: int, action: Any, segment: str | None = "s", cause: Any = "event") -> tuple[Record, Delivery]:
    _, delivery = record(offset, "ada")
    delivery = msgspec.structs.replace(delivery, action=action, segment=segment, cause=cause)
    return Record("deliveries.d", 0, offset, b"ada", encode(delivery)), delivery


def test_an_entry_that_failed_does_not_go_out_once_they_take_the_consent_back() -> None:
    """It would be the mail that somebody gets after they said no; and the exit would wait behind it for an hour."""
    destination = Destination(Policy(concurrency=1, first_retry_ms=HOUR), lambda one, now: answers[0])
    destination.assign()
    answers = [retry("HTTP 503")]
    for one in (
        changes(0, "segment_entered"),
        changes(1, "segment_entered", "other"),
        changes(2, "profile_changed", None),
        changes(3, "segment_exited", cause="timer"),
        changes(4, "segment_entered"),
    ):
        destination.scheduler.accept(*one)
    destination.run(1_000)
    assert destination.scheduler.open == 5 and destination.requests == 1
    answers[0] = delivered()
    destination.scheduler.accept(*changes(5, "segment_exited", cause="consent"))
    destination.scheduler.accept(*changes(6, "segment_entered", cause="consent"))
    destination.run(1_000)
    assert [one[2] for one in destination.arrived] == ["0/1", "0/2", "0/3", "0/5", "0/6"]
    assert (destination.scheduler.overtaken, destination.scheduler.open) == (2, 0)
    assert destination.scheduler.positions() == {0: (7, "")}


def test_what_is_under_way_when_they_take_it_back_is_not_repeated() -> None:
    destination = Destination(Policy(concurrency=1, first_retry_ms=HOUR), lambda one, now: answers.pop(0), 500)
    destination.assign()
    answers = [retry("no answer in time"), delivered()]
    destination.scheduler.accept(*changes(0, "profile_changed", None))
    destination.run(100)
    assert destination.scheduler.in_flight
    destination.scheduler.accept(*changes(1, "profile_deleted", None, cause="consent"))
    destination.run(2_000)
    assert [one[2] for one in destination.arrived] == ["0/1"] and destination.scheduler.open == 0
    # What is told anew, behind it, stays.
    answers += [delivered()]
    destination.scheduler.accept(*changes(2, "profile_changed", None, cause="consent"))
    destination.run(2_000)
    assert [one[2] for one in destination.arrived] == ["0/1", "0/2"]


def shown(name: str) -> dict[str, Any]:
    return {"profile_id": name, "since": 1, "identifiers": [{"namespace": "user_id", "value": name}]}


def alert(offset: int, *who: str, action: Any = "alert") -> tuple[Record, Delivery]:
    one, delivery = record(offset, "acme")
    context = {"people": 7, "matches": [{"rule": "buyers", "people": len(who), "who": [shown(each) for each in who]}]}
    delivery = msgspec.structs.replace(delivery, action=action, body={"alert": "signed", "context": context})
    return one._replace(value=encode(delivery)), delivery


def test_an_alert_that_waits_goes_out_without_whoever_was_erased_and_not_at_all_if_it_names_nobody_else() -> None:
    forgotten = ForgottenProfiles(KEYS)
    sent: list[Delivery] = []

    def behaviour(delivery: Delivery, now: int) -> Outcome | None:
        sent.append(delivery)
        return answers[0]

    destination = Destination(Policy(concurrency=1, first_retry_ms=HOUR), behaviour)
    destination.scheduler = Scheduler(destination.scheduler.policy, forgotten.left_of)
    destination.assign()
    answers = [retry("HTTP 503")]
    destination.accept(0, "acme")
    destination.scheduler.accept(*alert(1, "ada"))
    destination.scheduler.accept(*alert(2, "ada", "bob"))
    # What mirrors the account is to know that it entered, whoever it was for.
    destination.scheduler.accept(*alert(3, "ada", action="segment_entered"))
    destination.scheduler.accept(*alert(4))
    destination.run(1_000)
    forgotten.take([forgets("ada")])
    destination.scheduler.overtake(destination.now)
    destination.scheduler.accept(*alert(5, "ada"))
    destination.scheduler.accept(*alert(6, "bob", "ada"))
    assert (destination.scheduler.overtaken, destination.scheduler.open) == (2, 5)
    answers[0] = delivered()
    sent.clear()
    destination.run(2 * HOUR)
    assert [one[2] for one in destination.arrived] == ["0/0", "0/2", "0/3", "0/4", "0/6"]
    assert "ada" not in str(sent)
    assert [len(one.body["context"]["matches"][0]["who"]) for one in sent[1:]] == [1, 0, 0, 1]
    assert destination.scheduler.open == 0


def test_what_names_an_erased_identifier_beside_others_goes_out_without_it() -> None:
    forgotten = ForgottenProfiles(KEYS)
    forgotten.take([forgets("ada", at=50)])
    ada, bob = IdentifierPair("user_id", "ada"), IdentifierPair("user_id", "bob")
    link = {"identifier": {"namespace": "user_id", "value": "bob"}, "reason": "unlinked", "first": 1}
    body = {
        "set": {
            "identifiers": [{"namespace": "user_id", "value": "ada"}, {"namespace": "user_id", "value": "bob"}],
            "unfollowed": [{**link, "other": {"namespace": "user_id", "value": "ada"}}],
            "traits": {"namespace": "user_id", "value": "ada"},
        }
    }
    _, delivery = record(50, "bob")
    named = msgspec.structs.replace(delivery, identifiers=[ada, bob], body=body, action="profile_changed")
    left = forgotten.left_of(named)
    assert left is not None and left.identifiers == [bob]
    assert left.body["set"]["identifiers"] == [{"namespace": "user_id", "value": "bob"}]
    assert left.body["set"]["unfollowed"] == []
    # Decided since: whoever has the identifier by then is somebody else.
    later = msgspec.structs.replace(named, decided_at=51)
    assert forgotten.left_of(later) is later
    request = msgspec.structs.replace(named, action="profile_erased")
    assert forgotten.left_of(request) is request
    assert forgotten.left_of(delivery) is delivery


@pytest.mark.parametrize("seed", range(30))
def test_whenever_somebody_is_erased_everything_is_accounted_for_and_nothing_goes_out_after_it(seed: int) -> None:
    rng = random.Random(seed)
    forgotten, before = ForgottenProfiles(KEYS), 0

    def behaviour(delivery: Any, now: int) -> Outcome | None:
        sent.append((delivery.profile_id, delivery.action))
        return rng.choice((delivered(), delivered(), retry("HTTP 500"), rejected("no"), None))

    sent: list[tuple[str, str]] = []
    policy = Policy(concurrency=rng.randrange(1, 4), max_batch=rng.choice((1, 3)), keeps_order=True, attempts=6)
    destination = Destination(policy, behaviour, seed=seed)
    destination.scheduler = Scheduler(policy, forgotten.left_of)
    destination.assign()
    offset, at = 0, rng.randrange(20, 60)
    for turn in range(80):
        if turn == at:
            destination.scheduler.accept(*erased(offset, "p1"))
            offset += 1
            forgotten.take([forgets("p1")])
            destination.scheduler.overtake(destination.now)
            before = len(sent)
        destination.accept(offset, f"p{rng.randrange(3)}")
        offset += 1
        destination.run(rng.randrange(30))
    destination.run(24 * HOUR)
    scheduler = destination.scheduler
    assert scheduler.open == 0 and scheduler.delivered + scheduler.given_up + scheduler.overtaken == offset
    after = {action for profile, action in sent[before:] if profile == "p1"}
    assert after == {"profile_erased"}
