"""The core job in one run, ourselves and the peers one after the other, several times.

    python -m bench.core --events 1000000 --people 20000 --runs 5

One command makes everything: a Kafka, the peers' environments (the first time), the topics. Contenders are interleaved,
each on `--cores`, the Kafka on `--broker-cores`. A figure counts only if memberships and totals of every person are
those of a plain count of the events. Writes core.md, core.json and core.png into `--out`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from bench.core.contenders import CONTENDERS, Contender, Job
from bench.core.job import SPAN_MS, Outcome, encoded, expected, rules_as_data
from bench.core.measure import Measured, Stuck
from bench.core.report import write_report
from bench.workspace import SECRET, Broker, broker
from pipeline.identifiers import Keys


def main() -> None:
    given = _arguments()
    contenders = [CONTENDERS[name]() for name in given.only]
    given.out.mkdir(parents=True, exist_ok=True)
    for contender in contenders:
        contender.build(given.environments.absolute())
    cores, broker_cores = _cores(given.cores), _cores(given.broker_cores)
    results: dict[str, list[Measured]] = {contender.name: [] for contender in contenders}
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder, broker(broker_cores) as kafka:
        counts = {contender.name: max(1, int(given.events * contender.share)) for contender in contenders}
        data = Data(kafka, given.people, given.partitions, sorted(set(counts.values())), Path(folder))
        for number in range(given.runs):
            for contender in contenders:
                job = data.job(counts[contender.name], f"run{number}-{contender.name}".replace(" ", "-"))
                job.cores, job.warm_up = cores, given.warm_up
                measured = _one(contender, job, data, problems)
                if measured is not None:
                    results[contender.name].append(measured)
                    print(
                        f"run {number} {contender.name:16} {measured.rate:9,.0f} events/s  {measured.cpu_us:6.1f} µs"
                        f"  broker {measured.broker_cpu_us:5.1f} µs  {measured.memory_bytes / 1e6:5.0f} MB"
                        f"  (load {measured.load:.1f})",
                        flush=True,
                    )
    settings = {"events": given.events, "people": given.people, "partitions": given.partitions, "runs": given.runs}
    raw = {name: [asdict(one) for one in found] for name, found in results.items()}
    (given.out / "core.json").write_text(json.dumps({"settings": settings, "results": raw, "problems": problems}))
    print(write_report(given.out, settings, results, problems))


class Data:
    """The events of the job, made once: topics for the peers, and records for ours."""

    def __init__(self, kafka: Broker, people: int, partitions: int, counts: list[int], folder: Path) -> None:
        self._kafka = kafka
        self._partitions = partitions
        self._folder = folder
        self._start_ms = time.time_ns() // 1_000_000 - SPAN_MS
        self._people = people
        self._rules_file = folder / "rules.json"
        self._rules_file.write_text(json.dumps(rules_as_data()))
        keys = Keys(SECRET.encode())
        most = counts[-1]
        made = encoded(most, people, self._start_ms)
        self._records: list[tuple[bytes | None, bytes]] = [(keys.actor(text), value) for text, value in made]
        self.expected: dict[int, Outcome] = {}
        for count in counts:
            kafka.create(f"core-{count}", partitions)
            kafka.fill(f"core-{count}", islice(self._records, count))
            self.expected[count] = expected(most, people, self._start_ms, first=count)

    def job(self, count: int, name: str) -> Job:
        """A run over the first `count` events."""

        def records() -> Iterable[tuple[bytes | None, bytes]]:
            return islice(self._records, count)

        folder = self._folder / name
        return Job(
            self._kafka,
            name,
            f"core-{count}",
            self._partitions,
            count,
            records,
            self._rules_file,
            folder,
            None,
            0.0,
        )


def _one(contender: Contender, job: Job, data: Data, problems: list[str]) -> Measured | None:
    try:
        measured, outcome = contender.do(job)
    except Stuck as stuck:
        problems.append(f"{contender.name}: {stuck}")
        print(problems[-1], flush=True)
        return None
    differences = data.expected[job.events].differences(outcome)
    if differences:
        problems.append(f"{contender.name}: {len(differences)} results are wrong; the first: {differences[0]}")
        print(problems[-1], flush=True)
        return None
    return measured


def _cores(text: str) -> set[int] | None:
    return {int(part) for part in text.split(",")} if text else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--warm-up", type=float, default=0.4, help="share of the events before the figures begin")
    parser.add_argument("--cores", default="0", help="cores of the contender, empty for all")
    parser.add_argument("--broker-cores", default="1", help="cores of the Kafka, empty for all")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--environments", type=Path, default=Path("build/bench/peers"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
