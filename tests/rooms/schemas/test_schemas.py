"""The schemas on disk are those of the code, and the samples beside them are valid records of both."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest

from pipeline import avro, topology

SCHEMAS = Path(__file__).parents[3] / "schemas"


def samples(topic: str) -> list[bytes]:
    return (SCHEMAS / "samples" / f"{topic}.jsonl").read_bytes().splitlines()


@pytest.mark.parametrize("topic", avro.topics())
def test_the_file_is_what_the_code_says(topic: str) -> None:
    assert (SCHEMAS / f"{topic}.avsc").read_text() == avro.render(topic), (
        "run `python -m pipeline.avro schemas/` and look at what changed"
    )


@pytest.mark.parametrize("topic", [topic for topic, kinds in avro.RECORDS.items() if len(kinds) > 1])
def test_every_kind_is_told_before_one_that_has_it_in_a_field(topic: str) -> None:
    """Else a name would stand for it among the kinds, and a reader could not take that one by itself."""
    assert [kind["name"] for kind in avro.schema_of(topic)] == [kind.__name__ for kind in avro.RECORDS[topic]]


def test_every_topic_has_a_schema() -> None:
    described = {name.removesuffix(".") for name in (*(t.name for t in topology.TOPICS), topology.DELIVERIES.name)}
    assert described == set(avro.topics())


@pytest.mark.parametrize("topic", avro.RECORDS)
def test_samples_decode_and_survive_avro(topic: str) -> None:
    schema = fastavro.parse_schema(avro.schema_of(topic))
    for line in samples(topic):
        record = decode(topic, line)
        plain = msgspec.to_builtins(record, builtin_types=(bytes,))
        assert fastavro.validate(plain, schema)
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, schema, plain)
        buffer.seek(0)
        read: Any = fastavro.schemaless_reader(buffer, schema, schema)
        assert msgspec.convert(read, type(record)) == record


@pytest.mark.parametrize("topic", avro.RECORDS)
def test_there_is_a_sample_of_every_kind(topic: str) -> None:
    assert {type(decode(topic, line)) for line in samples(topic)} == set(avro.RECORDS[topic])


def test_a_wrong_record_is_refused() -> None:
    schema = fastavro.parse_schema(avro.schema_of("segment-members"))
    record = json.loads(samples("segment-members")[0])
    record["since"] = "yesterday"
    assert not fastavro.validate(record, schema, raise_errors=False)


def decode(topic: str, line: bytes) -> Any:
    failures = []
    for kind in avro.RECORDS[topic]:
        try:
            return msgspec.json.decode(line, type=kind)
        except msgspec.ValidationError as error:
            failures.append(f"{kind.__name__}: {error}")
    raise AssertionError(f"no kind of {topic} fits {line!r}: {failures}")
