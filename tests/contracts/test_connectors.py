"""Every connector that comes along passes the suite that third parties use."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.file import FileConnector
from connectors.http import HttpConnector
from connectors.testing import ConnectorContract, sample_delivery
from connectors.webhook import WebhookConnector
from tests.contracts.webhook_receiver import WebhookReceiver

SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


class TestWebhook(ConnectorContract):
    connector = WebhookConnector

    @pytest.fixture(autouse=True)
    def _receiver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("TESTED_SECRET", SECRET)
        self.receiver = WebhookReceiver()
        yield
        self.receiver.close()

    def options(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "secret": {"env": "TESTED_SECRET"}, "allow_private": True}

    def received(self) -> list[str]:
        return [request.delivery_id for request in self.receiver.requests]

    def break_destination(self) -> None:
        self.receiver.answer = lambda request: (503, {}, b"down for repair")

    def mend_destination(self) -> None:
        self.receiver.answer = lambda request: (200, {}, b"")


class TestHttp(ConnectorContract):
    connector = HttpConnector

    @pytest.fixture(autouse=True)
    def _receiver(self) -> Iterator[None]:
        self.receiver = WebhookReceiver()
        yield
        self.receiver.close()

    def options(self) -> dict[str, Any]:
        return {"url": self.receiver.url, "body": {"id": "{delivery_id}"}, "allow_private": True}

    def received(self) -> list[str]:
        assert all(r.headers["idempotency-key"] == json.loads(r.body)["id"] for r in self.receiver.requests)
        return [request.headers["idempotency-key"] for request in self.receiver.requests]

    def break_destination(self) -> None:
        self.receiver.answer = lambda request: (429, {"retry-after": "1"}, b"slow down")

    def mend_destination(self) -> None:
        self.receiver.answer = lambda request: (200, {}, b"")


class TestFile(ConnectorContract):
    connector = FileConnector

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = tmp_path / "out" / "deliveries.jsonl"
        self.monkeypatch = monkeypatch

    def options(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    def received(self) -> list[str]:
        return [json.loads(line)["delivery_id"] for line in self.path.read_text().splitlines()]

    def break_destination(self) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        self.monkeypatch.setattr("connectors.file.os.pwrite", full)

    def mend_destination(self) -> None:
        self.monkeypatch.undo()

    def test_a_torn_line_is_cut_off(self) -> None:
        self._deliver([sample_delivery(1)])
        with self.path.open("ab") as file:
            file.write(b'{"delivery_id": "torn')
        self._deliver([sample_delivery(2)])
        assert self.received() == [sample_delivery(n).delivery_id for n in (1, 2)]
        assert os.stat(self.path).st_mode & 0o077 == 0
