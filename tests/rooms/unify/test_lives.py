"""Erasures, expiry, changes of the definitions, deliveries: what happens to a profile besides events and merges."""

import dataclasses
import random
from hashlib import sha256

import msgspec
import pytest

from pipeline.activation import ActivationPlan, Destination
from pipeline.records import BackfillDone, Delivery, EraseRequest, Expired, Sweep, Tick, Unlink, encode
from pipeline.runtime.ports import Record
from pipeline.unify.stage import most_of_next
from tests.rooms.unify.harness import DAY, HOUR, MINUTE, NOON, SECOND, World, _Out, id_of
from tests.rooms.unify.test_cases import ALL, ANN, BOB, MAIL, NOT_BOUGHT, PHONE, QUIET, RECENT, SEEDS, TAB, THREE_VISITS

# ------------------------------------------------------------------------------------------------------------- erasure


def erased_person(seed: int) -> World:
    world = World(ALL, seed)
    world.send(TAB, at=0, traits={"secret": "x"})
    world.send(ANN, TAB, at=SECOND)
    world.send(ANN, MAIL, at=2 * SECOND)
    world.rest(MINUTE)
    world.operate(EraseRequest(MAIL, NOON + MINUTE, "r1"))
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_an_erased_person_is_gone_from_everything(seed: int) -> None:
    world = erased_person(seed)
    world.rest(2 * MINUTE)
    assert world.profiles() == {}
    assert world.compacted["segment-members"] == {}
    assert world.compacted["identities"] == {}
    assert {one.cause for one in world.segment_changes() if one.change == "exited"} >= {"erase"}
    assert [one.change for one in world.profile_changes()][-1] == "erased"
    assert world.counts()["erased"] == 3
    for _, state, _ in world.tasks[1:]:
        assert not any(b"secret" in state.stage.encode(key, value) for key, value in state.values.items())
        assert not any(key.startswith(b"f") for key in state.values)
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_case_12_an_identifier_used_again_after_its_profile_was_erased(seed: int) -> None:
    world = erased_person(seed)
    world.rest(2 * MINUTE)
    world.send(TAB, at=3 * MINUTE)
    world.rest(4 * MINUTE)
    assert world.identifiers(TAB) == {TAB}
    assert world.totals(TAB) == {"Page Viewed": 1}
    assert world.profile(TAB).profile_id != id_of(TAB)
    world.send(ANN, TAB, at=5 * MINUTE)
    world.rest(6 * MINUTE)
    assert world.identifiers(TAB) == {ANN, TAB}
    assert world.totals(ANN) == {"Page Viewed": 2}
    assert world.profile(ANN).profile_id != id_of(ANN)
    assert world.document(TAB) == world.document(ANN)
    exits = [one for one in world.segment_changes() if one.moved_to is not None and one.cause == "merge"]
    assert {one.moved_to for one in exits[-2:]} == {world.profile(ANN).profile_id}
    world.check()


