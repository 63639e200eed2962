"""Clocks: whether records come from the future, or are written by a machine whose clock is behind."""

from collections.abc import Iterator

from confluent_kafka import KafkaException

from pipeline.doctor.finding import Finding, SetUp
from pipeline.topology import INGEST

_SKEW_ALLOWED_MS = 60_000
_AT_REST_RECORDS = 100


def clocks(setup: SetUp) -> Iterator[Finding]:
    """Compares the latest times in `events` and in the sources with the clock here."""
    settings, now_ms = setup.settings, setup.now_ms()
    events = settings.topic("events")
    known = setup.facts.cluster().topics
    said = False
    try:
        for name in (events, *(settings.topic(source) for source in settings.sources)):
            if name not in known:
                continue
            latest_ms = setup.facts.latest_ms(name)
            ahead_ms = latest_ms - now_ms
            who = "runs ingest" if name == events else "produces into it"
            if ahead_ms > _SKEW_ALLOWED_MS:
                said = True
                detail = f"{name} holds records from {ahead_ms / 1000:.0f} s after now"
                yield Finding("clocks", "warning", detail, f"set the clock of the machine that {who}, or of this one")
            elif name == events and latest_ms >= 0 and -ahead_ms > _SKEW_ALLOWED_MS and _ingest_is_at_rest(setup):
                # An ingest with nothing to do says so in every partition, once a second, with its own time.
                said = True
                detail = (
                    f"ingest has read everything, but what it last wrote is from {-ahead_ms / 1000:.0f} s before now"
                )
                advice = "set the clock of the machine that runs ingest, or of this one; if both are right, see its log"
                yield Finding("clocks", "warning", detail, advice)
    except KafkaException as error:
        yield Finding("clocks", "warning", f"could not be compared: {error.args[0].str()}")
        return
    if not said:
        yield Finding("clocks", "good", "no record comes from the future")


def _ingest_is_at_rest(setup: SetUp) -> bool:
    group = setup.settings.prefix + INGEST.name
    if not setup.facts.groups([group])[group].members:
        return False
    committed, end = setup.facts.positions({INGEST.name: setup.settings.sources}).get(INGEST.name, (0, 1 << 60))
    return end - committed <= _AT_REST_RECORDS
