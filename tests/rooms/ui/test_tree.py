"""The builder loses nothing: definition → tree → form → tree → definition, over the whole grammar."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.definitions.segments import _KEYS, segment
from pipeline.errors import InputError
from pipeline.ui.forms import fields_of, tree_of
from pipeline.ui.sentences import sentence
from pipeline.ui.tree import Node, node_at, read_rule, read_segment
from pipeline.ui.typed import read_line
from pipeline.ui.writing import write_rule, write_segment
from tests.rooms.ui.grammar import full_definitions

COUNT = 500


def definitions(count: int = COUNT) -> Iterator[dict[str, Any]]:
    """So many definitions of the full grammar."""
    seed, found = 0, 0
    while found < count:
        for one in full_definitions(seed):
            yield one
            found += 1
        seed += 1


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 3 is not 3.0 here, and true is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(one) for one in value] if isinstance(value, list) else value


def _browsed(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a browser sends: line breaks as CR LF, and in fields of one line none at all."""
    found = []
    for name, text in fields:
        if name.endswith((":lines", ":tags", ":description")):
            text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        else:
            text = text.replace("\r", "").replace("\n", "")
        found.append((name, text))
    return found


def test_five_hundred_random_definitions_come_back_unchanged() -> None:
    for body in definitions():
        tree = read_segment(body)
        written = write_segment(tree)
        assert not written.problems
        assert same(_ordered(written.body), _ordered(body))
        again = tree_of(_browsed(fields_of(tree)))
        assert again == tree, body
        assert same(_ordered(write_segment(again).body), _ordered(body))
        assert segment(written.body) == segment(body)


@pytest.mark.parametrize("text", ["\n", "a\n", "\na", "a\r", "\r\n", "a\x0b", "a\u2028", " ", ""])
def test_a_line_of_a_list_may_be_any_text(text: str) -> None:
    """A text that a line cannot hold would vanish from `not_in`, and who is out would be in."""
    body = {"segment": "s", "tags": [text, "b"], "when": {"trait": {"plan": {"not_in": [text]}}}}
    again = tree_of(_browsed(fields_of(read_segment(body))))
    assert write_segment(again).body == body


def test_the_random_definitions_have_every_rule_and_operator() -> None:
    met: Counter[str] = Counter()

    def look(node: Node) -> None:
        met[node.kind] += 1
        met.update(
            f"{name}={text}" for name, text in node.values.items() if name in ("operator", "result", "window", "how")
        )
        for part in node.parts:
            look(part)

    for body in definitions():
        look(read_segment(body))
    comparisons = (
        "equals not_equals in not_in contains not_contains starts_with ends_with regex regex_full greater_than"
    )
    comparisons += " at_least less_than at_most between exists before after within_last within_next more_than exactly"
    wanted = [*_KEYS, "step", "absence", "where_all", "where_any", "where_not"]
    wanted += [f"operator={one}" for one in comparisons.split()]
    wanted += [f"result={one}" for one in "count sum average min max distinct first last".split()]
    wanted += [f"window={one}" for one in ("within", "between", "calendar")]
    wanted += [f"how={one}" for one in ("any", "none", "all", "count")]
    assert [one for one in wanted if not met[one]] == []


def test_every_rule_has_a_sentence_that_names_what_it_asks() -> None:
    for body in definitions():
        said = sentence(read_segment(body))
        assert said.endswith(".") and "…" not in said and "None" not in said and "{" not in said, (body, said)
        for name in _names(body["when"]):
            assert name in said, (name, said)


