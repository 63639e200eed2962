"""A change of what the bytes of stored state mean comes with another VERSION, so that old state is refused, or
migrated, and never read as something else."""

from typing import Any

import pytest

from tests.golden.layout import differences, layout, written
from tests.golden.test_golden import FOLDER, VERSIONS


def test_state_has_the_form_that_its_version_says() -> None:
    kept = [found for version in VERSIONS if (found := written(FOLDER / version)) is not None]
    assert kept
    for before in kept:
        assert differences(before, layout()) == [], "give pipeline/unify/actor.py or identity/state.py another VERSION"


def fields(store: str, record: str, found: dict[str, Any]) -> list[list[Any]]:
    kept: list[list[Any]] = found[store]["records"][record]
    return kept


@pytest.mark.parametrize(
    ("store", "change"),
    [
        ("unify", lambda found: fields("unify", "a", found).append(["more", "int", False])),
        ("unify", lambda found: fields("unify", "a", found).insert(3, ["more", "int", True])),
        ("unify", lambda found: fields("unify", "a", found).pop()),
        ("unify", lambda found: fields("unify", "Pair", found).reverse()),
        ("unify", lambda found: fields("unify", "Fragment", found)[1].__setitem__(1, "dict[str, int]")),
        ("unify", lambda found: found["unify"]["packed"].update(seen=24)),
        ("identity", lambda found: fields("identity", "Edge", found)[0].__setitem__(0, "firstly")),
        ("identity", lambda found: found["identity"]["records"].pop("h")),
    ],
)
def test_a_change_without_another_version_is_found(store: str, change: Any) -> None:
    before, now = layout(), layout()
    now["unify"]["packed"] = dict(now["unify"]["packed"])
    change(now)
    [told] = differences(before, now)[:1]
    assert told.startswith(store)
    now[store]["version"] += 1
    assert differences(before, now) == []


def test_a_field_more_with_a_default_is_read_by_both() -> None:
    now = layout()
    fields("unify", "a", now).append(["more", "int", True])
    assert differences(layout(), now) == []
