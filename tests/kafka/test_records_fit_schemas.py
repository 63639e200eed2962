"""What really stands in the topics is what schemas/ says."""

import json
from collections.abc import Callable
from pathlib import Path

import fastavro
import msgspec

from pipeline import avro
from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

SCHEMAS = Path(__file__).parents[2] / "schemas"
DEFINITIONS = """
segment: visitors
when: {performed: {event: Page Viewed, within: 1h}}
---
destination: kept
kind: file
path: PATH
---
segment: lively
entity: account
when: {performed: {event: Page Viewed, within: 1h}}
---
alert: call_them
enters: lively
fallback: sales@example.org
"""


def test_every_record_of_every_topic_fits_its_schema(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as deployment:
        for role in ("ingest", "identity", "unify", "privacy"):
            deployment.start(role)
        deployment.apply(DEFINITIONS.replace("PATH", str(tmp_path / "kept.jsonl")))
        people = [("u-1", "a-1"), ("u-2", "a-1"), ("u-3", "a-3")]
        deployment.produce(
            {"type": "page", "messageId": f"{number}-{kind}", **fields}
            for number, (user, cookie) in enumerate(people)
            for kind, fields in {
                "cookie": {"anonymousId": cookie},
                "login": {"userId": user, "anonymousId": cookie},
                "user": {"userId": user, "context": {"traits": {"plan": "pro", "nested": {"a": [1, None]}}}},
            }.items()
        )
        deployment.produce([b"not json", {"type": "group", "messageId": "g", "userId": "u-1", "groupId": "acme"}])
        deployment.command("identity", "unlink", "user_id:u-3", "anonymous_id:a-3")
        deployment.wait_until(lambda: len(deployment.values("identity-conflicts")) >= 1, "evidence not followed")
        deployment.wait_until(lambda: len(deployment.members("visitors")) >= 3, "the members")
        deployment.wait_until(lambda: len(deployment.values("deliveries.kept")) >= 3, "the deliveries")
        deployment.wait_until(lambda: len(deployment.table("identity-decisions")) == 1, "the decision to unlink")
        deployment.wait_until(lambda: bool(deployment.values("account-alerts")), "the alert")
        # An erasure empties what has been read already, so what stood there before it is judged too.
        before = {topic: _values(deployment, topic) for topic in avro.RECORDS}
        deployment.command("privacy", "erase", "user_id:u-2", "--wait", "120")
        audited = [(one["action"], one.get("what", "")) for one in deployment.values("audit")]
        assert audited[-3:] == [("decided", "unlink"), ("decided", "unlink"), ("erased", "")], "both ends"
        for topic, kinds in avro.RECORDS.items():
            schema = fastavro.parse_schema(json.loads((SCHEMAS / f"{topic}.avsc").read_text()))
            values = before[topic] + _values(deployment, topic)
            assert values or topic in ("links", "workspace"), f"{topic} is empty: it shows nothing"
            for value in values:
                record = msgspec.to_builtins(_decoded(value, kinds), builtin_types=(bytes,))
                assert fastavro.validate(record, schema), (topic, value)


def _values(deployment: Deployment, topic: str) -> list[bytes]:
    logical = topic if topic != "deliveries" else "deliveries.kept"
    return [record.value for record in deployment.read(logical) if record.value is not None]


def _decoded(value: bytes, kinds: tuple[type[msgspec.Struct], ...]) -> msgspec.Struct:
    strict = [msgspec.defstruct(kind.__name__, [], bases=(kind,), forbid_unknown_fields=True) for kind in kinds]
    errors = []
    for kind in strict:
        try:
            return msgspec.json.decode(value, type=kind)
        except msgspec.ValidationError as error:
            errors.append(str(error))
    raise AssertionError(f"{value!r} is none of {[kind.__name__ for kind in kinds]}: {errors}")
