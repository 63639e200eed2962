"""Where data of a person can be, and by when it has left: the entries of a receipt for the topics and the stores.

kind of store                       how what was erased leaves it
state and files of the stages       at once, and from the files with the next scrub
events                              its key is destroyed: the bytes say nothing any more, in copies and backups too
compacted topics, changelogs        the cleaner; hastened until it has been through
links, identity-edges               records below the committed position are deleted, segment by segment
topics with a retention             by age: `retention.ms`, and `segment.ms` because a segment goes as a whole
"""

from collections.abc import Iterable, Mapping

from pipeline.records import ReceiptEntry
from pipeline.topology import DELIVERIES, TOPICS

DAY_MS = 86_400_000
SEGMENT_MS = 7 * DAY_MS
"""Kafka's `segment.ms` where a topic has none of its own."""

# Keys and hashes only, or what is about no person: nothing to erase.
NOT_PERSONAL = frozenset(
    {"definitions", "keys", "suppressions", "privacy-receipts", "privacy-progress", "audit", "workspace"}
)
# No user would choose it: it tells our settings from theirs.
_HASTE_MS = "1001"
TRIMMED = ("links", "identity-edges")
COMPACTED = (
    "keys",
    *(topic.name for topic in TOPICS if topic.cleanup == "compact" and topic.name not in NOT_PERSONAL),
)
NO_RETENTION = frozenset({"events", *TRIMMED})


def kept_by_age(sources: Iterable[str], destinations: Iterable[str]) -> list[str]:
    """The topics, by logical name, that let go of what they hold by its age."""
    found = [
        topic.name
        for topic in TOPICS
        if topic.cleanup == "delete" and topic.name not in NO_RETENTION and topic.name not in (*NOT_PERSONAL, "raw")
    ]
    return [*sources, *found, *(DELIVERIES.name + name for name in destinations)]


def by_age(topic: str, config: Mapping[str, str], now_ms: int) -> ReceiptEntry:
    """By when a topic with a retention holds nothing of what was written up to now."""
    retention = int(config.get("retention.ms", -1))
    if retention < 0:
        return ReceiptEntry(topic, "impossible", now_ms, "the topic has no retention.ms: give it one")
    segment = int(config.get("segment.ms", SEGMENT_MS))
    # The check of the broker comes every few minutes, and a deleted file stays a minute more.
    slack = min(15 * 60_000, retention + segment)
    days = (retention + segment) / DAY_MS
    how = f"retention.ms and segment.ms: {days:.1f} days" if days >= 1 else "retention.ms and segment.ms"
    return ReceiptEntry(topic, "by", now_ms + retention + segment + slack, how)


def archived(every_s: float, now_ms: int) -> ReceiptEntry:
    """By when the archive holds nothing of what was written up to now: see pipeline/archive/scrub.py."""
    how = "events by their destroyed keys; files with changes are written anew"
    return ReceiptEntry("archive", "by", now_ms + int(4 * every_s * 1_000) + 60_000, how)


def hastened(lag_ms: int, topic: str) -> dict[str, str]:
    """The settings that make a topic let go of what it should, while an erasure is under way."""
    lag = str(lag_ms)
    if topic in TRIMMED:
        return {"segment.ms": lag, "file.delete.delay.ms": _HASTE_MS}
    config = {"max.compaction.lag.ms": lag, "file.delete.delay.ms": _HASTE_MS}
    if topic == "identities":
        # Its keys are identifiers, so its tombstones must go as well.
        config["delete.retention.ms"] = lag
    return config


def is_hastened(config: Mapping[str, str]) -> bool:
    """Whether a topic's settings are those of an erasure under way, or of one whose role ended in the middle of it."""
    return config.get("file.delete.delay.ms") == _HASTE_MS


def restored(wanted: Mapping[str, str], topic: str) -> dict[str, str | None]:
    """The settings a topic has again when no erasure is under way."""
    return {name: wanted.get(name) for name in hastened(0, topic)}
