"""`python -m tests.attack`: faults on a real Kafka, each judged; prints a table. A campaign cut short goes on later.

Examples:
    python -m tests.attack                                      some of everything, about ten minutes
    python -m tests.attack --kills 2000 --others 500            hours
    python -m tests.attack --minutes 30 --seed 7 --kills 2000   half an hour of it; the same again goes on
    python -m tests.attack --broken write-before-commit         the counter-proof: it must be found
"""

import argparse
import sys
import time
from pathlib import Path

from tests.attack.broken import RULES
from tests.attack.campaign import Campaign, Slice, results_in, slices
from tests.attack.counterproof import found_out
from tests.attack.report import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=90, help="SIGKILLs, spread over the points of all roles")
    parser.add_argument("--others", type=int, default=2, help="of every other fault; of slow ones a fifth")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=0, help="begin no slice after this; 0: no end")
    parser.add_argument("--partitions", type=int, default=0, help="of every world; 0: two or three")
    parser.add_argument("--only", default="", help="only faults (and variants) whose name has this in it")
    parser.add_argument("--setting", default="", help="only slices of this setting: storm, workers, network, broker, …")
    parser.add_argument("--broken", choices=[*RULES, "all"], help="break a rule of the engine: it must be found out")
    parser.add_argument(
        "--folder", type=Path, action="append", help="where results and failed worlds are kept; several for --report"
    )
    parser.add_argument("--report", action="store_true", help="print the table of what was done so far, and no more")
    options = parser.parse_args()
    folders = options.folder or [Path(".headwater") / "attack" / f"seed-{options.seed}"]
    if options.broken:
        return found_out(folders[0], list(RULES) if options.broken == "all" else [options.broken], options.seed)
    if not options.report:
        until = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
        planned = slices(options.seed, options.kills, options.others, options.only)
        attack(folders[0], [each for each in planned if options.setting in each.setting], until, options.partitions)
    results = [result for folder in folders for result in results_in(folder)]
    print(table(results))
    return 1 if any(result.failed for result in results) else 0


def attack(folder: Path, planned: list[Slice], until: float, partitions: int = 0) -> None:
    """Run what has not been done yet of the planned slices."""
    done = {result.slice for result in results_in(folder)}
    todo = [each for each in planned if each.name not in done]
    with Campaign(folder, partitions=partitions) as campaign:
        for number, each in enumerate(todo, 1):
            if time.monotonic() > until:
                break
            result = campaign.run(each)
            verdict = "WRONG" if result.failed else "right"
            what = f"{sum(result.done.values())} faults, {result.verdict.get('events', 0)} events"
            print(f"{number}/{len(todo)} {each.name}: {verdict}, {what}, {result.seconds:.0f} s", flush=True)
            if result.failed:
                print(result.failed[:2_000], flush=True)


if __name__ == "__main__":
    sys.exit(main())
