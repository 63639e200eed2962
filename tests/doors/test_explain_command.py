"""`headwater explain`: what it reads from the state is what the holder judges."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from pipeline.accounts import GROUPS_ONLY
from pipeline.activation import (
    ActivationPlan,
    ConsentPolicy,
    DataRules,
    Destination,
    Finding,
    Region,
    Rule,
    Told,
    not_for_it,
)
from pipeline.cli import build
from pipeline.cli import explain as explain_module
from pipeline.cli._deliveries import Reached, findings, history
from pipeline.cli._explained import span
from pipeline.cli._held import HeldTold, held_account, held_profile, held_told
from pipeline.cli.explain import erased_since
from pipeline.deliver.health import Health, noted
from pipeline.errors import InputError, LookupFailed
from pipeline.identifiers import Keys, partition_of
from pipeline.records import DeadLetter, IdentifierPair, ProfileDocument, Suppression, Unlink, encode
from pipeline.runtime.ports import Record
from pipeline.segments import explain
from pipeline.settings import Settings
from tests.rooms.unify.harness import HOUR, KEYS, MINUTE, NOON, World

SEGMENTS = (
    {"segment": "looker", "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 3}, "within": "1h"}}},
    {"segment": "pro", "when": {"trait": {"plan": {"equals": "pro"}}}},
)


def stored(world: World, key: bytes) -> dict[bytes, bytes]:
    """The changelog of the partition of an actor's key, as it would stand on Kafka."""
    stage, state, _ = world.tasks[1 + partition_of(key, world.partitions)]
    return {at: bytes(8) + stage.encode(at, value) for at, value in state.values.items()}


def held(world: World, document: ProfileDocument, keys: Keys = KEYS) -> Any:
    return held_profile(document, lambda key: stored(world, key), keys, world.generations.__getitem__)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_read_is_what_the_holder_has(seed: int) -> None:
    world = World(SEGMENTS, seed)
    for number in range(12):
        world.send(f"anonymous_id:b-{number}", at=number * MINUTE)
        world.send(f"anonymous_id:b-{number}", at=number * MINUTE + 1, traits={"plan": "pro"} if number % 2 else {})
    # Twelve browsers of two people: some have more fragments than an actor's record holds.
    for number in range(12):
        world.send(f"user_id:person-{number // 10}", f"anonymous_id:b-{number}", at=15 * MINUTE + number)
    world.rest(at=20 * MINUTE)
    world.operate(Unlink(a="anonymous_id:b-3", b="user_id:person-0", received=NOON + 20 * MINUTE))
    world.rest(at=21 * MINUTE)
    documents = world.profiles()
    assert len(documents) == 3, "two people, and the browser that was parted from one"
    now_ms = NOON + 21 * MINUTE
    for document in documents.values():
        facts, plan = held(world, document)
        assert plan.generation == 0
        assert {name: total[0] for name, total in facts.totals.items()} == {
            name: total.count for name, total in document.totals.items()
        }
        assert {name: value for name, (_, value) in facts.traits.items()} == document.traits
        for segment in ("looker", "pro"):
            told = explain(plan.segments, facts, now_ms, segment)
            assert told.true is (segment in document.segments)


def test_the_deadline_that_is_told_is_the_one_that_comes() -> None:
    world = World(SEGMENTS)
    for minute in (0, 10, 20):
        world.send("anonymous_id:a", at=minute * MINUTE)
    world.send("user_id:ada", "anonymous_id:a", at=25 * MINUTE)
    world.rest(at=30 * MINUTE)
    facts, plan = held(world, world.profile("user_id:ada"))
    told = explain(plan.segments, facts, NOON + 30 * MINUTE, "looker")
    world.rest(at=3 * HOUR)
    [left] = [change for change in world.segment_changes("looker") if change.cause == "timer"]
    assert told.true and told.changes_at == left.at


