"""What can become of a raw record, and the closed catalogue of reasons. Nothing is dropped in silence: what is skipped,
because a mapping says so, is counted."""

from typing import NamedTuple

from pipeline.records import Event


class Emit(NamedTuple):
    """The record is a clean event; `value` is its encoded form."""

    event: Event
    value: bytes


class Refusal(NamedTuple):
    """The record cannot be used. `reason` is one of REASONS, `detail` a sentence for a person, `pointer` a JSON pointer
    to the field, empty for the whole record."""

    reason: str
    detail: str
    pointer: str = ""


class Skip(NamedTuple):
    """The record says nothing that a mapping wants to hear: a tombstone, a kind of change that is not chosen."""

    reason: str


Outcome = Emit | Refusal | Skip

REASONS: dict[str, str] = {
    "tombstone": "the record has no value",
    "empty": "the value is empty or white space",
    "too_large": "the value is larger than an event may be",
    "not_utf8": "the value is not UTF-8",
    "not_json": "the value is not JSON",
    "not_object": "the value is JSON, but not an object",
    "too_deep": "objects and lists are nested deeper than allowed",
    "number_out_of_range": "a number does not fit into 64 bits",
    "wrong_type": "a field holds another type than the tracking spec says",
    "unknown_type": "`type` is missing or is none of the six calls",
    "missing_event": "a track call without the name of its event",
    "missing_group": "a group call without a usable groupId",
    "missing_previous": "an alias call without a usable previousId and userId",
    "too_long": "a name or id is longer than allowed",
    "bad_timestamp": "`timestamp` is no time, or lies before 1970",
    "no_identifier": "nothing says who it was",
    "only_junk_identifiers": "every identifier of the event is a placeholder, blocked or malformed",
    "cleaning_failed": "a function or hash of a cleaning failed, and the event may not go on without",
    "unplanned_event": "the contract of the source does not have this event, and rejects such",
    "unplanned_property": "the contract of the event does not have this property, and rejects such",
    "contract_violation": "the event is not as its contract says",
    "not_mapped": "the mapping of the topic could make no event of the record",
    "not_avro": "the value is not Avro in the wire format of a schema registry, or not what its schema says",
    "unknown_schema": "the schema registry does not know the schema of the record",
    "too_many_identifiers": "more identifiers than one event may carry",
}

# An event that was used, but not as it came, says so. `junk_identifier:` is followed by the namespace,
# those of contracts by a pointer to the field.
FLAGS: dict[str, str] = {
    "junk_identifier:": "an identifier was dropped as junk",
    "bot": "the user agent is a known robot's, says the collector (context.bot)",
    "cleaning_failed:": "a step of this cleaning failed; the event went on without it",
    "no_reference:": "a reference has no row for what a cleaning wanted to join",
    "not_cast:": "a value could not become one of the type a cleaning wanted, and stayed as it was",
    "not_renamed:": "a field stayed where it was: a text or a list stands where a cleaning wanted it to go",
    "unplanned_event": "the contract of the source does not have this event",
    "unplanned_property:": "the contract of the event does not have this property",
    "contract_violation:": "a field is not as the contract says; the contract lets it pass",
    "stripped:": "a field was taken away because of the contract",
    "kept_out_identifier": "an identifier of somebody who was erased was taken out of the event, with its field",
    "unreadable_consent:": "what was said to a purpose or channel could not be read, and counts as a no",
    "junk_group": "the groupId was dropped as junk",
    "junk_message_id": "the messageId was a placeholder; the raw record's position and time stand in its place",
    "future_timestamp": "the event lay in the future; it counts from when it was received",
    "bad_sent_at": "sentAt was no time; the sender's clock was not corrected",
    "bad_received_at": "receivedAt was no time; the time of ingestion stands in its place",
    "clock_not_corrected": "sentAt is over a day away with no receivedAt beside it: history, not a wrong clock",
}
