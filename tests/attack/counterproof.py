"""The counter-proof: the campaign with a rule of the engine broken. It must go wrong, or it proves nothing."""

from pathlib import Path

from tests.attack.campaign import Campaign, Slice

# Where each broken rule shows: a few slices, tried until one is wrong.
_TRIES = 4
_WHERE: dict[str, tuple[str, list[str]]] = {
    "write-before-commit": ("storm", ["commit_in_flight"]),
    "write-before-commit-unchecked": ("storm", ["commit_in_flight"]),
    "random-transactional-id": ("network", ["commit delayed, its sender killed"] * 6),
    "restore-to-last-stable": ("workers", ["foreign transaction on the changelog, store lost"] * 3),
    "restore-to-last-stable-unchecked": ("workers", ["foreign transaction on the changelog, store lost"] * 3),
    "keep-overlay-on-abort": ("network", ["offsets refused: abort"] * 6),
}


def found_out(folder: Path, rules: list[str], seed: int) -> int:
    """Run the slices of each broken rule; 0 if every rule was found out."""
    missed = 0
    for rule in rules:
        setting, faults = _WHERE[rule]
        with Campaign(folder / f"broken-{rule}", rule) as campaign:
            for number in range(_TRIES):
                each = Slice(
                    f"{setting}-{number}", setting, seed * 1_000 + number, 30 if setting == "storm" else 0, faults
                )
                result = campaign.run(each)
                if result.failed:
                    print(
                        f"{rule}: FOUND OUT after {number + 1} worlds: {result.failed.splitlines()[0][:300]}",
                        flush=True,
                    )
                    break
            else:
                missed += 1
                print(f"{rule}: NOT FOUND in {_TRIES} worlds", flush=True)
    return 1 if missed else 0
