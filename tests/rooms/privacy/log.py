"""The topics that the privacy role reads and writes, kept in a list, and a role that lives on them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.errors import LookupFailed
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.privacy import keeping, role, whom
from pipeline.privacy.requests import export_folder
from pipeline.privacy.stores import COMPACTED, TRIMMED, is_hastened
from pipeline.records import (
    Erased,
    EraseRequest,
    Forgotten,
    IdentifierPair,
    PrivacyReceipt,
    PrivacyRequest,
    ProfileDocument,
    Suppression,
    encode,
)
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing

KEYS = Keys(b"of a test")
ADA, MAIL, EVE = (KEYS.actor(one).decode() for one in ("user_id:ada", "email:ada@example.org", "email:eve@example.org"))
WITHIN_MS = 600_000


class Log:
    """The topics the role reads and writes, and the settings it gives them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now_ms = 1_000_000
        self.records: list[Record] = []
        self.known: list[str] = ["user_id:ada", "email:ada@example.org"]
        self.profile_id = KEYS.profile_id("user_id:ada")
        self.rules = builtin_rules()
        self.settings_given: list[bool] = []
        self.asked_for_settings = 0
        self.carried_out: list[str] = []
        self.may_end = threading.Event()
        self.may_end.set()
        for key, value in KeyRing().begin(b"0123456789abcdef"):
            self.add("keys", key, value)

    def add(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self.records.append(Record(topic, 0, len(self.records), key, value, self.now_ms))

    def of(self, topic: str) -> Iterator[Record]:
        return (one for one in self.records if one.topic == topic)

    def receipt(self, request_id: str = "r1") -> PrivacyReceipt:
        found = [one.value for one in self.of("privacy-receipts") if one.key == request_id.encode()]
        return msgspec.json.decode(found[-1] or b"", type=PrivacyReceipt)

    def store(self, name: str) -> Any:
        return next(one for one in self.receipt().stores if one.store == name)

    def kept_out(self) -> dict[str, Suppression]:
        table = {(one.key or b"").decode(): one.value for one in self.of("suppressions")}
        return {key: msgspec.json.decode(value, type=Suppression) for key, value in table.items() if value is not None}

    def asked(self) -> list[str]:
        """Whose erasure identity was asked for."""
        found = [msgspec.json.decode(one.value or b"", type=EraseRequest) for one in self.of("identity-edges")]
        return [one.identifier for one in found]

    def hastened(self) -> bool:
        return self.settings_given[-1:] == [True]

    def ask(self, request: Any = "erase", identifier: str = "user_id:ada", request_id: str = "r1") -> None:
        asked = PrivacyRequest(request_id, request, identifier, self.now_ms, "test")
        self.add("privacy-requests", request_id.encode(), encode(asked))

    def decide(self, *actors: str, epoch: int = 7, request_id: str = "r1") -> None:
        for actor in actors:
            decided = Erased(actor, self.now_ms, epoch, len(actors), request_id, True)
            self.add("identity-decisions", b"erase\t" + actor.encode(), encode(decided))

    def forget(self, *actors: str, request_id: str = "r1") -> None:
        for actor in actors:
            told = encode(Forgotten(request_id, actor, self.now_ms))
            self.add("privacy-progress", request_id.encode(), told)


def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    """A log that the role is on from now on, whatever it asks Kafka for."""
    settings = Settings(prefix="a.", secret="of a test", bootstrap_servers="127.0.0.1:1", state_dir=tmp_path)
    log = Log(settings)

    class Reader:
        def __init__(self, settings: Settings, topics: list[str]) -> None:
            self.topics, self.at = topics, 0

        def read_to_end(self) -> Iterable[Record]:
            # As a consumer may give them: one partition after the other.
            return sorted(self.read(), key=lambda one: (one.topic != "privacy-progress", one.offset))

        def read(self, *_: Any) -> list[Record]:
            found = [one for one in log.records[self.at :] if one.topic in self.topics]
            self.at = len(log.records)
            return found

        def close(self) -> None:
            pass

    class Transaction:
        def __init__(self, *_: Any) -> None:
            pass

        def write(self, records: Iterable[Any]) -> None:
            for topic, _, key, value in records:
                log.add(topic, key, value)

        def close(self) -> None:
            pass

    def produce_all(settings: Settings, topic: str, records: Iterable[Any]) -> None:
        for key, value in records:
            log.add(topic, key, value)

    def find_person(identifier: str, value: Any) -> ProfileDocument:
        if identifier not in log.known and (identifier != log.profile_id or not log.known):
            raise LookupFailed("nobody")
        pairs = [IdentifierPair(*one.split(":", 1)) for one in log.known]
        return ProfileDocument(log.profile_id, "person", pairs, len(pairs))

    def alter_topics(settings: Settings, changes: Any) -> None:
        log.settings_given.append(any(is_hastened(config) for config in changes.values()))

    def topic_configs(settings: Settings, names: Iterable[str]) -> Any:
        log.asked_for_settings += settings.topic("raw") in names
        config = {"file.delete.delay.ms": "1001"} if log.hastened() else {}
        return {name: {"retention.ms": "1000", **config} for name in names}

    def carry_out(settings: Settings, request: PrivacyRequest) -> Any:
        assert log.may_end.wait(20)
        if request.request == "export":
            export_folder(settings, request.request_id).mkdir(parents=True)
        log.carried_out.append(request.request_id)
        return [], ""

    plans = SimpleNamespace(latest=lambda: SimpleNamespace(identity=log.rules), close=lambda: None)
    fakes: dict[str, Callable[..., Any]] = {
        "TopicReader": Reader,
        "KafkaPlans": lambda settings: plans,
        "produce_all": produce_all,
        "produce_to": lambda settings, records: None,
        "topic_partitions": lambda settings: dict.fromkeys(map(settings.topic, (*COMPACTED, *TRIMMED)), 1),
        "alter_topics": alter_topics,
        "topic_configs": topic_configs,
        "carry_out": carry_out,
    }
    monkeypatch.setattr(whom, "find_person", find_person)
    monkeypatch.setattr(whom, "current_value", lambda *_: None)
    monkeypatch.setattr(keeping, "ApplyTransaction", Transaction)
    for name, fake in fakes.items():
        monkeypatch.setattr(role, name, fake)
    return log


def turn(one: role.PrivacyRole, log: Log, after_ms: int = 1) -> None:
    log.now_ms += after_ms
    one.turn(log.now_ms)
