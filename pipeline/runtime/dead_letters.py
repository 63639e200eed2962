"""Records that made a step raise: kept as dead letters, with their bytes and where they came from."""

import traceback

from pipeline.records import DeadLetter, encode
from pipeline.runtime.ports import Record

TOPIC = "dead-letters"
REASON = "step raised"


def detail_of(error: BaseException) -> str:
    """The last line of the traceback, and the place it came from."""
    last = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return last
    frame = frames[-1]
    return f"{last} (in {frame.name}, {frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"


def dead_letter(record: Record, stage: str, detail: str) -> bytes:
    """The encoded dead letter of a record; `at` is the record's own timestamp."""
    return encode(
        DeadLetter(
            reason=REASON,
            detail=detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            at=record.timestamp_ms,
            value=record.value,
            key=record.key,
            stage=stage,
        )
    )
