"""Latency from produce to `segment-changes`, read_committed, through every stage on a real broker, hop by hop.

    python -m bench.latency [--rates 100 1000 5000] [--seconds 20] [--traffic steady|new] [--runs 1] [--layouts 4 4/1/2]

`steady` is what a site sees: people the pipeline knows, with a dozen events each; a quarter of their events changes a
segment, one event in fifty is of somebody new. With `new`, every event makes a person and a member. Latency is told of
every event that changed a segment, from just before it is handed to the producer. `bench/hops.py` has the hops. A
layout is a number of partitions, of those of the topics that others read (a quarter), and of transactional ids (1).
"""

import argparse
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import hops, machine
from bench.workspace import Broker, Headwater, broker
from pipeline.broker import free_port

ROLES = ("ingest", "identity", "unify")
WARM_UP_S = 5.0
SHARES = (0.5, 0.95, 0.99, 0.999)
_COUNTED = ("records_total", "transactions_committed_total", "transaction_seconds_sum", "batch_seconds_sum")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Roles:
    """The three roles, running: what they count, and what they cost."""

    def __init__(self, workspace: Headwater, kafka: Broker, environment: Mapping[str, str]) -> None:
        self.ports = {role: free_port() for role in ROLES}
        self.pids = {"broker": kafka.pid}
        for role in ROLES:
            settings = {**environment, "HEADWATER_METRICS_PORT": str(self.ports[role])}
            self.pids[role] = workspace.start(role, environment=settings).pid
        self._until_they_answer(workspace)

    def _until_they_answer(self, workspace: Headwater, within_s: float = 60) -> None:
        give_up = time.monotonic() + within_s
        while True:
            workspace.refuse_ended()
            try:
                self.counted()
                return
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.2)

    def counted(self) -> dict[str, dict[str, float]]:
        """Role → name of a metric → value, of those that are sums."""
        found: dict[str, dict[str, float]] = {}
        for role, port in self.ports.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines = [line.decode().split() for line in answer if line.startswith(b"headwater_")]
            values = {line[0].partition("{")[0].removeprefix("headwater_"): float(line[-1]) for line in lines}
            found[role] = {name: values.get(name, 0.0) for name in _COUNTED}
        return found

    def cpu(self) -> dict[str, float]:
        """Process → CPU seconds."""
        return {name: machine.cpu_seconds(pid) for name, pid in self.pids.items()}


def measure(
    workspace: Headwater, roles: Roles, traffic: str, rate: float, seconds: float, people: int, label: str
) -> tuple[list[hops.Hops], str]:
    """The ways of the events that changed a segment, `rate` a second over `seconds`; and what it cost, in a line."""
    sent = list(hops.TRAFFIC[traffic](int(rate * (seconds + WARM_UP_S)), people, label))
    address = str(workspace.settings.bootstrap_servers)
    watcher = hops.Watcher(address, workspace.settings.prefix)
    sender = hops.Sender(address, workspace.settings.topic("raw"), sent, rate)
    time.sleep(WARM_UP_S)
    before, cpu, began = roles.counted(), roles.cpu(), time.time()
    times, late = sender.end()
    lasted = time.time() - began
    after, spent = roles.counted(), roles.cpu()
    _until_quiet(watcher)
    made, changed = watcher.end()
    first = int(rate * WARM_UP_S)
    found, without = hops.ways(sent[first:], times[first:], made, changed)
    missing = sum(event.changes for event in without)
    told = [f"sent on time within {late:.1f} ms (p99)"]
    if missing:
        told.append(f"**{missing} events without their change**")
    return found, "; ".join([*told, *what_it_took(before, after, cpu, spent, lasted)])


Counts = Mapping[str, Mapping[str, float]]


def what_it_took(
    before: Counts, after: Counts, cpu: Mapping[str, float], spent: Mapping[str, float], lasted: float
) -> list[str]:
    """The transactions and the CPU of each role between two looks, `lasted` s apart."""
    told = []
    for role in ROLES:
        delta = {name: after[role][name] - before[role][name] for name in _COUNTED}
        commits = delta["transactions_committed_total"]
        if commits:
            told.append(
                f"{role} {commits / lasted:.0f} transactions/s of {delta['records_total'] / commits:.1f} records, "
                f"{delta['transaction_seconds_sum'] / commits * 1_000:.1f} ms"
            )
    each = " ".join(f"{name} {(spent[name] - cpu[name]) / lasted * 100:.0f}%" for name in spent)
    return [*told, f"of a core: {each}"]


