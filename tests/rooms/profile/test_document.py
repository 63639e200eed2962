"""Documents and their changes: the fold of the changes is the document."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.profile import Fragment, apply_change, build, contents, difference
from pipeline.records import Cause, IdentifierPair, Membership, ProfileChange, ProfileDocument


def change(kind: Any, set_: dict[str, Any] | None = None, unset: dict[str, list[str]] | None = None) -> ProfileChange:
    record = ProfileChange("p", "person", kind, 1, 1, "event", Cause(), set_ or {}, unset or {})
    # As it is read back from the topic.
    return msgspec.json.decode(msgspec.json.encode(record), type=ProfileChange)


@st.composite
def documents(draw: st.DrawFn) -> ProfileDocument:
    names = st.sampled_from(["a", "b", "c"])
    values = st.one_of(st.integers(0, 2), st.booleans(), st.text(max_size=2), st.just(1.5))
    values = st.one_of(values, st.lists(values, max_size=2), st.dictionaries(names, values, max_size=2))
    traits = draw(st.dictionaries(names, st.tuples(st.integers(1, 5), st.one_of(st.none(), values)), max_size=3))
    totals = draw(st.dictionaries(names, st.lists(st.integers(1, 3), min_size=3, max_size=3), max_size=3))
    segments = draw(st.dictionaries(names, st.builds(Membership, st.integers(1, 3), st.integers(1, 2), st.just(1))))
    fragment = Fragment(traits=traits, totals=totals, first_seen=draw(st.integers(0, 2)), last_seen=3)
    pairs = [IdentifierPair("user_id", value) for value in draw(st.lists(names, max_size=2, unique=True))]
    computed = draw(st.dictionaries(names, values, max_size=2))
    return build("p", "person", pairs, len(pairs), fragment, segments, computed)


def in_bytes(document: ProfileDocument) -> bytes:
    """To Python 1 equals True."""
    return msgspec.json.encode(document, order="deterministic")


@given(documents(), documents())
def test_the_difference_leads_from_one_document_to_the_other(before: ProfileDocument, after: ProfileDocument) -> None:
    begun = apply_change(None, change("created", contents(before)))
    assert begun == before
    folded = apply_change(begun, change("updated", *difference(before, after)))
    assert folded is not None
    assert in_bytes(folded) == in_bytes(after)


@given(documents())
def test_nothing_differs_from_itself(document: ProfileDocument) -> None:
    assert difference(document, document) == ({}, {})


@pytest.mark.parametrize("kind", ["merged", "expired", "erased"])
def test_an_end_leaves_nothing(kind: str) -> None:
    begun = apply_change(None, change("created"))
    assert begun is not None
    assert apply_change(begun, change(kind)) is None


@pytest.mark.parametrize(("alive", "kind"), [(True, "created"), (True, "split"), (False, "updated"), (False, "merged")])
def test_a_change_that_cannot_follow_is_refused(alive: bool, kind: str) -> None:
    document = apply_change(None, change("created")) if alive else None
    with pytest.raises(ValueError, match=kind):
        apply_change(document, change(kind))


def test_a_trait_taken_back_is_not_shown() -> None:
    document = build("p", "person", [], 0, Fragment(traits={"plan": (5, None), "city": (4, "Lima")}), {})
    assert document.traits == {"city": "Lima"}
