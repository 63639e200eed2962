"""Latency of live events beside something else: from just before an event is handed to the producer to the moment a
read_committed consumer has the record that answers it. `bench.latency` has the way of an event hop by hop."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Producer

from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings

ROLES = (("ingest",), ("identity",), ("unify",))
WARM_UP_S = 5.0

Event = Mapping[str, Any]


def measure(
    settings: Settings,
    rate: float,
    seconds: float,
    make: Callable[[int], tuple[str, Event]],
    topic: str,
    answers: Callable[[Event], str],
    warm_up_s: float = WARM_UP_S,
) -> list[float]:
    """Latencies in ms of `rate` events a second over `seconds`, after `warm_up_s`. `make(n)` gives what answers are
    known by and the n-th event; `answers(record)` what a record of `topic` answers, "" for nothing."""
    produced: dict[str, float] = {}
    latencies: list[float] = []
    started, over = threading.Event(), threading.Event()

    def read() -> None:
        with TopicReader(settings, [topic], from_end=True) as reader:
            started.set()
            while not over.is_set():
                for record in reader.read(1, 0.05):
                    now = time.perf_counter()
                    answered = answers(json.loads(record.value)) if record.value else ""
                    if answered in produced:
                        latencies.append((now - produced.pop(answered)) * 1_000)

    thread = threading.Thread(target=read)
    thread.start()
    started.wait()
    time.sleep(1)
    properties = {"linger.ms": 0, "acks": "all", "partitioner": "murmur2_random"}
    producer = Producer({**settings.client_properties(), **properties})
    raw = settings.topic("raw")
    begin = time.perf_counter()
    for number in range(int(rate * (seconds + warm_up_s))):
        due = begin + number / rate
        while (wait := due - time.perf_counter()) > 0:
            producer.poll(min(wait, 0.001))
        known_by, event = make(number)
        if number >= rate * warm_up_s:
            produced[known_by] = time.perf_counter()
        producer.produce(raw, json.dumps(event).encode(), known_by.encode())
    producer.flush()
    until = time.perf_counter() + 30
    while produced and time.perf_counter() < until:
        time.sleep(0.05)
    over.set()
    thread.join()
    if produced:
        print(f"{len(produced)} events had no answer within 30 s")
    return latencies


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