@pytest.mark.parametrize("seed", range(30))
def test_case_42_events_beside_an_erasure_count_before_or_after_it_never_twice(seed: int) -> None:
    world = World(ALL, seed, partitions=4)
    for number in range(4):
        world.send(TAB, at=number)
        world.send(PHONE, TAB, at=number)
        world.send(ANN, PHONE, at=number)
        world.work(seed % 4)
    world.operate(EraseRequest(TAB, NOON + 5))
    for number in range(4):
        world.send(TAB, at=10 + number)
        world.send(ANN, PHONE, at=10 + number)
        world.work(seed % 5)
    world.rest(MINUTE)
    shown = sum(total.count for one in world.profiles().values() for total in one.totals.values())
    assert shown + world.counts().get("erased", 0) == 20
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_case_42_a_person_erased_inside_a_window_leaves_once_and_begins_it_anew(seed: int) -> None:
    world = World((RECENT, THREE_VISITS), seed)
    world.send(TAB)
    world.send(ANN, TAB, at=SECOND)
    world.send(BOB, at=2 * SECOND)
    world.rest(MINUTE)
    world.operate(EraseRequest(TAB, NOON + MINUTE))
    world.rest(2 * MINUTE)
    assert world.members("recent") == {id_of(BOB)}
    # Back inside the same window: of the visits before it knows nothing, and the old deadline is nobody's.
    world.send(ANN, TAB, at=30 * MINUTE)
    world.rest(HOUR + MINUTE)
    anew = world.profile(ANN).profile_id
    assert anew != id_of(ANN)
    assert world.members("recent") == {anew}
    assert world.members("three_visits") == set()
    world.rest(2 * HOUR)
    told = [(one.profile_id, one.change, one.cause, one.at) for one in world.segment_changes("recent")]
    ends = {(who, cause, at) for who, change, cause, at in told if change == "exited" and who in (id_of(ANN), anew)}
    erased = [one for one in ends if one[1] == "erase"]
    assert [one[0] for one in erased] == [id_of(ANN)]
    assert ends - set(erased) == {(anew, "timer", NOON + 90 * MINUTE)}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_who_was_parted_before_the_erasure_keeps_everything(seed: int) -> None:
    world = World(ALL, seed, partitions=4)
    world.send(ANN, PHONE)
    world.send(ANN, TAB, at=SECOND)
    world.send(PHONE, at=2 * SECOND)
    world.send(TAB, at=2 * SECOND)
    world.rest(MINUTE)
    world.operate(Unlink(ANN, NOON + MINUTE, PHONE, forever=True))
    world.operate(EraseRequest(ANN, NOON + MINUTE))
    world.rest(2 * MINUTE)
    assert set(world.profiles()) == {id_of(PHONE)}
    assert world.totals(PHONE) == {"Page Viewed": 1}
    world.check()


def everything_kept(world: World) -> bytes:
    """All that the stages keep, in its stored form."""
    return b"".join(
        key + state.stage.encode(key, value) for _, state, _ in world.tasks for key, value in state.values.items()
    )


@pytest.mark.parametrize("seed", range(120))
def test_nothing_kept_says_who_was_erased_whatever_came_before(seed: int) -> None:
    """Merges, unlinks and erasures in any order: fragments wandered from holder to holder, and all who saw them forget.
    Everybody else keeps everything."""
    rng = random.Random(seed)
    world = World(ALL, seed, partitions=rng.choice((1, 3, 4)))
    people = [f"user_id:person{number}" for number in range(4)]
    others = [f"anonymous_id:tab{number}" for number in range(4)] + [f"email:m{number}@x.io" for number in range(3)]
    erased: set[str] = set()
    sent = at = 0
    for _ in range(rng.choice((6, 12, 25))):
        at += rng.choice((1, SECOND, MINUTE))
        what = rng.random()
        if what < 0.6:
            who = rng.sample(people, rng.random() < 0.7) + rng.sample(others, rng.choice((1, 1, 2)))
            if not erased.intersection(who):
                world.send(*who, at=at, traits={"seen": who[0]})
                sent += 1
        elif what < 0.85:
            one, other = rng.choice(people + others), rng.choice(others)
            if one != other and not erased.intersection((one, other)):
                a, b = sorted((one, other))
                world.operate(Unlink(a, NOON + at, b, forever=rng.random() < 0.3))
        else:
            # Who is erased is known only when everything before it has come.
            world.rest(at)
            at += 1
            doomed = rng.choice([one for one in people + others if one not in erased] or others)
            found = world.document(doomed)
            erased |= world.identifiers(doomed) if found is not None else {doomed}
            world.operate(EraseRequest(doomed, NOON + at, f"r{at}", keep_out=True))
        if rng.random() < 0.5:
            world.work(rng.choice((1, 5, 50)))
    world.rest(at + MINUTE)
    world.check()
    shown = sum(total.count for one in world.profiles().values() for total in one.totals.values())
    assert shown + world.counts().get("erased", 0) == sent
    kept = everything_kept(world)
    for text in sorted(erased):
        assert text.partition(":")[2].encode() not in kept, f"{text} of {sorted(erased)}"
        assert world.document(text) is None


