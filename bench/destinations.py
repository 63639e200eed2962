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
import time
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Producer

from bench import machine
from bench.live import percentile
from pipeline.broker import running_kafka
from pipeline.settings import Settings, load
from tests.destinations.world import BEHAVIOURS, WELL, World, delivery_of

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
        producer = Producer({**settings.client_properties(), "linger.ms": 0, "acks": "all"})
        begin = time.time()
        first = world.decided
        for number in range(first, first + int(given.offered * given.seconds)):
            due = begin + (number - first) / given.offered
            while (left := due - time.time()) > 0:
                producer.poll(min(left, 0.005))
            now = time.time()
            decided[number] = now
            for name in world.names:
                key, value = delivery_of(name, number, int(now * 1_000))
                producer.produce(settings.topic(f"deliveries.{name}"), value, key)
        producer.flush()
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
    parser.add_argument("--only", choices=("rate", "offered"))
    given = parser.parse_args()
    rates: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    waits: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        for number in range(given.turns):
            for layout in LAYOUTS if number % 2 == 0 else reversed(LAYOUTS):
                for what in ("rate", "offered") if given.only is None else (given.only,):
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
                print(f"turn {number + 1}, {layout}: load {machine.load_average():.1f}", flush=True)
    for layout in LAYOUTS:
        if rates[layout]:
            rate, whole = (statistics.mean(rates[name]) for name in (layout, "all well"))
            print(f"{layout:10} {rate:7.0f}/s at the two, {rate / whole:.2f} x all well")
        if took := waits[layout]:
            p50, p95, p99 = (percentile(took, share) for share in (0.5, 0.95, 0.99))
            print(f"{layout:10} {given.offered}/s each: p50 {p50:.0f} ms, p95 {p95:.0f}, p99 {p99:.0f}")


if __name__ == "__main__":
    main()
