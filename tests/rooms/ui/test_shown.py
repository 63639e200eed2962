"""How values are shown: what they do to what stands beside them."""

import pytest

from pipeline.ui.shown import apart, standing, value, who


@pytest.mark.parametrize("text", ["plain", "é漢🙂", "", "3 < 4"])
def test_most_texts_are_shown_as_they_are(text: str) -> None:
    assert apart(text) == text


@pytest.mark.parametrize("text", ["עברית", "a \u202e b", "مرحبا 3", "\u2067a", "a\u2069\u202eb"])
def test_a_text_that_turns_round_turns_nothing_beside_it(text: str) -> None:
    """Opened and closed again, whatever the text itself opens and closes: “plan: ” stays in front of it."""
    shown = apart(text)
    assert shown[0] == "\u2068" and shown[-1] == "\u2069" and "\u2069" not in shown[1:-1]
    assert shown[1:-1] == text.replace("\u2069", "")


def test_a_value_that_is_cut_is_closed_all_the_same() -> None:
    assert value("\u202e" + "x" * 50, 10) == "\u2068\u202e" + "x" * 9 + "…\u2069"
    assert value("3" * 50, 10) == "“3333333333…”"
    assert value([1, 2], 3) == "[1,…"


def test_whom_pages_are_asked_for_is_called_as_they_are() -> None:
    """The name leads to an address."""
    assert who({"identifiers": [{"namespace": "account", "value": "עברית"}]}) == "עברית"


def test_a_day_stands_in_one_line_and_an_instant_that_is_none_as_it_is() -> None:
    assert standing(1_700_000_000_000) == '<span class="day">2023-11-14</span> 22:13:20'
    assert standing(0) == "—"
    assert "<" not in standing(10**30)
