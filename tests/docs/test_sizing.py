"""docs/operations/sizing.md reckons with the figures that it shows, and shows those that were measured."""

import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations" / "sizing.md").read_text()
MEASURED = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("performance", "performance-history"))
FIGURES = {name: float(text.replace(",", "")) for name, text in re.findall(r"^\| ([\w ]+) \| ([\d,.]+) ", TEXT, re.M)}
BUSY, COPIES, RAW_BYTES, PARTS = 0.6, 3, 366, 26


def rows(heading: str) -> list[list[str]]:
    table = TEXT.split(f"| {heading} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]


def number(text: str) -> float:
    return float(text.replace(",", "").removesuffix(" s"))


@pytest.mark.parametrize("row", rows("events/s"), ids=lambda row: row[0])
def test_the_table_of_events(row: list[str]) -> None:
    rate = number(row[0])
    cores = {name: rate * FIGURES[name] / 1e6 for name in ("ingest", "unify", "identity")}
    workers = {name: max(1, math.ceil(count / BUSY)) for name, count in cores.items()}
    assert row[1] == f"{cores['ingest']:.1f}, {workers['ingest']}"
    assert row[2] == f"{cores['unify']:.1f}, {workers['unify']}"
    assert row[3] == f"{cores['identity']:.1f}"
    assert row[4] == str(max(4, 2 * workers["unify"]))
    assert row[5] == f"{rate * 86_400 * FIGURES['history'] * COPIES / 1e12:.1f}"
    written = rate * (RAW_BYTES + FIGURES["history"] + FIGURES["written by unify"]) * COPIES / 1e6
    assert number(row[6]) == pytest.approx(written, rel=0.01)
    assert rate / workers["unify"] <= FIGURES["one worker"]


@pytest.mark.parametrize("row", rows("profiles"), ids=lambda row: row[0])
def test_the_table_of_profiles(row: list[str]) -> None:
    count = number(row[0])
    low, high = map(number, row[1].split(" to "))
    assert low == pytest.approx(count * FIGURES["store"] / 1e9, abs=0.51)
    assert high == pytest.approx(count * FIGURES["state"] / 1e9, abs=0.51)
    low, high = map(number, row[2].split(" to "))
    assert low == pytest.approx(count * FIGURES["changelog"] * COPIES / 1e9, abs=0.51)
    assert high == pytest.approx(count * FIGURES["state"] * COPIES / 1e9, abs=0.51)
    assert number(row[3]) == pytest.approx(count / PARTS / FIGURES["restore"], abs=0.51)


def test_the_cost_of_a_million_events() -> None:
    seconds = sum(FIGURES[name] for name in ("ingest", "unify", "identity"))
    assert f"{seconds:.0f} CPU-seconds of the roles ({seconds / 3600:.2f} core-hours)" in TEXT
    assert f"{FIGURES['history'] * COPIES / 1000:.1f} GB of history" in TEXT


@pytest.mark.parametrize(
    "said",
    [
        "ingest 21 and 13, unify 74 and 63, identity 10; 468 bytes an event in the history and 102",
        "stores of 145 MB",
        "243,000 records/s",
        "381 MB, compacted",
        "2.0 kB instead of 5.2, beside 4.2 of its profile",
    ],
)
def test_the_figures_are_those_that_were_measured(said: str) -> None:
    assert said in MEASURED, "measured anew: bring docs/operations/sizing.md up to date"
