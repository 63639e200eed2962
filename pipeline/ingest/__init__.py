"""The first room: raw bytes in; a clean event with its route out, or a dead letter that says why not."""

from pipeline.ingest.clean import MAX_IDENTIFIERS, NO_CHECKS, Checks, clean
from pipeline.ingest.decode import MAX_DEPTH, MAX_RAW_BYTES, RawEvent, decode
from pipeline.ingest.outcomes import FLAGS, REASONS, Emit, Outcome, Refusal
from pipeline.ingest.stage import CAUGHT_UP_EVERY_MS, IngestStage, caught_up_due, ingest

__all__ = [
    "CAUGHT_UP_EVERY_MS",
    "FLAGS",
    "MAX_DEPTH",
    "MAX_IDENTIFIERS",
    "MAX_RAW_BYTES",
    "NO_CHECKS",
    "REASONS",
    "Checks",
    "Emit",
    "IngestStage",
    "Outcome",
    "RawEvent",
    "Refusal",
    "caught_up_due",
    "clean",
    "decode",
    "ingest",
]