def test_state_that_is_not_there_is_an_error_people_can_act_on() -> None:
    world = World(SEGMENTS)
    world.send("user_id:ada")
    world.rest(at=MINUTE)
    document = world.profile("user_id:ada")
    with pytest.raises(LookupFailed, match="was not found"):
        held(world, document, Keys(b"the secret of another workspace"))


@pytest.mark.parametrize(
    ("length_ms", "said"),
    [
        (4_791, "4.791s"),
        (59_999, "59.999s"),
        (60_000, "1m 0s"),
        (3_599_999, "59m 59s"),
        (7_260_000, "2h 1m"),
        (86_400_000 + 3_600_000 * 5, "1d 5h"),
    ],
)
def test_a_length_of_time_in_words(length_ms: int, said: str) -> None:
    assert span(length_ms) == said


# ---------------------------------------------------------------------------------------------------------- deliveries

ASKS = Destination("asks", "webhook", mode="audience", segments=frozenset({"looker"}), purposes=("marketing",))
HOOK = Destination("hook", "webhook", segments=None, changes=frozenset({"entered"}))


ARRIVED = Reached(1_000_000, "")


def explained(
    world: World, who: str, destination: str, segment: str | None = None, reached: Reached = ARRIVED
) -> tuple[list[Any], list[Any]]:
    document = world.profile(who)
    known = held_told(document, lambda key: stored(world, key), KEYS)
    plan = world.generations[known.generation].activation
    changes, topic = world.said.get("segment-changes", []), f"deliveries.{destination}"
    deliveries = [Record(topic, 0, offset, b"k", value) for offset, value in enumerate(world.said.get(topic, []))]
    lines = history(plan, destination, document.profile_id, segment, changes, deliveries, reached)
    return findings(plan, destination, document, known, segment, changes), lines


def test_why_a_delivery_happened_and_why_another_did_not() -> None:
    world = World(SEGMENTS, activation=ActivationPlan((ASKS, HOOK)))
    world.send("user_id:ada", traits={"plan": "pro"}, context={"consent": {"marketing": True}})
    world.send("user_id:bob", at=1)
    for at in (1, 2, 3):
        world.send("user_id:ada", at=at)
        world.send("user_id:bob", at=at)
    world.rest(at=MINUTE)
    found, lines = explained(world, "user_id:ada", "asks", "looker")
    assert [one.favourable for one in found] == [True, True, True]
    assert found[2].words.startswith("they are a member of looker since 2")
    [entry] = lines
    assert entry.delivered and entry.what == "entered looker, cause event" and entry.why.startswith("dlv_")

    world.send("user_id:ada", at=2 * MINUTE, event="Preferences", context={"consent": {"marketing": False}})
    world.rest(at=3 * HOUR)
    found, lines = explained(world, "user_id:ada", "asks")
    assert found == [Finding(False, "they do not allow it: they denied the purpose marketing")]
    assert [(one.what, one.delivered) for one in lines] == [
        ("entered pro, cause event", False),
        ("entered looker, cause event", True),
        ("segment exited looker, cause consent", True),
        ("exited looker, cause timer", False),
    ]
    assert lines[0].why == "it does not take changes of pro: see its `segments`"
    assert lines[1].why.endswith(" (unless they took back what it rests on before it could go out)")
    assert lines[2].why.startswith("dlv_") and lines[2].why.count(" ") == 0
    _, waiting = explained(world, "user_id:ada", "asks", "looker", Reached(0, ""))
    assert [(one.state, one.delivered) for one in waiting] == [
        ("overtaken", False),
        ("waits", False),
        ("not delivered", False),
    ]
    assert lines[3].why.startswith("they did not allow it then")

    found, _ = explained(world, "user_id:bob", "asks", "pro")
    assert [one.words for one in found] == [
        "they do not allow it: the purpose marketing is not granted: they said nothing",
        "it does not take changes of pro: see its `segments`",
        "they were never in pro, as far as the topics still know",
    ]
    found, _ = explained(world, "user_id:bob", "asks", "looker")
    assert found[2].words.startswith("they are no member of looker: they left it at ")
    assert found[2].words.endswith(", cause timer")
    found, lines = explained(world, "user_id:bob", "hook")
    assert found[1].words == "it was told, and not taken back: looker"
    assert [(one.delivered, one.why) for one in lines[1:]] == [(False, "its `changes` have no exited")]


