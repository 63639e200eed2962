"""The export of a person: which bytes are about them, and that what is written can be read by both."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from pipeline.definitions.identity import identity_rules
from pipeline.identity.rules import builtin_rules
from pipeline.privacy.export import Naming, Spool, write_export
from pipeline.records import encode

ADA = ("user_id:7", "email:ada@example.org", "phone:+4915123456789", "loyalty:lq-0001")


@pytest.mark.parametrize(
    ("record", "is_theirs"),
    [
        ({"userId": "7"}, True),
        ({"userId": 7}, True),
        ({"user_id": "7"}, True),
        ({"userId": "77"}, False),
        ({"userId": "8", "properties": {"quantity": 7, "size": "7"}}, False),
        ({"userId": "8", "properties": {"page": "07"}}, False),
        ({"traits": {"email": " Ada@Example.org"}}, True),
        ({"contact": {"mails": ["x@y.org", "ada@example.org"]}}, True),
        ({"email": "ada@example.org.evil"}, False),
        ({"email": "not-ada@example.org"}, False),
        ({"identifiers": {"loyalty": "lq-0001"}}, True),
        ({"card": "lq-0001"}, True),
        ({"note": "lq-0001 and more"}, False),
        ({"phone": "+49 151 23456789"}, True),
        ([[[{"userId": "7"}]]], True),
        ({"userId": None, "email": True}, False),
    ],
)
def test_a_record_is_theirs_by_a_whole_value_and_a_short_one_only_under_its_name(record: Any, is_theirs: bool) -> None:
    assert Naming(ADA, builtin_rules())(json.dumps(record).encode()) is is_theirs


@pytest.mark.parametrize(
    ("known", "record"),
    [
        ("loyalty:LQ-0001", {"identifiers": {"loyalty": "LQ-0001"}}),
        ("loyalty:LQ-0001", {"identifiers": {"loyalty": "lq-0001"}}),
        ("loyalty:LQ-0001", {"card": "LQ-0001"}),
        ("loyalty:LQ-1", {"loyalty": "LQ-1"}),
        ("email:test@example.org", {"email": "Test@example.org"}),
    ],
)
def test_what_is_spelled_otherwise_or_blocked_by_now_is_still_theirs(known: str, record: Any) -> None:
    """It was taken in by the rules of then: what the sources have of it belongs into the export."""
    rules = identity_rules({"preset": "strict", "namespaces": {"loyalty": {"normaliser": "lower"}}})
    assert Naming([known], rules)(json.dumps(record).encode())
    assert not Naming(["loyalty:else-1", "email:else@example.org"], rules)(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("text", "is_theirs"),
    [
        (b'{"email": "Ada@example.org", "no', True),
        (b"id;7;lq-0001;x", True),
        (b"id;7;lq-00012;x", False),
        (b"not-ada@example.org", False),
        (b"7", False),
        (b"\xff\xfe ada@example.org \x00", True),
    ],
)
def test_what_is_no_json_is_theirs_if_it_names_them_in_a_word(text: bytes, is_theirs: bool) -> None:
    assert Naming(ADA, builtin_rules())(text) is is_theirs


def test_an_export_is_for_machines_and_for_people_and_for_nobody_else(tmp_path: Path) -> None:
    found: dict[str, Any] = {
        "exported_at": "2026-03-01T09:00:00+00:00",
        "profile": {
            "profile_id": "p",
            "entity": "person",
            "identifiers": [],
            "identifiers_total": 2,
            "traits": {"name": "Ada", "address": {"street": "Höhe 1"}},
            "consents": {"marketing": False},
            "accounts": ["account:acme.org"],
        },
        "identifiers": ["user_id:7", "email:ada@example.org"],
        "events": [
            {"event": "Page Viewed", "time": 0, "properties": {"path": "/p"}},
            {"event": "Identify", "time": 60_000, "traits": {"name": "Ada"}},
        ],
        "profile_changes": [{}],
        "segment_changes": [{"at": 60_000, "change": "entered", "segment": "readers"}],
        "deliveries": {"ads": [{}, {}]},
        "sources": {"raw": [{"value": "x"}]},
        "dead_letters": [],
        "identity_conflicts": [{"reason": "limit"}],
        "requests": [],
        "audit": [{"at": 0, "by": "eve", "action": "looked_up"}],
    }
    write_export(found, tmp_path / "ada")
    assert json.loads((tmp_path / "ada" / "export.json").read_text()) == found
    text = (tmp_path / "ada" / "export.md").read_text()
    for line in (
        "- email: ada@example.org",
        '- address: {"street": "Höhe 1"}',
        "- marketing: no",
        "- account:acme.org",
        "- 1970-01-01 00:00 Page Viewed (path: /p)",
        "- 1970-01-01 00:01 Identify (name: Ada)",
        "- 1970-01-01 00:01 entered readers",
        "- ads: 2 times in the last days",
        "- 1970-01-01 00:00 eve: looked up",
        "- 1 records as they were received, before they were checked",
    ):
        assert line in text.splitlines(), line
    assert "requests about" not in text
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "ada").iterdir()} == {0o600}


def test_what_there_may_be_much_of_is_in_order_and_not_in_memory(tmp_path: Path) -> None:
    def many(count: int) -> Spool:
        values = ({"event": f"E{n}", "time": n, "properties": {"p": "ü" * 5_000}} for n in range(count))
        return Spool(tmp_path, (((-one["time"], ""), encode(one)) for one in values))

    empty: dict[str, Any] = {"deliveries": {}, "sources": {"raw": many(2)}, "audit": [], "requests": []}
    lists: dict[str, Any] = {"dead_letters": many(0), "identity_conflicts": [], "segment_changes": many(0)}
    profile = {"profile_id": "p", "entity": "person", "identifiers": [], "identifiers_total": 0}
    rest = {"exported_at": "now", "profile": profile, "identifiers": [], "profile_changes": many(1), **empty, **lists}
    tracemalloc.start()
    write_export({**rest, "events": many(2_000)}, tmp_path / "bot")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000, "of 20 MB"
    written = json.loads((tmp_path / "bot" / "export.json").read_text())
    assert [one["time"] for one in written["events"]] == list(range(1_999, -1, -1))
    assert [len(one) for one in (written["sources"]["raw"], written["dead_letters"])] == [2, 0]
    assert written["deliveries"] == {} and written["profile"] == profile
    assert {file.name for file in tmp_path.rglob("*")} == {"bot", "export.json", "export.md"}
