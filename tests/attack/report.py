"""The table of a campaign."""

import re
import statistics
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.attack.campaign import Result


def table(results: "list[Result]") -> str:
    """Markdown: faults with counts and times to recover, then what was judged, then what went wrong."""
    done: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    times: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for name, count in result.done.items():
            kind = f"SIGKILL {name}" if result.setting == "storm" else name
            done[kind] += count
            wrong[kind] += count if result.failed else 0
        for fault, role, seconds in result.recovered:
            kind = fault.replace("SIGKILL ", f"SIGKILL {role} ") if result.setting == "storm" else fault
            times[kind].append(seconds)
    lines = ["| fault | times | in a wrong world | recovery p50, s | max, s |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in sorted(set(done) | set(times)):
        seen = times.get(name, [])
        middle = f"{statistics.median(seen):.1f}" if seen else ""
        most = f"{max(seen):.1f}" if seen else ""
        lines.append(f"| {name} | {done.get(name, '') or ''} | {wrong.get(name, 0)} | {middle} | {most} |")
    judged = Counter[str]()
    for result in results:
        judged.update(result.verdict)
    kills = sum(count for name, count in done.items() if name.startswith("SIGKILL ") and "nodes" not in name)
    lines += [
        "",
        f"{len(results)} worlds, {kills} SIGKILLs of workers, {sum(done.values()) - kills} other faults, "
        f"{sum(result.seconds for result in results) / 60:.0f} minutes. Worlds that were wrong: "
        f"{sum(bool(result.failed) for result in results)}.",
        "Judged: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in judged.items()) + ".",
    ]
    ended = Counter(_reason(words) for result in results for _, _, words in result.ended)
    if ended:
        lines += ["", "| a worker ended by itself, and was started again | times |", "| --- | ---: |"]
        lines += [f"| {words} | {count} |" for words, count in ended.most_common()]
    return "\n".join(lines)


def _reason(words: str) -> str:
    """Last words without what differs from one to the next."""
    kept = "".join("#" if character.isdigit() else character for character in words.removeprefix("stopped: "))
    return re.sub(r"(/[^ ]*)*/state-#", "…", kept)[:140].replace("|", "/") or "(killed)"
