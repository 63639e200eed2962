"""Every connector that comes along passes the suite that third parties use."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.base import SecretReference, withhold
from connectors.file import FileConnector
from connectors.http import HttpConnector, HttpOptions
from connectors.testing import ERASED, ConnectorContract, sample_delivery
from connectors.webhook import WebhookConnector
from pipeline.deliver import role as deliver_role
from pipeline.records import IdentifierPair
from pipeline.settings import Settings
from pipeline.sources import role as source_role
from tests.contracts.webhook_receiver import WebhookReceiver

SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.mark.parametrize(
    "name",
    [
        *("HEADWATER_SECRET", "headwater_secret", "HEADWATER_CONFIG"),
        *("HEADWATER_KAFKA__SASL.PASSWORD", "HEADWATER_COLLECTOR__WRITE_KEYS"),
    ],
)
def test_who_may_write_definitions_gets_none_of_our_own_secrets(name: str) -> None:
    """`headers: {X: {env: HEADWATER_SECRET}}`, and an address of their own: with it every key can be computed."""
    with pytest.raises(ValidationError, match="setting of Headwater"):
        HttpOptions.model_validate({"url": "https://x.io/", "headers": {"X-A": {"env": name}}})
    assert SecretReference.model_validate({"env": "HEADWATER_SAMPLE_WEBHOOK_SECRET"})


def test_nothing_in_the_state_folder_is_a_secret_for_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.base._withheld", set())
    state = tmp_path / "state"
    state.mkdir()
    (state / "secret").write_text("ours")
    (tmp_path / "theirs").write_text("whsec")
    (tmp_path / "link").symlink_to(state / "secret")
    withhold(state)
    for path in (state / "secret", tmp_path / "link", tmp_path / "x" / ".." / "state" / "secret", state):
        with pytest.raises(ValueError, match="Headwater's own"):
            SecretReference(file=str(path)).read()
    assert SecretReference(file=str(tmp_path / "theirs")).read() == "whsec"


def test_what_a_process_was_started_with_is_a_secret_for_nobody(tmp_path: Path) -> None:
    """`write_key: {file: /proc/self/environ}` would be `{env: HEADWATER_SECRET}` with a longer name."""
    (tmp_path / "link").symlink_to("/proc/self/environ")
    for path in ("/proc/self/environ", "/proc/self/../1/cmdline", str(tmp_path / "link")):
        with pytest.raises(ValueError, match="Headwater's own"):
            SecretReference(file=path).read()


@pytest.mark.parametrize("role", [deliver_role, source_role], ids=["deliver", "source"])
@pytest.mark.parametrize("named", [True, False], ids=["named by a variable", "in this folder"])
def test_who_reads_secrets_of_definitions_withholds_the_settings_file_first(
    role: Any, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ("ours.yaml" if named else "headwater.yaml")

    def begins(_: Settings) -> Any:
        with pytest.raises(ValueError, match="Headwater's own"):
            SecretReference(file=str(file)).read()
        raise InterruptedError

    monkeypatch.setattr("connectors.base._withheld", set())
    monkeypatch.setattr(role, "KafkaPlans", begins)
    monkeypatch.chdir(tmp_path)
    if named:
        monkeypatch.setenv("HEADWATER_CONFIG", str(file))
    file.write_text("secret: ours")
    with pytest.raises(InterruptedError):
        role.run(Settings(state_dir=tmp_path / "state"), None, lambda: True)


@pytest.mark.parametrize("role", [deliver_role, source_role], ids=["deliver", "source"])
def test_who_reads_secrets_of_definitions_withholds_the_state_folder_first(
    role: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begins(_: Settings) -> Any:
        with pytest.raises(ValueError, match="Headwater's own"):
            SecretReference(file=str(tmp_path / "secret")).read()
        raise InterruptedError

    monkeypatch.setattr("connectors.base._withheld", set())
    monkeypatch.setattr(role, "KafkaPlans", begins)
    (tmp_path / "secret").write_text("ours")
    with pytest.raises(InterruptedError):
        role.run(Settings(state_dir=tmp_path), None, lambda: True)


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

    @pytest.mark.parametrize(
        "held", [b"user,plan\n1,pro\n", b"aes-256 key without a line's end", b'{"delivery_id": 1}\n', b"\n", b"\0"]
    )
    def test_a_file_that_holds_something_else_is_left_as_it_is(self, held: bytes) -> None:
        self.path.parent.mkdir()
        self.path.write_bytes(held)
        with pytest.raises(ValueError, match="holds something else than deliveries"):
            self._deliver([sample_delivery(1)])
        assert self.path.read_bytes() == held

    def test_a_first_line_that_a_crash_tore_is_one_of_ours(self) -> None:
        self.path.parent.mkdir()
        for torn in (b"", b'{"deli', b'{"delivery_id":"dlv_'):
            self.path.write_bytes(torn)
            self._deliver([sample_delivery(1)])
            assert self.received() == [sample_delivery(1).delivery_id]

    def test_what_is_no_file_is_not_written_to(self) -> None:
        self.path.parent.mkdir()
        os.mkfifo(self.path)
        with pytest.raises(ValueError, match="is no file"):
            self._deliver([sample_delivery(1)])

    def test_nothing_is_written_in_the_state_folder(self) -> None:
        self.monkeypatch.setattr("connectors.base._withheld", set())
        state = self.path.parent.with_name("state")
        state.mkdir()
        withhold(state)
        self.path.parent.symlink_to(state)
        with pytest.raises(ValueError, match="Headwater's own"):
            self._deliver([sample_delivery(1)])
        assert not list(state.iterdir())

    def test_who_is_erased_leaves_the_file_and_nobody_else_does(self) -> None:
        other = [IdentifierPair("user_id", "bob")]
        lines = [sample_delivery(1), sample_delivery(2, "p9", identifiers=other), sample_delivery(3, "p2")]
        under_another_id = sample_delivery(4, "retired", body={"sequence": 4, "traits": {"name": "Ada"}})
        erased = sample_delivery(5, segment=None, action="profile_erased", body=ERASED)
        self._deliver([*lines, under_another_id, erased, sample_delivery(6, "p9", identifiers=other)])
        assert self.received() == [sample_delivery(n).delivery_id for n in (2, 5, 6)]
        assert "ada" not in self.path.read_text().lower()

    def test_what_stands_in_it_and_is_no_delivery_stays(self) -> None:
        self._deliver([sample_delivery(1)])
        strange = [b"junk", b"\xff", b'{"body":' + b"[" * 100_000]
        with self.path.open("ab") as file:
            file.writelines(line + b"\n" for line in strange)
        self._deliver([sample_delivery(2, segment=None, action="profile_erased", body=ERASED)])
        assert self.path.read_bytes().splitlines()[:-1] == strange

    @pytest.mark.parametrize("step", range(4))
    def test_a_crash_in_the_middle_of_it_loses_nobody(self, step: int) -> None:
        """Killed at each system call of the rewriting: whoever opens the file next ends it."""
        other = [IdentifierPair("user_id", "bob")]
        self._deliver([sample_delivery(1), *(sample_delivery(n, "p9", identifiers=other) for n in (2, 3, 4))])
        erased = sample_delivery(5, segment=None, action="profile_erased", body=ERASED)
        calls = iter(range(100))

        def killed(call: Any) -> Any:
            def wrapped(*given: Any) -> Any:
                if next(calls) >= step:
                    raise KeyboardInterrupt
                return call(*given)

            return wrapped

        with self.monkeypatch.context() as patch:
            for name in ("fsync", "pwrite", "ftruncate"):
                patch.setattr(f"connectors.rewritten.os.{name}", killed(getattr(os, name)))
            with pytest.raises(KeyboardInterrupt):
                self._deliver([erased])
        self._deliver([erased, sample_delivery(6, "p9", identifiers=other)])
        assert self.received() == [sample_delivery(n).delivery_id for n in (2, 3, 4, 5, 6)]
        assert [one.name for one in self.path.parent.iterdir() if not one.name.endswith(".new")] == [self.path.name]


def test_a_secret_that_is_no_text_is_told_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    for place in (str(tmp_path / "secret"), "a\x00b", str(tmp_path)):
        with pytest.raises(ValueError, match="the secret is not in the file") as caught:
            SecretReference(file=place).read()
        assert "0xff" not in str(caught.value)
