"""The licences of everything that Headwater brings along when it is installed with all its extras.

    python -m tests.deploy.licences      a table of them; ends with 1 if one is not allowed

What only developers install (the extras `dev`, `docs` and `bench`) is not distributed, and not looked at.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOT_DISTRIBUTED = {"dev", "bench", "docs"}
# What Apache-2.0 software may depend on without passing conditions on to whoever uses it, as packages write it (SPDX,
# or the classifiers' words), in small letters. LGPL and MPL speak of changes to the library itself: we make none.
_ALLOWED = """
    apache-2.0 | apache software license | apache license 2.0
    mit | mit license | mit-0 | mit-cmu | isc | isc license (iscl) | hpnd
    bsd | bsd license | bsd-2-clause | bsd-3-clause | 0bsd | zlib | unlicense | cc0-1.0
    psf-2.0 | python software foundation license | python-2.0
    mpl-2.0 | mozilla public license 2.0 (mpl 2.0)
    lgpl-3.0-only | gnu lesser general public license v3 (lgplv3)
"""
ALLOWED = frozenset(each.strip() for each in _ALLOWED.replace("\n", "|").split("|")) - {""}
# Those that say nothing a machine can read, or use words of their own: what their licence file says.
LOOKED_AT = {
    "crawler-user-agents": "MIT",
    "venusian": "BSD-3-Clause",  # the Repoze Public License: that, and changed files say that they were changed
}


def brought_along() -> list[str]:
    """The names of all packages that an installation with every distributed extra has, by requirement."""
    extras = set(metadata("headwater").get_all("Provides-Extra") or []) - NOT_DISTRIBUTED
    found: set[str] = set()
    waiting = [("headwater", frozenset(extras))]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # for another system, or a version of Python that is not this one
        if name != "headwater":
            found.add(name)
        for text in needs:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return sorted(found)


def licences(names: list[str]) -> dict[str, tuple[str, str]]:
    """Version and licence of packages that are installed here."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--format=json",
        "--from=mixed",
        "--with-system",
        "--packages",
        *names,
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {canonicalize_name(each["Name"]): (each["Version"], each["License"]) for each in told}


def is_allowed(licence: str) -> bool:
    """Whether one of alternatives is allowed, and every part of what holds together."""
    ways = re.split(r" OR ", licence)
    return any(all(part.strip().lower() in ALLOWED for part in re.split(r" AND |;", way)) for way in ways)


def refused(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    """The packages whose licence is not allowed, with what it is."""
    return {name: licence for name, (_, licence) in found.items() if not is_allowed(LOOKED_AT.get(name, licence))}


def main() -> None:
    found = licences(brought_along())
    print("| package | version | licence |\n| --- | --- | --- |")
    for name, (version, licence) in sorted(found.items()):
        print(f"| {name} | {version} | {licence} |")
    for name, licence in refused(found).items():
        print(f"not allowed: {name}: {licence}", file=sys.stderr)
    sys.exit(bool(refused(found)))


if __name__ == "__main__":
    main()
