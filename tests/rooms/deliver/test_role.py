"""The role and its workers: a destination that takes its time to end holds up no other."""

import base64
import gc
import re
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from connectors import Outcome, delivered, rejected
from connectors.base import SecretReference, Unsaid
from pipeline.definitions.catalog import Catalog
from pipeline.deliver import scheduler
from pipeline.deliver.forgotten import ForgottenProfiles
from pipeline.deliver.health import healths_in
from pipeline.deliver.metrics import REASONS, DeliverMetrics
from pipeline.deliver.role import DeliverRole
from pipeline.records import Definition, Generation, encode
from pipeline.settings import Settings
from tests.rooms.deliver.test_scheduler import KEYS
from tests.rooms.deliver.test_worker import Log, named


class Slow:
    """Does not come back before it may."""

    def __init__(self) -> None:
        self.called, self.may_end, self.calls = threading.Event(), threading.Event(), 0

    def deliver(self, deliveries: Any) -> list[Outcome]:
        self.calls += 1
        self.called.set()
        assert self.may_end.wait(300)
        return [delivered()] * len(deliveries)

    def close(self) -> None: ...


def test_a_destination_that_is_changed_while_it_hangs_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, opened, logs = Slow(), [], []

    def log_of(config: Any, name: str, source: str) -> Log:
        logs.append(name)
        return Log([named(0, "p1")] if logs == ["slow"] else [])

    monkeypatch.setattr("pipeline.deliver.role.KafkaDeliveryLog", log_of)
    monkeypatch.setattr("pipeline.deliver.role.opened", lambda definition: opened.append(definition) or slow)
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    registry, catalog = CollectorRegistry(), Catalog()
    role = DeliverRole(settings, None, DeliverMetrics(registry), ForgottenProfiles(KEYS))

    def in_force(number: int, versions: dict[str, int]) -> None:
        for name, version in versions.items():
            made = Definition("destination", name, version, {"destination": name, "kind": "file", "path": f"{version}"})
            catalog.add(f"destination/{name}/{version}".encode(), encode(made))
        members = {f"destination/{name}": version for name, version in versions.items()}
        catalog.add(b"generation/%d" % number, encode(Generation(number, members)))
        role.follow(catalog)

    try:
        in_force(1, {"slow": 1})
        assert slow.called.wait(60)
        begun = time.monotonic()
        in_force(2, {"slow": 2, "other": 1})
        assert time.monotonic() - begun < 100, "whoever looks after all of them is not to wait for one"
        assert logs == ["slow", "other"], "two workers of one destination are never there at a time"
        slow.may_end.set()
        give_up = time.monotonic() + 60
        while logs != ["slow", "other", "slow"]:
            assert time.monotonic() < give_up
            role.follow(catalog)
        in_force(3, {"other": 1})
        # Until it has ended it may still say something of itself.
        while registry.get_sample_value("headwater_deliver_up", {"destination": "slow"}) is not None:
            assert time.monotonic() < give_up
            role.follow(catalog)
    finally:
        slow.may_end.set()
        role.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("destination-")]


def test_of_a_destination_that_is_removed_nothing_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[Slow]] = []

    def opened(definition: Any) -> Slow:
        connector = Slow()
        kept.append(weakref.ref(connector))
        return connector

    monkeypatch.setattr("pipeline.deliver.role.KafkaDeliveryLog", lambda config, name, source: Log([]))
    monkeypatch.setattr("pipeline.deliver.role.opened", opened)
    role, catalog = with_a_token(tmp_path)
    monkeypatch.setenv("CRM_TOKEN", "a token")
    try:
        role.follow(catalog)
        assert kept[0]() is not None
        catalog.add(b"generation/2", encode(Generation(2, {})))
        give_up = time.monotonic() + 20
        while gc.collect() >= 0 and kept[0]() is not None:
            assert time.monotonic() < give_up
            role.follow(catalog)
    finally:
        role.close()


