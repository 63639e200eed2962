"""Whether today's records fit those of the last release, by Avro's rules of resolution: part of `make check`.

    python -m tests.rooms.schemas.compatible            refuses what does not fit, topic by topic
    python -m tests.rooms.schemas.compatible --release   keeps today's schemas as those of this version

Today's code must read what the released one has written, for topics keep it. Of topics that others read, released
readers must read what today's code writes, too: their programs are not changed when ours is.
"""

import argparse
import json
import shutil
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import IgnoredLogicalType
from avro.schema import make_avsc_object

from pipeline import avro
from pipeline.topology import DELIVERIES, TOPICS

SCHEMAS = Path(__file__).parents[3] / "schemas"
RELEASED = SCHEMAS / "released"
READ_BY_OTHERS = {topic.name for topic in TOPICS if topic.output} | {DELIVERIES.name.removesuffix(".")}


def last_release() -> Path:
    """The folder with the newest released schemas."""
    return max(RELEASED.iterdir(), key=lambda folder: [int(part) for part in folder.name.split(".")])


def reasons(reader: Any, writer: Any) -> list[str]:
    """Why a reader's schema cannot read what a writer's has written; none if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredLogicalType)  # JSON in a text is a text to it
        made = make_avsc_object(reader), make_avsc_object(writer)
    checked = ReaderWriterCompatibilityChecker().get_compatibility(*made)
    if checked.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [*checked.messages] or [kind.name for kind in checked.incompatibilities]


def changes_that_do_not_fit(topic: str, released: Any, today: Any) -> list[str]:
    """What of a topic's change would break somebody."""
    found = [f"{topic}: today's code does not read what was released: {each}" for each in reasons(today, released)]
    if topic in READ_BY_OTHERS:
        found += [f"{topic}: released readers do not read today's: {each}" for each in reasons(released, today)]
    return found


def all_changes_that_do_not_fit(folder: Path) -> list[str]:
    """The same of all topics of a release. A topic that is gone does not fit."""
    found = []
    for file in sorted(folder.glob("*.avsc")):
        topic = file.stem
        if topic not in avro.topics():
            found.append(f"{topic}: is gone")
            continue
        found += changes_that_do_not_fit(topic, json.loads(file.read_text()), avro.schema_of(topic))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--release", action="store_true", help="keep today's schemas as those of this version")
    if parser.parse_args().release:
        folder = RELEASED / version("headwater")
        folder.mkdir(parents=True, exist_ok=True)
        for file in SCHEMAS.glob("*.avsc"):
            shutil.copy(file, folder)
        return
    found = all_changes_that_do_not_fit(last_release())
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print(
            f"These records do not fit those of {last_release().name}. Give a new field a default, keep what was there;"
            " what cannot be kept needs a replay, and another topic.",
            file=sys.stderr,
        )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