def test_what_became_of_a_delivery() -> None:
    world = World(SEGMENTS, activation=ActivationPlan((HOOK, ASKS)))
    world.send("user_id:ada", traits={"plan": "pro"})
    for at in (1, 2, 3):
        world.send("user_id:ada", at=at)
    world.rest(at=MINUTE)
    letter = encode(DeadLetter("rejected", "HTTP 410 (attempt 1)", "deliveries.hook", 0, 1, NOON))
    another = encode(DeadLetter("rejected", "HTTP 410", "deliveries.hook", 1, 0, NOON))

    def told(position: int, note: str = "", letters: tuple[bytes, ...] = (), paused: bool = False) -> list[Any]:
        _, lines = explained(world, "user_id:ada", "hook", reached=Reached(position, note, letters, paused))
        return [(one.state, one.delivered, one.why) for one in lines]

    arrived = told(2)
    assert [one[:2] for one in arrived] == [("delivered", True)] * 2
    assert all(why.startswith("dlv_") for _, _, why in arrived)
    assert told(1)[1] == ("waits", False, "it waits for its turn")
    assert told(-1)[0][0] == "waits", "nobody has committed anything yet"
    # Beyond the position it is what the note says: done up to 2, but for 0.
    assert [one[0] for one in told(0, "1;2;0")] == ["waits", "delivered"]
    assert told(1, paused=True)[1][2] == "it waits: the destination is paused"
    failing = noted("", Health("hook", False, 1_000, "HTTP 503"))
    assert told(1, failing)[1][2] == "it waits: the destination does not answer as it should (HTTP 503)"
    assert told(2, letters=(another, letter)) == [
        arrived[0],
        ("dead letter", False, "rejected: HTTP 410 (attempt 1); `headwater dead-letters list` has it"),
    ]


def person(consents: dict[str, Any] | None = None, **traits: Any) -> ProfileDocument:
    given = {name: "granted" if said else "denied" for name, said in (consents or {}).items()}
    return ProfileDocument("p1", "person", [IdentifierPair("user_id", "ada")], 1, consents=given, traits=traits)


MAIL = Destination("mail", "webhook", segments=None, purposes=("marketing",), channel="email")
POLICY = ConsentPolicy(
    regions=(Region("eu", frozenset({"DE"})), Region("us", frozenset({"US"}), frozenset({"marketing"}))),
    bases={"fraud": "legitimate_interests"},
)


@pytest.mark.parametrize(
    ("changes", "document", "told", "favourable", "words"),
    [
        ({}, person({"marketing": True}), Told(), True, "they allow it: the purpose marketing, the channel email"),
        ({}, person({"marketing": False}), Told(), False, "they denied the purpose marketing"),
        ({}, person({"marketing": True, "channel:email": False}), Told(), False, "they closed the channel email"),
        ({}, person({"marketing": True, "*": False}), Told(), False, "they said no to everything"),
        ({}, person(), Told(), False, "the strictest default, for nobody knows where they live"),
        ({}, person(country="DE"), Told(), False, "the default of the region eu, by their country"),
        ({}, person(region="eu", country="US"), Told(), False, "the default of the region eu, which they declared"),
        ({}, person(country="US"), Told(), True, "they allow it: the purpose marketing"),
        ({"purposes": ("fraud",)}, person(), Told(), True, "they allow it: the purpose fraud"),
        ({"purposes": ("fraud",)}, person({"fraud": False}), Told(), False, "they denied the purpose fraud"),
        ({"purposes": (), "channel": None}, person(), Told(), True, "it has no purposes and no channel"),
        ({"purposes": (), "channel": None}, person({"*": False}), Told(), False, "they said no to everything"),
        ({"entity": "account"}, person(), Told(), False, "it takes only what is said of an account; this is a person"),
        ({}, person({"marketing": True}), Told(refused=["mail"]), False, "a part of them is on its way"),
        ({}, person({"marketing": True}), Told(heard={"mail": ["vip"]}), True, "told, and not taken back: vip"),
        ({"paused": True}, person({"marketing": True}), Told(), False, "it is paused"),
    ],
)
def test_each_thing_that_decides_about_a_person_is_told(
    changes: dict[str, Any], document: ProfileDocument, told: Told, favourable: bool, words: str
) -> None:
    plan = ActivationPlan((dataclasses.replace(MAIL, **changes),), consent=POLICY)
    found = findings(plan, "mail", document, HeldTold(told, 0, {}), None)
    assert [one for one in found if one.favourable is favourable and words in one.words], found
    if favourable:
        assert all(one.favourable for one in found)


