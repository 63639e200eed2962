"""`headwater test`: what a fixture says, and what it ends with."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import build
from pipeline.cli._console import Console
from pipeline.errors import HeadwaterError, InputError, LookupFailed

CURIOUS = """
segment: curious
when:
  performed: {event: Page Viewed, where: {properties.path: {starts_with: /pricing}}, count: {at_least: 2}, within: 10s}
"""
MORE = """
segment: known
when: {trait: {email: {exists: true}}}
---
identity:
  namespaces: {user_id: {blocked: [robot]}}
"""
NINE = "2026-03-01T09:00:"


def page(second: float, **fields: Any) -> dict[str, Any]:
    return {"type": "page", "timestamp": f"{NINE}{second:06.3f}Z", "properties": {"path": "/pricing"}} | fields


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Nothing of the machine's own set-up counts, and no Kafka is asked.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    (tmp_path / "curious.yaml").write_text(CURIOUS)
    return tmp_path


def run(events: list[Any], *words: str, segment: str = "curious.yaml") -> Result:
    lines = [one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in events]
    Path("events.jsonl").write_text("\n".join(lines) + "\n")
    said = CliRunner().invoke(build(), ["test", segment, "--events", "events.jsonl", *words])
    if isinstance(said.exception, HeadwaterError):
        raise said.exception
    return said


def at(second: float) -> tuple[str, str]:
    return "--at", f"{NINE}{second:06.3f}Z"


def test_members_at_several_instants(folder: Path) -> None:
    said = run([page(0, userId="ada"), page(4, userId="ada")], *at(3), *at(4), *at(9.999), *at(10), "--changes")
    assert said.exit_code == 0
    assert said.stdout.splitlines() == [
        "curious at 2026-03-01 09:00:03.000Z: 0 members",
        "curious at 2026-03-01 09:00:04.000Z: 1 member: user_id:ada",
        "curious at 2026-03-01 09:00:09.999Z: 1 member: user_id:ada",
        "curious at 2026-03-01 09:00:10.000Z: 0 members",
        "2026-03-01 09:00:04.000Z → entered curious  user_id:ada",
        "2026-03-01 09:00:10.000Z ← exited  curious  user_id:ada",
    ]


def test_a_contract_beside_the_rule_says_how_long_its_events_count(folder: Path) -> None:
    (folder / "viewed.yaml").write_text("segment: viewed\nwhen: {performed: {event: Page Viewed}}")
    (folder / "plan.yaml").write_text("contract: plan\nretention: 10s\nevents: {Page Viewed: }")
    for more, members in (((), 1), (("--definitions", "plan.yaml"), 0)):
        said = run([page(0, userId="ada")], *at(9.999), *at(10), *more, segment="viewed.yaml")
        assert [f"{one} member" in line for one, line in zip((1, members), said.stdout.splitlines(), strict=True)] == [
            True,
            True,
        ], said.stdout


CLEANED = """
contract: plan
on_violation: reject
events: {Page Viewed: {required: [path], properties: {path: {type: string}}}}
---
cleaning: basics
steps:
  - rename: {field: properties.url, to: properties.path}
