"""What destinations that are dead, slow and flapping cost those beside them, by turns in one run.

    python -m bench.destinations [--turns 2] [--seconds 10] [--backlog 12000] [--offered 60]

Five webhooks served by one `headwater run deliver`; two of them are always well, and only these are measured:

    all well    the three others are well too
    ill         one of the three never answers, one answers after a second, one refuses everything for 3 s of each 6
    alone       there are no others

first with a backlog, as fast as it goes (deliveries/s), then with `--offered` deliveries a second for each (ms from the
decision to the receiver). The receivers are a process of their own.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from bench import machine
from bench.live import percentile
from pipeline.broker import running_kafka
from pipeline.settings import Settings, load
from tests.destinations.world import BEHAVIOURS, WELL, World

MEASURED = ("first", "second")
LAYOUTS: dict[str, Mapping[str, str]] = {
    "all well": WELL,
    "ill": BEHAVIOURS,
    "alone": {name: BEHAVIOURS[name] for name in MEASURED},
}
_STARTS_S = 5.0


def turn(settings: Settings, folder: Path, layout: str, given: argparse.Namespace) -> float:
    """Deliveries/s at the two that are measured, together, with a backlog."""
    with World(settings, folder, LAYOUTS[layout]) as world:
        world.decide(given.backlog)
        world.start()
        while min(world.receivers.count(name) for name in MEASURED) < 300:
            time.sleep(0.05)
        begin = time.time() + 1
        time.sleep(1 + given.seconds)
        end = begin + given.seconds
        rate = sum(begin <= one.at < end for name in MEASURED for one in world.receivers.arrivals(name)) / given.seconds
        world.kill()
    return rate


def offered(settings: Settings, folder: Path, layout: str, given: argparse.Namespace) -> list[float]:
    """ms from the decision to the receiver, of what is decided at an even pace."""
    decided: dict[int, float] = {}
    with World(settings, folder, LAYOUTS[layout]) as world:
        world.decide(100)
        world.start()
        while min(world.receivers.count(name) for name in MEASURED) < 100:
            time.sleep(0.05)
        over = threading.Event()

        def decide() -> None:
            every = 0.1
            while not over.wait(every):
                number, now = world.decided, time.time()
                count = int(given.offered * every)
                decided.update((number + place, now) for place in range(count))
                world.decide(count)

        thread = threading.Thread(target=decide)
        thread.start()
        time.sleep(given.seconds)
        over.set()
        thread.join()
        time.sleep(2)
        found = [
            (one.at - decided[one.sequence]) * 1_000
            for name in MEASURED
            for one in world.receivers.arrivals(name)
            if one.sequence in decided
        ]
        missing = len(decided) * len(MEASURED) - len(found)
        if missing > 0:
            print(f"{layout}: {missing} had not come within two seconds")
        world.kill()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--backlog", type=int, default=12_000)
    parser.add_argument("--offered", type=int, default=60)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    waits: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        for number in range(given.turns):
            for layout in LAYOUTS if number % 2 == 0 else reversed(LAYOUTS):
                for what in ("rate", "offered"):
                    name = f"{what}-{number}-{layout.replace(' ', '-')}"
                    values = {
                        "bootstrap_servers": kafka.bootstrap_servers,
                        "prefix": f"{name}.",
                        "state_dir": Path(folder) / name,
                        "secret": "bench",
                        "partitions": 4,
                    }
                    settings = Settings.model_validate(values)
                    if what == "rate":
                        rates[layout].append(turn(settings, Path(folder) / name, layout, given))
                    else:
                        waits[layout] += offered(settings, Path(folder) / name, layout, given)
                print(
                    f"turn {number + 1}, {layout}: {rates[layout][-1]:.0f}/s; load {machine.load_average():.1f}",
                    flush=True,
                )
    whole = statistics.mean(rates["all well"])
    for layout in LAYOUTS:
        rate = statistics.mean(rates[layout])
        took = waits[layout]
        print(
            f"{layout:10} {rate:7.0f}/s at the two, {rate / whole:.2f} x all well; {given.offered}/s each: "
            f"p50 {percentile(took, 0.5):.0f} ms, p95 {percentile(took, 0.95):.0f}, p99 {percentile(took, 0.99):.0f}"
        )


if __name__ == "__main__":
    main()