def test_a_destination_that_is_removed_is_not_down_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(definition: Any) -> None:
        raise ValueError("no such secret")

    monkeypatch.setattr("pipeline.deliver.role.opened", refused)
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    registry, catalog = CollectorRegistry(), Catalog()
    role = DeliverRole(settings, None, DeliverMetrics(registry), ForgottenProfiles(KEYS))

    def up() -> float | None:
        return registry.get_sample_value("headwater_deliver_up", {"destination": "crm"})

    made = Definition("destination", "crm", 1, {"destination": "crm", "kind": "file", "path": "out"})
    catalog.add(b"destination/crm/1", encode(made))
    catalog.add(b"generation/1", encode(Generation(1, {"destination/crm": 1})))
    role.follow(catalog)
    assert up() == 0, "it cannot be opened, and nothing reaches it"
    told = healths_in(tmp_path)["crm"]
    assert (told.up, told.failure) == (False, "it cannot be opened: ValueError: no such secret")
    catalog.add(b"generation/2", encode(Generation(2, {})))
    role.follow(catalog)
    assert up() is None
    metrics = DeliverMetrics(CollectorRegistry())
    metrics.of("crm").up.set(0)
    metrics.forget("crm")
    assert not [sample for family in metrics._up.collect() for sample in family.samples]


def test_a_secret_that_changes_in_its_file_needs_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, connector, read = tmp_path / "secret", Slow(), []
    connector.may_end.set()

    def opened(definition: Any) -> Slow:
        read.append(definition.options.headers["Authorization"].read())
        return connector

    monkeypatch.setattr("pipeline.deliver.role.KafkaDeliveryLog", lambda config, name, source: Log([]))
    monkeypatch.setattr("pipeline.deliver.role.opened", opened)
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    registry, catalog = CollectorRegistry(), Catalog()
    role = DeliverRole(settings, None, DeliverMetrics(registry), ForgottenProfiles(KEYS))
    body = {
        "destination": "crm",
        "kind": "http",
        "url": "https://crm.example.com",
        "headers": {"Authorization": {"file": str(secret)}},
    }
    catalog.add(b"destination/crm/1", encode(Definition("destination", "crm", 1, body)))
    catalog.add(b"generation/1", encode(Generation(1, {"destination/crm": 1})))

    def follow(until: list[str]) -> None:
        give_up = time.monotonic() + 60
        while read != until:
            assert time.monotonic() < give_up
            role.follow(catalog)
            time.sleep(0.01)
        for _ in range(5):
            role.follow(catalog)
        assert read == until and registry.get_sample_value("headwater_deliver_up", {"destination": "crm"}) == 1

    try:
        secret.write_text("first")
        follow(["first"])
        secret.write_text("")  # on the way to be written anew
        follow(["first"])
        secret.unlink()
        follow(["first"])
        secret.write_text("first\n")  # written anew, and the same
        follow(["first"])
        secret.write_text("other")
        follow(["first", "other"])
    finally:
        role.close()


def test_the_first_delivery_that_is_given_up_is_an_increase() -> None:
    """A series that begins with it would have none, and no alert would be set off."""
    registry = CollectorRegistry()
    DeliverMetrics(registry).of("crm")
    for reason in REASONS:
        labels = {"destination": "crm", "reason": reason}
        assert registry.get_sample_value("headwater_deliver_dead_letters_total", labels) == 0
    source = "".join(path.read_text() for path in Path(scheduler.__file__).parent.glob("*.py"))
    assert set(re.findall(r'(?:GivenUp\(item|_refuse\(record), "([a-z ]+)"', source)) == set(REASONS)


class Repeats:
    """Refuses, and repeats what it was sent, as "Invalid API key: …"."""

    def deliver(self, deliveries: Any) -> list[Outcome]:
        said = ("Bearer key-of-ours", "key-of-ours", base64.b64encode(b"Bearer key-of-ours:").decode(), "Bearer")
        return [rejected(f"HTTP 400: no: {' | '.join(said)}")] * len(deliveries)

    def close(self) -> None: ...


