"""What an apply does to what is in force: one table of steps and their outcomes, and what must be refused."""

from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.cli.apply import consequences
from pipeline.definitions.apply import ApplyPlan, OvertakenError, OwnerError, plan_apply
from pipeline.definitions.catalog import Catalog, activation_plan, identity_rules, records
from pipeline.definitions.loader import Written, load_text
from pipeline.definitions.log import check
from pipeline.errors import DefinitionError, LookupFailed
from pipeline.records import Generation
from pipeline.settings import Settings


def segment(name: str, *leaves: str) -> Written:
    return Written("segment", name, {"segment": name, "when": list(leaves)})


def destination(name: str, **more: Any) -> Written:
    return Written("destination", name, {"destination": name, "kind": "file", "path": f"/tmp/{name}", **more})


def leaves_of(catalog: Catalog, generation: Generation) -> Iterable[str]:
    """As the segments do: the leaves of all rules, each once."""
    return {leaf for each in catalog.of_kind(generation, "segment") for leaf in each.body["when"]}


class Log:
    """What a topic `definitions` would hold after each apply."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.clock = 0

    def plan(self, *written: Written, **options: Any) -> ApplyPlan:
        self.clock += 1
        return plan_apply(self.catalog, written, leaves_of=leaves_of, applied_at=self.clock, **options)

    def apply(self, *written: Written, **options: Any) -> list[tuple[str, str, int | None, int | None]]:
        plan = self.plan(*written, **options)
        for key, value in records(plan.definitions, plan.generation):
            self.catalog.add(key, value)
        return [(change.what, change.key, change.before, change.after) for change in plan.changes]


def test_the_first_apply_is_generation_one() -> None:
    log = Log()
    assert log.catalog.latest.number == 0
    assert log.apply(segment("a", "x"), destination("d")) == [
        ("added", "segment/a", None, 1),
        ("added", "destination/d", None, 1),
    ]
    assert log.catalog.latest == Generation(
        1, {"destination/d": 1, "segment/a": 1}, leaves={"x": 1}, paused=[], applied_at=1
    )


def test_what_is_named_and_not_there_is_told_again_and_again_until_it_is() -> None:
    log = Log()
    mails = destination("mails", segments=["trial_startd", "paid"], alerts=["call"])
    alert = Written("alert", "call_them", {"alert": "call_them", "enters": "warm"})
    told = log.plan(mails, alert, segment("trial_started", "x")).waits_for
    assert [line.partition(" by ")[2] for line in told] == [
        "trial_startd: there is no such segment. Did you mean trial_started?",
        "paid: there is no such segment.",
        "call: there is no such alert. Did you mean call_them?",
        "warm: there is no such segment.",
    ]
    log.apply(mails, alert)
    assert len(log.plan(mails).waits_for) == 3, "also where nothing changes"
    names = ("trial_startd", "paid", "warm")
    log.apply(*(segment(name, "x") for name in names), Written("alert", "call", {"alert": "call", "enters": "warm"}))
    assert log.plan(mails, alert).waits_for == log.plan(destination("all", segments="*")).waits_for == ()


def test_an_unchanged_body_keeps_its_version_and_makes_no_generation() -> None:
    log = Log()
    log.apply(segment("a", "x"))
    plan = log.plan(segment("a", "x"))
    assert plan.is_empty and plan.changes == ()


def test_a_value_of_another_type_is_an_edit_though_python_calls_the_two_equal() -> None:
    log = Log()
    for version, value in enumerate((1, True, 1.0, [1], [True]), 1):
        [change] = log.apply(destination("d", value={"equals": value}))
        assert change == ("added" if version == 1 else "changed", "destination/d", version - 1 or None, version)
    with pytest.raises(OwnerError):
        log.plan(destination("d", value={"equals": [1]}), owner="ui")


def test_case_40_a_rule_edited_and_edited_back() -> None:
    log = Log()
    log.apply(segment("a", "x"))
    assert log.apply(segment("a", "y")) == [("changed", "segment/a", 1, 2)]
    assert log.catalog.latest.leaves == {"y": 2}
    assert log.apply(segment("a", "x")) == [("changed", "segment/a", 2, 3)]
    # The leaf was away: it is a new one, with no memory of the time before.
    assert log.catalog.latest.leaves == {"x": 3}
    assert log.catalog.latest.number == 3


def test_a_leaf_that_another_rule_kept_lives_on() -> None:
    log = Log()
    log.apply(segment("a", "x"), segment("b", "x", "y"))
    log.apply(segment("a", "z"))
    assert log.catalog.latest.leaves == {"x": 1, "y": 1, "z": 2}


def test_what_is_not_mentioned_stays_unless_pruned() -> None:
    log = Log()
    log.apply(segment("a", "x"), segment("b", "y"))
    log.apply(segment("u", "z"), owner="ui")
    assert log.apply(segment("a", "x")) == []
    assert log.apply(segment("a", "x"), prune=True) == [("removed", "segment/b", 1, None)]
    assert set(log.catalog.latest.members) == {"segment/a", "segment/u"}


def test_removed_and_added_again_is_another_version() -> None:
    log = Log()
    log.apply(segment("a", "x"))
    assert log.apply(remove=["segment/a"]) == [("removed", "segment/a", 1, None)]
    assert log.catalog.latest.members == {} and log.catalog.latest.leaves == {}
    assert log.apply(segment("a", "x")) == [("added", "segment/a", None, 2)]
    assert log.catalog.latest.leaves == {"x": 3}


def test_a_dry_run_says_that_identity_rules_resolve_everybody_anew() -> None:
    log = Log()
    log.apply(segment("a", "x"))
    rules = Written("identity", "rules", {"preset": "strict"})
    settings = Settings.model_validate({"secret": "s"})
    told = list(consequences(settings, log.plan(rules)))
    assert len(told) == 2 and "resolved anew" in told[0]
    assert not any("resolved" in line for line in consequences(settings, log.plan(pause=["segment/a"])))


def test_pause_and_resume() -> None:
    log = Log()
    log.apply(destination("d", mode="trigger"))
    assert log.apply(pause=["destination/d"]) == [("paused", "destination/d", 1, 1)]
    assert [d.paused for d in activation_plan(log.catalog, log.catalog.latest).destinations] == [True]
    assert log.plan(pause=["destination/d"]).is_empty
    assert log.apply(resume=["destination/d"]) == [("resumed", "destination/d", 1, 1)]
    assert [d.paused for d in activation_plan(log.catalog, log.catalog.latest).destinations] == [False]
    assert log.plan(resume=["destination/d"]).is_empty
    assert log.catalog.pauses("destination/d") == [(2, 4)]
    log.apply(destination("e"), pause=["destination/d"])
    log.apply(destination("f"))
    assert log.catalog.pauses("destination/d") == [(2, 4), (6, None)]
    assert log.catalog.pauses("destination/e") == []


def test_an_edit_keeps_a_pause_and_a_removal_ends_it() -> None:
    log = Log()
    log.apply(segment("a", "x"))
    log.apply(pause=["segment/a"])
    log.apply(segment("a", "y"))
    assert log.catalog.latest.paused == ["segment/a"]
    log.apply(remove=["segment/a"])
    log.apply(segment("a", "y"))
    assert log.catalog.latest.paused == []


@pytest.mark.parametrize("options", [{"remove": ["segment/a"]}, {"pause": ["segment/a"]}, {"resume": ["segment/a"]}])
def test_the_other_owners_definition_is_not_touched(options: dict[str, Any]) -> None:
    log = Log()
    log.apply(segment("a", "x"), owner="ui")
    with pytest.raises(OwnerError, match="written by the user interface"):
        log.plan(**options)
    log.plan(**options, take_over=True)


def test_an_edit_of_the_other_owners_definition_needs_take_over() -> None:
    log = Log()
    log.apply(segment("a", "x"), owner="ui")
    assert log.plan(segment("a", "x")).is_empty
    with pytest.raises(OwnerError, match="version 1"):
        log.plan(segment("a", "y"))
    assert log.apply(segment("a", "y"), take_over=True) == [("changed", "segment/a", 1, 2)]
    with pytest.raises(OwnerError, match="written by files"):
        log.plan(segment("a", "z"), owner="ui")


def test_taking_over_an_unchanged_definition_changes_the_owner_only() -> None:
    log = Log()
    log.apply(segment("a", "x"), owner="ui")
    before = log.catalog.latest
    assert log.apply(segment("a", "x"), take_over=True) == [("taken over", "segment/a", 1, 1)]
    assert log.catalog.latest == before
    assert log.apply(segment("a", "y")) == [("changed", "segment/a", 1, 2)]


def test_only_the_version_that_somebody_started_from_is_written_over() -> None:
    log = Log()
    assert log.apply(segment("a", "x"), over=0) == [("added", "segment/a", None, 1)]
    with pytest.raises(OvertakenError, match="a segment a already: version 1"):
        log.plan(segment("a", "y"), over=0)
    assert log.apply(segment("a", "y"), over=1, applied_by="ada") == [("changed", "segment/a", 1, 2)]
    with pytest.raises(OvertakenError, match="changed meanwhile: version 2 is in force, by ada"):
        log.plan(segment("a", "z"), over=1)
    assert log.plan(segment("a", "y"), over=1).is_empty, "both wrote the same"
    assert log.apply(segment("a", "z")) == [("changed", "segment/a", 2, 3)]
    log.apply(remove=["segment/a"])
    with pytest.raises(OvertakenError, match="not in force any more"):
        log.plan(segment("a", "w"), over=3)
    assert log.apply(segment("a", "w"), over=0) == [("added", "segment/a", None, 4)]


def test_a_name_that_is_not_there() -> None:
    log = Log()
    log.apply(segment("lapsed_buyers", "x"))
    with pytest.raises(LookupFailed, match="did you mean lapsed_buyers"):
        log.plan(remove=["segment/lapsed_buyer"])
    with pytest.raises(LookupFailed, match="write KIND/NAME"):
        log.plan(remove=["lapsed_buyers"])


def test_only_changes_of_identity_rules_are_told_to_the_identity_stage() -> None:
    def rules(**body: Any) -> Written:
        return Written("identity", "rules", {"identity": body})

    log = Log()
    assert log.plan(rules(quarantine_after=5), segment("a", "x")).identity_changed
    log.apply(rules(quarantine_after=5), segment("a", "x"))
    assert identity_rules(log.catalog, log.catalog.latest).quarantine_after == 5
    assert not log.plan(rules(quarantine_after=5), segment("a", "y")).identity_changed
    assert log.plan(rules(quarantine_after=6)).identity_changed
    assert log.plan(remove=["identity/rules"]).identity_changed
    log.apply(pause=["identity/rules"])
    assert identity_rules(log.catalog, log.catalog.latest).quarantine_after == 10
    assert identity_rules(Catalog(), Catalog().latest).quarantine_after == 10


def test_the_difference_is_shown_as_yaml() -> None:
    log = Log()
    log.apply(destination("d", max_age="1h"))
    [change] = log.plan(destination("d", max_age="2h")).changes
    assert "-max_age: 1h" in change.text and "+max_age: 2h" in change.text


def test_what_does_not_fit_together_is_refused_before_anything_is_written() -> None:
    def refuse(catalog: Catalog, generation: Generation) -> Iterable[str]:
        raise DefinitionError("a refers to b, which is not defined")

    with pytest.raises(DefinitionError, match="refers to b"):
        plan_apply(Catalog(), [segment("a", "x")], leaves_of=refuse, applied_at=1)


def test_records_come_in_any_order_and_again() -> None:
    log = Log()
    plans = [log.plan(segment("a", "x"), destination("d"))]
    written = records(plans[0].definitions, plans[0].generation)
    for key, value in [*reversed(written), *written]:
        log.catalog.add(key, value)
    assert log.catalog.latest.number == 1
    assert [each.name for each in log.catalog.of_kind(log.catalog.latest, "segment")] == ["a"]


def test_a_generation_whose_definition_was_lost_is_loud() -> None:
    log = Log()
    plan = log.plan(segment("a", "x"))
    [(key, value)] = records((), plan.generation)
    log.catalog.add(key, value)
    with pytest.raises(DefinitionError, match="version 1 of segment/a"):
        log.catalog.of_kind(log.catalog.latest, "segment")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("segment: a\nwhen:\n  all:\n    - performed: {event: nope}\n    - in_segment: nope\n", "a.yaml:5"),
        ("segment: b\nwhen: {in_segment: a}\n---\nsegment: a\nwhen: {in_segment: b}\n", "a.yaml:5"),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_line(text: str, where: str) -> None:
    with pytest.raises(DefinitionError, match="in_segment") as told:
        check(load_text(text, "a.yaml"))
    assert told.value.where == where
