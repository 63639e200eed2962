"""The whole job on a Kafka that encrypts, asks for passwords, and grants each role what `topics acls` says."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from pipeline.broker.local import LocalKafka, free_port
from pipeline.doctor import examine
from pipeline.privacy.asking import ask
from pipeline.records import PrivacyReceipt, ResolveOn, decode_edges_record
from pipeline.rights import Right, as_command, rights
from pipeline.runtime.kafka.doors import TopicReader, current_values
from pipeline.settings import Settings, load
from tests.kafka.deployment import Deployment

PASSWORD = "the password of a test"
ROLES = ("ingest", "identity", "unify", "deliver", "privacy", "operator")
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "Delete": AclOperation.DELETE,
    "Create": AclOperation.CREATE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}
DEFINITIONS = """
segment: buyers
when: {performed: {event: Order Completed, within: 30d}}
---
destination: out
kind: file
segments: [buyers]
path: PATH
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalKafka, int, Path]]:
    """A Kafka with a TLS listener that asks for SCRAM passwords; what comes in the clear is the administrator."""
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    both = folder / "keystore.pem"
    both.write_text(key.read_text() + certificate.read_text())
    port = free_port()
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    kafka = LocalKafka(
        load().cache_dir,
        properties={
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": login,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
        listeners={"SECURED": port},
    )
    try:
        yield kafka, port, certificate
    finally:
        kafka.stop()


def grant(admin: AdminClient, right: Right) -> None:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    bindings = [
        AclBinding(
            RESOURCES[right.resource],
            right.name,
            pattern,
            f"User:{right.role}",
            "*",
            OPERATIONS[operation],
            AclPermissionType.ALLOW,
        )
        for operation in right.operations
    ]
    for future in admin.create_acls(bindings).values():
        future.result(120)


class Secured(Deployment):
    """Every process is somebody: it has the name and password of its role."""

    def environment(self, slot: str = "0", **more: str) -> dict[str, str]:
        role = more.pop("role", "operator")
        secured = {
            "security.protocol": "SASL_SSL",
            # A pod has no file of its operator: there it is text.
            **({"ssl.ca.location": self.certificate} if role == "operator" else {"ssl.ca.pem": self.text()}),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": role,
            "sasl.password": PASSWORD,
        }
        return {**super().environment(slot, **more), "HEADWATER_KAFKA": msgspec.json.encode(secured).decode()}

    certificate = ""

    def text(self) -> str:
        return Path(self.certificate).read_text()

    def start(self, *words: str, slot: str = "0", **more: str) -> Any:
        return super().start(*words, slot=slot, role=words[0], **more)


def test_the_whole_job_with_no_more_rights_than_are_printed(
    secured: tuple[LocalKafka, int, Path], tmp_path: Path
) -> None:
    kafka, port, certificate = secured
    settings = Settings.model_validate(
        {
            "bootstrap_servers": f"127.0.0.1:{port}",
            "prefix": "secured.",
            "state_dir": tmp_path / "state",
            "secret": "s",
            "partitions": 2,
            "sources": ["raw", "/elsewhere.orders"],
        }
    )
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.create_topics([NewTopic("elsewhere.orders", 1, 1)]).values():
        future.result(120)
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    upserts = [UserScramCredentialUpsertion(role, credentials, PASSWORD.encode()) for role in ROLES]
    for future in admin.alter_user_scram_credentials(upserts).values():
        future.result(120)
    for right in rights(settings, ["out"]):
        if right.role in ROLES:
            grant(admin, right)
    out = tmp_path / "out.jsonl"
    with Secured(settings, tmp_path) as deployment:
        deployment.certificate = str(certificate)
        deployment.command("topics", "--create", "--destination", "out")
        roles = [deployment.start(role) for role in ROLES[:-1]]
        deployment.apply(DEFINITIONS.replace("PATH", str(out)))
        events = tmp_path / "events.jsonl"
        order = {"type": "track", "event": "Order Completed", "userId": "ada", "anonymousId": "a", "properties": {}}
        events.write_bytes(b"\n".join(msgspec.json.encode(order | {"messageId": str(n)}) for n in range(3)) + b"\nx\n")
        deployment.command("produce", str(events))
        shown = deployment.command("profile", "user_id:ada", "--wait", "150")
        assert "buyers" in shown.stdout
        deployment.wait_until(lambda: out.exists() and b"segment_entered" in out.read_bytes(), "delivered")
        deployment.command("identity", "unlink", "user_id:ada", "anonymous_id:a")
        deployment.apply("identity: {namespaces: {card: {priority: 25, unique: true}}}\n")
        plain = settings.model_copy(update={"bootstrap_servers": kafka.bootstrap_servers})
        deployment.wait_until(lambda: goes_on(plain), "the identity stage resolves anew under the rules that changed")
        deployment.command("dead-letters", "list")
        deployment.command("dead-letters", "replay", "--all")
        deployment.command("explain", "user_id:ada", "buyers", "--destination", "out")
        deployment.command("destinations", "list")
        deployment.command("privacy", "export", "user_id:ada", "--to", str(tmp_path / "export"))
        asked = ask(plain, "export", "user_id:ada", "somebody at the API")
        deployment.wait_until(lambda: asked.encode() in current_values(plain, "privacy-receipts"), "exported")
        receipt = msgspec.json.decode(current_values(plain, "privacy-receipts")[asked.encode()], type=PrivacyReceipt)
        assert (receipt.state, receipt.detail) == ("done", "export.json and export.md")
        shown = deployment.command("privacy", "erase", "user_id:ada", "--wait", "60")
        assert "done" in shown.stdout
        deployment.command("segments", "list")
        deployment.command("doctor", "--role", "unify", role="unify")
        told = deployment.command("doctor", "--role", "unify", "--json", role="unify").stdout
        assert '"subject": "rights of unify", "verdict": "good"' in told and "certificate of 127.0.0.1" in told
        poorer = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "doctor", "--role", "unify"],
            env=deployment.environment(role="deliver"),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        [said] = [line for line in poorer.stdout.splitlines() if line.startswith("✗ rights of unify")]
        assert poorer.returncode == 1 and "on topic secured.events" in said and PASSWORD not in poorer.stdout
        assert [role.stop() for role in roles] == [0] * 5
        text = "".join(role.log.read_text() for role in roles)
        assert "AUTHORIZATION" not in text and "not authorized" not in text.lower() and PASSWORD not in text


