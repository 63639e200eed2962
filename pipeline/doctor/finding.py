"""What doctor says of one thing, and what it needs to look at it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.doctor.facts import Facts
from pipeline.settings import Settings

Verdict = Literal["good", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `wrong` keeps the pipeline from working; `warning` will, or may."""

    subject: str
    verdict: Verdict
    detail: str
    what_to_do: str = ""


@dataclass(frozen=True, slots=True)
class SetUp:
    """What is examined: the settings, what their Kafka says, and whose rights on it (None: nobody's in particular)."""

    settings: Settings
    facts: Facts
    now_ms: Callable[[], int]
    sleep: Callable[[float], None]
    role: str | None = None


Check = Callable[[SetUp], Iterator[Finding]]


def some(names: Sequence[str], shown: int = 5) -> str:
    """Names for a sentence."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
