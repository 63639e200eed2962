"""The first room: raw bytes in; a clean event with its route out, or a dead letter that says why not."""

from pipeline.ingest.clean import MAX_IDENTIFIERS, NO_CHECKS, Checks, clean
from pipeline.ingest.decode import MAX_DEPTH, MAX_RAW_BYTES, RawEvent, decode, forgiving
from pipeline.ingest.mapping import CHANGES, NO_MAPPINGS, Constant, From, Items, Mapping, MappingPlan, Object, Text
from pipeline.ingest.outcomes import FLAGS, REASONS, Emit, Outcome, Refusal, Skip
from pipeline.ingest.stage import CAUGHT_UP_EVERY_MS, IngestStage, caught_up_due, ingest

__all__ = [
    "CAUGHT_UP_EVERY_MS",
    "CHANGES",
    "FLAGS",
    "MAX_DEPTH",
    "MAX_IDENTIFIERS",
    "MAX_RAW_BYTES",
    "NO_CHECKS",
    "NO_MAPPINGS",
    "REASONS",
    "Checks",
    "Constant",
    "Emit",
    "From",
    "IngestStage",
    "Items",
    "Mapping",
    "MappingPlan",
    "Object",
    "Outcome",
    "RawEvent",
    "Refusal",
    "Skip",
    "Text",
    "caught_up_due",
    "clean",
    "decode",
    "forgiving",
    "ingest",
]