---
cleaning: hashed
steps: [{hash: properties.card}]
---
cleaning: of_the_web
sources: [web]
steps: [{drop: properties.path}]
"""


def test_events_are_cleaned_and_checked_as_ingest_does_it(folder: Path) -> None:
    (folder / "plan.yaml").write_text(CLEANED)
    events = [
        page(0, userId="ada", properties={"url": "/pricing"}),
        page(1, userId="ada", properties={"path": "/pricing", "card": "4711"}),
        page(0, userId="bob", properties={"path": 7}),
        page(1, userId="bob"),
        page(2, userId="bob", source="web"),
    ]
    said = run(events, *at(3), "--definitions", "plan.yaml", "--expect", "user_id:ada")
    assert said.exit_code == 0, said.output
    assert "events.jsonl:2: a step of hashed was not taken" in said.stderr
    left_out = [line for line in range(1, 6) if f"events.jsonl:{line}: left out, contract_violation" in said.stderr]
    assert left_out == [3, 5]


ADA_AND_BOB = [
    page(0, anonymousId="a-1"),
    page(1, anonymousId="a-1", userId="Ada"),
    page(1, userId="bob"),
    page(2, userId="eve"),
    page(2, userId="eve"),
]


@pytest.mark.parametrize(
    ("expected", "exit_code", "told"),
    [
        ("user_id:Ada,user_id:eve", 0, "as expected"),
        ("anonymous_id:a-1, user_id:eve", 0, "as expected"),
        ("user_id:Ada,anonymous_id:a-1,user_id:eve", 0, "as expected"),
        ("user_id:Ada", 1, "+ user_id:eve: a member, and was not expected"),
        ("user_id:Ada,user_id:eve,user_id:bob", 1, "− user_id:bob: expected, and is no member"),
        ("user_id:Ada,user_id:eve,user_id:zoe", 1, "user_id:zoe: expected, and is no member; no event says anything"),
        ("nobody", 1, "+ anonymous_id:a-1: a member, and was not expected"),
        ("wanted.txt", 0, "as expected"),
        (",".join(["user_id:Ada", "user_id:eve"] * 20), 0, "as expected"),
    ],
)
def test_expectations(folder: Path, expected: str, exit_code: int, told: str) -> None:
    (folder / "wanted.txt").write_text("# who looked twice\nuser_id:Ada\n\nuser_id:eve  # at once\n")
    said = run(ADA_AND_BOB, *at(5), "--expect", expected)
    assert said.exit_code == exit_code
    assert told in said.stdout
    assert ("✗ not as expected" in said.stdout) is (exit_code == 1)


def test_what_people_are_called_is_no_picture(folder: Path) -> None:
    events = [page(1, userId=name) for name in ("a", "cat", "cat")]
    said = run(events, "--at", *at(2)[1:], "--expect", "user_id:a")
    assert "user_id:a: expected, and is no member" in said.stdout
    assert "user_id:cat: a member, and was not expected" in said.stdout


def test_every_command_shows_names_as_they_are_written() -> None:
    build()
    consoles = {
        name: module.Console
        for name, module in sys.modules.items()
        if name.startswith("pipeline.cli.") and hasattr(module, "Console")
    }
    assert "pipeline.cli.watch" in consoles
    assert {name for name, one in consoles.items() if one is not Console} == set()


def test_a_difference_comes_with_its_reason(folder: Path) -> None:
    said = run(ADA_AND_BOB, *at(5), "--expect", "user_id:Ada,user_id:eve,user_id:bob")
    words = " ".join(said.stdout.split())
    assert "user_id:bob: ✗ segment curious" in words
    assert "is 1 · changes with 1 more Page Viewed within 10s" in words


@pytest.mark.parametrize(
    ("trial_end", "told"),
    [
        ("9999-12-31T23:59:59.999Z", "changes 9999-12-31 23:59:39.999Z, in"),
        (253_402_300_820_000, "changes after the year 9999, in"),
        (1e300, "changes after the year 9999, in"),
    ],
)
def test_an_instant_that_no_calendar_has_is_told(folder: Path, trial_end: Any, told: str) -> None:
    (folder / "trial.yaml").write_text("segment: trial\nwhen: {trait: {trial_end: {within_next: 20s}}}\n")
    events = [page(0, userId="ada", type="identify", traits={"trial_end": trial_end})]
    said = run(events, *at(5), "--expect", "user_id:ada", segment="trial.yaml")
    assert said.exit_code == 1
    assert told in " ".join(said.stdout.split())


def test_each_instant_has_its_expectation(folder: Path) -> None:
    events = [page(0, userId="ada"), page(4, userId="ada")]
    both = (*at(4), "--expect", "user_id:ada", *at(10), "--expect", "nobody")
    assert run(events, *both).exit_code == 0
    assert run(events, *at(4), "--expect", "nobody", *at(10), "--expect", "nobody").exit_code == 1
    with pytest.raises(InputError, match="1 --expect do not go with 2 --at"):
        run(events, *at(4), *at(10), "--expect", "nobody")


def test_events_are_received_when_they_say(folder: Path) -> None:
    late = page(0, userId="ada", receivedAt=f"{NINE}08Z")
    sent = page(0, userId="bob", sentAt=f"{NINE}06Z")
    events = [late, page(1, userId="ada"), sent, page(1, userId="bob")]
    said = run(events, *at(5), *at(6), *at(8))
    counts = [line.rpartition(": ")[2] if "member:" in line else "0" for line in said.stdout.splitlines()[:2]]
    assert counts == ["0", "user_id:bob"]
    assert said.stdout.splitlines()[2].endswith("2 members: user_id:ada, user_id:bob")


def test_what_is_left_out_is_told(folder: Path) -> None:
    twice = page(0, userId="ada", messageId="m-1")
    events = [twice, twice, page(1), page(1, userId="null"), '{"type": ', page(2, userId="eve")]
    said = run(events, *at(5))
    assert "curious at 2026-03-01 09:00:05.000Z: 0 members" in said.stdout, "a duplicate does not count twice"
    assert "left out, a duplicate: m-1 of user_id:ada" in said.stderr
    assert "events.jsonl:3: left out, no_identifier" in said.stderr
    assert "events.jsonl:4: left out, only_junk_identifiers" in said.stderr
    assert "events.jsonl:5: left out, not_json" in said.stderr


def test_a_name_with_its_definitions(folder: Path) -> None:
    (folder / "rules").mkdir()
    (folder / "rules" / "all.yaml").write_text(CURIOUS + "---" + MORE)
    login = {"type": "identify", "userId": "ada", "traits": {"email": "a@b.de"}, "timestamp": f"{NINE}00Z"}
    events = [login, login | {"userId": "robot-7"}]
    said = run(events, *at(1), "--definitions", "rules", "--expect", "user_id:ada", segment="known")
    assert said.exit_code == 0, said.stdout
    assert "1 member: user_id:ada" in said.stdout, "the file's identity rules hold: robots have no user_id"
    both = run(events, *at(1), segment="rules")
    assert both.stdout.count(" at 2026-03-01") == 2
    with pytest.raises(LookupFailed, match="no segment nosuch"):
        run(events, *at(1), "--definitions", "rules", segment="nosuch")


@pytest.mark.parametrize(
    ("events", "words", "told"),
    [
        ([{"type": "page", "userId": "ada"}], at(1), "needs a time"),
        (
            [{"type": "page", "userId": "ada", "timestamp": "1950-03-01"}],
            at(1),
            "cannot be used: a time must lie between",
        ),
        ([page(0, userId="ada")], ("--at", "yesterday"), "--at cannot be used"),
        ([page(0, userId="ada")], (*at(1), "--expect", "ada"), "no identifier"),
        ([page(0, userId="ada")], (*at(1), "--expect", "."), "Is a directory"),
        ([page(0, userId="ada")], (*at(1), "--expect", ""), "names nobody"),
        ([page(0, userId="ada")], (*at(1), "--expect", " , "), "names nobody"),
        ([page(0, userId="ada")], (*at(1), "--expect", "latin.txt"), "is not UTF-8"),
    ],
)
def test_what_cannot_be_asked(folder: Path, events: list[Any], words: tuple[str, ...], told: str) -> None:
    Path("latin.txt").write_bytes(b"user_id:J\xfcrgen\n")
    with pytest.raises(InputError, match=told):
        run(events, *words)


WARM = """
segment: warm
entity: account
when:
  all:
    - members:
        match: {performed: {event: Page Viewed, where: {properties.path: {starts_with: /pricing}}, within: 10s}}
        at_least: 2
    - not: {trait: {plan: enterprise}}
