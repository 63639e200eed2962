"""Rules on a fixture of events, of people and of accounts: what they say is what the oracle says of the same events."""

import pytest

from pipeline.accounts import GROUPS_ONLY, identifier_of
from pipeline.records import Event
from pipeline.segments import people_of
from pipeline.unify.fixture import run_with_accounts
from tests.oracle.accounts import AccountWorld
from tests.oracle.profiles import ExpectedProfile, accept
from tests.rooms.segments.helpers import plan_of
from tests.simulation.accounts import put_accounts, room_rules
from tests.simulation.definitions import make_segments
from tests.simulation.wiring import compile_segments
from tests.simulation.world import Rest, Send, make_world

NOW = 1_750_000_000_000


def worlds_with_accounts(first: int, number: int) -> list[int]:
    found = []
    seed = first
    while len(found) < number:
        world = make_world(seed, make_segments, put_accounts)
        if world.accounts is not None and world.segments:
            found.append(seed)
        seed += 1
    return found


@pytest.mark.parametrize("seed", worlds_with_accounts(5_000, 60))
def test_a_fixture_says_what_the_oracle_says(seed: int) -> None:
    world = make_world(seed, make_segments, put_accounts)
    assert world.accounts is not None
    sent = [arrival.event for arrival in world.arrivals if isinstance(arrival, Send)]
    events = accept([sorted(sent, key=lambda event: event.received)]).events
    instants = sorted({arrival.now for arrival in world.arrivals if isinstance(arrival, Rest)})
    plan = compile_segments(world.segments)
    result = run_with_accounts(plan, room_rules(world.accounts), events, instants)
    name_of = people_of(events)
    for now in instants:
        people: dict[str, ExpectedProfile] = {}
        for name in set(name_of.values()):
            own = [event for event in events if name_of[event.identifiers[0]] == name and event.received <= now]
            if not own:
                # Nothing was heard of them yet: there is nobody.
                assert name not in result.members[now]
                continue
            known = {one for event in own for one in event.identifiers}
            people[name] = ExpectedProfile(name, known, events=own)
        due = AccountWorld(people, world.segments, world.accounts, identifier_of, now)
        for definition in world.segments:
            if "segment" in definition:
                members = {one for one, held in result.members[now].items() if definition["segment"] in held}
                assert members == due.members(definition), (now, definition)


PEOPLE_AND_ACCOUNTS = """
segment: quiet
when: {not: {performed: {event: Bought}}}
---
segment: without_a_payer
when: {not: {account: {trait: {plan: paid}}}}
---
segment: nobody_bought
entity: account
when: {members: {match: {in_segment: quiet}, all: true}}
"""


def test_who_was_not_heard_of_yet_is_in_nothing_and_enters_with_their_first_event() -> None:
    plan = plan_of(PEOPLE_AND_ACCOUNTS)
    events = [
        Event("1", "group", "Group", ["user_id:ada"], NOW, NOW, group_id="acme", properties={"plan": "paid"}),
        Event("2", "track", "Bought", ["user_id:bob"], NOW + 5, NOW + 5),
        Event("3", "group", "Group", ["user_id:bob"], NOW + 6, NOW + 6, group_id="acme"),
    ]
    result = run_with_accounts(plan, GROUPS_ONLY, events, (NOW - 1, NOW, NOW + 5, NOW + 6))
    assert result.members[NOW - 1] == {}
    assert result.members[NOW] == {"user_id:ada": {"quiet"}, "account:acme": {"nobody_bought"}}
    assert result.members[NOW + 5]["user_id:bob"] == {"without_a_payer"}
    assert [(one.at - NOW, one.profile, one.segment, one.entered) for one in result.changes] == [
        (0, "user_id:ada", "quiet", True),
        (0, "account:acme", "nobody_bought", True),
        (5, "user_id:bob", "without_a_payer", True),
        (6, "account:acme", "nobody_bought", False),
        (6, "user_id:bob", "without_a_payer", False),
    ]


def test_what_a_late_event_changes_of_people_and_accounts_changed_when_it_happened() -> None:
    plan = plan_of(PEOPLE_AND_ACCOUNTS)
    events = [
        Event("1", "group", "Group", ["user_id:ada"], NOW - 5, NOW, group_id="acme", properties={"plan": "paid"}),
        Event("2", "track", "Bought", ["user_id:ada"], NOW + 4, NOW + 9),
    ]
    result = run_with_accounts(plan, GROUPS_ONLY, events, [NOW + 20])
    assert [(one.at - NOW, one.profile, one.segment, one.entered) for one in result.changes] == [
        (-5, "user_id:ada", "quiet", True),
        (-5, "account:acme", "nobody_bought", True),
        (4, "user_id:ada", "quiet", False),
        (4, "account:acme", "nobody_bought", False),
    ]