def _until_quiet(watcher: hops.Watcher, within_s: float = 30) -> None:
    give_up, last = time.monotonic() + within_s, -1
    while time.monotonic() < give_up:
        seen = watcher.seen()
        if seen == last:
            return
        last = seen
        time.sleep(1)


def rows(label: str, found: list[hops.Hops]) -> list[str]:
    """Lines of the table: the whole, then its hops."""
    lines = []
    for name in ("whole", *hops.Hops._fields[:-1]):
        values = [getattr(each, name) for each in found]
        shown = " | ".join(f"{percentile(values, share):.0f}" for share in SHARES)
        head = f"{label} | {len(found):,}" if name == "whole" else " | "
        lines.append(f"| {head} | {name.replace('_', ': ')} | {shown} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 1_000, 5_000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--layouts", nargs="+", default=["4"], metavar="P[/O[/I]]", help="compared, in turn")
    parser.add_argument("--people", type=int, default=4_000)
    parser.add_argument("--traffic", nargs="+", choices=list(hops.TRAFFIC), default=["steady"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=45, metavar="SECONDS", help="of a new broker's compiler")
    parser.add_argument("--broker", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the broker")
    parser.add_argument("--role", nargs="*", default=[], metavar="NAME=VALUE", help="environment of the roles")
    parser.add_argument("--json", type=Path, help="where to keep every figure")
    given = parser.parse_args()
    properties, environment = (dict(each.split("=", 1) for each in pairs) for pairs in (given.broker, given.role))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, broker(properties=properties) as kafka:
        spaces = {layout: _acquainted(kafka, Path(folder), layout, given.people) for layout in given.layouts}
        _warm_up(spaces[given.layouts[0]], kafka, given.warm_up, given.people)
        print(f"{given.people:,} people known; ms, produce → segment-changes, read_committed")
        print("| partitions, events/s | changes | hop | p50 | p95 | p99 | p99.9 |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        notes = []
        for run in range(given.runs):
            for layout, workspace in spaces.items():
                ids = {"HEADWATER_TRANSACTIONAL_IDS": layout.split("/")[2]} if layout.count("/") == 2 else {}
                roles = Roles(workspace, kafka, {**ids, **environment})
                time.sleep(5)
                for traffic in given.traffic:
                    for rate in given.rates:
                        label = f"{traffic}{run}r{rate:.0f}"
                        ways, told = measure(workspace, roles, traffic, rate, given.seconds, given.people, label)
                        name = f"{layout} {traffic} {rate:,.0f}"
                        print("\n".join(rows(name, ways)), flush=True)
                        notes.append(f"{name}: {told} (load {machine.load_average():.1f})")
                        found.append({"layout": layout, "rate": rate, "traffic": traffic, "run": run, "hops": ways})
                workspace.stop()
        print("\n" + "\n".join(notes))
    if given.json:
        given.json.write_text(json.dumps(found))


def _acquainted(kafka: Broker, folder: Path, layout: str, people: int) -> Headwater:
    """A workspace that knows its people; its roles are stopped."""
    partitions, outputs, _ = (*layout.split("/"), "", "")[:3]
    name = f"latency{os.getpid()}-{layout.replace('/', '-')}"
    workspace = Headwater.begin(
        kafka, f"{name}.", int(partitions), folder / name, hops.rules(), int(outputs) if outputs else None
    )
    for role in ROLES:
        workspace.start(role)
    kafka.fill(workspace.settings.topic("raw"), hops.acquaintance(people))
    _until_read(workspace, kafka)
    workspace.stop()
    return workspace


def _warm_up(workspace: Headwater, kafka: Broker, seconds: float, people: int) -> None:
    """The broker's JVM compiles for a minute: up to 40 % of its CPU time, which is no property of ours."""
    if seconds > 0:
        roles = Roles(workspace, kafka, {})
        time.sleep(5)
        measure(workspace, roles, "steady", 1_000, seconds, people, "warm")
        workspace.stop()


def _until_read(workspace: Headwater, kafka: Broker, within_s: float = 120) -> None:
    """Wait until no profile changes any more: everybody is known."""
    give_up, last, still = time.monotonic() + within_s, -1, 0
    topic = workspace.settings.topic("profile-changes")
    while time.monotonic() < give_up and still < 3:
        ends = sum(kafka.ends(topic))
        still = still + 1 if ends == last and ends > 0 else 0
        last = ends
        time.sleep(1)


if __name__ == "__main__":
    main()
