"""A request that cannot be carried out has a receipt that says so: without one it would end the role at every start."""

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline.definitions.identity import identity_rules
from pipeline.errors import BrokerError, InputError, LookupFailed
from pipeline.identifiers import Keys
from pipeline.identity import Junk, builtin_rules
from pipeline.privacy import asking, role, whom
from pipeline.privacy.whom import Whom
from pipeline.records import PrivacyReceipt, PrivacyRequest, encode
from pipeline.runtime.ports import Record
from pipeline.settings import Settings


@pytest.fixture
def carrying_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, list[PrivacyReceipt]]:
    """A role that has read that somebody wants an export, and a person's erasure behind it."""
    made = object.__new__(role.PrivacyRole)
    receipts: list[PrivacyReceipt] = []
    made._settings = SimpleNamespace(state_dir=tmp_path)  # type: ignore[assignment]
    made._keys = Keys(b"s")
    made._receipts, made._erasures, made._answers = {}, {}, {}
    made._waiting, made._exports = [], deque()
    made._plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=builtin_rules()))  # type: ignore[assignment]
    monkeypatch.setattr(whom, "current_value", lambda *_: None)
    made._whom = Whom(made._settings, made._keys, made._rules, {})
    monkeypatch.setattr(made, "_say", receipts.append)
    return made, receipts


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/exports/ada"),
        PermissionError(13, "Permission denied"),
        InputError("The setting `archive` needs a package", "s3://ada"),
        RuntimeError("Could not connect to the endpoint for ada"),
        LookupFailed("ada"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_export_that_fails_holds_up_nobodys_erasure(
    carrying_out: tuple[Any, list[PrivacyReceipt]],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, receipts = carrying_out

    def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(role, "carry_out", fails)
    made._carry_out(PrivacyRequest("r1", "export", "user_id:ada", 5), 7)
    [receipt] = receipts
    is_known = not isinstance(error, LookupFailed)
    said = type(error).__name__ if is_known else "nobody is known by this identifier: they never were, or were erased"
    assert (receipt.request_id, receipt.state, receipt.detail) == ("r1", "failed", said)
    assert "ada" not in caplog.text and "ada" not in str(receipt)
    unforeseen = not isinstance(error, ValueError | LookupFailed)
    assert (f"export r1 failed: {type(error).__name__}" in caplog.text) is unforeseen, "else nobody knows what to mend"


def test_a_kafka_that_is_away_fails_nothing(
    carrying_out: tuple[Any, list[PrivacyReceipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, receipts = carrying_out

    def fails(*_: Any) -> Any:
        raise BrokerError("The Kafka does not answer.")

    monkeypatch.setattr(role, "carry_out", fails)
    with pytest.raises(BrokerError):
        made._carry_out(PrivacyRequest("r1", "export", "user_id:ada", 5), 7)
    assert receipts == [], "it is carried out when the role begins again"


# ------------------------------------------------------------------------------------------ written by other programs


def written(value: bytes) -> Record:
    return Record("privacy-requests", 0, 5, b"r1", value, 0)


def asked(identifier: str, request_id: str = "r1", request: Any = "erase") -> Record:
    return written(encode(PrivacyRequest(request_id, request, identifier, 5)))


@pytest.mark.parametrize("identifier", ["email:Ada@Example.ORG ", "email: ada@example.org"])
def test_who_is_meant_is_found_however_it_was_typed(
    carrying_out: tuple[Any, list[PrivacyReceipt]], identifier: str
) -> None:
    """Else nobody is erased, and the receipt says that it was done."""
    made, _ = carrying_out
    made._take(asked(identifier))
    assert made._erasures["r1"].request.identifier == "email:ada@example.org"
    assert made._erasures["r1"].subject == Keys(b"s").actor("email:ada@example.org").decode()


def test_case_14_who_came_before_their_address_was_blocked_is_erased_all_the_same(
    carrying_out: tuple[Any, list[PrivacyReceipt]],
) -> None:
    """Their profile is there, with all they did: the new rules have only parted it from others."""
    made, receipts = carrying_out
    strict = identity_rules({"preset": "strict"})
    made._plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=strict))
    assert strict.clean("email", "Test@example.org") == Junk("blocked_pattern")
    made._take(asked("email: Test@example.org"))
    assert made._erasures["r1"].request.identifier == "email:test@example.org" and not receipts


@pytest.mark.parametrize("identifier", ["", "ada", "email:", "user_id:null", "account:acme", ":ada"])
def test_what_is_nobody_has_a_receipt_that_says_so(
    carrying_out: tuple[Any, list[PrivacyReceipt]], identifier: str
) -> None:
    made, receipts = carrying_out
    made._take(asked(identifier))
    assert not made._erasures and not made._waiting
    [receipt] = receipts
    assert (receipt.state, receipt.request_id) == ("failed", "r1") and "NAMESPACE:VALUE" in receipt.detail


@pytest.mark.parametrize("request_id", ["", "..", ".", "a/b", "../secret", "a\x00b", "x" * 101])
def test_an_id_is_no_way_out_of_the_folder_of_exports(
    carrying_out: tuple[Any, list[PrivacyReceipt]], request_id: str
) -> None:
    """`exports/..` is the state folder: an erasure deletes what was exported for the person."""
    made, receipts = carrying_out
    made._take(asked("user_id:ada", request_id, "export"))
    assert not made._waiting and [one.state for one in receipts] == ["failed"]


NO_REQUESTS = [
    *(b"", b"{", b"[]", b"{}", b'{"request_id":1}', b'{"request":"forget"}', b"\xff"),
    b'{"request_id":"\xff"}',  # no UTF-8 within
    b'{"more":' + b"[" * 100_000,
]


@pytest.mark.parametrize("value", NO_REQUESTS, ids=range(len(NO_REQUESTS)))
def test_what_is_no_request_ends_nobody(
    carrying_out: tuple[Any, list[PrivacyReceipt]], value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made, receipts = carrying_out
    made._take(written(value))
    assert not receipts and "privacy-requests/0/5 is no request" in caplog.text
    made._take(asked("user_id:ada"))
    assert list(made._erasures) == ["r1"]


def test_a_workspace_that_takes_over_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [*map(written, NO_REQUESTS), asked("user_id:ada", "r1"), asked("user_id:bob", "r2", "export")]
    log = MagicMock()
    log.return_value.__enter__.return_value.read_to_end.return_value = records
    handed: list[bytes] = []

    def produced(settings: Settings, topic: str, records: list[tuple[bytes, bytes]]) -> int:
        handed.extend(key for key, _ in records)
        return len(records)

    monkeypatch.setattr(asking, "TopicReader", log)
    monkeypatch.setattr(asking, "current_values", lambda settings, topic: {})
    monkeypatch.setattr(asking, "produce_all", produced)
    assert asking.hand_over_requests(Settings(), Settings()) == 1
    assert handed == [b"r1"]


def test_what_was_begun_is_gone_on_with_by_the_next_process(
    carrying_out: tuple[Any, list[PrivacyReceipt]],
) -> None:
    made, _ = carrying_out
    made._receipts["r1"] = made._receipt(PrivacyRequest("r1", "erase", "user_id:ada", 5), "working", "")
    made._take(asked("user_id:ada"))
    assert list(made._erasures) == ["r1"]


def test_what_was_carried_out_is_not_carried_out_again(carrying_out: tuple[Any, list[PrivacyReceipt]]) -> None:
    made, receipts = carrying_out
    made._receipts["r1"] = made._receipt(PrivacyRequest("r1", "erase", "ada", 5), "failed", "")
    made._take(asked("ada"))
    assert not receipts and not made._erasures