def goes_on(settings: Settings) -> bool:
    """Whether the identity stage has told itself to go on."""
    with TopicReader(settings, ["identity-edges"]) as reader:
        records = [decode_edges_record(one.value) for one in reader.read_to_end() if one.value is not None]
    return any(isinstance(one, ResolveOn) for one in records)


def test_without_a_right_a_role_says_which(secured: tuple[LocalKafka, int, Path], tmp_path: Path) -> None:
    """Somebody who may do nothing is told so in a sentence, and writes nothing."""
    kafka, port, certificate = secured
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    for future in admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion("nobody", credentials, PASSWORD.encode())]
    ).values():
        future.result(120)
    settings = Settings.model_validate(
        {"bootstrap_servers": f"127.0.0.1:{port}", "prefix": "other.", "state_dir": tmp_path, "secret": "s"}
    )
    with Secured(settings, tmp_path) as deployment:
        deployment.certificate = str(certificate)
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "topics", "--create"],
            env=deployment.environment(role="nobody"),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert done.returncode == 1 and "authoriz" in done.stderr.lower() and PASSWORD not in done.stderr + done.stdout
    with pytest.raises(KafkaException):
        for future in (
            AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "security.protocol": "SASL_SSL", "log_level": 0})
            .describe_configs([])
            .values()
        ):
            future.result(120)
        AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0}).list_topics(timeout=3)


def test_a_kafka_that_does_not_let_us_in_is_told(secured: tuple[LocalKafka, int, Path], tmp_path: Path) -> None:
    _, port, certificate = secured
    user = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "stranger", "sasl.password": PASSWORD}
    values = {
        "bootstrap_servers": f"127.0.0.1:{port}",
        "state_dir": tmp_path,
        "cache_dir": tmp_path,
        "secret": "s" * 20,
    }
    for authority, said in ((str(certificate), "Authentication failed"), ("probe", "certificate verify failed")):
        kafka = {"security.protocol": "SASL_SSL", "ssl.ca.location": authority, **user}
        found = {each.subject: each for each in examine(Settings.model_validate(values | {"kafka": kafka}))}
        assert found["Kafka"].verdict == "wrong" and said in found["Kafka"].detail, found["Kafka"]
        assert "does not let us in" in found["Kafka"].detail and "password" in found["Kafka"].what_to_do
        assert PASSWORD not in repr(found["Kafka"])


def test_what_is_printed_is_what_is_granted() -> None:
    settings = Settings.model_validate({"prefix": "w."})
    lines = [as_command(right, f"User:{right.role}", "k:1") for right in rights(settings, ["crm"])]
    assert (
        "kafka-acls.sh --bootstrap-server k:1 --add --allow-principal User:unify --operation Read --operation Describe"
        " --operation Write --topic 'w.deliveries.crm'" in lines
    )
    assert not [line for line in lines if "User:api" in line and "Write" in line]
    assert not [line for line in lines if "reader'" in line and "Read " in line]
    # Sources outside of the workspace are not among what is granted by its prefix.
    outside = settings.model_copy(update={"sources": ("raw", "/shop.orders")})
    of_privacy = {each.name: each.operations for each in rights(outside) if each.role == "privacy"}
    assert "DescribeConfigs" in of_privacy["shop.orders"] and "DescribeConfigs" not in of_privacy["w.raw"]
    assert len(lines) == len(set(lines))
