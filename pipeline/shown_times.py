"""Times as the doors show them to people: UTC, and each says so by its Z. A trait may name one that no calendar has."""

from datetime import UTC, datetime

from pipeline.ingest.times import LATEST_MS


def shown_time(time_ms: int) -> str:
    """`2026-03-01 09:30:00.000Z`."""
    return _shown(time_ms, f"%Y-%m-%d %H:%M:%S.{time_ms % 1000:03}Z")


def shown_second(time_ms: int) -> str:
    """`2026-03-01 09:30:00Z`."""
    return _shown(time_ms, "%Y-%m-%d %H:%M:%SZ")


def shown_minute(time_ms: int) -> str:
    """`2026-03-01 09:30Z`."""
    return _shown(time_ms, "%Y-%m-%d %H:%MZ")


def _shown(time_ms: int, form: str) -> str:
    if time_ms > LATEST_MS:
        return "after the year 9999"
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):{form}}"
