"""From a login to the merged profile on the topic: ingest, unify, identity, and the fragment's way to its new holder.

    python -m bench.login [--rate 500] [--seconds 20] [--partitions 4] [--warm-up 60]

People visit anonymously, and log in later, at `--rate`. The latency of a login is the time from just before it is given
to the producer to the moment a read_committed consumer has the profile that holds both identifiers and both events.
"""

import argparse
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

from bench.live import ROLES, Event, measure, percentile
from bench.machine import load_average
from pipeline.admin import create_topics
from pipeline.broker import running_kafka
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings, load
from pipeline.up.processes import Processes


def login(number: int) -> tuple[str, Event]:
    """The login of a person who was here before."""
    event = {"type": "identify", "messageId": f"l-{number}", "anonymousId": f"a-{number}", "userId": f"u-{number}"}
    return f"u-{number}", event


def merged(document: Event) -> str:
    """Whose profile this is, if it holds the visit and the login."""
    held = {pair["namespace"]: pair["value"] for pair in document["identifiers"]}
    whole = {"Page Viewed", "Identify"} <= document.get("totals", {}).keys() and "anonymous_id" in held
    return str(held.get("user_id", "")) if whole else ""


def visit(settings: Settings, people: int) -> None:
    """Everybody visits once; returns when all have a profile."""
    producer = Producer({**settings.client_properties(), "partitioner": "murmur2_random"})
    with TopicReader(settings, ["profiles"], from_end=True) as reader:
        for number in range(people):
            value = f'{{"type":"page","messageId":"v-{number}","anonymousId":"a-{number}"}}'
            producer.produce(settings.topic("raw"), value.encode(), f"a-{number}".encode())
            producer.poll(0)
        producer.flush()
        seen: set[bytes | None] = set()
        until = time.time() + 120
        while len(seen) < people and time.time() < until:
            seen.update(record.key for record in reader.read(10_000, 0.2))
    print(f"{len(seen):,} of {people:,} people have visited")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--warm-up", type=float, default=60, metavar="SECONDS", help="of a new broker's compiler")
    given = parser.parse_args()
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        values = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": f"login-{int(time.time())}.",
            "state_dir": Path(folder),
            "secret": "bench",
            "partitions": given.partitions,
        }
        settings = Settings.model_validate(values)
        create_topics(settings)
        environment = {f"HEADWATER_{name.upper()}": str(value) for name, value in values.items()}
        with Processes(ROLES, environment, Path(folder) / "logs"):
            time.sleep(8)
            visit(settings, int(given.rate * (given.seconds + given.warm_up)))
            found = measure(settings, given.rate, given.seconds, login, "profiles", merged, given.warm_up)
    print(
        f"{len(found):,} logins at {given.rate:.0f}/s: p50 {percentile(found, 0.5):.0f} ms, "
        f"p99 {percentile(found, 0.99):.0f} ms; load {load_average():.1f}"
    )


if __name__ == "__main__":
    main()
