"""How long each page of the room for people takes in a real browser, with a million profiles behind it.

    python -m bench.pages make    --profiles 1000000    minutes: fills a Kafka, lets the API read it
    python -m bench.pages measure [--rounds 3]          as often as wanted

`make` leaves both in build/bench/pages; `measure` starts them again with `headwater run api` and `headwater run ui`,
and opens the pages in a headless Chromium. A page is usable when it is painted and its script has run (the later of the
first contentful paint and DOMContentLoaded), in ms from the click, redirects included. The first load is of a browser
without a cache, of something that nobody has looked at before; the second is the same page again. No roles of the
pipeline run meanwhile.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.api import is_ready
from bench.town import GIANT, WHALE, Town, rules, settle
from bench.workspace import SECRET, Headwater, broker
from pipeline.api.access import create_token
from pipeline.api.client import ApiClient
from pipeline.ui.users import SCOPES, seal_user, write_users

PREFIX = "pages."
API, UI = 18_093, 18_094
PASSWORD = "a password of the bench"
_GIVE_UP_S = 780.0
_TIMING = """() => {
  const page = performance.getEntriesByType('navigation')[0];
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  return [page.domContentLoadedEventEnd, paint ? paint.startTime : 0, page.responseStart, document.title];
}"""
_LINE = "Page Viewed where path starts with /pricing at least 2 times in the last 7 days"


def start_api(headwater: Headwater) -> None:
    """The API, and wait until it answers with all it has to read."""
    headwater.start("api", environment={"HEADWATER_API__PORT": str(API)})
    began, token = time.monotonic(), _token(headwater)
    with ApiClient(f"http://127.0.0.1:{API}", token) as client:
        while not is_ready(API) or client.get_operations()["age_ms"] > 2_000:
            if headwater.processes["api-0"].poll() is not None or time.monotonic() - began > _GIVE_UP_S:
                sys.exit(f"the API did not become ready: {headwater.folder / 'api-0.log'}")
            time.sleep(1)
    print(f"the API is ready after {time.monotonic() - began:.0f} s, load {machine.load_average():.1f}", flush=True)


def _token(headwater: Headwater) -> str:
    """A token of an operator, made once; whoever signs in has the same."""
    state = headwater.settings.state_dir
    kept = state / "bench-token"
    if not kept.is_file():
        state.mkdir(parents=True, exist_ok=True)
        token = create_token(state / "tokens.yaml", "ui.bench", SCOPES["operator"], [], 1_000_000)
        kept.write_text(token)
        write_users(state / "users.yaml", [seal_user("bench", "operator", token, PASSWORD)])
    return kept.read_text()


def make(folder: Path, profiles: int) -> None:
    """Fill the topics, and let the API read them."""
    shutil.rmtree(folder, ignore_errors=True)
    with broker(folder=folder / "kafka") as running:
        headwater = Headwater.begin(running, PREFIX, 4, folder, rules())
        headwater.become_ready()
        headwater.stop()
        settle(headwater, profiles)
        (folder / "profiles").write_text(str(profiles))


def read(folder: Path) -> None:
    """Let the API read what there is, until it has everything; it goes on where it was."""
    with broker(folder=folder / "kafka") as running:
        headwater = Headwater.begin(running, PREFIX, 4, folder)
        try:
            start_api(headwater)
        finally:
            headwater.stop()


def addresses(people: int, rounds: int) -> dict[str, list[str]]:
    """The pages, for each round another of its kind where there is one."""
    town = Town(people, 0)
    some = [people // 2 + 2 * number for number in range(rounds)]
    firms = [f"firm-{1_000 + number:05}.example" for number in range(rounds)]

    def each(path: str, values: list[Any]) -> list[str]:
        return [path.format(value) for value in values]

    return {
        "segments": ["/segments"] * rounds,
        "a segment (six of ten people)": ["/segments/segment_0"] * rounds,
        "another segment": each("/segments/segment_{}", list(range(1, rounds + 1))),
        "a segment, page behind": each("/segments/segment_0?after={}", [town.person(number) for number in some]),
        "a new segment": ["/segments/new"] * rounds,
        "a segment in the builder": each("/segments/segment_{}/edit", list(range(3, rounds + 3))),
        "find a person by e-mail": each("/people?q=person.{}@mail.example", some),
        "find nobody": each("/people?q=nobody-{}", some),
        "a person": each("/people/{}", [town.person(number + 1) for number in some]),
        "a person of 20 events": each("/people/{}", [town.person(number + 100) for number in range(rounds)]),
        "a person of 101 identifiers": [f"/people/{town.person(WHALE)}"] * rounds,
        "why in a segment": each("/people/{}?why=segment_0", [town.person(number + 200) for number in range(rounds)]),
        "accounts": ["/accounts"] * rounds,
        "accounts that begin so": each("/accounts?q=firm-0{}", list(range(rounds))),
        "an account": each("/accounts/of/{}", firms),
        "an account of 50,000 people": [f"/accounts/of/{GIANT}"] * rounds,
        "why an account is in a segment": each("/accounts/of/firm-0{}500.example?why=warm", list(range(rounds))),
        "ranking of all accounts": ["/accounts/ranking"] * rounds,
        "ranking of who does not pay": ["/accounts/ranking?segment=pays_not"] * rounds,
        "destinations": ["/destinations"] * rounds,
        "a new destination": ["/destinations/new/webhook"] * rounds,
        "debugger": ["/debugger"] * rounds,
        "what somebody did": each("/debugger?q=user_id:u{}", some),
        "an event followed": each("/debugger/0/{}", [1_000 + number for number in range(rounds)]),
        "operations": ["/operations"] * rounds,
        "dead letters": ["/operations/dead-letters"] * rounds,
        "dead letters of a reason": ["/operations/dead-letters?reason=not_json"] * rounds,
        "a dead letter": each("/operations/dead-letters/0/{}", list(range(1, rounds + 1))),
        "a request's receipt": each("/privacy/{:08x}-0000-4000-8000-000000000000", list(range(rounds))),
    }  # fmt: skip


class Opened:
    """A browser whose pages are timed."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self.state: Any = None
        self.faults: list[str] = []

    def sign_in(self) -> float:
        """By the form; ms until the first page is usable."""
        context = self._browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{UI}/sign-in")
        page.get_by_label("Name").fill("bench")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/segments")
        self.state = context.storage_state()
        took = self._took(page)
        context.close()
        return took

    def _took(self, page: Any) -> float:
        page.wait_for_load_state("load")
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        ended, painted, _, title = page.evaluate(_TIMING)
        if title.startswith("That did not work"):
            self.faults.append(f"{page.url}: {page.locator('main').inner_text()[:200]}")
        return float(max(ended, painted))

    def twice(self, path: str) -> tuple[float, float]:
        """The first load by a browser that has nothing yet, and the second."""
        context = self._browser.new_context(storage_state=self.state)
        page = context.new_page()
        times = []
        for _ in range(2):
            page.goto(f"http://127.0.0.1:{UI}{path}", wait_until="load")
            times.append(self._took(page))
        context.close()
        return times[0], times[1]

    def builder(self) -> dict[str, float]:
        """A line typed into the builder: until the rule stands there, and until it is said whom it would hold."""
        context = self._browser.new_context(storage_state=self.state)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{UI}/segments/new")
        page.locator("#meaning .size").wait_for()
        began = time.perf_counter()
        page.get_by_label("Say it in words").fill(_LINE)
        page.keyboard.press("Enter")
        page.locator("#n\\.0 > .rule").wait_for()
        there = time.perf_counter()
        page.locator("#meaning", has_text="Page Viewed").locator(".size").wait_for()
        sized = time.perf_counter()
        context.close()
        return {"the rule stands there": (there - began) * 1_000, "its size is told": (sized - began) * 1_000}


