"""What is said to a purpose becomes a yes or a no: one line per word."""

from typing import Any

import pytest

from pipeline.profile.fragment import stated_consents
from tests.rooms.ingest.harness import emitted, track

WORDS = [
    (True, True),
    (False, False),
    ("granted", True),
    ("denied", False),
    ("Granted", True),
    (" TRUE ", True),
    ("yes", True),
    ("1", True),
    (1, True),
    (1.0, True),
    ("DENIED", False),
    ("False", False),
    ("no", False),
    ("0", False),
    (0, False),
]
UNREADABLE: list[Any] = ["opt_out", "", "withdrawn", 2, -1, [], [True], {}, {"granted": True}]
FORMS = [
    lambda said: {"categoryPreferences": {"ads": said}},
    lambda said: {"ads": said},
]


@pytest.mark.parametrize("form", FORMS, ids=["of its own", "beside"])
@pytest.mark.parametrize(("said", "allowed"), WORDS)
def test_a_word_is_a_yes_or_a_no(form: Any, said: Any, allowed: bool) -> None:
    event = emitted(track(context={"consent": form(said)}))
    assert event.context["consent"] == form(allowed)
    assert event.flags == []


@pytest.mark.parametrize("form", FORMS, ids=["of its own", "beside"])
@pytest.mark.parametrize("said", UNREADABLE)
def test_what_cannot_be_read_is_a_no_and_the_event_says_so(form: Any, said: Any) -> None:
    event = emitted(track(context={"consent": form(said)}))
    assert event.context["consent"] == form(False)
    assert event.flags == ["unreadable_consent:ads"]


def test_null_says_nothing() -> None:
    event = emitted(track(context={"consent": {"ads": None, "categoryPreferences": None, "channels": None}}))
    assert event.context["consent"] == {"ads": None, "categoryPreferences": None, "channels": None}
    assert event.flags == []


def test_what_stands_beside_the_purposes_is_none() -> None:
    stated = {"ads": "Denied", "source": "denied", "version": 7, "proof": "no", "channels": {"email": "No", "sms": "x"}}
    event = emitted(track(context={"consent": stated}))
    assert event.context["consent"] == {
        "ads": False,
        "source": "denied",
        "version": 7,
        "proof": "no",
        "channels": {"email": False, "sms": False},
    }
    assert event.flags == ["unreadable_consent:sms"]


@pytest.mark.parametrize(
    ("stated", "flag"),
    [
        ("granted", "unreadable_consent:consent"),
        (["ads"], "unreadable_consent:consent"),
        ({"categoryPreferences": ["ads"]}, "unreadable_consent:categoryPreferences"),
        ({"channels": True}, "unreadable_consent:channels"),
    ],
)
def test_what_names_no_purposes_says_nothing_but_is_told(stated: Any, flag: str) -> None:
    event = emitted(track(context={"consent": stated}))
    assert event.context["consent"] == stated
    assert event.flags == [flag]


@pytest.mark.parametrize(
    ("stated", "read", "flags"),
    [
        ({"categoryPreferences": {"ads": True}, "*": False}, {"ads": True, "*": False}, []),
        ({"categoryPreferences": {}, "ads": " No "}, {"ads": False}, []),
        ({"categoryPreferences": {"ads": True}, "ads": "denied"}, {"ads": False}, []),
        ({"categoryPreferences": {"ads": "opt_out"}, "ads": 1}, {"ads": False}, ["unreadable_consent:ads"]),
        ({"categoryPreferences": {"ads": None}, "ads": "yes", "mail": None}, {"ads": True}, []),
        ({"categoryPreferences": ["ads"], "*": 0}, {"*": False}, ["unreadable_consent:categoryPreferences"]),
        ({"categoryPreferences": {"ads": True}, "region": "EU"}, {"ads": True}, ["unreadable_consent:region"]),
    ],
)
def test_a_word_beside_the_preferences_counts_and_of_two_the_no(
    stated: dict[str, Any], read: dict[str, bool], flags: list[str]
) -> None:
    event = emitted(track(context={"consent": stated}))
    assert dict(stated_consents(event)) == read
    assert event.flags == flags


def test_preferences_that_say_nothing_hide_nothing() -> None:
    event = emitted(track(context={"consent": {"categoryPreferences": None, "ads": "no", "channels": {"sms": False}}}))
    assert dict(stated_consents(event)) == {"ads": False, "channel:sms": False}
    assert event.flags == []
