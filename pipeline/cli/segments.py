"""`headwater segments`: the segments in force, with their sizes."""

from collections import Counter

from pipeline.cli._definitions import build
from pipeline.runtime.kafka.doors import current_values
from pipeline.settings import Settings


def _sizes(settings: Settings) -> dict[str, str]:
    members = Counter(key.partition(b"/")[0].decode() for key in current_values(settings, "segment-members"))
    return {name: f"{count:,}" for name, count in members.items()}


app = build("segment", "segments", "members", _sizes)
