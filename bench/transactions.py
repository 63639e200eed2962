"""What a transaction takes, by the partitions it touches and by the ids that take turns.

    python -m bench.transactions [--rounds 40]

Small transactions, one after the other without a pause, over six topics. The arms take turns every sixteen
transactions, on one broker, so that a neighbour of the machine slows all of them alike. No offsets are sent.
"""

import argparse
import time
from itertools import product

from confluent_kafka import Producer

from bench import machine
from bench.latency import percentile
from bench.workspace import Broker, broker

_TOPICS = [f"transactions-{number}" for number in range(6)]
_RECORDS = 8
_TURN = 16
_VALUE = b"x" * 300


def _producer(kafka: Broker, name: str) -> Producer:
    made = Producer(
        {
            "bootstrap.servers": kafka.address,
            "transactional.id": name,
            "linger.ms": 0,
            "retry.backoff.ms": 5,
            "compression.type": "lz4",
            "log_level": 2,
        }
    )
    made.init_transactions(60)
    return made


def _once(producer: Producer, partitions: int) -> tuple[float, float]:
    """(ms until everything was in the log, ms until the commit was answered)."""
    began = time.perf_counter()
    producer.begin_transaction()
    for number in range(_RECORDS):
        for topic in _TOPICS:
            producer.produce(topic, _VALUE, b"k", number % partitions)
    producer.flush(60)
    flushed = time.perf_counter()
    producer.commit_transaction(60)
    return (flushed - began) * 1_000, (time.perf_counter() - began) * 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    with broker() as kafka:
        for topic in _TOPICS:
            kafka.create(topic, 4)
        time.sleep(2)
        arms = {
            (ids, partitions): [_producer(kafka, f"{ids}-{partitions}-{turn}") for turn in range(ids)]
            for ids, partitions in product((1, 2), (1, 4))
        }
        taken: dict[tuple[int, int], list[tuple[float, float]]] = {arm: [] for arm in arms}
        for number in range(given.rounds):
            for (ids, partitions), producers in arms.items():
                times = [_once(producers[turn % ids], partitions) for turn in range(_TURN)]
                # The broker compiles at first; the first of a turn follows on a pause.
                if number >= given.rounds // 5:
                    taken[ids, partitions] += times[1:]
    print("| ids | partitions touched | transactions | in the log p50, p90, p99 ms | committed p50, p90, p99 ms |")
    print("| --- | --- | --- | --- | --- |")
    for (ids, partitions), times in taken.items():
        shown = [
            ", ".join(f"{percentile([each[which] for each in times], share):.1f}" for share in (0.5, 0.9, 0.99))
            for which in (0, 1)
        ]
        print(f"| {ids} | {partitions * len(_TOPICS)} | {len(times)} | {shown[0]} | {shown[1]} |")
    print(f"load {machine.load_average():.1f}")


if __name__ == "__main__":
    main()
