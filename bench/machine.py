"""What processes cost: CPU time, memory, and the cores they may use. Linux."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (OSError, IndexError):
                continue  # it has just ended
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process with all of its threads, and of its children that have ended."""
    fields = _stat(pid)
    return sum(int(fields[index]) for index in (11, 12, 13, 14)) / _TICKS


def resident_bytes(pid: int) -> int:
    """The memory a process holds now."""
    return int(_stat(pid)[21]) * _PAGE


def pin(pid: int, cores: set[int]) -> None:
    """Let every thread of a process run on these cores only, and those that it will start."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:
            continue


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def load_average() -> float:
    """How many processes wanted a core in the last minute: what neighbours take."""
    return os.getloadavg()[0]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/pid/stat after the name, which may hold anything: state is 0, parent 1, utime 11."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
