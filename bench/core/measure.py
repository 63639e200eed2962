"""One contender, one run: how fast it works through a topic that is full, and the CPU time that takes."""

import subprocess
import time
from dataclasses import dataclass

from bench import machine
from bench.workspace import Committed

# A run counts a few seconds: what is seen late is a share of it.
SAMPLE_S = 0.05


class Stuck(RuntimeError):
    """A contender ended, or made no progress."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`rate` (events/s) and `cpu_us` (CPU µs an event, all threads) between the warm-up and the end of the topic; the
    same of the broker; `whole_s` from the start of the process to the end."""

    rate: float
    cpu_us: float
    broker_cpu_us: float
    whole_s: float
    whole_cpu_s: float
    memory_bytes: int
    load: float


def run(
    process: "subprocess.Popen[bytes]",
    committed: Committed,
    events: int,
    warm_up: float,
    broker_pid: int,
    patience_s: float = 240.0,
) -> Measured:
    """Watch a process that was just started until it has committed all events. The figures leave out what came before
    the first `warm_up` (a share) of them was committed."""
    began = time.perf_counter()
    warm: tuple[int, float, float, float] | None = None
    memory, best, moved = 0, 0, began
    while True:
        done = committed.records()
        now = time.perf_counter()
        if process.poll() is not None:
            raise Stuck(f"ended with {process.returncode} at {done:,} of {events:,} events")
        cpu, broker_cpu = machine.cpu_seconds(process.pid), machine.cpu_seconds(broker_pid)
        memory = max(memory, machine.resident_bytes(process.pid))
        if done > best:
            best, moved = done, now
        elif now - moved > patience_s:
            raise Stuck(f"no progress for {patience_s:.0f} s at {done:,} of {events:,} events")
        if warm is None and done >= warm_up * events:
            warm = (done, now, cpu, broker_cpu)
        if done >= events:
            break
        time.sleep(SAMPLE_S)
    assert warm is not None
    counted = max(events - warm[0], 1)
    return Measured(
        rate=counted / max(now - warm[1], 1e-9),
        cpu_us=(cpu - warm[2]) / counted * 1e6,
        broker_cpu_us=(broker_cpu - warm[3]) / counted * 1e6,
        whole_s=now - began,
        whole_cpu_s=cpu,
        memory_bytes=memory,
        load=machine.load_average(),
    )