---
segment: colleague
when: {account: {in_segment: warm}}
---
accounts: default
free_mail: [post.example]
"""


def login(second: float, user: str, email: str) -> dict[str, Any]:
    return {"type": "identify", "userId": user, "traits": {"email": email}, "timestamp": f"{NINE}{second:06.3f}Z"}


def group(second: float, user: str, **traits: Any) -> dict[str, Any]:
    about = {"groupId": "acme.de", "traits": traits}
    return {"type": "group", "userId": user, "timestamp": f"{NINE}{second:06.3f}Z"} | about


COLLEAGUES = [
    page(0, anonymousId="a-1"),
    page(1, userId="bob"),
    # An unknown visitor turns out to be of the company: what they saw before, they saw for it.
    login(2, "ada", "ada@acme.de") | {"anonymousId": "a-1"},
    login(3, "bob", "bob@acme.de"),
    login(3, "eve", "eve@post.example"),
    page(3, userId="eve"),
]


def test_a_segment_of_accounts(folder: Path) -> None:
    (folder / "warm.yaml").write_text(WARM)
    warm = "account:acme.de"
    names = ("--definitions", "warm.yaml", "--changes")
    said = run(
        COLLEAGUES,
        *at(2.999),
        "--expect",
        "nobody",
        *at(3),
        "--expect",
        warm,
        *names,
        *at(10),
        "--expect",
        "nobody",
        segment="warm",
    )
    assert said.exit_code == 0, said.stdout
    assert said.stdout.splitlines()[-2:] == [
        "2026-03-01 09:00:03.000Z → entered warm  account:acme.de",
        "2026-03-01 09:00:10.000Z ← exited  warm  account:acme.de",
    ]
    asked = run(COLLEAGUES, *at(3), "--expect", "user_id:ada,user_id:bob", *names[:2], segment="colleague")
    assert asked.exit_code == 0, asked.stdout
    both = run(COLLEAGUES, *at(3), segment="warm.yaml").stdout
    assert "warm at 2026-03-01 09:00:03.000Z: 1 member: account:acme.de" in both
    assert "colleague at 2026-03-01 09:00:03.000Z: 2 members: anonymous_id:a-1, user_id:bob" in both


def test_why_an_account_is_no_member(folder: Path) -> None:
    (folder / "warm.yaml").write_text(WARM)
    paying = [*COLLEAGUES, group(4, "ada", plan="enterprise")]
    definitions = ("--definitions", "warm.yaml")
    said = run(paying, *at(5), "--expect", "account:acme.de,account:zoo.org", *definitions, segment="warm")
    assert said.exit_code == 1
    words = " ".join(said.stdout.split())
    assert "account:acme.de: expected, and is no member" in words
    assert "account:zoo.org: expected, and is no member; no event says anything of them" in words
    assert "✓ people: count of Page Viewed" in words and "is 2" in words
    left = {"type": "track", "event": "Account Removed User", "userId": "bob", "context": {"groupId": "acme.de"}}
    gone = [*COLLEAGUES, left | {"timestamp": f"{NINE}04Z"}]
    assert run(gone, *at(4), "--expect", "nobody", *definitions, segment="warm").exit_code == 0
