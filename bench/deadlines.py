"""Deadlines that fall due together: how fast they drain, how exact they are, and what live events feel of it.

    python -m bench.deadlines --profiles 1000000 --rate 500

Every profile enters a segment whose window ends within one second for all of them. Live events of other people run at
`--rate` before and while they drain. `at` of every exit is compared with its deadline.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.live import ROLES, measure, percentile
from bench.live import Event as Raw
from pipeline.admin import create_topics
from pipeline.broker import running_kafka
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.identifiers import Keys
from pipeline.records import Event, encode
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings, load
from pipeline.up.processes import Processes

SPREAD_MS = 1_000
LIVE_S = 20.0
BUYERS = "segment: buyers\nwhen: {performed: {event: Order Completed, within: 30d}}"


class Exits:
    """Follows the exits of the segment, from a thread: when the first and the last came, and how many were inexact."""

    def __init__(self, settings: Settings, deadlines: dict[str, int]) -> None:
        self.entered = self.exited = self.inexact = 0
        self.first_s = self.last_s = 0.0
        self._deadlines = deadlines
        self._over = threading.Event()
        self._reader = TopicReader(settings, ["segment-changes"])
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over.is_set():
            for record in self._reader.read(10_000, 0.1):
                change = json.loads(record.value or b"{}")
                if change["segment"] != "due":
                    continue
                if change["change"] == "entered":
                    self.entered += 1
                    continue
                now_s = time.time()
                self.first_s = self.first_s or now_s
                self.last_s = now_s
                self.exited += 1
                self.inexact += change["at"] != self._deadlines[change["profile_id"]]

    def close(self) -> None:
        """Stop following."""
        self._over.set()
        self._thread.join()
        self._reader.close()


def live(settings: Settings, rate: float, label: str) -> list[float]:
    """Latencies (ms) of people's first purchases, each of which enters a segment."""

    def purchase(number: int) -> tuple[str, Raw]:
        message = f"{label}-{number}"
        return message, {"type": "track", "event": "Order Completed", "messageId": message, "userId": message}

    def entered(change: Raw) -> str:
        return str(change["evidence"].get("message_id", ""))

    return measure(settings, rate, LIVE_S, purchase, "segment-changes", entered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--load-seconds", type=int, default=600, help="time to load the profiles before they fall due")
    given = parser.parse_args()
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        values = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": f"deadlines-{int(time.time())}.",
            "state_dir": Path(folder),
            "secret": "bench",
            "partitions": given.partitions,
        }
        settings = Settings.model_validate(values)
        create_topics(settings)
        window_s = given.load_seconds
        due = f"segment: due\nwhen: {{performed: {{event: Seen, within: {window_s}s}}}}"
        apply(settings, load_text(f"{due}\n---\n{BUYERS}"))
        environment = {
            "HEADWATER_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "HEADWATER_PREFIX": settings.prefix,
            "HEADWATER_STATE_DIR": folder,
            "HEADWATER_SECRET": "bench",
            "HEADWATER_PARTITIONS": str(given.partitions),
        }
        keys = Keys(b"bench")
        with Processes(ROLES, environment, Path(folder) / "logs"):
            time.sleep(8)
            base = int(time.time() * 1000)
            times = {n: base - SPREAD_MS + n * SPREAD_MS // given.profiles for n in range(given.profiles)}
            deadlines = {keys.profile_id(f"user_id:d{n}"): at + window_s * 1000 for n, at in times.items()}
            exits = Exits(settings, deadlines)

            def events() -> Iterator[tuple[bytes, bytes]]:
                for n, at in times.items():
                    event = Event(f"d-{n}", "track", "Seen", [f"user_id:d{n}"], at, base)
                    yield keys.actor(event.identifiers[0]), encode(event)

            produce_all(settings, "events", events())
            while exits.entered < given.profiles and time.time() * 1000 < base + window_s * 1000 - 60_000:
                time.sleep(1)
            print(f"{exits.entered:,} profiles had entered {time.time() - base / 1000:.0f} s after the start")
            before = live(settings, given.rate, "before")
            while time.time() * 1000 < base + window_s * 1000 - 7_000:
                time.sleep(0.2)
            during = live(settings, given.rate, "during")
            waited = time.time()
            while exits.exited < exits.entered and time.time() < waited + 600:
                time.sleep(0.5)
            exits.close()
    drained_s = exits.last_s - (base + window_s * 1000) / 1000
    print(f"{exits.exited:,} exits, the last {drained_s:.1f} s after the last deadline; {exits.inexact} inexact `at`")
    for name, found in (("before", before), ("during", during)):
        median, worst = statistics.median(found), percentile(found, 0.99)
        print(f"live {name}: p50 {median:.0f} ms, p99 {worst:.0f} ms, {len(found):,} events")


if __name__ == "__main__":
    main()
