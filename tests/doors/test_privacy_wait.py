"""`--wait` of privacy requests: until all is done, and for a moment for what destinations answer."""

from types import SimpleNamespace

import pytest
import typer

from pipeline.cli import privacy
from pipeline.records import PrivacyReceipt, ReceiptEntry, encode

ID = "r1"


def receipt(state: str, destination: str) -> bytes:
    """A receipt about one destination."""
    stores = [ReceiptEntry("destination mails", destination, 0, "asked")]  # type: ignore[arg-type]
    return encode(PrivacyReceipt(ID, "erase", "s", 0, state, by="kim", stores=stores))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("receipts", "shown", "seconds"),
    [
        ([None, receipt("working", "waiting"), receipt("done", "waiting"), receipt("done", "done")], "done", 3),
        ([receipt("done", "done")], "done", 0),
        ([receipt("done", "waiting")] * 60, "waiting", 5),
    ],
    ids=["answered in time", "answered at once", "not answered"],
)
def test_destinations_are_waited_for_a_moment(
    receipts: list[bytes | None],
    shown: str,
    seconds: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 1

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep, time_ns=lambda: 0)
    monkeypatch.setattr(privacy, "time", clock)
    monkeypatch.setattr(privacy, "_named", lambda *_, **__: (None, "user_id:bob"))
    monkeypatch.setattr(privacy, "ask", lambda *_: ID)
    there = iter(receipts)
    monkeypatch.setattr(
        privacy, "current_values", lambda *_: {} if (one := next(there)) is None else {ID.encode(): one}
    )
    privacy._request("erase", "user_id:bob", 30)
    said = capsys.readouterr().out
    [line] = [line for line in said.splitlines() if line.startswith("destination mails")]
    assert line.split()[2] == shown and now[0] == seconds


@pytest.mark.parametrize(("state", "code"), [("failed", 1), ("done", None)])
def test_a_script_hears_that_a_request_failed(
    state: str, code: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would tell people that they were forgotten, where nobody is known by what was typed."""
    monkeypatch.setattr(privacy, "_named", lambda *_, **__: (None, "user_id:bob"))
    monkeypatch.setattr(privacy, "ask", lambda *_: ID)
    monkeypatch.setattr(privacy, "current_values", lambda *_: {ID.encode(): receipt(state, "done")})
    found = None
    try:
        privacy._request("erase", "user_id:bob", 30)
    except typer.Exit as ended:
        found = ended.exit_code
    assert found == code and f"r1: {state}" in capsys.readouterr().out
