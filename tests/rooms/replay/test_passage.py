"""What becomes of a record on its way into another workspace, and in which order."""

import msgspec
import pytest

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, Namespace, builtin_rules
from pipeline.identity.rules import BUILT_IN
from pipeline.records import Event, Relink, Unlink, encode
from pipeline.replay.errors import ReplayError
from pipeline.replay.order import InOrder
from pipeline.replay.passage import (
    Erasure,
    EventGlance,
    LeftOut,
    Passed,
    decision,
    glance,
    passage,
    returned,
    standing_for_all,
    translated,
)
from pipeline.runtime.ports import Record

KEYS = Keys(b"secret")
RULES = builtin_rules()
ANN, TAB, MAIL = "user_id:ann", "anonymous_id:tab", "email:ann+x@x.org"


def event(*identifiers: str, received: int = 100, offset: int = 7) -> tuple[Record, EventGlance]:
    value = encode(Event("m", "track", "Seen", list(identifiers), 90, received, properties={"a": [1]}))
    seen = glance(value)
    assert isinstance(seen, EventGlance)
    return Record("events", 1, offset, KEYS.actor(identifiers[0]), value), seen


def test_under_the_same_rules_an_event_passes_byte_by_byte() -> None:
    record, seen = event(ANN, MAIL, TAB)
    assert passage(record, seen, RULES, KEYS, {}) == Passed(record.key, record.value or b"")


def test_case_other_rules_name_and_route_it_otherwise() -> None:
    rules = IdentityRules(
        {
            **{one.name: one for one in BUILT_IN},
            "email": Namespace("email", 5, normaliser="email", strip_plus_tag=True),
            "user_id": Namespace("user_id", 10, unique=True, blocked=("^ann$",)),
        }
    )
    record, seen = event(ANN, MAIL, TAB)
    passed = passage(record, seen, rules, KEYS, {})
    assert isinstance(passed, Passed) and passed.rerouted
    assert passed.key == KEYS.actor("email:ann@x.org")
    told = msgspec.json.decode(passed.value, type=Event)
    assert told.identifiers == ["email:ann@x.org", TAB]
    assert (told.received, told.properties) == (100, {"a": [1]})
    record, seen = event(ANN)
    refused = passage(record, seen, rules, KEYS, {})
    assert isinstance(refused, LeftOut) and refused.why == "refused"


@pytest.mark.parametrize(
    ("identifiers", "received", "offset", "expected"),
    [
        ((ANN, TAB), 100, 7, "erased"),  # received by then
        ((ANN, TAB), 101, 4, "erased"),  # after it, but its route had seen it before it heard of the erasure
        ((ANN, TAB), 101, 7, [ANN, TAB]),  # she came back
        ((MAIL, ANN), 100, 7, [MAIL]),  # somebody else's event that names her
        ((TAB,), 100, 7, [TAB]),
    ],
)
def test_case_15_what_was_erased_does_not_come_along(
    identifiers: tuple[str, ...], received: int, offset: int, expected: str | list[str]
) -> None:
    erasures = {KEYS.actor(ANN): Erasure(100, partition=1, cut=5)}
    record, seen = event(*identifiers, received=received, offset=offset)
    result = passage(record, seen, RULES, KEYS, erasures)
    if isinstance(result, LeftOut):
        assert result.why == expected
    else:
        assert msgspec.json.decode(result.value, type=Event).identifiers == expected
    back = [text for _, text in returned(seen, KEYS, erasures)]
    assert back == ([ANN] if received > 100 and ANN in identifiers else [])


def test_an_unlink_stands_for_all_that_was_decided_of_the_pair_before() -> None:
    made = Unlink(TAB, 5, MAIL)
    told = translated(made, RULES)
    assert told == made
    assert standing_for_all(made) == (Relink(TAB, 5, MAIL), made)
    assert translated(Unlink("user_id:null", 5), RULES) is None


def test_partitions_are_put_together_by_their_clocks() -> None:
    order: InOrder[str] = InOrder([0, 0, 0])
    for partition, received, name in ((0, 5, "a5"), (0, 3, "a3"), (0, 9, "a9"), (1, 4, "b4"), (2, 5, "c5")):
        order.add(partition, received, name)
    at_end = [False, False, False]
    # b4, then b holds everybody up, for it may have something before the others.
    assert [one.what for one in order.take(10, at_end)] == ["b4"]
    order.add(1, 5, "b5")
    at_end[1] = True
    # A record that was received before another of its partition stands behind it all the same.
    assert [(one.what, one.clock) for one in order.take(10, at_end, until=6)] == [
        ("a5", 5),
        ("a3", 5),
        ("b5", 5),
        ("c5", 5),
    ]
    assert order.next_clock(at_end) is None
    assert order.next_clock([False, True, True]) == 9
    assert [one.what for one in order.take(10, [True, True, True])] == ["a9"]


def test_an_erasure_of_the_first_release_is_refused_with_a_way_on() -> None:
    written = b'{"kind":"erase","identifier":"email:ann@x.org","received":5}'
    with pytest.raises(ReplayError, match="form this one does not read") as refused:
        decision(written)
    assert "ann" not in str(refused.value) and "erase the person in the new workspace" in refused.value.what_to_do
    assert decision(encode(Unlink(ANN, 5, TAB))) == Unlink(ANN, 5, TAB)
