"""The test of the tests: faults put in on purpose, each of which the simulation must find.

`python -m tests.simulation.faults [NAME …] [--seeds 1000]`. A fault is a change of the source text of one module,
made while it is imported, in a process of its own; nothing on disk changes. A fault whose text is no longer in the
module is out of date and counts as a failure: it has to be put where its rule lives now.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import NamedTuple

from tests.simulation.fault_kinds import Fault
from tests.simulation.fault_list import FAULTS
from tests.simulation.fault_list_accounts import ACCOUNT_FAULTS
from tests.simulation.fault_list_erasures import ERASURE_FAULTS
from tests.simulation.fault_list_resting import RESTING_FAULTS


class Found(NamedTuple):
    """What became of one fault."""

    fault: Fault
    seed: int | None
    detail: str
    took_s: float


class _Mutating(importlib.machinery.SourceFileLoader):
    """Loads a module with a part of its source replaced."""

    def __init__(self, name: str, path: str, changes: Sequence[tuple[str, str]]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        assert source is not None
        for old, new in self._changes:
            if source.count(old) != 1:
                raise SystemExit(f"out of date: {fullname} holds {source.count(old)} times: {old}")
            source = source.replace(old, new)
        return compile(source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.was_used = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.origin is not None
        self.was_used = True
        return importlib.util.spec_from_file_location(
            fullname,
            spec.origin,
            loader=_Mutating(fullname, spec.origin, self._fault.changes),
            submodule_search_locations=spec.submodule_search_locations,
        )


def run_with(fault: Fault, first: int, seeds: int) -> int:
    """In a process of its own: put the fault in, run seeds until one fails. Exit code 0: found."""
    finder = _Finder(fault)
    sys.meta_path.insert(0, finder)
    for seed in (*fault.seeds, *range(first, seeds)) if first == 0 else range(first, seeds):
        detail = _try(fault, seed)
        if detail is not None:
            print(f"{seed} {detail[:200]}")
            return 0
    if not finder.was_used:
        print(f"{fault.module} was never imported")
        return 2
    return 1


def _try(fault: Fault, seed: int) -> str | None:
    from tests.simulation import erasures, pairs, rules_change, run

    if fault.engine == "pairs":
        return pairs.try_pair(seed)
    if fault.engine == "erasures":
        return erasures.try_seed(seed)
    if fault.engine == "rules":
        return rules_change.try_seed(seed)
    failure = run.try_seed(seed, fault.engine)
    return None if failure is None else failure.detail


def find(fault: Fault, seeds: int) -> Found:
    """Run a fault in a process of its own. A seed that fails without it too says nothing about it."""
    started, first = time.monotonic(), 0
    while True:
        command = [sys.executable, "-m", "tests.simulation.faults", "--inside", fault.name]
        command += ["--first", str(first), "--seeds", str(seeds)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - started
        said = (ended.stdout + ended.stderr).strip()
        if ended.returncode != 0:
            return Found(fault, None, said[-300:] or "not found", took)
        seed, _, detail = said.partition(" ")
        if _try(fault, int(seed)) is None:
            return Found(fault, int(seed), detail, took)
        first = int(seed) + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="faults to try; all by default")
    parser.add_argument("--accounts", action="store_true", help="only those of accounts")
    parser.add_argument("--erasures", action="store_true", help="only those of what keeps the erased out")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    every = (*FAULTS, *ACCOUNT_FAULTS, *ERASURE_FAULTS, *RESTING_FAULTS)
    faults = ACCOUNT_FAULTS if arguments.accounts else ERASURE_FAULTS if arguments.erasures else every
    by_name = {fault.name: fault for fault in every}
    if arguments.inside:
        return run_with(by_name[arguments.inside], arguments.first, arguments.seeds)
    missed = 0
    chosen = [by_name[name] for name in arguments.names] or faults
    for fault in chosen:
        found = find(fault, arguments.seeds)
        missed += found.seed is None
        verdict = "NOT FOUND" if found.seed is None else f"seed {found.seed}"
        print(f"{fault.name:<42} {verdict:<12} {found.took_s:5.1f} s  {found.detail.splitlines()[0][:110]}", flush=True)
    print(f"{len(chosen)} faults, {missed} not found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
