"""What anybody may send is shown to operators as it was written: it is no markup, and does not steer their terminal."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.cli import identity, privacy, profile, sources
from pipeline.cli._console import Console
from pipeline.records import IdentifierPair, IdentityConflict, PrivacyReceipt, ProfileDocument, ReceiptEntry, Total

BRACKETS = "a [/b] [red]c"
ESCAPES = "\x1b]0;title\x07\x1b[2J\u202ecba\r"
SPELLED = "\\x1b]0;title\\x07\\x1b[2J\\u202ecba\\x0d"


def _profile(console: Console) -> None:
    identifiers = [IdentifierPair("user_id", BRACKETS)]
    document = ProfileDocument("p", "person", identifiers, 1, {BRACKETS: ESCAPES}, totals={ESCAPES: Total(1, 1, 1)})
    profile._show(document, console)


def _conflicts(console: Console) -> None:
    conflict = IdentityConflict(f"anonymous_id:{BRACKETS}", "user_id:b", 1, "quarantined", ESCAPES, 1)
    identity._show([conflict], console)


def _receipt(console: Console) -> None:
    entry = ReceiptEntry("destination crm", "impossible", 1, ESCAPES)
    receipt = PrivacyReceipt("r", "export", "s", 1, "failed", BRACKETS, detail=ESCAPES, stores=[entry])
    privacy._show(receipt, console)
    privacy._list([receipt], console)


def _source(console: Console) -> None:
    console.print(sources._shown("web", sources.Source(names=Counter({BRACKETS: 1, ESCAPES: 1}))))


@pytest.mark.parametrize("show", [_profile, _conflicts, _receipt, _source])
def test_brackets_are_no_markup_and_controls_are_spelled_out(show: Callable[[Console], Any]) -> None:
    console = Console(width=400, force_terminal=True, color_system=None)
    with console.capture() as capture:
        show(console)
    told = capture.get()
    assert BRACKETS in told
    assert SPELLED in told
    assert "\x1b]" not in told
    assert "\x1b[2J" not in told


def test_an_account_was_not_seen_in_1970() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        profile._show(ProfileDocument("p", "account", [IdentifierPair("account", "acme")], 1), console)
    assert "1970" not in capture.get()


def test_a_long_value_is_shown_whole() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        profile._show(ProfileDocument("p", "person", [IdentifierPair("user_id", "x" * 300)], 1), console)
    assert capture.get().count("x") == 300
