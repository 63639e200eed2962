"""Rules on a fixture of events, of people and of accounts: what they say is what the oracle says of the same events."""

import pytest

from pipeline.accounts import identifier_of
from pipeline.segments import people_of
from pipeline.unify.fixture import run_with_accounts
from tests.oracle.accounts import AccountWorld
from tests.oracle.profiles import ExpectedProfile, accept
from tests.simulation.accounts import put_accounts, room_rules
from tests.simulation.definitions import make_segments
from tests.simulation.wiring import compile_segments
from tests.simulation.world import Rest, Send, make_world


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
            known = {one for event in own for one in event.identifiers}
            people[name] = ExpectedProfile(name, known, events=own)
        due = AccountWorld(people, world.segments, world.accounts, identifier_of, now)
        for definition in world.segments:
            if "segment" in definition:
                members = {one for one, held in result.members[now].items() if definition["segment"] in held}
                assert members == due.members(definition), (now, definition)