def measure(folder: Path, rounds: int) -> None:
    """Open every page, and print the table."""
    from playwright.sync_api import sync_playwright

    people = int((folder / "profiles").read_text())
    with broker(folder=folder / "kafka") as running:
        headwater = Headwater.begin(running, PREFIX, 4, folder)
        try:
            start_api(headwater)
            address = f"http://127.0.0.1:{API}"
            headwater.start("ui", environment={"HEADWATER_UI__PORT": str(UI), "HEADWATER_UI__API": address})
            while not is_ready(UI):
                time.sleep(0.2)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                opened = Opened(browser)
                print(f"signing in, cold: {opened.sign_in():.0f} ms; again: {opened.sign_in():.0f} ms", flush=True)
                rows = {
                    name: [opened.twice(path) for path in paths] for name, paths in addresses(people, rounds).items()
                }
                lines = [opened.builder() for _ in range(rounds)]
                browser.close()
            pid = headwater.processes["api-0"].pid
            memory = machine.resident_bytes(pid) / 1024**2
        finally:
            headwater.stop()
    print(f"{people:,} people, memory of the API {memory:,.0f} MB, load {machine.load_average():.1f}\n")
    print("| page | first load, ms | second, ms | worst |\n| --- | ---: | ---: | ---: |")
    for name, times in rows.items():
        first, second = (sorted(one[place] for one in times)[len(times) // 2] for place in (0, 1))
        print(f"| {name} | {first:.0f} | {second:.0f} | {max(max(one) for one in times):.0f} |")
    for name in lines[0]:
        took = sorted(one[name] for one in lines)
        print(f"| a line in words: {name} | {took[len(took) // 2]:.0f} | | {took[-1]:.0f} |")
    print(json.dumps({"faults": opened.faults}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "read", "measure"])
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build") / "bench" / "pages")
    given = parser.parse_args()
    os.environ.setdefault("HEADWATER_SECRET", SECRET)
    if given.what == "make":
        make(given.folder, given.profiles)
        read(given.folder)
    elif given.what == "read":
        read(given.folder)
    else:
        measure(given.folder, given.rounds)


if __name__ == "__main__":
    main()