def with_a_token(state_dir: Path) -> tuple[DeliverRole, Catalog]:
    """A role, and a destination that has its token from CRM_TOKEN."""
    settings = Settings.model_validate({"state_dir": state_dir, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    options = {"kind": "webhook", "url": "https://crm.example.com/", "unsigned": True}
    body = {"destination": "crm", "headers": {"Authorization": {"env": "CRM_TOKEN"}}, **options}
    catalog = Catalog()
    catalog.add(b"destination/crm/1", encode(Definition("destination", "crm", 1, body)))
    catalog.add(b"generation/1", encode(Generation(1, {"destination/crm": 1})))
    return DeliverRole(settings, None, DeliverMetrics(CollectorRegistry()), ForgottenProfiles(KEYS)), catalog


def test_a_secret_that_a_destination_repeats_stands_in_no_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_TOKEN", "Bearer key-of-ours")
    log = Log([named(0, "p1")])
    monkeypatch.setattr("pipeline.deliver.role.KafkaDeliveryLog", lambda config, name, source: log)
    monkeypatch.setattr("pipeline.deliver.role.opened", lambda definition: Repeats())
    role, catalog = with_a_token(tmp_path)
    try:
        role.follow(catalog)
        give_up = time.monotonic() + 60
        while not log.letters:
            assert time.monotonic() < give_up
            time.sleep(0.01)
    finally:
        role.close()
    assert log.letters[0].detail.startswith("HTTP 400: no: *** | *** | *** | Bearer")


def test_the_password_of_an_address_is_not_repeated_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE", "postgresql://ada:a%20longer%20one@db/shop")
    unsaid = Unsaid({"connection": SecretReference(env="WAREHOUSE")})
    assert unsaid('FATAL: password "a longer one" of ada') == 'FATAL: password "***" of ada'
    assert unsaid("invalid: postgresql://ada:a%20longer%20one@db/shop") == "invalid: ***"


@pytest.mark.parametrize(
    ("secret", "said", "told"),
    [
        ("Bearer key-of-ours/+1", r'HTTP 401: {"no": "key-of-ours\/+1"}', 'HTTP 401: {"no": "***"}'),
        ('key-of-"ours"', r'HTTP 401: {"no": "key-of-\"ours\""}', 'HTTP 401: {"no": "***"}'),
        ("key-of-ours/+1", "HTTP 404: /v1?key=key-of-ours%2F%2B1", "HTTP 404: /v1?key=***"),
        ("Basic YWRhOmtleS1vZi1vdXJz", "HTTP 401: ada:key-of-ours, key-of-ours", "HTTP 401: ***, ***"),
        ("key-of-ours-2026", "HTTP 401: Invalid API key: key-of-ours-", "HTTP 401: Invalid API key: ***"),
        ("key-of-ours-2026", "HTTP 401: the word key", "HTTP 401: the word key"),
        ("postgresql://ada:key-of-ours@warehouse/shop", "no postgresql", "no postgresql"),
    ],
    ids=["slashes", "quotes", "an address", "out of Basic", "cut off", "a word of it", "no more than its kind"],
)
def test_a_secret_is_not_repeated_in_another_form_or_in_part(
    secret: str, said: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_TOKEN", secret)
    assert Unsaid({"token": SecretReference(env="CRM_TOKEN")})(said) == told


def test_why_a_destination_cannot_be_opened_says_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(definition: Any) -> None:
        raise ValueError("the key key-of-ours is of another account")

    monkeypatch.setenv("CRM_TOKEN", "Bearer key-of-ours")
    monkeypatch.setattr("pipeline.deliver.role.opened", refused)
    role, catalog = with_a_token(tmp_path)
    role.follow(catalog)
    assert healths_in(tmp_path)["crm"].failure == "it cannot be opened: ValueError: the key *** is of another account"