def test_who_was_erased_comes_back_by_a_consent_anew_and_by_nothing_else() -> None:
    world = erased_person(0)
    world.rest(2 * MINUTE)
    world.operate(EraseRequest(ANN, NOON + 2 * MINUTE, "r2", keep_out=True))
    world.rest(3 * MINUTE)
    yes, no = {"consent": {"mail": "granted"}}, {"consent": {"mail": "denied"}}
    for number, (at, context) in enumerate(((MINUTE, yes), (4 * MINUTE, {}), (4 * MINUTE, no))):
        world.send(ANN, at=at, received=5 * MINUTE + number, context=context)
    world.rest(6 * MINUTE)
    assert world.profiles() == {}
    assert world.counts()["kept_out"] == 3
    world.send(ANN, at=7 * MINUTE, context=yes)
    world.send(ANN, at=8 * MINUTE)
    world.rest(9 * MINUTE)
    assert world.totals(ANN) == {"Page Viewed": 2}
    world.check()


# -------------------------------------------------------------------------------------------------------------- expiry


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pseudonymous_profile_expires_after_its_last_event(seed: int) -> None:
    world = World(ALL, seed, expire_after_days=2)
    world.send(TAB, at=0)
    world.send(TAB, at=DAY)
    world.send(ANN, at=0)
    world.rest(3 * DAY - 1)
    assert len(world.profiles()) == 2
    world.rest(3 * DAY)
    assert set(world.profiles()) == {id_of(ANN)}
    assert world.document(TAB) is None
    ended = world.profile_changes()[-1]
    assert (ended.change, ended.at) == ("expired", NOON + 3 * DAY)
    assert {(one.cause, one.at) for one in world.segment_changes() if one.cause == "expired"} == {
        ("expired", NOON + 3 * DAY)
    }
    assert world.counts()["expired"] == 2
    world.check()
    world.send(TAB, at=4 * DAY)
    world.rest(4 * DAY)
    assert world.totals(TAB) == {"Page Viewed": 1}
    sequences = [one.sequence for one in world.segment_changes("recent") if one.profile_id == id_of(TAB)]
    assert sequences == list(range(1, len(sequences) + 1))
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_how_long_pseudonyms_are_kept_is_a_definition_that_may_change(seed: int) -> None:
    world = World(ALL, seed)
    world.send(TAB)
    world.send(ANN)
    world.rest(3 * DAY)
    generation = world.define(ALL)
    plan = world.generations[generation]
    shorter = dataclasses.replace(plan.identity, expire_after_ms=2 * DAY)
    world.generations[generation] = dataclasses.replace(plan, identity=shorter)
    world.mark(generation, 3 * DAY)
    world.rest(3 * DAY + MINUTE)
    world.rest(4 * DAY)
    assert set(world.profiles()) == {id_of(ANN)}
    [ended] = [one for one in world.profile_changes() if one.change == "expired"]
    # By the rules of then it lived until they changed: nothing is said to have happened before.
    assert NOON + 3 * DAY <= ended.at <= ended.decided_at <= NOON + 4 * DAY
    world.check()
    world.send(TAB, at=5 * DAY)
    world.rest(7 * DAY - 1)
    assert len(world.profiles()) == 2
    world.rest(7 * DAY)
    assert set(world.profiles()) == {id_of(ANN)}


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_known_by_more_than_pseudonyms_does_not_expire(seed: int) -> None:
    world = World(ALL, seed, expire_after_days=2)
    world.send(TAB)
    world.send(MAIL, TAB)
    world.rest(SECOND)
    world.rest(30 * DAY)
    assert world.totals(TAB) == {"Page Viewed": 2}


# ------------------------------------------------------------------------------------------- changes of definitions


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_generation_is_evaluated_when_all_are_ready(seed: int) -> None:
    world = World((RECENT, NOT_BOUGHT), seed)
    world.send(ANN)
    world.send(BOB)
    world.rest(SECOND)
    edited = {**NOT_BOUGHT, "version": 2, "when": {"performed": {"event": "Order Completed", "within": "30d"}}}
    generation = world.define((edited, QUIET))
    world.mark(generation, MINUTE)
    world.send(BOB, event="Order Completed", at=2 * MINUTE)
    world.rest(3 * MINUTE)
    done = [msgspec.json.decode(one, type=BackfillDone) for one in world.said["identity-edges"]]
    assert sorted(one.partition for one in done) == [0, 1, 2]
    assert world.members("recent") == set()
    assert {(one.cause, one.change) for one in world.segment_changes("recent")[2:]} == {("definition", "exited")}
    assert world.members("not_bought") == {id_of(BOB)}
    told = [(one.profile_id, one.change, one.cause, one.version) for one in world.segment_changes("not_bought")]
    assert [one[1:] for one in told if one[0] == id_of(ANN)] == [("entered", "event", 1), ("exited", "backfill", 2)]
    bob = [one[1:] for one in told if one[0] == id_of(BOB)]
    # The order may come before or after the moment from which the new version is judged.
    assert bob in (
        [("entered", "event", 1), ("exited", "event", 1), ("entered", "backfill", 2)],
        [("entered", "event", 1), ("exited", "backfill", 2), ("entered", "event", 2)],
    )
    world.rest(2 * HOUR)
    assert world.members("quiet") == {id_of(ANN), id_of(BOB)}
    world.check()


