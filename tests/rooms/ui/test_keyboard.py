"""Without a pointer, in a real headless Chromium: every control is reached by Tab and seen, no page is a trap, and what
the pages are for is done with keys alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rooms.ui.browser import chromium, needs_chromium, served, signed_in
from tests.rooms.ui.house import PASSWORD, House
from tests.rooms.ui.town import RECEIPT, whole_town

pytestmark = [needs_chromium, pytest.mark.debian]

LOOKERS = "segment: lookers\nwhen: {{performed: {{event: Page Viewed, within: {days}d}}}}\n"
CRM = "destination: crm\nkind: file\nsegments: [lookers]\npath: crm.jsonl\n"


class Place:
    """A settled town with an operator signed in."""

    def __init__(self, house: House, asked: list[tuple[str, Any]], address: str, page: Any) -> None:
        self.house = house
        self.asked = asked
        self.address = address
        self.page = page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        house = House(Path(tmp_path_factory.mktemp("house")))
        asked = whole_town(house, patch, 30, 4).asked
        client = house.open_client("token-of-operator")
        for definition in (LOOKERS.format(days=30), LOOKERS.format(days=20), CRM):
            client.apply_definitions(definition)
        with served(house.desk.app) as address, chromium() as browser:
            page = signed_in(browser, address, "operator", PASSWORD)
            page.on("dialog", lambda dialog: dialog.accept())
            yield Place(house, asked, address, page)


_WATCH = """() => {
  const shown = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled && one.tabIndex >= 0;
  const kinds = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]";
  const every = [...document.querySelectorAll(kinds)];
  const named = (one) => (one.outerHTML.slice(0, 110));
  window.wanted = every.filter(shown).filter(
    (one) => one.type !== "radio" || one.checked || !document.querySelector(`input[name="${one.name}"]:checked`));
  window.reached = new Set();
  window.unseen = new Set();
  document.addEventListener("focusin", ({ target }) => {
    reached.add(target);
    const look = getComputedStyle(target), box = target.getBoundingClientRect();
    const inside = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
    const ring = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2;
    const ringed = ring && target.matches(":focus-visible");
    if (!ringed || !inside) unseen.add(named(target));
  });
  window.missed = () => wanted.filter((one) => !reached.has(one)).map(named);
  return wanted.length;
}"""

PAGES = (
    "/segments", "/segments/new", "/segments/lookers?a=1&b=2", "/segments/lookers/edit", "/people",
    "/people/user_id:1002?why=lookers", "/accounts", "/accounts/of/acme.example",
    "/accounts/ranking?trait=plan&among=free",
    "/destinations", "/destinations/new/webhook", "/debugger?q=user_id:1001", "/debugger/0/0", "/operations",
    "/operations/dead-letters", "/operations/dead-letters/1/1", f"/privacy/{RECEIPT}",
)  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_control_is_reached_and_seen_and_none_is_a_trap(place: Place, path: str) -> None:
    page = place.page
    page.goto(place.address + path)
    count = page.evaluate(_WATCH)
    assert count > 10
    # Regions that scroll sideways are stops of their own; with as many more, the way round must be complete.
    for _ in range(2):
        for _ in range(count + 2):
            page.keyboard.press("Tab")
        if not page.evaluate("missed().length"):
            break
    assert page.evaluate("missed()") == []
    assert page.evaluate("[...unseen]") == []


TASKS: dict[str, tuple[str, ...]] = {
    "an account is found, and its days opened as a table": (
        "/accounts", "tab #q", "type acme", "press Enter", "at /accounts?q=acme", "tab tbody a", "press Enter",
        "at /accounts/of/acme.example", "tab summary", "press Space", "see details[open] table",
    ),
    "accounts are ranked, and the first of them opened": (
        "/accounts", "tab a[href='/accounts/ranking']", "press Enter", "at /accounts/ranking", "tab #trait",
        "type plan",
        "tab #among", "type free,team,trial", "tab form.filter button", "press Space",
        "at /accounts/ranking?*trait=plan*",
        "tab tbody a", "press Enter", "at /accounts/of/*",
    ),
    "from operations to the dead letters of a reason": (
        "/operations", "tab #throughput-rows summary", "press Enter", "see #throughput-rows[open] table",
        "tab a[href='/operations/dead-letters?reason=refused']", "press Enter", "at **reason=refused",
        "see tbody a",
    ),
    "a dead letter is chosen and sent again": (
        "/operations/dead-letters", "tab #reason", "type not", "tab form.filter button", "press Enter",
        "at **reason=not_json", "tab tbody [type=checkbox]", "press Space", "see [type=checkbox]:checked",
        "tab .after button", "press Enter", "see .said", "asked raw",
    ),
    "a dead letter is mended and sent again": (
        "/operations/dead-letters", "tab tbody a", "press Enter", "at /operations/dead-letters/*/*", "tab #value",
        "press Control+A", "type {\"mended\": true}", "tab main button", "press Space", "see .said", "asked raw",
    ),
    "somebody's event is followed": (
        "/debugger", "tab #q", "type user_id:1001", "press Enter", "at /debugger?q=*",
        "tab [aria-labelledby=did-title] tbody a",
        "press Enter", "at /debugger/*/*", "tab #raw summary", "press Enter", "see #raw[open] pre",
        "tab #s-who ~ table a", "press Enter", "at /people/*",
    ),
    "the keyboard finds a person, and why they are not somewhere": (
        "/segments", "press /", "type cleo@example.org", "press Enter", "at /people/*",
        "tab a[href^='?why='], form:has(#why-not) button",
        "press Enter", "see #why .why",
    ),
    "a link is taken back where it is told": (
        "/people/user_id:1002", "tab [aria-label^='Unlink ']", "press Enter", "see .said", "asked identity-edges",
    ),
    "another link is taken back for good": (
        "/people/user_id:1002", "tab details summary", "press Space", "tab #a", "press ArrowDown", "tab #b",
        "tab [name=forever]", "press Space", "see [name=forever]:checked", "tab details button", "press Enter",
        "see .said",
        "asked identity-edges",
    ),
    "a request about somebody's data is made, and its receipt seen": (
        "/people/user_id:1002", "tab #request", "type a trait", "tab #trait", "type plan", "tab #value", "type free",
        "tab form:has(#request) button", "press Enter", f"at /privacy/{RECEIPT}", "see #receipt table", "asked privacy",
    ),
    "a rule is built of parts, turned round, moved and kept": (
        "/segments/new", "tab [id='n:name']", "type by_keys", "tab [value='add:n.0:performed']", "press Enter",
        "see [id='n.0.0'].rule :focus", "type Page Viewed", "tab [value='wrap:n.0.0:not']", "press Enter",
        "see [id='n.0.0'].negated :focus", "tab [value='add:n.0:trait']", "press Space", "see [id='n.0.1'].rule :focus",
        "type plan", "tab [id='n.0.1'] [id$=':value']", "type free", "see #meaning :text('plan is')",
        "tab [value='up:n.0.1']", "press Enter", "see [id='n.0.0'].rule :focus", "tab [formaction='/drafts']",
        "press Enter",
        "see .said:text('by_keys')",
    ),
    "two versions are compared, and a segment paused": (
        "/segments/lookers", "tab [name=a]", "tab form:has([name=a]) button", "press Enter", "see .difference",
        "tab form[action$='/pause'] button", "press Enter", "see .said:text('paused')",
    ),
    "a destination is made, and removed": (
        "/destinations", "tab a[href='/destinations/new/file']", "press Enter", "at /destinations/new/file",
        "tab #name", "type by_keys", "tab #path", "type out.jsonl", "tab [name=segments]", "press Space",
        "tab main form .main", "press Enter", "at /destinations?*", "tab [aria-label='Remove by_keys']", "press Enter",
        "see .said:text('removed')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_what_a_page_is_for_is_done_with_keys_alone(place: Place, name: str) -> None:
    path, *steps = TASKS[name]
    page = place.page
    place.asked.clear()
    page.goto(place.address + path)
    for step in steps:
        verb, _, what = step.partition(" ")
        if verb == "tab":
            _tab(page, what)
        elif verb == "type":
            page.keyboard.type(what)
        elif verb == "press":
            page.keyboard.press(what)
        elif verb == "at":
            page.wait_for_url(what if what.startswith("*") else place.address + what)
        elif verb == "see":
            page.locator(what).first.wait_for()
        else:
            assert verb == "asked"
            assert [asked for asked, _ in place.asked] == [what]


def _tab(page: Any, what: str) -> None:
    """Press Tab until the focus is on what is meant."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
    raise AssertionError(f"the keyboard does not come to {what} on {page.url}")
