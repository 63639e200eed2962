"""The identity rules: one line per value, and what every normaliser promises."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.identity import BUILT_IN, JUNK_REASONS, IdentityRules, Junk, Namespace, builtin_rules

RULES = builtin_rules(default_region="DE")
ANY_REGION = builtin_rules()


def rules_with(*namespaces: Namespace, **settings: object) -> IdentityRules:
    return IdentityRules({one.name: one for one in (*BUILT_IN, *namespaces)}, **settings)  # type: ignore[arg-type]


# namespace, raw value, cleaned value or reason
CASE_01 = [
    ("user_id", "null", "!junk_value"),
    ("user_id", "NULL", "!junk_value"),
    ("user_id", " null ", "!junk_value"),
    ("user_id", '"null"', "!junk_value"),
    ("user_id", "'undefined'", "!junk_value"),
    ("user_id", "\\'undefined\\'", "!junk_value"),
    ("user_id", "\u201cundefined\u201d", "!junk_value"),
    ("user_id", "\"'None'\"", "!junk_value"),
    ("user_id", "(null)", "!junk_value"),
    ("user_id", "nan", "!junk_value"),
    ("user_id", "NaN", "!junk_value"),
    ("user_id", "[object Object]", "!junk_value"),
    ("user_id", "'[object Object]'", "!junk_value"),
    ("user_id", "anonymous", "!junk_value"),
    ("user_id", "Guest", "!junk_value"),
    ("user_id", "UNKNOWN", "!junk_value"),
    ("user_id", "-1", "!junk_value"),
    ("user_id", -1, "!junk_value"),
    ("user_id", "", "!junk_value"),
    ("user_id", '""', "!junk_value"),
    ("user_id", "   ", "!junk_value"),
    ("user_id", None, "!junk_value"),
    ("user_id", 0, "!junk_value"),
    ("user_id", "0", "!junk_value"),
    ("user_id", "0000", "!junk_value"),
    ("user_id", "0.0", "!junk_value"),
    ("anonymous_id", "00000000-0000-0000-0000-000000000000", "!junk_value"),
    ("anonymous_id", "{00000000-0000-0000-0000-000000000000}", "!junk_value"),
    ("anonymous_id", "00000000000000000000000000000000", "!junk_value"),
    ("phone", "+0000000000", "!junk_value"),
    ("email", "null@undefined", "!junk_value"),
    ("loyalty_card", "undefined", "!junk_value"),
    # and what only looks like it
    ("user_id", "nullable", "nullable"),
    ("user_id", "10", "10"),
    ("user_id", "0x1", "0x1"),
    ("user_id", "00001", "00001"),
    ("user_id", "-10", "-10"),
    ("user_id", "anonymous7", "anonymous7"),
    ("user_id", '"ann"', '"ann"'),
]

CASE_11 = [
    ("email", " Ann@Example.COM ", "ann@example.com"),
    ("email", "ann+news@example.com", "ann+news@example.com"),
    ("email", "A.B@x.io", "a.b@x.io"),
    ("email", "JOSE\u0301@x.io", "jos\u00e9@x.io"),
    ("email", "ann at x.io", "!not_email"),
    ("email", "ann@", "!not_email"),
    ("email", "@x.io", "!not_email"),
    ("email", "ann smith@x.io", "!not_email"),
    ("phone", "0151 12345678", "+4915112345678"),
    ("phone", "+49 (151) 123-456-78", "+4915112345678"),
    ("phone", "0049 151 12345678", "+4915112345678"),
    ("phone", 4915112345678, "+4915112345678"),
    ("phone", "+1 555 010 0100 ext. 7", "+15550100100;ext=7"),
    ("phone", "4915112345678", "+4915112345678"),
    ("phone", "12025550143", "+12025550143"),
    ("phone", "call me", "!not_phone"),
    ("phone", "12", "!not_phone"),
]

OTHERS = [
    ("user_id", "Ann", "Ann"),
    ("user_id", 42, "42"),
    ("user_id", 42.0, "42"),
    ("user_id", 42.5, "!wrong_type"),
    ("user_id", 2.0**60, "!wrong_type"),
    ("user_id", True, "!wrong_type"),
    ("user_id", ["a"], "!wrong_type"),
    ("user_id", {"a": 1}, "!wrong_type"),
    ("user_id", "a\x00b", "!control_characters"),
    ("user_id", "a\nb", "!control_characters"),
    ("user_id", "a\u0085b", "!control_characters"),
    ("user_id", "a\ud800b", "!control_characters"),
    ("user_id", "\ufeffann\u200b", "ann"),
    ("user_id", "x" * 512, "x" * 512),
    ("user_id", "x" * 513, "!too_long"),
    ("user_id", "\u00e9" * 257, "!too_long"),
    ("user_id", "a:b", "a:b"),
    ("shop:user", "a", "!bad_namespace"),
    ("", "a", "!bad_namespace"),
    ("n" * 65, "a", "!bad_namespace"),
]


def expect(rules: IdentityRules, namespace: str, raw: object, expected: str) -> None:
    outcome = rules.clean(namespace, raw)
    if expected.startswith("!"):
        assert outcome == Junk(expected[1:])
        assert expected[1:] in JUNK_REASONS
    else:
        assert outcome == expected


@pytest.mark.parametrize(("namespace", "raw", "expected"), CASE_01)
def test_case_01_placeholders_never_become_identifiers(namespace: str, raw: object, expected: str) -> None:
    expect(RULES, namespace, raw, expected)


@pytest.mark.parametrize(("namespace", "raw", "expected"), CASE_11)
def test_case_11_emails_and_phones_in_one_spelling(namespace: str, raw: object, expected: str) -> None:
    expect(RULES, namespace, raw, expected)


def test_case_11_plus_tags_are_stripped_where_the_namespace_says_so() -> None:
    rules = rules_with(Namespace("email", 20, normaliser="email", strip_plus_tag=True))
    assert rules.clean("email", "Ann+news@x.io") == "ann@x.io"
    assert rules.clean("email", "+news@x.io") == "+news@x.io"


def test_what_is_blocked_has_a_spelling_by_which_it_is_found() -> None:
    rules = rules_with(Namespace("email", 20, normaliser="email", strip_plus_tag=True, blocked=("^ann@",)))
    assert rules.clean("email", " Ann+news@X.org") == Junk("blocked_pattern")
    assert rules.spelled("email", " Ann+news@X.org") == "ann@x.org"
    assert rules.spelled("email", "Bob@x.org") == "bob@x.org"
    assert rules.spelled("email", "ann") == Junk("not_email")
    assert rules.spelled("other", "null") == rules.spelled("user_id", None) == Junk("junk_value")


@pytest.mark.parametrize(
    ("region", "raw", "expected"),
    [
        ("IT", "3903118620", "+393903118620"),
        ("IT", "390 311 8620", "+393903118620"),
        ("IT", "393903118620", "+393903118620"),
        ("IT", "390690182000", "+390690182000"),
        ("PL", "486453551", "+48486453551"),
        ("PL", "48486453551", "+48486453551"),
        ("DE", "4915112345678", "+4915112345678"),
        ("AT", "436641234567", "+436641234567"),
    ],
)
def test_case_11_a_number_that_begins_with_its_own_countrys_code(region: str, raw: str, expected: str) -> None:
    assert builtin_rules(region).clean("phone", raw) == expected


def test_case_11_a_national_phone_number_without_a_region_is_refused() -> None:
    assert ANY_REGION.clean("phone", "0151 12345678") == Junk("not_phone")
    assert ANY_REGION.clean("phone", "+49 151 12345678") == "+4915112345678"


@pytest.mark.parametrize(("namespace", "raw", "expected"), OTHERS)
def test_values(namespace: str, raw: object, expected: str) -> None:
    expect(RULES, namespace, raw, expected)


def test_case_18_the_same_value_in_two_namespaces_is_two_identifiers() -> None:
    first, second = RULES.ranked("user_id", "7"), RULES.ranked("device_id", "7")
    assert not isinstance(first, Junk) and not isinstance(second, Junk)
    assert (first[2], second[2]) == ("user_id:7", "device_id:7")
    assert first < second


def test_equal_values_of_different_types_are_not_confused_by_the_cache() -> None:
    rules = builtin_rules()
    outcomes = [rules.clean("user_id", raw) for raw in (1, True, "1", 1.0)]
    assert outcomes == ["1", Junk("wrong_type"), "1", "1"]


def test_digits_and_lower() -> None:
    rules = rules_with(Namespace("card", 15, normaliser="digits"), Namespace("login", 16, normaliser="lower"))
    assert rules.clean("card", "No. 12-34 \u0665") == "12345"
    assert rules.clean("card", "none at all") == Junk("no_digits")
    assert rules.clean("card", "No. 00-00") == Junk("junk_value")
    assert rules.clean("login", "ANN") == "ann"


def test_blocked_patterns_are_searched_in_the_normalised_value_in_any_case() -> None:
    blocked = Namespace("email", 20, normaliser="email", blocked=(r"@EXAMPLE\.com$", r"^noreply"))
    rules = rules_with(blocked)
    assert rules.clean("email", "Ann@Example.com") == Junk("blocked_pattern")
    assert rules.clean("email", "NoReply@shop.io") == Junk("blocked_pattern")
    assert rules.clean("email", "ann@example.com.io") == "ann@example.com.io"


def test_a_pattern_takes_linear_time() -> None:
    rules = rules_with(Namespace("card", 15, blocked=(r"^(a+)+$", r"(a|aa)+b")))
    started = time.perf_counter()
    assert rules.clean("card", "a" * 500 + "c") == "a" * 500 + "c"
    assert time.perf_counter() - started < 1


def test_namespaces_stand_in_their_order_and_unknown_ones_behind_by_name() -> None:
    names = ["zeta", "anonymous_id", "alpha", "phone", "user_id", "alphb", "email", "device_id", "Z"]
    ordered = sorted(names, key=lambda name: RULES.order(f"{name}:1"))
    assert ordered == ["user_id", "email", "phone", "device_id", "anonymous_id", "Z", "alpha", "alphb", "zeta"]
    assert all(0 < RULES.priority(f"{name}:1") < 2**58 for name in names)


def test_the_order_of_an_identifier_never_changes() -> None:
    # Routes depend on it: another hash would be another place for everybody's events.
    assert RULES.order("user_id:ann") == (10, 0x671245EC89DFBFCD)
    assert RULES.ranked("user_id", " ann ") == (*RULES.order("user_id:ann"), "user_id:ann")


@pytest.mark.parametrize(
    ("namespace", "complaint"),
    [
        (Namespace("a:b", 1), "a:b"),
        (Namespace("card", 0), "priority"),
        (Namespace("card", 1, limit=0), "limit"),
        (Namespace("card", 1, unique=True, limit=3), "unique"),
        (Namespace("card", 1, normaliser="upper"), "normaliser"),  # type: ignore[arg-type]
        (Namespace("card", 1, blocked=("(",)), "RE2"),
        (Namespace("card", 1, blocked=(r"(a)\1",)), "RE2"),
        (Namespace("card", 1, on_conflict="last"), "on_conflict"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_cannot_be_used_are_refused(namespace: Namespace, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        rules_with(namespace)


def test_quarantine_needs_at_least_one() -> None:
    with pytest.raises(ValueError, match="quarantine_after"):
        rules_with(quarantine_after=0)


EVERY_NORMALISER = rules_with(
    Namespace("card", 15, normaliser="digits"),
    Namespace("login", 16, normaliser="lower"),
    Namespace("mail", 17, normaliser="email", strip_plus_tag=True),
    default_region="US",
)
likely = st.sampled_from(
    [" ", "'", '"', "(", "0", "1", "-", "+", "@", "\u0130", "\u00df", "e\u0301", "\u212a", "\ufeff", "a", "null"]
)
texts = st.one_of(st.text(max_size=40), st.lists(likely, max_size=12).map("".join))


@given(st.sampled_from(["user_id", "email", "phone", "card", "login", "mail", "other"]), texts)
def test_cleaning_twice_changes_nothing(namespace: str, raw: str) -> None:
    once = EVERY_NORMALISER.clean(namespace, raw)
    if not isinstance(once, Junk):
        assert once and once.encode()
        assert EVERY_NORMALISER.clean(namespace, once) == once


@given(texts)
def test_quotes_and_case_save_no_junk(raw: str) -> None:
    if RULES.clean("user_id", raw) == Junk("junk_value"):
        for dressed in (f'"{raw}"', f"'{raw}'", f" {raw} ", raw.upper(), f"({raw})"):
            assert isinstance(RULES.clean("user_id", dressed), Junk)
