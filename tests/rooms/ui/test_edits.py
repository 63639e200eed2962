"""What people do to a tree, and that whatever they do it stays a tree that can be shown and written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.definitions.kinds import mistakes_in
from pipeline.errors import InputError
from pipeline.ui.edits import NEW, edit, new_segment
from pipeline.ui.forms import fields_of, tree_of
from pipeline.ui.sentences import sentence
from pipeline.ui.tree import ROOT, Node, node_at, read_segment
from pipeline.ui.writing import write_segment

PRICING_INTENT = {
    "segment": "pricing_intent",
    "when": {
        "all": [
            {
                "performed": {
                    "event": "Page Viewed",
                    "where": {"properties.path": {"starts_with": "/pricing"}},
                    "count": {"at_least": 3},
                    "within": "7d",
                }
            },
            {"not": {"performed": {"event": "Order Completed", "within": "30d"}}},
            {"any": [{"trait": {"plan": {"equals": "free"}}}, {"in_segment": "newsletter"}]},
            {
                "sequence": {
                    "steps": [{"event": "Cart Viewed"}, {"not": {"event": "Order Completed"}, "within": "2h"}],
                    "by": "properties.cart_id",
                }
            },
        ]
    },
}
LINES = (
    "Page Viewed where path starts with /pricing at least 3 times in the last 7 days",
    "no Order Completed in the last 30 days",
    "plan is free or in the segment newsletter",
    "Cart Viewed then no Order Completed for 2 hours, by cart_id",
)


def test_the_pricing_intent_rule_in_four_lines() -> None:
    tree = new_segment()
    tree.values["name"] = "pricing_intent"
    for line in LINES:
        edit(tree, "type:n.0", line)
    assert write_segment(tree).body == PRICING_INTENT
    assert mistakes_in("segment", PRICING_INTENT) == []


def test_parts_are_added_moved_wrapped_and_removed() -> None:
    tree = new_segment()
    assert edit(tree, "add:n.0:performed") == "n.0.0"
    assert edit(tree, "add:n.0.0:test") == "n.0.0.1"
    assert edit(tree, "add:n.0.0:where") == "n.0.0.1"
    assert edit(tree, "add:n.0.0:event") == "n.0.0.1"
    assert [part.kind for part in tree.parts[0].parts[0].parts] == ["event", "event", "where", "test"]
    edit(tree, "add:n.0:in_segment")
    assert edit(tree, "up:n.0.1") == "n.0.0"
    assert edit(tree, "up:n.0.0") == "n.0.0"
    edit(tree, "wrap:n.0.0:not")
    assert [part.kind for part in tree.parts[0].parts] == ["not", "performed"]
    edit(tree, "add:n.0.0:trait")
    assert [part.kind for part in tree.parts[0].parts[0].parts[0].parts] == ["in_segment", "trait"]
    edit(tree, "unwrap:n.0.0")
    edit(tree, "unwrap:n.0.0")
    assert [part.kind for part in tree.parts[0].parts] == ["in_segment", "trait", "performed"]
    edit(tree, "remove:n.0.1")
    assert [part.kind for part in tree.parts[0].parts] == ["in_segment", "performed"]


@pytest.mark.parametrize(
    ("alone", "both"),
    [
        ({"performed": {"event": "a"}}, [{"performed": {"event": "a"}}]),
        ({"not": {"trait": {"plan": "free"}}}, [{"not": {"trait": {"plan": "free"}}}]),
        ({"any": [{"in_segment": "a"}]}, [{"any": [{"in_segment": "a"}]}]),
        ({"all": [{"in_segment": "a"}]}, [{"in_segment": "a"}]),
    ],
)
def test_a_rule_that_stands_alone_gets_company(alone: dict[str, Any], both: list[Any]) -> None:
    """Most rules that somebody wrote by hand are of one condition: the next one makes a group of both."""
    added = {"performed": {"event": "b", "within": "7d"}}
    tree = read_segment({"segment": "s", "when": alone})
    assert edit(tree, "type:n", "b in the last 7 days", ["b"]) == "n.0.1"
    assert write_segment(tree).body == {"segment": "s", "when": {"all": [*both, added]}}


@pytest.mark.parametrize(
    "action", ["", "remove:n", "remove:n.7", "add:n.0:segment", "wrap:n.0:trait", "drop:n.0", "add:x.y:all"]
)
def test_what_cannot_be_done_is_told(action: str) -> None:
    with pytest.raises(InputError):
        edit(new_segment(), action)


_actions = st.tuples(
    st.sampled_from(("add", "remove", "up", "down", "wrap", "unwrap")), st.integers(0, 50), st.sampled_from(sorted(NEW))
)


@given(st.lists(_actions, max_size=25))
@settings(max_examples=200, deadline=None)
def test_whatever_is_done_it_stays_a_tree(actions: list[tuple[str, int, str]]) -> None:
    tree = new_segment()
    for verb, number, kind in actions:
        paths: list[str] = []

        def walk(node: Node, path: str, paths: list[str] = paths) -> None:
            paths.append(path)
            for place, part in enumerate(node.parts):
                walk(part, f"{path}.{place}")

        walk(tree, ROOT)
        try:
            assert node_at(tree, edit(tree, f"{verb}:{paths[number % len(paths)]}:{kind}"))
        except InputError:
            continue
    assert tree_of(fields_of(tree)) == tree
    assert sentence(tree)
    mistakes_in("segment", write_segment(tree).body)
