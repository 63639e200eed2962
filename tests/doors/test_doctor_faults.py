"""Faults planted one at a time: doctor names each and says what to do, and nobody names it without its check.

What a Kafka says is made up here; that a real one says it so is seen in tests/kafka/test_doctor.py.
"""

import base64
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from pipeline.admin import wanted_topics
from pipeline.contracts import NO_CONTRACTS, Contract, ContractsPlan, EventContract, LabelledField
from pipeline.doctor import KAFKA_CHECKS, MACHINE_CHECKS, Finding, SetUp, examine_kafka
from pipeline.doctor.facts import Allowed, Cluster, Group, Member, Partition
from pipeline.doctor.whose import whose
from pipeline.rights import rights
from pipeline.runtime.progress import Progress, RestoringPartition
from pipeline.secret_check import check_of
from pipeline.settings import Settings

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
BROKERS = (1, 2, 3)
WORKSPACE = Settings.model_validate({"bootstrap_servers": "k:1", "prefix": "w.", "partitions": 4, "secret": "s"})
WHOLE = Partition(1, BROKERS, BROKERS)


@dataclass
class Said:
    """A Kafka with three brokers on which everything is as it must be, unless told otherwise."""

    cluster_: Cluster
    configs_: dict[str, dict[str, str]]
    groups_: dict[str, Group]
    first: dict[str, tuple[int, int]]
    second: dict[str, tuple[int, int]]
    latest: dict[str, int]
    allowed_: Allowed
    broker: dict[str, str] = field(default_factory=lambda: {"offsets.retention.minutes": "10080"})
    asked: int = 0
    held: tuple[dict[tuple[str, int], int], ...] = ()
    looked: int = 0
    waits: dict[str, int | None] = field(default_factory=dict)
    contracts_: ContractsPlan = NO_CONTRACTS
    secret_check_: str | None = field(default_factory=lambda: check_of(b"s"))
    mapped_: dict[str, str] = field(default_factory=lambda: {"web": "raw"})

    def cluster(self) -> Cluster:
        return self.cluster_

    def configs(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        return {name: self.configs_[name] for name in topics}

    def broker_config(self) -> dict[str, str]:
        return self.broker

    def groups(self, names: Sequence[str]) -> dict[str, Group]:
        return {name: self.groups_.get(name, Group()) for name in names}

    def positions(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
        self.asked += 1
        return {name: at for name, at in (self.first, self.second)[self.asked > 1].items() if name in groups}

    def waiting(self, groups: Mapping[str, Sequence[str]]) -> dict[str, int | None]:
        return {name: self.waits.get(name, 0) for name in groups}

    def latest_ms(self, topic: str) -> int:
        return self.latest[topic]

    def held_back(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        self.looked += 1
        held = self.held[min(self.looked, len(self.held)) - 1] if self.held else {}
        return {where: at for where, at in held.items() if where[0] in topics}

    def contracts(self) -> ContractsPlan:
        return self.contracts_

    def mapped(self) -> dict[str, str]:
        return self.mapped_

    def secret_check(self) -> str | None:
        return self.secret_check_

    def allowed(self, topics: Sequence[str], groups: Sequence[str]) -> Allowed:
        return self.allowed_


def healthy() -> Said:
    wanted = wanted_topics(WORKSPACE)
    at = {"ingest": (1_000, 1_002), "identity": (500, 501), "unify": (9_000, 9_008)}
    topics: dict[str, frozenset[str] | None] = {
        each.name: frozenset({"READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS", "DELETE"}) for each in wanted
    }
    return Said(
        Cluster(BROKERS, {each.name: (WHOLE,) * each.partitions for each in wanted}, 30.0, 2.0),
        {each.name: {**each.config, "min.insync.replicas": "2"} for each in wanted},
        {f"w.{role}": Group((Member("rdkafka", "/10.0.0.1", f"w.{role}-0"),), "range") for role in at},
        at,
        at,
        {"w.events": NOW_MS - 400, "w.raw": NOW_MS - 9_000_000},
        Allowed(topics, {each.name: frozenset({"READ", "DESCRIBE"}) for each in rights(WORKSPACE)}),
    )


def partitions(said: Said, topic: str, count: int) -> None:
    said.cluster_ = replace(said.cluster_, topics={**said.cluster_.topics, topic: (WHOLE,) * count})


def config(said: Said, topic: str, name: str, value: str) -> None:
    said.configs_[topic] = said.configs_[topic] | {name: value}


def parts(said: Said, topic: str, *, leader: int = 1, replicas: Sequence[int] = BROKERS, in_sync: Any = None) -> None:
    one = Partition(leader, tuple(replicas), tuple(replicas if in_sync is None else in_sync))
    count = len(said.cluster_.topics[topic])
    said.cluster_ = replace(said.cluster_, topics={**said.cluster_.topics, topic: (one, *(WHOLE,) * (count - 1))})


def without(said: Said, topic: str) -> None:
    said.cluster_ = replace(said.cluster_, topics={n: p for n, p in said.cluster_.topics.items() if n != topic})


def joined(said: Said, group: str, member: Member, assignor: str = "range") -> None:
    said.groups_[group] = Group((*said.groups_[group].members, member), assignor)


def delivered(said: Said, destination: str) -> None:
    """There is such a destination, and a worker for it."""
    topic = next(each for each in wanted_topics(WORKSPACE, [destination]) if each.name == f"w.deliveries.{destination}")
    said.cluster_ = replace(said.cluster_, topics={**said.cluster_.topics, topic.name: (WHOLE,) * topic.partitions})
    said.configs_[topic.name] = {**topic.config, "min.insync.replicas": "2"}
    member = Member("rdkafka", "/10.0.0.1", f"w.deliver-{destination}-0")
    said.groups_[f"w.deliver-{destination}"] = Group((member,), "range")


def lagging(said: Said, role: str, first: tuple[int, int], second: tuple[int, int]) -> None:
    said.first, said.second = said.first | {role: first}, said.second | {role: second}


def waits(said: Said, role: str, count: int | None, done: int = 0, came: int = 0) -> None:
    """So many records wait where the positions of `healthy` tell of a few more, and so many are done in a while."""
    committed, end = said.first[role]
    said.waits[role] = count
    lagging(said, role, (committed, end), (committed + done, end + came))


def left(said: Said, group: str, role: str) -> None:
    said.groups_[group] = Group()
    said.first = said.first | {role: (1_000, 8_000)}


def may_be_kept(said: Said, event_days: int, part_days: int | None = None) -> None:
    part = LabelledField("properties", ("receipt_to",), retention_ms=(part_days or event_days) * DAY_MS)
    event = EventContract("Order Completed", "shop/1", None, "flag", "allow", {}, (), (), event_days * DAY_MS, (part,))
    said.contracts_ = ContractsPlan((Contract("shop", 1, None, "allow", {"Order Completed": event}),))


def refused(said: Said, topic: str, may: frozenset[str] | None) -> None:
    said.allowed_ = replace(said.allowed_, topics={**said.allowed_.topics, topic: may})


@dataclass(frozen=True)
class Fault:
    """What is planted, the check that names it, and what it says. `also`: other checks may name it in their way."""

    name: str
    check: str
    plant: Callable[[Said], object]
    verdict: str
    says: str
    to_do: str
    role: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


FAULTS = (
    Fault("a partition without a leader", "broker", lambda s: parts(s, "w.events", leader=-1, in_sync=(1, 2)),
          "wrong", "partitions without a leader: w.events/0", "bring the missing brokers back"),
    Fault("a broker far away", "broker", lambda s: setattr(s, "cluster_", replace(s.cluster_, again_ms=900.0)),
          "warning", "answers in 900 ms", "move nearer"),
    Fault("positions forgotten soon", "broker_settings", lambda s: s.broker.update({"offsets.retention.minutes": "60"}),
          "warning", "60 minutes after it was left", "a week"),
    Fault("transactions too short", "broker_settings", lambda s: s.broker.update({"transaction.max.timeout.ms": "900"}),
          "wrong", "transactions of 900 ms only", "no worker can start"),
    Fault("a topic is missing", "topics", lambda s: without(s, "w.identities"),
          "wrong", "does not exist: w.identities", "headwater topics --create"),
    Fault("a partition count", "topics", lambda s: partitions(s, "w.dead-letters", 6),
          "wrong", "has 6 partitions, not 4: w.dead-letters", "replay into a new workspace"),
    Fault("counts that part what belongs together", "partitions", lambda s: partitions(s, "w.links", 5),
          "wrong", "w.events 4, w.links 5, w.unify-changelog 4", "replay into a new workspace"),
    Fault("missing compaction", "topics", lambda s: config(s, "w.unify-changelog", "cleanup.policy", "delete"),
          "wrong", "cleanup.policy=delete: people's state would be deleted with age", "cleanup.policy=compact"),
    Fault("compaction of a log", "topics", lambda s: config(s, "w.segment-changes", "cleanup.policy", "compact"),
          "wrong", "events would be lost by key", "--add-config cleanup.policy=delete"),
    Fault("retention of links", "topics", lambda s: config(s, "w.links", "retention.ms", "3600000"),
          "wrong", "what a role has not read by then is lost", "--add-config retention.ms=-1"),
    Fault("retention of events", "topics", lambda s: config(s, "w.events", "retention.ms", "604800000"),
          "warning", "missing to new rules and to replays", "--add-config retention.ms=-1"),
    Fault("tombstones kept for a day", "topics",
          lambda s: config(s, "w.unify-changelog", "delete.retention.ms", "86400000"),
          "warning", "a store that was away for half of that is made anew", "delete.retention.ms=604800000"),
    Fault("links bounded by size", "topics", lambda s: config(s, "w.links", "retention.bytes", "1000000"),
          "wrong", "retention.bytes=1000000", "--add-config retention.bytes=-1"),
    Fault("records too large", "topics", lambda s: config(s, "w.links", "max.message.bytes", "1048588"),
          "wrong", "takes records of 1048588 bytes only", "--add-config max.message.bytes="),
    Fault("one copy", "copies", lambda s: parts(s, "w.unify-changelog", replicas=(2,)),
          "wrong", "fewer are up to date than min.insync.replicas", "brokers back"),
    Fault("too few copies", "copies", lambda s: (parts(s, "w.unify-changelog", replicas=(2,)),
          config(s, "w.unify-changelog", "min.insync.replicas", "1")),
          "warning", "1 of each partition, not 3: the loss of a disk is the loss of people", "kafka-reassign"),
    Fault("more copies than brokers", "copies", lambda s: None, "wrong",
          "HEADWATER_REPLICATION_FACTOR=5 asks for more copies than there are brokers (3)", "add brokers",
          changes={"replication_factor": 5}),
    Fault("a broker is away", "copies", lambda s: parts(s, "w.profiles", in_sync=(1, 2)),
          "warning", "not all are up to date: w.profiles", "lag or are away"),
    Fault("all copies must be there", "copies", lambda s: config(s, "w.events", "min.insync.replicas", "3"),
          "warning", "one broker away stops all work: w.events", "one less"),
    Fault("no member id", "members", lambda s: joined(s, "w.unify", Member("my-program", "/10.0.0.9", None)),
          "wrong", "1 of 2 in the group have no member id: my-program at 10.0.0.9", "another group.id"),
    Fault("no member id in a destination's group", "members",
          lambda s: (delivered(s, "crm"), joined(s, "w.deliver-crm", Member("my-program", "/10.0.0.9", None))),
          "wrong", "1 of 2 in the group have no member id: my-program at 10.0.0.9", "another group.id"),
    Fault("another assignor", "members", lambda s: joined(s, "w.unify", Member("x", "/h", "i"), "cooperative-sticky"),
          "wrong", "'cooperative-sticky', which parts events from links", "other settings"),
    Fault("nobody works", "lag", lambda s: left(s, "w.identity", "identity"),
          "warning", "7,000 records behind, and nobody is working", "headwater run identity"),
    Fault("a stuck role", "lag", lambda s: lagging(s, "unify", (1_000, 9_000), (1_000, 9_300)),
          "warning", "1 working, 8,300 records behind, and stuck: nothing was done in 3 s", "may be killed"),
    Fault("one record that stays", "lag", lambda s: waits(s, "identity", 1),
          "warning", "1 working, 1 record behind, and stuck: nothing was done in 3 s", "see the log of the role"),
    Fault("nobody reads the sources", "lag", lambda s: s.groups_.pop("w.ingest"),
          "warning", "nobody is working: nothing becomes true, or ends, by time alone", "headwater run ingest"),
    Fault("a few that nobody takes", "lag", lambda s: (s.groups_.pop("w.unify"), waits(s, "unify", 2)),
          "warning", "2 records behind, and nobody is working", "headwater run unify"),
    Fault("a lagging role", "lag", lambda s: lagging(s, "ingest", (1_000, 9_000), (1_300, 9_900)),
          "warning", "falling back: 100 a second are done, 300 come", "add workers"),
    Fault("a transaction that does not end", "transactions",
          lambda s: setattr(s, "held", ({("w.profiles", 2): 17, ("w.links", 0): 9}, {("w.profiles", 2): 17})),
          "wrong", "readers see nothing behind it: w.profiles/2 from 17 on", "find-hanging"),
    Fault("history kept for longer than a contract lets it be", "retention", lambda s: may_be_kept(s, 400),
          "warning", "Order Completed may be kept for 400.0 days; kept for ever: w.events", "HEADWATER_ARCHIVE"),
    Fault("copies kept for longer than a contract lets a part be", "retention", lambda s: may_be_kept(s, 400, 2),
          "warning", "properties.receipt_to of Order Completed may be kept for 2.0 days; kept longer: ", "segment.ms"),
    Fault("a source of which nobody reads the topic", "sources", lambda s: s.mapped_.update({"orders": "/shop.orders"}),
          "warning", "does not read: /shop.orders of the source orders", "HEADWATER_SOURCES=raw,/shop.orders"),
    Fault("clock skew of ingest", "clocks", lambda s: s.latest.update({"w.events": NOW_MS + 600_000}),
          "warning", "w.events holds records from 600 s after now", "set the clock of the machine that runs ingest"),
    Fault("clock skew of a producer", "clocks", lambda s: s.latest.update({"w.raw": NOW_MS + 90_000}),
          "warning", "w.raw holds records from 90 s after now", "that produces into it"),
    Fault("another secret", "whose", lambda s: setattr(s, "secret_check_", check_of(b"t")),
          "wrong", "was made with another one", "that the workspace was made with"),
    Fault("a clock behind", "clocks", lambda s: s.latest.update({"w.events": NOW_MS - 7_200_000}),
          "warning", "what it last wrote is from 7200 s before now", "set the clock of the machine that runs ingest"),
    Fault("a missing right", "allowed", lambda s: refused(s, "w.profiles", frozenset({"READ", "DESCRIBE"})),
          "wrong", "missing: Write on topic w.profiles", "headwater topics acls", role="unify"),
    Fault("a topic that may not be seen", "allowed", lambda s: refused(s, "w.identity-edges", None),
          "wrong", "Read and Describe and Write and Delete on topic w.identity-edges", "topics acls", role="identity"),
)  # fmt: skip


def setup(said: Said, role: str | None, tmp_path: Path, **changes: Any) -> SetUp:
    settings = WORKSPACE.model_copy(update={"state_dir": tmp_path, **changes})
    return SetUp(settings, said, lambda: NOW_MS, lambda _: None, role)


def spoken(findings: Iterator[Finding]) -> list[Finding]:
    return [each for each in findings if each.verdict != "good"]


def test_nothing_is_said_of_a_good_set_up(tmp_path: Path) -> None:
    assert spoken(examine_kafka(setup(healthy(), "unify", tmp_path))) == []


def test_every_check_has_a_fault() -> None:
    assert {fault.check for fault in FAULTS} == {check.__name__ for check in KAFKA_CHECKS}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_and_only_by_its_check(fault: Fault, tmp_path: Path) -> None:
    def told(checks: Sequence[Any]) -> list[Finding]:
        said = healthy()
        fault.plant(said)
        found = spoken(examine_kafka(setup(said, fault.role, tmp_path, **fault.changes), checks))
        return [each for each in found if fault.says in each.detail]

    (named,) = told(KAFKA_CHECKS)
    assert named.verdict == fault.verdict and fault.to_do in named.what_to_do
    assert told([check for check in KAFKA_CHECKS if check.__name__ != fault.check]) == []


def test_a_topic_that_an_erasure_hastens_is_as_it_should_be(tmp_path: Path) -> None:
    said = healthy()
    config(said, "w.identities", "delete.retention.ms", "60000")
    assert [each.subject for each in spoken(examine_kafka(setup(said, None, tmp_path)))] == ["topics"]
    config(said, "w.identities", "file.delete.delay.ms", "1001")
    assert spoken(examine_kafka(setup(said, None, tmp_path))) == []


def test_topics_that_let_go_in_time_and_history_in_an_archive_are_as_they_should_be(tmp_path: Path) -> None:
    said = healthy()
    may_be_kept(said, 40)
    for name in ("raw", "events", "dead-letters", "profile-changes"):
        config(said, f"w.{name}", "retention.ms", str(39 * DAY_MS))
        config(said, f"w.{name}", "segment.ms", str(DAY_MS))
    found = list(examine_kafka(setup(said, None, tmp_path, archive="s3://x/y")))
    assert [each.detail for each in spoken(iter(found)) if "w.events" in each.detail] == []
    assert [each.verdict for each in found if each.subject == "retention"] == ["good"]
    config(said, "w.raw", "segment.ms", str(DAY_MS + 1))
    (told,) = [each for each in examine_kafka(setup(said, None, tmp_path)) if each.subject == "retention"]
    assert told.verdict == "warning" and "kept longer: w.raw for 40.0 days" in told.detail
    until = datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(days=40)
    assert f"until {until.date()} at the latest" in told.detail


def test_transactions_that_follow_each_other_are_as_they_should_be(tmp_path: Path) -> None:
    said = healthy()
    said.held = tuple({("w.profiles", 2): at} for at in range(20))
    assert spoken(examine_kafka(setup(said, None, tmp_path))) == []
    assert said.looked == 2


def test_a_role_that_restores_is_not_stuck(tmp_path: Path) -> None:
    said = healthy()
    lagging(said, "unify", (1_000, 9_000), (1_000, 9_300))
    told = Progress("unify", "0", 1, NOW_MS, NOW_MS, [], [RestoringPartition(0, 0, 1, 2)])
    (tmp_path / "unify").mkdir()
    (tmp_path / "unify" / "progress-0.json").write_bytes(msgspec.json.encode(told))
    (found,) = [each for each in examine_kafka(setup(said, None, tmp_path)) if each.subject == "group w.unify"]
    assert found.verdict == "good" and "being restored" in found.detail


def test_a_backlog_that_shrinks_is_told_with_its_end(tmp_path: Path) -> None:
    said = healthy()
    lagging(said, "ingest", (1_000, 9_000), (4_000, 9_000))
    (found,) = [each for each in examine_kafka(setup(said, None, tmp_path)) if each.subject == "group w.ingest"]
    assert (found.verdict, found.detail) == (
        "good",
        "1 working, 5,000 records behind: 1,000 a second are done, 0 come, caught up in about 5 s",
    )


@pytest.mark.parametrize(
    ("count", "done", "came", "said"),
    [
        (0, 0, 0, "1 working, nothing waits"),
        (1, 1, 0, "1 working, nothing waits"),
        (2, 1, 5, "1 working, 6 records behind"),
        (None, 0, 0, "1 working, 8 positions behind, which may be ends of transactions: the topics may not be read"),
    ],
    ids=["ends of transactions", "one that is done", "some that are being done", "nobody may look"],
)
def test_few_positions_behind_are_no_news(count: int | None, done: int, came: int, said: str, tmp_path: Path) -> None:
    kafka = healthy()
    waits(kafka, "unify", count, done, came)
    (found,) = [each for each in examine_kafka(setup(kafka, None, tmp_path)) if each.subject == "group w.unify"]
    assert (found.verdict, found.detail) == ("good", said)


def test_ends_of_transactions_wait_for_nobody(tmp_path: Path) -> None:
    said = healthy()
    said.groups_.clear()
    assert [each.detail for each in spoken(examine_kafka(setup(said, None, tmp_path)))] == []


def test_a_delivery_that_waits_for_its_destination_is_counted_and_not_stuck(tmp_path: Path) -> None:
    said = healthy()
    said.configs_["w.deliveries.crm"] = {}
    partitions(said, "w.deliveries.crm", 4)
    said.groups_["w.deliver-crm"] = Group((Member("rdkafka", "/10.0.0.1", "w.deliver-crm-0"),), "range")
    said.first = said.first | {"deliver-crm": (10, 13)}
    waits(said, "deliver-crm", 1)
    (found,) = [each for each in examine_kafka(setup(said, None, tmp_path)) if each.subject == "group w.deliver-crm"]
    assert (found.verdict, found.detail) == ("good", "1 working, 1 record behind")


# ------------------------------------------------------------------------------------------------------- this machine


def certificate(folder: Path, begins: timedelta, ends: timedelta) -> Path:
    """A certificate for this machine with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    plain = serialization.NoEncryption()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + text)
    return path


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Something that answers with a certificate which has expired yesterday."""
    path = certificate(tmp_path, timedelta(days=-400), timedelta(days=-1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(120)

        def answer() -> None:
            try:
                with context.wrap_socket(listening.accept()[0], server_side=True) as secured:
                    secured.recv(1)
            except OSError:
                pass  # the caller has seen enough

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", path
        thread.join(120)


def on_this_machine(settings: Settings, leave_out: str = "") -> list[Finding]:
    checks = [check for check in MACHINE_CHECKS if check.__name__ != leave_out]
    return [each for check in checks for each in check(settings, NOW_MS) if each.verdict != "good"]


def machine(tmp_path: Path, **given: Any) -> Settings:
    values = {"state_dir": tmp_path / "state", "cache_dir": tmp_path / "cache", "secret": "s" * 20}
    return Settings.model_validate(values | given)


def test_a_brokers_certificate_that_has_expired(tls_server: tuple[str, Path], tmp_path: Path) -> None:
    kafka = {"security.protocol": "SASL_SSL"}
    settings = machine(tmp_path, bootstrap_servers=tls_server[0], kafka=kafka)
    (found,) = on_this_machine(settings)
    assert (found.verdict, found.subject) == ("wrong", f"certificate of {tls_server[0]}")
    assert "has expired at 2026-09-20" in found.detail and "the broker's keystore" in found.what_to_do
    assert on_this_machine(settings, "certificates") == []


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "says"),
    [
        (-400, -1, "wrong", "has expired at"),
        (1, 400, "wrong", "is valid only from"),
        (-400, 3, "warning", "expires in 3.0 days"),
        (-400, 300, "good", "valid until"),
    ],
)
@pytest.mark.parametrize("name", ["ssl.certificate.location", "ssl.ca.location", "ssl.certificate.pem"])
def test_our_own_certificates(name: str, begins: int, ends: int, verdict: str, says: str, tmp_path: Path) -> None:
    path = certificate(tmp_path, timedelta(days=begins), timedelta(days=ends))
    value = path.read_text() if name.endswith("pem") else str(path)
    settings = machine(tmp_path, kafka={name: value})
    [check] = [check for check in MACHINE_CHECKS if check.__name__ == "certificates"]
    (found,) = check(settings, NOW_MS)
    assert (found.verdict, name in found.what_to_do) == (verdict, verdict == "warning" or says == "has expired at")
    assert says in found.detail
    assert "PRIVATE" not in repr(found)


def test_a_certificate_in_a_keystore(tmp_path: Path) -> None:
    both = certificate(tmp_path, timedelta(days=-400), timedelta(days=-1)).read_bytes()
    mine, key = x509.load_pem_x509_certificate(both), serialization.load_pem_private_key(both, None)
    locked = serialization.BestAvailableEncryption(b"open")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    store = tmp_path / "client.keystore.p12"
    store.write_bytes(pkcs12.serialize_key_and_certificates(None, key, mine, None, locked))
    kafka = {"ssl.keystore.location": str(store), "ssl.keystore.password": "open"}
    (found,) = on_this_machine(machine(tmp_path, kafka=kafka))
    assert found.verdict == "wrong" and "has expired at" in found.detail
    (found,) = on_this_machine(machine(tmp_path, kafka=kafka | {"ssl.keystore.password": "another"}))
    assert found.verdict == "wrong" and "cannot be read" in found.detail and "another" not in repr(found)
    (found,) = on_this_machine(machine(tmp_path, kafka=kafka | {"ssl.keystore.location": str(tmp_path / "none.p12")}))
    assert found.verdict == "wrong" and "does not exist" in found.detail


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    (found,) = on_this_machine(machine(tmp_path, kafka={"ssl.certificate.location": str(tmp_path / "x.pem")}))
    assert found.verdict == "wrong" and "cannot be read" in found.detail
    (found,) = on_this_machine(machine(tmp_path, kafka={"ssl.certificate.location": str(tmp_path / "y.pem")}))
    assert found.verdict == "wrong" and "does not exist" in found.detail


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that knows one user."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'us:right').decode()}"
            self.send_response(200 if known and self.path == "/subjects" else 401)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_schema_registry_that_refuses_or_is_away(registry: str, tmp_path: Path) -> None:
    def told(url: str, user: str, leave_out: str = "") -> list[Finding]:
        properties = {"url": url, "basic.auth.user.info": user}
        return on_this_machine(machine(tmp_path, schema_registry=properties), leave_out)

    assert told(registry, "us:right") == [] and told(f"http://127.0.0.1:1,{registry}/", "us:right") == []
    (found,) = told(registry, "us:wrong")
    assert (found.subject, found.verdict) == ("schema registry", "wrong") and "refuses us: 401" in found.detail
    assert "basic.auth.user.info" in found.what_to_do and "us:wrong" not in repr(found)
    (found,) = told("http://us:hidden@127.0.0.1:1", "")
    assert "hidden" not in repr(found)
    (found,) = told("http://127.0.0.1:1", "us:right")
    assert "does not answer: http://127.0.0.1:1" in found.detail and "see that it runs" in found.what_to_do
    assert told("http://127.0.0.1:1", "us:right", "registry") == []


@pytest.mark.parametrize(
    ("free", "verdict", "says"),
    [(3_000_000, "wrong", "the disk is full, 3 MB free"), (1_000_000_000, "warning", "0.9 GB free")],
)
def test_a_full_disk(free: int, verdict: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = on_this_machine(machine(tmp_path))
    assert [(each.subject, each.verdict) for each in found] == [("state folder", verdict), ("cache folder", verdict)]
    assert all(says in each.detail and "make room" in each.what_to_do for each in found)
    assert on_this_machine(machine(tmp_path), "folders") == []


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (found,) = on_this_machine(machine(tmp_path))
    assert (found.subject, found.verdict) == ("state folder", "wrong")
    assert "HEADWATER_STATE_DIR" in found.what_to_do


def test_an_archive_whose_folder_cannot_be_written_or_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archive").write_text("")
    for address in (str(tmp_path / "archive"), f"file://{tmp_path}/archive"):
        (found,) = on_this_machine(machine(tmp_path, archive=address))
        assert (found.subject, found.verdict) == ("archive", "wrong") and "HEADWATER_ARCHIVE" in found.what_to_do
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage._replace(free=0) if at.name == "kept" else usage)
    (found,) = on_this_machine(machine(tmp_path, archive=str(tmp_path / "kept")))
    assert found.subject == "archive" and "the disk is full" in found.detail
    assert on_this_machine(machine(tmp_path, archive="s3://bucket/kept")) == []


def test_a_secret_that_others_can_read(tmp_path: Path) -> None:
    settings = machine(tmp_path, secret=None)
    settings.secret_bytes()
    (tmp_path / "state" / "secret").chmod(0o644)
    (found,) = on_this_machine(settings)
    assert found.verdict == "warning" and "chmod 600" in found.what_to_do
    assert on_this_machine(settings, "secret") == []


def test_a_secret_is_not_made_by_who_asks_for_it(tmp_path: Path) -> None:
    """In the wrong folder it was, and then told to be another one than the workspace's."""
    settings = machine(tmp_path, secret=None)
    assert on_this_machine(settings) == [] and not list((tmp_path / "state").iterdir())
    here = WORKSPACE.model_copy(update={"secret": None, "state_dir": tmp_path, "bootstrap_servers": "127.0.0.1:1"})
    [found] = whose(SetUp(here, healthy(), lambda: NOW_MS, lambda _: None, None))
    assert (found.subject, found.verdict) == ("secret", "wrong") and "is not here" in found.detail
    assert "headwater up" in found.what_to_do and not (tmp_path / "secret").exists()


def test_a_secret_that_is_missing(tmp_path: Path) -> None:
    (found,) = on_this_machine(machine(tmp_path, secret=None, bootstrap_servers="kafka.example.org:9092"))
    assert (found.subject, found.verdict) == ("secret", "wrong") and "openssl rand" in found.what_to_do


def test_a_variable_that_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_COLOUR", "green")
    (found,) = on_this_machine(machine(tmp_path))
    assert (found.subject, found.verdict) == ("environment", "warning") and "HEADWATER_COLOUR" in found.detail
    assert on_this_machine(machine(tmp_path), "environment") == []
