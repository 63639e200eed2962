"""Fragments: every field joins associatively and commutatively, and folding is joining with one event more."""

import itertools
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.at_rest import awakened
from pipeline.profile import (
    RECENT_EVENTS,
    Fragment,
    decode_fragment,
    encode_fragment,
    events_in,
    fold,
    is_empty,
    join,
    join_all,
    pieces,
    proof_of,
)
from pipeline.records import Event

NOON = 1_700_000_000_000


def join_sets(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Leaves that are sorted lists of numbers."""
    return {
        name: sorted(awakened(one.get(name, [])) + awakened(other.get(name, [])))
        for name in sorted(one.keys() | other.keys())
    }


HASH, PLACE = bytes(8), bytes(12)


def happened(number: int, time: int = 0, name: str = "Page Viewed", **fields: Any) -> Event:
    return Event(
        message_id=f"m{number}",
        type="track",
        event=name,
        identifiers=["user_id:ann"],
        time=NOON + time,
        received=NOON + max(time, 0) + 5,
        **fields,
    )


def folded(*events: Event) -> Fragment:
    fragment = Fragment()
    for event in events:
        fold(fragment, event, f"{event.message_id:8}"[:8].encode(), PLACE)
        fragment.leaves.setdefault(event.event, []).append(event.time)
        fragment.leaves[event.event].sort()
    return fragment


def plain(fragment: Fragment) -> Any:
    """A fragment without the order in which its names came, and with its leaves awake."""
    leaves = {name: awakened(state) for name, state in fragment.leaves.items()}
    shown = msgspec.structs.replace(fragment, leaves=leaves)
    return msgspec.json.decode(msgspec.json.Encoder(order="deterministic").encode(shown))


values = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["a", "b", 1.0, 2.5]), st.just([1]))
events = st.lists(
    st.builds(
        lambda number, time, name, traits, consents: happened(
            number, time, name, traits=traits, context={"consent": consents} if consents else {}
        ),
        st.integers(0, 10_000),
        st.integers(-5, 5),
        st.sampled_from(["Page Viewed", "Order Completed"]),
        st.dictionaries(st.sampled_from(["plan", "city"]), values, max_size=2),
        st.dictionaries(st.sampled_from(["marketing", "ads"]), st.booleans(), max_size=2),
    ),
    max_size=14,
)


@given(events, st.randoms(use_true_random=False))
def test_any_order_and_any_grouping_give_the_same_fragment(history: list[Event], rng: random.Random) -> None:
    expected = plain(folded(*history))
    shuffled = list(history)
    rng.shuffle(shuffled)
    assert plain(folded(*shuffled)) == expected
    parts = [Fragment() for _ in range(3)]
    groups: list[list[Event]] = [[], [], []]
    for event in shuffled:
        groups[rng.randrange(3)].append(event)
    parts = [folded(*group) for group in groups]
    rng.shuffle(parts)
    one, two, three = parts
    assert plain(join(join(one, two, join_sets), three, join_sets)) == expected
    assert plain(join(one, join(three, two, join_sets), join_sets)) == expected
    assert plain(join_all(parts, join_sets)) == expected


@given(events, events)
def test_taking_a_fragment_out_is_joining_the_rest(ours: list[Event], theirs: list[Event]) -> None:
    rest, gone = folded(*ours), folded(*theirs)
    before = plain(rest)
    join(rest, gone, join_sets)
    assert plain(join_all([rest], join_sets)) == before


@given(events)
def test_the_stored_form_gives_the_fragment_back(history: list[Event]) -> None:
    fragment = folded(*history)
    assert decode_fragment(encode_fragment(fragment)) == fragment
    assert is_empty(fragment) is not bool(history)
    assert events_in(fragment) == len(history)


@given(events, st.integers(80, 600))
def test_case_16_the_pieces_of_a_large_fragment_add_up_to_it(history: list[Event], most_bytes: int) -> None:
    fragment = folded(*history)
    parts = [decode_fragment(piece) for piece in pieces(fragment, most_bytes)]
    assert not history or not any(map(is_empty, parts)), "a piece that travels alone must not pass for nothing"
    assert plain(join_all(parts, join_sets)) == plain(fragment)
    assert sum(map(events_in, parts)) == len(history)


def test_case_16_no_piece_is_larger_than_asked_for_unless_one_entry_is() -> None:
    fragment = folded(*(happened(n, n, f"event {n}", traits={f"trait {n}": "x" * 50}) for n in range(200)))
    found = pieces(fragment, 2_000)
    assert len(found) > 5
    assert max(map(len, found)) <= 2_000 + 100


def test_joining_shares_nothing_that_folding_changes() -> None:
    one, other = folded(happened(1)), folded(happened(2, name="Order Completed"))
    joined = join(one, other, join_sets)
    before = plain(joined)
    fold(one, happened(3, 9), HASH, PLACE)
    fold(other, happened(4, 9, "Order Completed"), HASH, PLACE)
    assert plain(joined) == before


@pytest.mark.parametrize(
    ("first", "second", "wins"),
    [
        ("free", "pro", "pro"),
        ("pro", "free", "pro"),
        (1, 1.0, 1.0),
        (None, "pro", None),
        (True, 1, True),
        ([2], [1], [2]),
    ],
)
def test_case_41_of_two_values_with_the_same_time_the_greater_wins_in_any_order(
    first: Any, second: Any, wins: Any
) -> None:
    for values_in_order in ((first, second), (second, first)):
        fragment = folded(*(happened(n, traits={"plan": value}) for n, value in enumerate(values_in_order)))
        value = fragment.traits["plan"][1]
        assert (type(value), value) == (type(wins), wins)


def test_of_two_consents_at_the_same_time_the_denial_wins() -> None:
    for order in ((True, False), (False, True)):
        fragment = folded(*(happened(n, context={"consent": {"ads": given_}}) for n, given_ in enumerate(order)))
        assert fragment.consents == {"ads": (NOON, False)}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"marketing": True}, {"marketing": True}),
        ({"marketing": "denied", "ads": "granted"}, {"marketing": False, "ads": True}),
        ({"categoryPreferences": {"Advertising": False}}, {"Advertising": False}),
        ({"marketing": 1, "ads": None, "x": {}}, {}),
        ("yes", {}),
        ({"categoryPreferences": []}, {}),
    ],
)
def test_what_an_event_says_of_consent(stated: Any, expected: dict[str, bool]) -> None:
    fragment = folded(happened(1, context={"consent": stated}))
    assert {purpose: granted for purpose, (_, granted) in fragment.consents.items()} == expected


def test_the_proof_of_a_consent_joins_as_the_consent_does() -> None:
    yes = {"ads": True, "source": "banner", "version": "3", "proof": "p" * 3_000}
    no = {"ads": "denied", "source": "letter"}
    old = {"ads": False, "source": "older"}
    events = [happened(1, 5, context={"consent": yes}), happened(2, 5, context={"consent": no})]
    events.append(happened(3, 1, context={"consent": old}))
    for order in itertools.permutations(events):
        whole = folded(*order)
        joined = join_all([folded(each) for each in order], lambda one, other: {**one, **other})
        assert whole.proofs == joined.proofs == {"ads": (NOON + 5, False, "letter", "", "")}
        assert proof_of(whole.proofs, "ads", whole.consents["ads"]) is not None
    assert folded(events[0]).proofs["ads"][4].startswith("sha256:"), "a part of a proof proves nothing"
    later = folded(*events, happened(4, 9, context={"consent": {"ads": True}}))
    assert proof_of(later.proofs, "ads", later.consents["ads"]) is None


def test_the_ring_holds_the_newest_events() -> None:
    history = [happened(n, n) for n in range(RECENT_EVENTS + 5)]
    for order in (history, history[::-1]):
        ring = folded(*order).recent
        times = [int.from_bytes(ring[at : at + 8], "big") - (1 << 63) for at in range(0, len(ring), 28)]
        assert [time - NOON for time in times] == list(range(5, RECENT_EVENTS + 5))


def test_fold_says_which_values_changed() -> None:
    fragment = folded(happened(1, 5, traits={"plan": "pro", "city": "Lima"}))
    late = happened(2, 1, traits={"plan": "free", "age": 3})
    assert fold(fragment, late, HASH, PLACE) == (["age"], [])
    same = happened(3, 9, traits={"plan": "pro"}, context={"consent": {"ads": True}})
    assert fold(fragment, same, HASH, PLACE) == ([], ["ads"])
    assert fold(fragment, happened(4, 9), HASH, PLACE) is None
