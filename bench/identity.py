"""How many new edges a second the identity stage takes on one core, and how many bytes it keeps per identifier.

    python -m bench.identity [--edges N] [--batch N] [--rocksdb]

The stage runs over a task's real state: every batch is encoded into the store and the cache is smaller than the
population, so that records met again later are decoded again. The store is a dictionary, or RocksDB in a temporary
folder. Kafka is not in it.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.identity import Sizes
from pipeline.records import Evidence
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.overlay import TaskState
from pipeline.runtime.rocksdb import RocksStores
from tests.rooms.identity.harness import DictStore, World, saw

CACHED = 50_000


def people(count: int, chance: random.Random) -> Iterator[Evidence]:
    """Every pair of identifiers of people who hold two to six, one in twenty beside a stranger's device."""
    devices: list[str] = []
    for person in range(count):
        user = f"user_id:{chance.getrandbits(64):016x}"
        held = [user, f"anonymous_id:{chance.getrandbits(128):032x}"]
        others = (
            f"email:{chance.getrandbits(48):012x}@example.com",
            f"device_id:{chance.getrandbits(128):032x}",
            f"anonymous_id:{chance.getrandbits(128):032x}",
            f"phone:+3247{chance.randrange(10**7):07d}",
        )
        held += others[: chance.randrange(5)]
        at = 1_790_000_000_000 + person * 1_000
        for index, one in enumerate(held):
            for other in held[index + 1 :]:
                at += chance.randrange(100)
                yield saw(one, other, at, at + 250, route=user)
        if devices and chance.random() < 0.05:
            yield saw(user, chance.choice(devices), at + 500, at + 750, route=user)
        devices.extend(text for text in held if text.startswith("device_id:"))


def bot(count: int, chance: random.Random) -> Iterator[Evidence]:
    """One user_id that shows a new browser with every event, not in order."""
    for _ in range(count):
        at = 1_790_000_000_000 + chance.randrange(10**9)
        yield saw("user_id:crawler", f"anonymous_id:{chance.getrandbits(128):032x}", at, 1_791_000_000_000)


def address(count: int, chance: random.Random) -> Iterator[Evidence]:
    """One address that everybody types in."""
    for _ in range(count):
        at = 1_790_000_000_000 + chance.randrange(10**9)
        yield saw("email:test@test.com", f"user_id:{chance.getrandbits(64):016x}", at, 1_791_000_000_000)


class RocksBehind(DictStore):
    """A RocksDB store, and beside it the sizes of what it holds."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._store = RocksStores(Path(folder)).open(0)

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(prefix)

    def write(self, values: Iterable[tuple[bytes, bytes | None]]) -> int:
        changed = list(values)
        self._store.write(changed, (), (), StoreMeta())
        return super().write(changed)


def measure(name: str, edges: list[Evidence], batch: int, folder: str | None = None) -> None:
    """Consume the edges and say what it cost, and whether the last tenth cost more than the first."""
    world = World(batch=batch, sizes=Sizes())
    if folder is not None:
        world.store = RocksBehind(f"{folder}/{name}")
    world.state = TaskState(world.store, world.stage.encode, world.stage.decode, CACHED, 1 << 40)  # type: ignore[arg-type]
    world._deliver = lambda out: None  # type: ignore[method-assign]
    tenths: list[float] = []
    size = max(len(edges) // 10, 1)
    began = time.process_time()
    for start in range(0, len(edges), size):
        at = time.process_time()
        world.say(*edges[start : start + size])
        tenths.append((time.process_time() - at) / min(size, len(edges) - start))
    seconds = time.process_time() - began
    counters = world.stage.counters
    texts = {text for edge in edges for text in (edge.a, edge.b)}
    print(
        f"{name:8} {counters.edges / seconds:9,.0f} new edges/s  {seconds / len(edges) * 1e6:6.1f} µs an edge"
        f" (first tenth {tenths[0] * 1e6:.1f}, last {tenths[9] * 1e6:.1f})"
        f"  {world.state_bytes() / len(texts):6.0f} bytes of state an identifier"
        f"  {world.written_bytes / len(edges):5.0f} written an edge"
    )
    print(
        f"         joined {counters.joined}, inside {counters.inside}, refused plainly {counters.refused_plainly},"
        f" resolved {counters.resolved} ({counters.resolved_identifiers} identifiers), conflicts {counters.conflicts},"
        f" assigns {counters.assigns}, decoded {world.state.loads}"
    )


def main() -> None:
    """Measure the three shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rocksdb", action="store_true")
    arguments = parser.parse_args()
    chance = random.Random(7)
    crowd = list(people(arguments.edges // 7, chance))
    shuffled = crowd[:]
    chance.shuffle(shuffled)
    shapes = {
        "people": crowd,
        "shuffled": shuffled,
        "bot": list(bot(arguments.edges, chance)),
        "address": list(address(arguments.edges, chance)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, edges in shapes.items():
            measure(name, edges, arguments.batch, folder if arguments.rocksdb else None)


if __name__ == "__main__":
    main()
