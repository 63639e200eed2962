"""What a token may not see is nowhere: in no answer, no stream, no list of links, no size of what somebody is in."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.api.access import SCOPES, Hidden, Token, hashed
from pipeline.api.app import operations
from pipeline.api.trace import Effects
from pipeline.contracts import Contract, ContractsPlan, EventContract, LabelledField
from pipeline.deliver.health import Health, health_file
from pipeline.errors import BrokerError
from pipeline.identifiers import Keys
from pipeline.letters import Letter
from pipeline.records import (
    AccountAlert,
    Cause,
    DeadLetter,
    Definition,
    Event,
    Generation,
    IdentifierPair,
    IdentityPointer,
    Membership,
    ProfileDocument,
    Total,
    UnfollowedLink,
    encode,
)
from tests.rooms.api.harness import ADA, World, body, changed, enter, event
from tests.rooms.api.test_operating import pass_time
from tests.rooms.api.test_streams import next_event, opened

SECRET = "Zanthia"  # stands in everything that is hidden, and nowhere else


def hiding(world: World, *hide: str, labels: Iterable[str] = ()) -> None:
    """Put the token `part` into force, which may do everything but sees nothing of these."""
    tokens = [
        Token(name="all", sha256=hashed("all"), scopes=SCOPES),  # type: ignore[arg-type]
        Token(name="part", sha256=hashed("part"), scopes=SCOPES, hide=hide, hide_labels=tuple(labels)),  # type: ignore[arg-type]
    ]
    world.service.access.replace(tokens)


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(tmp_path)
    for name in ("vip", "buyers"):
        found.segment(name)
    pairs = [IdentifierPair("user_id", "42"), IdentifierPair("email", f"{SECRET}@example.org")]
    document = ProfileDocument(
        ADA, "person", pairs, 2, {"plan": "pro", "phone": SECRET}, {"preferred_channel": SECRET, "last_card": SECRET},
        totals={"Order Completed": Total(3, 1_000, 2_000)},
        segments={"vip": Membership(1_000, 1, 1), "buyers": Membership(1_000, 1, 1)},
        unfollowed=[UnfollowedLink(pairs[0], IdentifierPair("email", f"{SECRET}2@example.org"), "conflict", 1_000)],
    )  # fmt: skip
    pointers = [
        found.record("identities", f"{one.namespace}:{one.value}", encode(IdentityPointer(ADA, 1))) for one in pairs
    ]
    seen = event(found, "user_id:42", 5, "Order Completed", card=SECRET)
    whole = found.record("profiles", ADA, encode(document))
    found.follower.read([whole, *pointers, seen, *enter(found, "vip", ADA), *enter(found, "buyers", ADA)])
    return found


HIDE = ("identifiers.email", "traits.phone", "computed.preferred_channel", "computed.last_card", "properties.card")


def test_no_operation_shows_what_is_hidden(world: World) -> None:
    hiding(world, *HIDE)
    asked = 0
    for one in operations(world.service):
        if one.method != "GET" or one.path.endswith("/stream"):
            continue
        path = one.path.replace("{profile}", "user_id:42").replace("{segment}", "vip")
        if "{" in path or one.name in ("getWhy", "getOverlap", "getOperations", "listDeadLetters"):
            continue
        assert SECRET not in world.ask(path, "part").text, one.name
        asked += 1
    for path in ("profiles/user_id:42/why?segment=vip", "overlap?of=vip,buyers", "segments/vip/members?fields=traits"):
        assert SECRET not in world.ask(f"/v1/{path}", "part").text
    assert asked > 12 and SECRET in world.ask("/v1/profiles/user_id:42").text
    unfollowed = body(world.ask("/v1/profiles/user_id:42"))["unfollowed"]
    assert unfollowed and not body(world.ask("/v1/profiles/user_id:42", "part"))["unfollowed"]


def test_what_a_destination_answered_is_told_in_brief_to_whom_something_is_hidden(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding(world, *HIDE)
    said = f"HTTP 400: {SECRET}@example.org is no address"
    definition = Definition("destination", "crm", 1, {"destination": "crm", "kind": "file", "path": "x"})
    world.catalog.add(b"destination/crm/1", encode(definition))
    number = world.catalog.latest.number + 1
    world.catalog.add(b"generation/crm", encode(Generation(number, {"destination/crm": 1})))
    letters = [
        Letter(0, 1, DeadLetter("refused", said, "deliveries.crm", 0, 1, 5, stage="deliver")),
        Letter(0, 2, DeadLetter("not_json", "It is no JSON: it ends in the middle.", "raw", 0, 2, 6)),
    ]
    world.kafka.new_letters = letters
    world.kafka.members = {"deliver-crm": 1}
    health_file(tmp_path, "0")(Health("crm", False, 7, said))
    pass_time(world, 10, **{"deliver-crm": (1, 1)})
    monkeypatch.setattr("pipeline.api.operating.named", lambda *_: letters[:1])
    for path in ("operations", "dead-letters", "dead-letters/0/1"):
        whole, part = (world.ask(f"/v1/{path}", token).text for token in ("all", "part"))
        assert said in whole and SECRET not in part and "HTTP 400" in part, path
    assert "ends in the middle" in world.ask("/v1/dead-letters", "part").text

    told = Effects([], [], [{"destination": "crm", "segment": None, "why": f"refused: {said}"}], True)
    monkeypatch.setattr("pipeline.api.tracing.effects", lambda *_: told)
    monkeypatch.setattr("pipeline.api.tracing.event_at", lambda *_: Event("m", "track", "Seen", ["user_id:42"], 1, 1))
    monkeypatch.setattr("pipeline.api.tracing.raw_of", lambda *_: None)
    whole, part = (world.ask("/v1/events/0/0", token).text for token in ("all", "part"))
    assert said in whole and SECRET not in part and "refused: HTTP 400" in part


def test_who_sees_no_identifiers_sees_none_of_a_link_either(world: World) -> None:
    hiding(world, "identifiers")
    for path in ("", "/provenance", "/events", "/support"):
        answer = world.ask(f"/v1/profiles/user_id:42{path}", "part")
        assert answer.status_code == 200, path
        assert not any(word in answer.text for word in ("user_id", "email", "@")), path


def test_the_view_of_an_agent_counts_nothing_that_is_hidden(world: World) -> None:
    hiding(world, "totals", "computed", "context")
    view = body(world.ask("/v1/profiles/user_id:42/support", "part"))
    assert view["orders"]["count"] == 0 and view["orders"]["last"] is None and view["preferred_channel"] is None
    assert body(world.ask("/v1/profiles/user_id:42/support"))["orders"]["count"] == 3


@pytest.mark.parametrize("hide", ["segments.vip", "segments"])
def test_who_is_in_a_hidden_segment_is_told_nowhere(world: World, hide: str) -> None:
    hiding(world, hide)
    for path in (
        "segments/vip/members",
        "segments/vip/stream",
        "overlap?of=buyers,vip",
        "ranking?segment=vip",
        "ranking?without=vip",
        "profiles/user_id:42/why?segment=vip",
    ):
        assert world.ask(f"/v1/{path}", "part").status_code == 403, path
    for path in ("profiles/user_id:42", "profiles/user_id:42/segments", "profiles/user_id:42/support"):
        assert "vip" not in world.ask(f"/v1/{path}", "part").text, path
    tried = world.ask("/v1/preview", "part", "POST", content=b"segment: s\nwhen: {all: []}\n")
    assert tried.status_code == 200 and "vip" not in tried.text
    alert = AccountAlert("a", "a", "acme", ADA, "", "vip", 1, 1, 1, 1, "event", Cause("m", 0, 1))
    world.follower.read([world.record("account-alerts", ADA, encode(alert))])
    assert body(world.ask("/v1/alerts", "part"))["alerts"] == [] and body(world.ask("/v1/alerts"))["alerts"]


@pytest.mark.parametrize("of_the_event", [True, False])
def test_what_is_labelled_in_a_group_event_is_hidden_where_it_is_the_trait_of_an_account(
    world: World, of_the_event: bool
) -> None:
    traits = {"budget": SECRET, "plan": "pro"}
    account = ProfileDocument(
        Keys(b"s").profile_id("account:acme"), "account", [IdentifierPair("account", "acme")], 1, traits
    )
    alert = AccountAlert(
        "a", "a", "acme", account.profile_id, SECRET, "buyers", 1, 1, 1, 1, "event", Cause("m", 0, 1), "", traits
    )
    world.follower.read(
        [
            world.record("profiles", account.profile_id, encode(account)),
            world.record("account-alerts", account.profile_id, encode(alert)),
        ]
    )
    finance = frozenset({"finance"})
    fields = () if of_the_event else (LabelledField("properties", ("budget",), finance),)
    fields += () if of_the_event else (LabelledField("properties", ("owner",), finance),)
    planned = {"properties": frozenset({"budget", "owner"})}
    contract = EventContract(
        "Group", "shop/1", None, "flag", "allow", planned, finance if of_the_event else frozenset(), fields=fields
    )
    hiding(world, labels=["finance"])
    world.service.access.look_at_contracts(ContractsPlan((Contract("shop", 1, None, "allow", {"Group": contract}),)))
    for path in ("profiles/account:acme", "accounts", "accounts/acme", "alerts", "accounts/acme/alerts"):
        assert SECRET in world.ask(f"/v1/{path}").text, path
        assert SECRET not in world.ask(f"/v1/{path}", "part").text, path
    assert world.ask("/v1/ranking?trait=budget", "part").status_code == 403


def test_streams_hide_segments_and_go_by_the_labels_of_now(world: World) -> None:
    async def play() -> None:
        hiding(world, "segments.vip", labels=["pii"])
        world.service.begin()
        world.follower.read([])
        await asyncio.sleep(0)
        stream = await opened(world, "profile/user_id:42", token="part")
        await next_event(stream)
        fields = (LabelledField("traits", ("phone",), frozenset({"pii"})),)
        contract = EventContract("Identify", "shop/1", None, "flag", "allow", {}, fields=fields)
        contracts = ContractsPlan((Contract("shop", 1, None, "allow", {"Identify": contract}),))
        world.service.access.look_at_contracts(contracts)
        world.follower.read([*enter(world, "vip", ADA, 2), changed(world, ADA, (0, 1))])
        _, told = await next_event(stream)
        assert told["set"] == {"traits": {"plan": "pro"}}  # the membership was passed over, the trait left out
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(play())


def test_labels_hide_from_the_first_answer_on(world: World) -> None:
    async def play() -> None:
        hiding(world, labels=["pii"])
        fields = (LabelledField("traits", ("phone",), frozenset({"pii"})),)
        contract = EventContract("Identify", "shop/1", None, "flag", "allow", {}, fields=fields)
        world.service._plan.contracts = ContractsPlan((Contract("shop", 1, None, "allow", {"Identify": contract}),))  # type: ignore[misc]
        world.service.begin()
        async with world.client("part") as client:
            assert "phone" not in (await client.get("/v1/profiles/user_id:42")).text

    asyncio.run(play())


def test_labels_of_definitions_that_come_into_force_later_hide_too_and_stay_while_no_kafka_answers(
    world: World,
) -> None:
    hiding(world, labels=["pii"])
    world.service.look_at_definitions()
    assert "phone" in world.ask("/v1/profiles/user_id:42", "part").text
    fields = (LabelledField("traits", ("phone",), frozenset({"pii"})),)
    contract = EventContract("Identify", "shop/1", None, "flag", "allow", {}, fields=fields)
    plan = world.service.plans.latest()
    plan.contracts = ContractsPlan((Contract("shop", 1, None, "allow", {"Identify": contract}),))  # type: ignore[misc]
    answers: list[Any] = [plan, BrokerError("It is away."), BrokerError("It is away.")]

    def latest() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.service.plans.latest = latest  # type: ignore[method-assign]
    for _ in range(3):
        asyncio.run(world.service.follow_definitions())
        assert "phone" not in world.ask("/v1/profiles/user_id:42", "part").text


def test_nobody_finds_out_a_hidden_trait_by_ranking_accounts_by_it(world: World) -> None:
    for hide in ("traits.plan", "traits"):
        hiding(world, hide)
        assert world.ask("/v1/ranking?trait=plan&among=pro", "part").status_code == 403
        assert world.ask("/v1/ranking?trait=plan&among=pro").status_code == 200


def test_what_is_computed_from_labelled_data_carries_the_label(world: World) -> None:
    hiding(world, labels=["sensitive"])
    assert body(world.ask("/v1/profiles/user_id:42?fields=computed", "part"))["computed"]["last_card"] == SECRET
    world.service.access.look_at_contracts(ContractsPlan(()), {"last_card": frozenset({"sensitive"})})
    shown = body(world.ask("/v1/profiles/user_id:42?fields=computed", "part"))["computed"]
    assert "last_card" not in shown and "preferred_channel" in shown


def test_a_tag_is_of_what_the_caller_sees(world: World) -> None:
    hiding(world, *HIDE)
    whole = world.ask("/v1/profiles/user_id:42").headers["etag"]
    part = world.ask("/v1/profiles/user_id:42", "part", headers={"If-None-Match": whole})
    assert part.status_code == 200 and part.headers["etag"] != whole
    again = world.ask("/v1/profiles/user_id:42", "part", headers={"If-None-Match": part.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert world.ask("/v1/profiles/user_id:42", None, headers={"If-None-Match": whole}).status_code == 401


def test_what_is_unset_is_hidden_by_name_too() -> None:
    hide = Hidden(["traits.phone", "segments.vip", "identifiers.email"])
    change = {
        "unset": {"traits": ["phone", "plan"], "segments": ["vip", "b"]},
        "set": {"unfollowed": [{"identifier": {"namespace": "email", "value": "x"}, "other": "user_id:1"}]},
    }
    assert hide.strip(change) == {"unset": {"traits": ["plan"], "segments": ["b"]}, "set": {"unfollowed": []}}
    assert msgspec.json.encode(change).count(b"phone") == 1  # what was given is left as it was