@pytest.mark.parametrize("seed", range(30))
def test_a_leaf_that_two_generations_share_counts_every_event_once(seed: int) -> None:
    """Events, forwards and moved fragments, before, between and after the marker."""
    ever = {"segment": "ever", "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 9}}}}
    ten = {"segment": "ten", "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 10}}}}
    counted = {"computed": "views", "compute": {"function": "count", "event": "Page Viewed"}}
    world = World((ever, counted), seed)
    generation = world.define((ever, ten, counted))
    sent = 0
    for number in range(3):
        world.send(TAB, at=number)
        world.send(ANN, TAB, at=number)
        world.send(PHONE, TAB, at=number)
        sent += 3
        if number == 1:
            world.mark(generation, number)
        world.work(seed % 5)
    world.rest(MINUTE)
    assert world.totals(ANN) == {"Page Viewed": sent}
    assert world.profile(ANN).computed == {"views": sent}
    assert world.members("ever") == {id_of(ANN)}
    world.send(TAB, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert world.profile(ANN).computed == {"views": sent + 1}
    world.check()


@pytest.mark.parametrize("seed", range(30))
def test_a_new_leaf_counts_from_the_marker_on(seed: int) -> None:
    """Also what is forwarded, or moved to another profile, before everything is ready."""
    new = {"segment": "new", "when": {"performed": {"event": "Page Viewed", "count": {"exactly": 6}}}}
    world = World((RECENT,), seed)
    world.send(TAB)
    world.send(ANN, TAB)
    world.rest(SECOND)
    generation = world.define((RECENT, new))
    world.mark(generation, SECOND)
    world.send(TAB, at=2 * SECOND)
    world.send(ANN, at=2 * SECOND)
    world.work(seed % 9)
    world.send(PHONE, at=3 * SECOND)
    world.send(ANN, PHONE, at=3 * SECOND)
    world.rest(MINUTE)
    assert world.members("new") == {id_of(ANN)}
    assert {one.cause for one in world.segment_changes("new")} <= {"backfill", "event", "merge"}
    world.check()


def test_a_sweep_takes_many_profiles_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.unify import generations

    monkeypatch.setattr(generations, "PROFILES_PER_SWEEP", 7)
    world = World((RECENT,), 5)
    for number in range(60):
        world.send(f"user_id:u{number}", at=number)
    world.rest(SECOND)
    world.mark(world.define((THREE_VISITS, QUIET)), MINUTE)
    world.rest(2 * MINUTE)
    assert world.members("recent") == set()
    assert sum(b'"sweep"' in one for one in world.said["links"]) > 8
    world.rest(2 * HOUR)
    assert len(world.members("quiet")) == 60
    world.check()


@pytest.mark.parametrize("seed", range(4))
def test_very_many_deadlines_at_one_instant_are_settled_in_steps(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.unify import stage

    monkeypatch.setattr(stage, "PROFILES_PER_TICK", 9)
    world = World((RECENT,), seed)
    for number in range(100):
        world.send(f"user_id:u{number}", at=5)
    world.rest(2 * HOUR)
    exits = [one.at for one in world.segment_changes("recent") if one.change == "exited"]
    assert exits == [NOON + 5 + HOUR] * 100
    assert sum(b'"tick"' in one for one in world.said["links"]) >= 11
    world.check()


def test_a_tick_settles_as_many_as_let_the_next_one_be_in_time() -> None:
    world = World((RECENT,), partitions=1)
    for number in range(500):
        world.send(f"user_id:u{number}", at=5)
    world.work()
    stage, state, _ = world.tasks[1]

    def after(tick: Tick) -> tuple[int, Tick]:
        out = _Out()
        stage.step(Record("links", 0, 0, None, encode(tick), NOON), state, out)
        exits = sum(b'"exited"' in value for topic, _, value, _ in out.logged if topic == "segment-changes")
        (following,) = [value for topic, _, value, _ in out.logged if topic == "links"]
        return exits, msgspec.json.decode(following, type=Tick)

    clock = NOON + 2 * HOUR
    assert after(Tick(clock)) == (100, Tick(clock, 100, NOON)), "nothing is known yet of how long it takes"
    assert after(Tick(clock, 100, NOON - 20)) == (100, Tick(clock, 112, NOON))
    assert after(Tick(clock, 200, NOON - 60)) == (200, Tick(clock, 150, NOON))


@pytest.mark.parametrize(
    ("most", "took_ms", "following"),
    [
        (100, 25, 100),
        (100, 1, 150),
        (100, 9_000, 100),
        (900, 1, 1_000),
        (900, 9_000, 675),
        (1, 9_000, 1),
        (300, -5, 300),
    ],
)
def test_how_many_the_next_tick_settles(most: int, took_ms: int, following: int) -> None:
    assert most_of_next(most, took_ms) == following


def test_ticks_that_go_on_and_sweeps_can_wait_and_nothing_else() -> None:
    stage = World((RECENT,), partitions=1).tasks[1][0]

    def can_wait(value: bytes | None) -> bool:
        return stage.can_wait(Record("links", 0, 0, None, value, NOON))

    assert can_wait(encode(Tick(NOON, 100, NOON - 60)))
    assert can_wait(encode(Sweep(1, NOON)))
    assert not can_wait(encode(Tick(NOON))), "the first one is short"
    assert not can_wait(encode(Expired(identifier='x","most":1', received=1, clock=NOON)))
    assert not can_wait(None)


def test_case_35_nothing_fires_by_the_wall_clock_before_the_past_has_been_read() -> None:
    world = World((NOT_BOUGHT, QUIET), partitions=1)
    world.send(ANN)
    world.work()
    world._wake(NOON + 5 * HOUR)
    world.work()
    assert world.members("quiet") == set(), "nobody has said that the sources were read to their end"
    world.send(ANN, at=HOUR - 1)
    world.work()
    world.rest(HOUR + 1)
    assert world.members("quiet") == set()
    world.rest(3 * HOUR)
    assert world.members("quiet") == {id_of(ANN)}
    assert world.segment_changes("quiet")[0].at == NOON + 2 * HOUR - 1
    world.check()


# ---------------------------------------------------------------------------------------------------------- deliveries


def test_deliveries_leave_with_the_change() -> None:
    crm = Destination("crm", "webhook", mode="audience", segments=None, traits=("plan",))
    cdp = Destination("mirror", "webhook", mode="audience", profile_sections=frozenset({"traits"}), events=("Login",))
    world = World((RECENT,), partitions=1, activation=ActivationPlan((crm, cdp)))
    world.send(ANN, traits={"plan": "pro"})
    world.send(ANN, event="Login", at=SECOND)
    world.rest(2 * HOUR)
    to_crm = [msgspec.json.decode(one, type=Delivery) for one in world.said["deliveries.crm"]]
    assert [(one.action, one.at) for one in to_crm] == [("segment_entered", NOON), ("segment_exited", NOON + HOUR)]
    assert to_crm[0].body["traits"] == {"plan": "pro"}
    mirrored = [msgspec.json.decode(one, type=Delivery) for one in world.said["deliveries.mirror"]]
    assert [one.action for one in mirrored] == ["profile_changed", "event"]


def asked(world: World) -> dict[str, list[tuple[str, set[str], set[str]]]]:
    """By destination: of which profile it was asked to delete what, under which identifiers and profile_ids."""
    found: dict[str, list[tuple[str, set[str], set[str]]]] = {}
    for topic in [topic for topic in world.said if topic.startswith("deliveries.")]:
        told = [msgspec.json.decode(one, type=Delivery) for one in world.said[topic]]
        erased = [one for one in told if one.action == "profile_erased"]
        for one in erased:
            assert one == [each for each in told if each.profile_id == one.profile_id][-1], "nothing comes after it"
            names = {f"{pair.namespace}:{pair.value}" for pair in one.identifiers}
            found.setdefault(one.destination, []).append((one.profile_id, names, set(one.body["profile_ids"])))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_who_may_hold_an_erased_person_is_asked_to_delete_and_nobody_else(seed: int) -> None:
    destinations = (
        Destination("visitors", "webhook", segments=frozenset({"recent"})),
        Destination("audience", "webhook", mode="audience", segments=frozenset({"recent"})),
        Destination("buyers", "webhook", mode="audience", segments=frozenset({"never_entered"})),
        Destination("mirror", "webhook", profile_sections=frozenset({"traits"})),
        Destination("views", "webhook", events=("Page Viewed",)),
        Destination("orders", "webhook", events=("Order Completed",)),
        Destination("sellers", "webhook", entity="account", segments=None, profile_sections=frozenset()),
        Destination("consented", "webhook", mode="audience", segments=None, events=("*",), purposes=("mail",)),
    )
    world = World((RECENT,), seed, activation=ActivationPlan(destinations))
    world.send(TAB, at=0)
    world.rest(SECOND)
    world.send(ANN, TAB, at=2 * SECOND)
    world.send(BOB, at=2 * SECOND)
    world.rest(2 * HOUR)
    world.operate(EraseRequest(ANN, NOON + 2 * HOUR, "r1"))
    world.rest(3 * HOUR)
    everything = (id_of(ANN), {ANN, TAB}, {id_of(ANN), id_of(TAB)})
    found = asked(world)
    assert found.keys() == {"visitors", "audience", "mirror", "views"}
    assert found["mirror"] == found["views"] == found["visitors"] == [everything]
    # The tab was a member by itself, before the login: under that name it was known there too.
    assert sorted(found["audience"]) == sorted([everything, (id_of(TAB), {TAB}, {id_of(TAB)})])


def test_a_consent_that_was_withdrawn_says_that_it_was_given_once() -> None:
    consented = Destination("consented", "webhook", mode="audience", segments=None, purposes=("mail",))
    world = World((RECENT,), partitions=1, activation=ActivationPlan((consented,)))
    world.send(ANN, context={"consent": {"mail": "denied"}})
    world.send(BOB)
    world.rest(MINUTE)
    for who in (ANN, BOB):
        world.operate(EraseRequest(who, NOON + MINUTE, "r1"))
    world.rest(2 * MINUTE)
    assert [one[0] for one in asked(world)["consented"]] == [id_of(ANN)]


def test_an_erasure_names_the_person_as_the_destination_knows_them_and_no_further() -> None:
    hashed = Destination("hashed", "webhook", segments=None, transforms=(("identifiers.user_id", "sha256"),))
    unnamed = Destination("unnamed", "webhook", segments=None, transforms=(("identifiers.user_id", "drop"),))
    world = World((RECENT,), partitions=1, activation=ActivationPlan((hashed, unnamed)))
    world.send(ANN, TAB)
    world.rest(MINUTE)
    world.operate(EraseRequest(ANN, NOON + MINUTE, "r1"))
    world.rest(2 * MINUTE)
    known = "user_id:" + sha256(ANN.partition(":")[2].encode()).hexdigest()
    found = {name: names for name, [(_, names, ids)] in asked(world).items() if ids == {id_of(ANN), id_of(TAB)}}
    assert found == {"hashed": {known, TAB}, "unnamed": {TAB}}


def test_a_person_of_very_many_names_is_asked_about_in_parts() -> None:
    mirror = Destination("mirror", "webhook", profile_sections=frozenset({"traits"}))
    world = World((), partitions=1, activation=ActivationPlan((mirror,)))
    tabs = [f"anonymous_id:t{number}" for number in range(450)]
    for tab in tabs:
        world.send(ANN, tab)
    world.rest(MINUTE)
    world.operate(EraseRequest(ANN, NOON + MINUTE, "r1"))
    world.rest(2 * MINUTE)
    parts = [msgspec.json.decode(one, type=Delivery) for one in world.said["deliveries.mirror"]]
    parts = [one for one in parts if one.action == "profile_erased"]
    assert [one.body["last"] for one in parts] == [False, False, True]
    names = [f"{pair.namespace}:{pair.value}" for one in parts for pair in one.identifiers]
    assert sorted(names) == sorted([ANN, *tabs]) and len({one.delivery_id for one in parts}) == 3
