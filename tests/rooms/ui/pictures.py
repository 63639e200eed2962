"""The pictures of the pages in docs/images, taken anew: python -m tests.rooms.ui.pictures

Look at them afterwards: a picture that nobody has looked at is not part of the docs.
"""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.rooms.ui.browser import chromium, served, signed_in
from tests.rooms.ui.house import PASSWORD, House
from tests.rooms.ui.test_edits import LINES
from tests.rooms.ui.town import whole_town

FOLDER = Path(__file__).parents[3] / "docs" / "images"
DEFINITIONS = """
segment: lookers
description: Whoever came by in the last weeks.
when: {performed: {event: Page Viewed, within: DAYSd}}
---
segment: paying
when: {trait: {plan: {in: [team, pro]}}}
---
segment: warm
when: {performed: {event: Page Viewed, where: {properties.path: {starts_with: /pricing}}, count: {at_least: 2}}}
"""


def take(page: Any, address: str, trace: str, person: str) -> None:
    """One after the other."""

    def picture(name: str, whole: bool = True) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=FOLDER / f"ui-{name}.png", full_page=whole)

    for name, path in (
        ("person", f"/people/{person}"),
        ("account", "/accounts/of/acme.example"),
        ("debugger", trace),
        ("operations", "/operations"),
        ("segment", "/segments/lookers?a=1&b=2"),
    ):
        page.goto(address + path)
        picture(name)
    page.goto(f"{address}/segments/new")
    page.get_by_label("Name", exact=True).fill("pricing_intent")
    for number, line in enumerate(LINES[:2], start=1):
        page.get_by_label("Say it in words").first.fill(line)
        page.keyboard.press("Enter")
        page.wait_for_function(
            "n => document.querySelectorAll('#n\\\\.0 > .rule, #n\\\\.0 > .group').length === n", arg=number
        )
    page.locator("#meaning .size").wait_for()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    picture("builder", whole=False)


def main() -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        town = whole_town(house, patch, 300, 6)
        client = house.open_client("token-of-operator")
        for days in ("30", "20"):
            client.apply_definitions(DEFINITIONS.replace("DAYS", days))
        with served(house.desk.app) as address, chromium() as browser:
            take(signed_in(browser, address, "operator", PASSWORD), address, town.trace, town.person)


if __name__ == "__main__":
    main()
