"""One rule of what a profile_id is, at every door that takes one: what is none is told so, and not looked up."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import explain as explain_door
from pipeline.cli import profile as profile_door
from pipeline.errors import InputError
from pipeline.identity import builtin_rules
from pipeline.lookup import identifier_or_profile, is_profile_id, person_or_profile, typed_profile_id
from pipeline.records import IdentifierPair, ProfileDocument, encode

RULES = builtin_rules()
ADA = "0a6bb1f7-7a3c-5d0e-9c55-0c1f4f0f2a11"
TYPED = [ADA, ADA.upper(), f"  {ADA}\n", f" {ADA.title()}"]
NEITHER = [
    "a-b-c-d-e", "----", ADA[:-1], f"{ADA}0", ADA.replace("-", ""), ADA.replace("a", "g"), f"{{{ADA}}}", "ada", "", " ",
]  # fmt: skip


@pytest.mark.parametrize("typed", TYPED)
def test_a_profile_id_is_taken_as_people_type_it(typed: str) -> None:
    assert identifier_or_profile(typed, RULES) == person_or_profile(typed, RULES) == typed_profile_id(typed) == ADA
    assert is_profile_id(typed) is (typed == ADA), "as it is written it is written in one way"


@pytest.mark.parametrize("typed", NEITHER)
def test_what_is_neither_is_told_that_both_may_stand_there(typed: str) -> None:
    for asked in (identifier_or_profile, person_or_profile):
        with pytest.raises(InputError, match="no identifier, and no profile_id") as told:
            asked(typed, RULES)
        assert "NAMESPACE:VALUE" in told.value.what_to_do and "8-4-4-4-12" in told.value.what_to_do


@pytest.mark.parametrize("typed", [f"device_id:{ADA}", f"user_id:{ADA.upper()}", "email:A-b-c-d-e@Example.org"])
def test_an_identifier_that_looks_like_one_is_an_identifier(typed: str) -> None:
    assert identifier_or_profile(typed, RULES) == typed.replace("A-b", "a-b").replace("Example", "example")


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The doors of the command, with ada's profile behind them; what they looked up."""
    document = ProfileDocument(ADA, "person", [IdentifierPair("user_id", "ada")], 1)
    asked: list[str] = []

    def value(_: Any, topic: str, key: bytes) -> bytes | None:
        asked.append(key.decode())
        return encode(document) if (topic, key) == ("profiles", ADA.encode()) else None

    plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=RULES, accounts=SimpleNamespace(same={})))
    for door in (profile_door, explain_door):
        monkeypatch.setattr(door.settings_module, "load", lambda: None)
        monkeypatch.setattr(door, "find_kafka", lambda _: None)
        monkeypatch.setattr(door, "KafkaPlans", lambda _: plans)
        monkeypatch.setattr(door, "current_value", value)
        monkeypatch.setattr(door.audit, "note", lambda *_: None)
    monkeypatch.setattr(explain_door, "refuse_other_partitions", lambda _: None)
    monkeypatch.setattr(explain_door, "_tell", lambda _, plans, document, *__: print(document.profile_id))
    return asked


def explain(typed: str) -> None:
    explain_door.command(typed, None, "ads", None, as_json=False)


def show(typed: str) -> None:
    profile_door.command(typed, as_json=True, wait=0)


@pytest.mark.parametrize("door", [show, explain])
@pytest.mark.parametrize("typed", TYPED)
def test_profile_and_explain_find_it(
    kafka: list[str], capsys: pytest.CaptureFixture[str], door: Any, typed: str
) -> None:
    door(typed)
    assert ADA in capsys.readouterr().out and set(kafka) == {ADA}


@pytest.mark.parametrize("door", [show, explain])
@pytest.mark.parametrize("typed", NEITHER)
def test_profile_and_explain_look_nobody_up_by_what_is_none(kafka: list[str], door: Any, typed: str) -> None:
    with pytest.raises(InputError, match="no identifier, and no profile_id"):
        door(typed)
    assert kafka == []
