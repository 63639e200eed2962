"""Whether topics keep what a contract would let go: profiles and archive follow contracts, topics their settings."""

from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.contracts import ContractsPlan
from pipeline.doctor.finding import Finding, SetUp, some
from pipeline.privacy.stores import DAY_MS, SEGMENT_MS
from pipeline.topology import DELIVERIES

_COPIES = ("events", "dead-letters", "profile-changes")
"""The topics, besides sources and deliveries, in which what an event brought stands for as long as they are kept."""


def retention(setup: SetUp) -> Iterator[Finding]:
    """Whether what an event brought is gone from each topic when the shortest retention of a contract has passed."""
    settings = setup.settings
    existing = setup.facts.cluster().counts()
    if settings.topic("definitions") not in existing:
        return
    shortest = _shortest(setup.facts.contracts())
    if shortest is None:
        return
    allowed_ms, what = shortest
    begin = settings.topic(DELIVERIES.name)
    names = [settings.topic(name) for name in (*settings.sources, *_COPIES)]
    names += sorted(name for name in existing if name.startswith(begin))
    configs = setup.facts.configs([name for name in names if name in existing])
    for_ever, longer, latest_ms = [], [], 0
    for name, config in configs.items():
        kept_ms = int(config.get("retention.ms", -1))
        if kept_ms < 0:
            for_ever.append(name)
            continue
        # A segment goes as a whole, so its first record stays for as long as it takes to fill one.
        kept_ms += int(config.get("segment.ms", SEGMENT_MS))
        if kept_ms > allowed_ms:
            longer.append(f"{name} for {kept_ms / DAY_MS:.1f} days")
            latest_ms = max(latest_ms, kept_ms)
    advice = "give them a retention.ms and a segment.ms that are together no longer"
    if for_ever:
        what_to_do = advice if settings.archive else f"{advice}, and set HEADWATER_ARCHIVE: there history goes on"
        yield Finding("retention", "warning", f"{what}; kept for ever: {some(for_ever)}", what_to_do)
    if longer:
        until = datetime.fromtimestamp((setup.now_ms() + latest_ms) / 1000, UTC).date()
        detail = f"{what}; kept longer: {some(longer)}, so what comes now until {until} at the latest"
        yield Finding("retention", "warning", detail, advice)
    if not for_ever and not longer:
        yield Finding("retention", "good", f"{what}, and no topic keeps it longer")


def _shortest(contracts: ContractsPlan) -> tuple[int, str] | None:
    """The shortest time that a contract lets anything be kept, and what."""
    found = [(ms, event) for event, ms in contracts.keeps_events.items()]
    found += [(ms, f"{'.'.join(path)} of {event}") for (event, path), ms in contracts.keeps_parts.items()]
    if not found:
        return None
    ms, what = min(found)
    return ms, f"{what} may be kept for {ms / DAY_MS:.1f} days"
