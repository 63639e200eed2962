"""The table of rules is up to date: each change finds its text, each test is there, and the page has the same rows."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.rules.engine import RULES, Rule

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations" / "faults.md"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_a_rule_can_be_taken_out_and_its_tests_are_there(rule: Rule) -> None:
    found = importlib.util.find_spec(rule.fault.module)
    assert found is not None and found.origin is not None
    source = Path(found.origin).read_text()
    for old, new in rule.fault.changes:
        assert source.count(old) == 1, f"{rule.fault.module} has it {source.count(old)} times: {old}"
        compile(source.replace(old, new), found.origin, "exec")
    assert rule.tests
    for test in rule.tests:
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


def row_of(rule: Rule) -> str:
    """The rule's row on the page."""
    names = [test.partition("::")[2] for test in rule.tests]
    return f"| {rule.says} | {'; '.join(f'`{name}`' for name in names)} |"


def test_the_page_has_every_rule() -> None:
    page = PAGE.read_text()
    assert [row for row in map(row_of, RULES) if row not in page] == []


def test_no_rule_is_there_twice() -> None:
    assert len({rule.says for rule in RULES}) == len(RULES)