@pytest.mark.parametrize(
    ("rule", "changes", "words"),
    [
        (Rule(frozenset({"pii"})), {}, "what vip looks at is labelled pii, which the destination does not take"),
        (Rule(frozenset({"pii"})), {"labels": frozenset({"pii"})}, ""),
        (Rule(purposes=frozenset({"warranty"})), {}, "may be used for warranty only, and the destination's purpose is"),
        (Rule(purposes=frozenset({"warranty"})), {"purposes": ()}, "only, and the destination names no purpose"),
        (Rule(purposes=frozenset({"marketing"})), {}, ""),
        (Rule(), {"segments": frozenset({"else"})}, "it does not take changes of vip: see its `segments`"),
    ],
)
def test_each_thing_that_decides_about_a_segment_is_told(rule: Rule, changes: dict[str, Any], words: str) -> None:
    plan = ActivationPlan((dataclasses.replace(MAIL, **changes),), data=DataRules(segments={"vip": rule}))
    found = findings(plan, "mail", person({"marketing": True}), HeldTold(Told(), 0, {}), "vip")[-2]
    assert (words in found.words and not found.favourable) if words else found.favourable


def test_whoever_was_erased_is_said_to_be() -> None:
    error = erased_since("user_id:ada", Suppression(NOON, "20270115-4f1d0a9c3e", 7))
    assert "was erased at 20" in str(error) and "until they consent anew" in str(error)
    assert "20270115-4f1d0a9c3e" in error.where and "receipt" in error.what_to_do


def test_where_a_consent_came_from_is_told() -> None:
    world = World(SEGMENTS, activation=ActivationPlan((ASKS,)))
    said = {"marketing": True, "source": "banner", "version": "2026-03", "proof": "tcf:CQ"}
    world.send("user_id:ada", context={"consent": said})
    world.rest(at=MINUTE)
    found, _ = explained(world, "user_id:ada", "asks")
    assert found[1] == Finding(True, "marketing: yes, by source banner, wording 2026-03, proof tcf:CQ")
    world.send("user_id:ada", at=2 * MINUTE, context={"consent": {"marketing": False}})
    world.rest(at=3 * MINUTE)
    found, _ = explained(world, "user_id:ada", "asks")
    assert len(found) == 1, "that was the proof of another word"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cause": "backfill"}, "nothing happened to them just then"),
        ({"at": NOON - 2 * HOUR}, "`max_age`"),
        ({"continues": ["p0"], "cause": "merge"}, "only went on being a member"),
        ({"change": "exited", "moved_to": "p2", "cause": "merge"}, "part of another profile"),
        ({}, ""),
    ],
)
def test_why_a_moment_was_none_for_a_trigger(change: dict[str, Any], why: str) -> None:
    from tests.rooms.activation.test_activation import change as made

    plan = ActivationPlan((Destination("hook", "webhook", segments=None),))
    found = not_for_it(plan, "hook", made(**{"at": NOON, "decided_at": NOON, **change}))
    assert why in found if why else not found


