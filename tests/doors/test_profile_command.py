"""`headwater profile --wait`: what is shown is the profile at rest, not that of the moment before a merge."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.accounts import GROUPS_ONLY, AccountRules
from pipeline.cli import profile as door
from pipeline.cli.profile import waited_for
from pipeline.definitions.identity import identity_rules
from pipeline.errors import LookupFailed
from pipeline.records import IdentifierPair, IdentityPointer, ProfileDocument, encode


def profile(*values: str) -> ProfileDocument:
    return ProfileDocument("p", "person", [IdentifierPair("user_id", one) for one in values], len(values))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pipeline.cli.profile.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pipeline.cli.profile.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("wait_s", "shown"), [(30.0, ("ada", "a-1")), (0.5, ("ada",))])
def test_it_waits_until_it_is_there_and_stays_the_same(wait_s: float, shown: tuple[str, ...]) -> None:
    def looks() -> Iterator[ProfileDocument | None]:
        yield None
        for _ in range(3):
            yield profile("ada")
        while True:
            yield profile("ada", "a-1")

    seen = looks()

    def find() -> ProfileDocument:
        found = next(seen)
        if found is None:
            raise LookupFailed("nobody", "", "")
        return found

    assert waited_for(find, wait_s) == profile(*shown)


@pytest.mark.usefixtures("clock")
def test_without_waiting_it_is_as_it_is() -> None:
    assert waited_for(lambda: profile("ada"), 0) == profile("ada")

    def nobody() -> ProfileDocument:
        raise LookupFailed("nobody", "", "")

    for wait_s in (0, 3):
        with pytest.raises(LookupFailed):
            waited_for(nobody, wait_s)


def test_who_is_found_by_a_spelling_of_before_is_noted_as_who_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the spelling of today it would be in nobody's export."""
    rules = identity_rules({"namespaces": {"user_id": {"normaliser": "lower"}}})
    kept = {("identities", b"user_id:ADA"): IdentityPointer("p", 1), ("profiles", b"p"): profile("ADA")}
    noted: list[Any] = []
    monkeypatch.setattr(door.settings_module, "load", lambda: None)
    monkeypatch.setattr(door, "find_kafka", lambda _: None)
    plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=rules, accounts=GROUPS_ONLY))
    monkeypatch.setattr(door, "KafkaPlans", lambda _: plans)
    monkeypatch.setattr(door, "current_value", lambda _, *key: encode(kept[key]) if key in kept else None)
    monkeypatch.setattr(door.audit, "note", lambda _, *what: noted.append(what))
    door.command("user_id:ADA", as_json=True, wait=0)
    assert '"ADA"' in capsys.readouterr().out and noted == [("looked_up", "p")]


@pytest.mark.parametrize(
    ("typed", "found"),
    [("account:acme", "acme"), ("account:4711", "acme"), ("account: acme.de ", "acme"), ("account:old", "old")],
)
def test_an_account_is_found_by_its_other_names_too(
    typed: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was called so before `same` said what it means is still found by its name."""
    same = {"acme.de": "acme", "4711": "acme", "old": "acme"}
    kept: dict[tuple[str, bytes], Any] = {}
    for name in ("acme", "old"):
        kept["identities", f"account:{name}".encode()] = IdentityPointer(f"p-{name}", 1)
        kept["profiles", f"p-{name}".encode()] = ProfileDocument(f"p-{name}", "account", [], 1)
    monkeypatch.setattr(door.settings_module, "load", lambda: None)
    monkeypatch.setattr(door, "find_kafka", lambda _: None)
    plan = SimpleNamespace(identity=identity_rules({}), accounts=AccountRules(same=same))
    monkeypatch.setattr(door, "KafkaPlans", lambda _: SimpleNamespace(latest=lambda: plan))
    monkeypatch.setattr(door, "current_value", lambda _, *key: encode(kept[key]) if key in kept else None)
    monkeypatch.setattr(door.audit, "note", lambda _, *what: None)
    door.command(typed, as_json=True, wait=0)
    assert f'"p-{found}"' in capsys.readouterr().out
