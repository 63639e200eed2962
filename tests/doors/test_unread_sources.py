"""What would wait in silence is told when it is applied: a source of which ingest does not read the topic, and who is
to hear of a segment that nobody has defined."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.definitions.apply import ApplyPlan
from pipeline.settings import Settings


def test_what_ingest_does_not_read() -> None:
    settings = Settings.model_validate({"prefix": "w.", "sources": "raw,/shop.orders"})
    assert settings.unread(["/shop.orders", "raw", "/w.raw"]) == []
    assert settings.unread(["/crm.rows", "orders", "raw", "orders"]) == ["/crm.rows", "orders"]


def test_both_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = "The destination mails hears nothing yet by trial: there is no such segment."
    (tmp_path / "a.yaml").write_text("source: crm\ntopic: /crm.rows\nevent: {type: page, userId: {from: value.id}}\n")
    module = import_module("pipeline.cli.apply")
    monkeypatch.setattr(module, "find_kafka", lambda settings: settings)
    monkeypatch.setattr(module, "Readiness", lambda _: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(module, "apply", lambda *_, **__: ApplyPlan((), (), None, False, (told,)))
    module.command([tmp_path / "a.yaml"], False, False, False, 0)
    said = " ".join(capsys.readouterr().out.split())
    assert told in said and "ingest does not read /crm.rows." in said