WARM = {
    "segment": "warm",
    "entity": "account",
    "when": {
        "all": [
            {"members": {"match": {"performed": {"event": "Page Viewed", "within": "1h"}}, "at_least": 3}},
            {"performed": {"event": "Page Viewed", "within": "1h", "count": {"at_least": 4}}},
            {"not": {"trait": {"plan": "team"}}},
        ]
    },
}
COLLEAGUE = {"segment": "colleague", "when": {"account": {"in_segment": "warm"}}}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_of_an_account_is_what_it_has(seed: int) -> None:
    world = World((WARM, COLLEAGUE), seed)
    for number in range(6):
        world.send(f"user_id:u-{number}", event="Group", kind="group", group_id="acme", properties={"plan": "free"})
    for number in range(4):
        world.send(f"user_id:u-{number}", at=number * MINUTE)
    world.rest(at=5 * MINUTE)
    now_ms = NOON + 5 * MINUTE
    document = world.profile("account:acme")
    facts, plan = held_account(document, lambda key: stored(world, key), KEYS, world.generations.__getitem__)
    assert plan.segments.accounts is not None
    told = explain(plan.segments.accounts, facts, now_ms, "warm")
    assert told.true and "warm" in document.segments
    [members, views, _] = told.parts[0].parts
    assert (members.value, members.true) == (4, True)
    assert views.changes_at == NOON + HOUR, "when the first of four views is an hour old"
    later = explain(plan.segments.accounts, facts, NOON + HOUR, "warm")
    assert not later.true
    asked, _ = held(world, world.profile("user_id:u-5"))
    assert explain(plan.segments, asked, now_ms, "colleague").true
    nobody = ProfileDocument(document.profile_id, "account", [IdentifierPair("account", "zoo")], 1)
    with pytest.raises(LookupFailed, match="was not found"):
        held_account(nobody, lambda key: stored(world, key), KEYS, world.generations.__getitem__)


def test_nobody_is_held_against_an_instant_before_what_was_read_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever left while it was read would be said to be still in by the rule, and to be no member."""
    clock_ms = [1_000]
    judged: list[int] = []

    def read(*_: object) -> Any:
        clock_ms[0] += 5_000
        return SimpleNamespace(entity="person", segments={}), SimpleNamespace(segments=SimpleNamespace())

    plan = SimpleNamespace(segments=SimpleNamespace(of_segment=lambda _: None), identity=None, accounts=GROUPS_ONLY)
    monkeypatch.setattr(
        explain_module, "find_kafka", lambda _: Settings(bootstrap_servers="k:9092", secret=SecretStr("s" * 32))
    )
    monkeypatch.setattr(explain_module, "KafkaPlans", lambda _: SimpleNamespace(latest=lambda: plan))
    monkeypatch.setattr(explain_module, "refuse_other_partitions", lambda _: None)
    monkeypatch.setattr(explain_module, "identifier_or_profile", lambda wanted, _: wanted)
    monkeypatch.setattr(explain_module, "_found", lambda *_: read()[0])
    monkeypatch.setattr(explain_module, "held_profile", lambda *_: (None, plan) if read() else None)
    monkeypatch.setattr(explain_module, "_see_that_it_is_in_force", lambda *_: None)
    monkeypatch.setattr(explain_module.audit, "note", lambda *_: None)
    monkeypatch.setattr(explain_module.time, "time_ns", lambda: clock_ms[0] * 1_000_000)

    def explained_at(_: object, __: object, now_ms: int, ___: str) -> Any:
        judged.append(now_ms)
        raise InputError("seen", "", "")

    monkeypatch.setattr(explain_module, "explain_rule", explained_at)
    for words in ((), ("--at", "1970-01-01T00:00:07Z")):
        with pytest.raises(InputError, match="seen"):
            CliRunner().invoke(
                build(["explain"]), ["explain", "user_id:ada", "curious", *words], catch_exceptions=False
            )
    assert judged == [11_000, 7_000]
