"""What an erasure had taken, told by the state of the one who carried it out."""

from collections.abc import Mapping, Sequence

from pipeline.identifiers import partition_of
from pipeline.runtime.adapters import LogReader
from pipeline.runtime.overlay import HEADER
from pipeline.unify.actor import Actor
from pipeline.unify.forms import decode

CHANGELOG = "unify-changelog"
_TIMEOUT_S = 10.0


def read_cuts(reader: LogReader, partitions: int, erased: Sequence[bytes]) -> Mapping[bytes, tuple[int, int]]:
    """For actors (by key) that were erased: the partition of `events` they route, and up to which offset of it their
    events went with the erasure. One whose erasure is still on its way is missing.

    `reader` reads the workspace's topics; the partitions concerned are read from beginning to end.
    """
    wanted: dict[int, dict[bytes, bytes]] = {}
    for key in erased:
        wanted.setdefault(partition_of(key, partitions), {})[b"a" + key] = key
    found: dict[bytes, tuple[int, int]] = {}
    for number, actors in wanted.items():
        present: dict[bytes, bytes | None] = {}
        low, end = reader.bounds((CHANGELOG, number), _TIMEOUT_S)
        reader.open((CHANGELOG, number), low)
        while reader.position((CHANGELOG, number)) < end:
            for record in reader.read(10_000, 0.1):
                if record.key in actors:
                    present[record.key] = record.value
        reader.close_partition((CHANGELOG, number))
        for key, value in present.items():
            if value is None:
                continue
            actor: Actor = decode(key, value[HEADER:])
            if actor.erased:
                found[actors[key]] = (number, actor.cut)
    return found
