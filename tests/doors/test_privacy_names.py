"""Whom `headwater privacy` asks for: by an identifier as people type it, by what was taken in before, by a profile."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import privacy
from pipeline.definitions.identity import identity_rules
from pipeline.errors import InputError
from pipeline.records import IdentityPointer, encode

BEFORE, NOW = "3e57d298-e2d2-5f9a-ac3c-68b3322459ff", "4e57d298-e2d2-5f9a-ac3c-68b3322459ff"


@pytest.mark.parametrize(
    ("kind", "typed", "known", "asked"),
    [
        ("erase", "loyalty:AB-1", {"loyalty:AB-1": BEFORE}, BEFORE),
        ("erase", "loyalty:AB-1", {"loyalty:AB-1": BEFORE, "loyalty:ab-1": NOW}, BEFORE),
        ("suppress", "loyalty:AB-1", {"loyalty:AB-1": BEFORE}, BEFORE),
        ("suppress", "loyalty:AB-1", {"loyalty:AB-1": BEFORE, "loyalty:ab-1": NOW}, "loyalty:ab-1"),
        ("erase", "loyalty:AB-1", {}, "loyalty:ab-1"),
        ("erase", BEFORE, {}, BEFORE),
        ("erase", BEFORE.upper(), {}, BEFORE),
        ("erase", " email: Ada@Example.org", {}, "email:ada@example.org"),
    ],
)
def test_whom_a_command_asks_for(
    kind: str, typed: str, known: dict[str, str], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = identity_rules({"namespaces": {"loyalty": {"normaliser": "lower"}}})
    pointers = {text.encode(): encode(IdentityPointer(profile_id, 1)) for text, profile_id in known.items()}
    told: list[Any] = []
    monkeypatch.setattr(privacy.settings_module, "load", lambda: None)
    monkeypatch.setattr(privacy, "find_kafka", lambda _: None)
    plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=rules))
    monkeypatch.setattr(privacy, "KafkaPlans", lambda _: plans)
    monkeypatch.setattr(privacy, "current_value", lambda _, topic, key: pointers.get(key))
    monkeypatch.setattr(privacy, "ask", lambda _, *what: told.append(what[:2]) or "r1")
    privacy._request(kind, typed, 0)
    assert told == [(kind, asked)]
    with pytest.raises(InputError):
        privacy._request(kind, "account:acme", 0)