def _names(value: Any, key: str = "") -> Iterator[str]:
    """Names that must stand in a sentence: of segments, purposes, and of events, where they are words."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _names(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _names(one, key)
    elif key in ("event", "in_segment", "purpose") and isinstance(value, str) and value.isprintable() and value != "*":
        yield value


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"all": []}, "Everyone."),
        ({"any": []}, "No one."),
        (
            {
                "performed": {
                    "event": "Page Viewed",
                    "where": {"properties.path": {"starts_with": "/pricing"}},
                    "count": {"at_least": 3},
                    "within": "7d",
                }
            },
            "Did “Page Viewed” where path starts with “/pricing” at least 3 times in the last 7 days.",
        ),
        (
            {"not": {"performed": {"event": "Order Completed", "within": "30d"}}},
            "Did not “Order Completed” in the last 30 days.",
        ),
        (
            {"any": [{"trait": {"plan": {"equals": "free"}}}, {"in_segment": "newsletter"}]},
            "Plan is “free” or is in the segment “newsletter”.",
        ),
        (
            {
                "sequence": {
                    "steps": [{"event": "Cart Viewed"}, {"not": {"event": "Order Completed"}, "within": "2h"}],
                    "by": "properties.cart_id",
                }
            },
            "Did “Cart Viewed”, then no “Order Completed” for 2 hours, all of the same cart_id.",
        ),
        (
            {"performed": {"event": "*", "calendar": {"unit": "month", "last": 2, "current": False}}},
            "Did any event in the last 2 whole months.",
        ),
        (
            {
                "all": [
                    {"trait": {"a": 1}},
                    {"any": [{"trait": {"b": True}}, {"not": {"trait": {"c": {"exists": True}}}}]},
                ]
            },
            "A is 1 and (b is yes or not (c is there)).",
        ),
        (
            {"not": {"any": [{"trait": {"a": 1, "b": 2}}, {"all": [{"trait": {"c": 3}}, {"trait": {"d": 4}}]}]}},
            "Not ((a is 1 and b is 2) or (c is 3 and d is 4)).",
        ),
        (
            {"all": [{"performed": {"event": "A", "where": {"properties.x": 1}}}, {"trait": {"y": 2}}]},
            "(did “A” where x is 1) and y is 2.",
        ),
        (
            {"performed": {"event": "A", "where": {"properties.x": 1, "properties.y": 2}}},
            "Did “A” where x is 1 and y is 2.",
        ),
        (
            {"any": [{"not": {"performed": {"event": "A", "where": {"properties.x": 1}}}}, {"trait": {"y": 2}}]},
            "(did not “A” where x is 1) or y is 2.",
        ),
        (
            {
                "all": [
                    {"sequence": {"steps": [{"event": "A"}, {"event": "B", "where": {"properties.x": 1}}]}},
                    {"performed": {"event": "C", "where": {"properties.x": 1}, "within": "7d"}},
                    {"trait": {"y": 2}},
                ]
            },
            "(did “A”, then “B” where x is 1) and did “C” where x is 1 in the last 7 days and y is 2.",
        ),
        (
            {"performed": {"event": "A", "sum": {"of": "properties.total", "between": [1, 2]}}},
            "The sum of total over “A” is between 1 and 2.",
        ),
        (
            {"members": {"match": {"performed": {"event": "A"}}, "at_least": 3}},
            "Of at least 3 of its people this is true: (did “A”).",
        ),
    ],
)
def test_sentences(rule: dict[str, Any], said: str) -> None:
    assert sentence(read_rule(rule)) == said


# --------------------------------------------------------------------------------------------------------- half written


@given(st.integers(0, 200), st.data())
@settings(max_examples=200, deadline=None)
def test_a_tree_with_holes_has_a_sentence_and_a_text(seed: int, data: st.DataObject) -> None:
    found = full_definitions(seed)
    if not found:
        return
    tree = read_segment(found[0])
    nodes = [tree]
    for node in nodes:
        nodes += node.parts
    for _ in range(3):
        node = data.draw(st.sampled_from(nodes))
        if node.values and data.draw(st.booleans()):
            del node.values[data.draw(st.sampled_from(sorted(node.values)))]
        elif node.parts:
            del node.parts[data.draw(st.integers(0, len(node.parts) - 1))]
    assert sentence(tree)
    assert isinstance(write_segment(tree).body, dict)
    assert tree_of(fields_of(tree)) == tree


def test_what_stands_twice_becomes_two_rules_or_is_told() -> None:
    def check(path: str, value: str) -> Node:
        return Node("check", {"path": path}, [Node("test", {"operator": "equals", "type": "text", "value": value})])

    twice = Node("trait", {}, [check("plan", "a"), check("plan", "b")])
    assert write_rule(twice) == {"all": [{"trait": {"plan": {"equals": "a"}}}, {"trait": {"plan": {"equals": "b"}}}]}
    where = Node("where", {}, [check("properties.a", "1"), check("properties.a", "2")])
    rule = Node("performed", {}, [Node("event", {"name": "A"}), where])
    assert write_rule(rule)["performed"]["where"] == {
        "properties.a": {"equals": "1"},
        "all": [{"properties.a": {"equals": "2"}}],
    }
    test = Node("test", {"operator": "equals", "type": "text", "value": "x"})
    tree = Node("segment", {"name": "s"}, [Node("trait", {}, [Node("check", {"path": "a"}, [test, test])])])
    [(path, what)] = write_segment(tree).problems
    assert node_at(tree, path) is test and "twice" in what


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("n.0:kind", "all")],
        [("n:kind", "segment"), ("n.0.0:kind", "all")],
        [("n:kind", "segment"), ("n" + ".0" * 61 + ":kind", "all")],
        [("n:kind", "segment")] + [("n:name", "x")] * 20_001,
    ],
)
def test_what_is_no_tree_is_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(InputError):
        tree_of(fields)


# ------------------------------------------------------------------------------------------------------ typed lines

EASY = [
    {"performed": {"event": "Page Viewed"}},
    {
        "performed": {
            "event": "Page Viewed",
            "where": {"properties.path": {"starts_with": "/pricing"}},
            "count": {"at_least": 3},
            "within": "7d",
        }
    },
    {"not": {"performed": {"event": "Order Completed", "within": "30d"}}},
    {"performed": {"event": "Order Completed", "count": {"less_than": 2}, "within": "1d12h"}},
    {
        "performed": {
            "event": "A",
            "where": {"properties.total": {"at_least": 2.5}, "context.channel": {"not_equals": "e mail"}},
        }
    },
    {"any": [{"trait": {"plan": {"equals": "free"}}}, {"in_segment": "newsletter"}]},
    {"trait": {"plan": {"in": ["a", "b c"]}, "age": {"less_than": 30}}},
    {"trait": {"plan": {"exists": False}}},
    {"not": {"in_segment": "s"}},
    {"consent": {"purpose": "marketing"}},
    {"consent": {"purpose": "marketing", "is": "unknown"}},
    {
        "sequence": {
            "steps": [{"event": "Cart Viewed"}, {"not": {"event": "Order Completed"}, "within": "2h"}],
            "by": "properties.cart_id",
        }
    },
    {"sequence": {"steps": [{"event": "A"}, {"not": {"event": "B"}}, {"event": "C", "within": "1h"}]}},
]


@pytest.mark.parametrize("rule", EASY)
def test_a_sentence_of_a_common_rule_reads_back_as_that_rule(rule: dict[str, Any]) -> None:
    from pipeline.ui.sentences import clause

    said = clause(read_rule(rule)).replace(" of the context", "").replace("channel", "context.channel")
    assert write_rule(read_line(said)) == rule, said


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("Page Viewed where path starts with /pricing at least 3 times within 7d", EASY[1]),
        ("page viewed where path begins with /pricing in the last 7 days at least 3 times.", EASY[1]),
        ("no Order Completed in the last 30 days", EASY[2]),
        ("never Order Completed within 30d", EASY[2]),
        ("plan is free or in segment newsletter", EASY[5]),
        ("Cart Viewed then no Order Completed within 2h by cart_id", EASY[11]),
        (
            "Trial Is On twice in a week",
            {"performed": {"event": "Trial Is On", "count": {"at_least": 2}, "within": "1w"}},
        ),
        ("Trial Is On", {"performed": {"event": "Trial Is On"}}),
        ("age >= 18 and vip is yes", {"trait": {"age": {"at_least": 18}, "vip": {"equals": True}}}),
        ('name is "3"', {"trait": {"name": {"equals": "3"}}}),
        ("age is one of 18, 30", {"trait": {"age": {"in": [18, 30]}}}),
        ('age is one of "18", 30', {"trait": {"age": {"in": ["18", "30"]}}}),
        ("signup is before 2026-01-01", {"trait": {"signup": {"before": "2026-01-01"}}}),
        ("signup after 30 days ago", {"trait": {"signup": {"after": "now-30d"}}}),
        ("signup is within the last 30 days", {"trait": {"signup": {"within_last": "30d"}}}),
        ("last name is Order", {"trait": {"last name": {"equals": "Order"}}}),
        ("Page Viewed 0 times", {"performed": {"event": "Page Viewed", "count": {"exactly": 0}}}),
        ("Page Viewed exactly once", {"performed": {"event": "Page Viewed", "count": {"exactly": 1}}}),
        ("page viewed in the last week", {"performed": {"event": "Page Viewed", "within": "1w"}}),
        ('"Done and Dusted" twice', {"performed": {"event": "Done and Dusted", "count": {"at_least": 2}}}),
        ('plan is free or "A B"', {"any": [{"trait": {"plan": {"equals": "free"}}}, {"performed": {"event": "A B"}}]}),
        ("Segment Created", {"performed": {"event": "Segment Created"}}),
        (
            "plan is free or did pro",
            {"any": [{"trait": {"plan": {"equals": "free"}}}, {"performed": {"event": "pro"}}]},
        ),
    ],
)
def test_typed_lines(line: str, rule: dict[str, Any]) -> None:
    assert write_rule(read_line(line, ["Page Viewed", "Trial Is On"])) == rule


@pytest.mark.parametrize(
    "line",
    [
        "plan is free or pro",
        "plan is one of free, pro or team",
        "city is New York in the last 3 days",
        "Page Viewed where total is at least 100 in the last month",
        "Page Viewed and no Order Completed in the last 3 days",
        "no Page Viewed and plan is free",
        "not plan is free",
        "plan is free and not age is 30",
        "Page Viewed where not path is /pricing",
        "(Page Viewed or Cart Viewed) and plan is free",
        "no consent for marketing",
        "in the segment a and not in the segment b",
        "Page Viewed between 2 and 4 times",
        "Page Viewed 2 times in the last 7 days where path is /x",
        "Order Completed last week",
        "sum of total over Page Viewed is more than 100",
        "signup is before yesterday",
    ],
)
def test_a_line_that_says_more_than_is_understood_is_refused_and_no_event_is_made_of_it(line: str) -> None:
    with pytest.raises(InputError):
        read_line(line, ["Page Viewed"])


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_line_is_a_rule_or_refused(line: str) -> None:
    try:
        found = read_line(line)
    except InputError:
        return
    assert isinstance(write_rule(found), dict)
