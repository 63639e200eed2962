"""The pages in a real headless Chromium: the rule of the design in few moves, by keyboard alone, and axe."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import AccountAlert, Cause, IdentifierPair, ProfileDocument, encode
from tests.rooms.api.harness import OLD, event, profile, show
from tests.rooms.ui.browser import chromium, needs_chromium, serious_faults, served, signed_in
from tests.rooms.ui.house import PASSWORD, House
from tests.rooms.ui.test_edits import LINES, PRICING_INTENT
from tests.rooms.ui.town import RECEIPT, whole_town

pytestmark = [needs_chromium, pytest.mark.debian]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, str, Any]]:
    """A settled town, its pages and a browser."""
    with pytest.MonkeyPatch.context() as patch:
        house = House(Path(tmp_path_factory.mktemp("house")))
        whole_town(house, patch, 120, 6)
        with served(house.desk.app) as address, chromium() as browser:
            yield house, address, browser


LINES_OF_TEXT = """one => {
    const range = document.createRange();
    range.selectNodeContents(one);
    return range.getClientRects().length;
}"""


class Hands:
    """Counts what somebody does: a key pressed, a click, a field filled. By keyboard, or with a pointer."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.moves = 0

    def click(self, what: Any) -> None:
        self.moves += 1
        what.click()

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.moves += 1
        self.page.keyboard.type(text)

    def press(self, key: str) -> None:
        self.moves += 1
        self.page.keyboard.press(key)


def test_the_pricing_intent_rule_in_twelve_moves(place: tuple[House, str, Any]) -> None:
    house, address, browser = place
    page = signed_in(browser, address, "editor", PASSWORD)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    hands = Hands(page)
    hands.click(page.get_by_role("link", name="New segment"))
    hands.click(page.get_by_label("Say it in words"))
    for number, line in enumerate(LINES, start=1):
        hands.type(line)
        hands.press("Enter")
        # The field is empty again and has the focus: the next line can be typed.
        page.wait_for_function(
            "n => document.querySelectorAll('#n\\\\.0 > .rule, #n\\\\.0 > .group').length === n", arg=number
        )
    page.get_by_label("Name").fill("pricing_intent")
    hands.moves += 1
    page.get_by_text("Who would be in it now").wait_for()
    hands.click(page.get_by_role("button", name="Publish"))
    page.wait_for_url("**/segments/pricing_intent?*")
    assert hands.moves <= 12, hands.moves
    assert house.applied[-1][1]["written"][0].body == PRICING_INTENT
    assert int(page.locator(".size strong").inner_text()) == house.world.follower.model.size("pricing_intent") > 0
    assert faults == []
    page.context.close()


def test_what_is_done_while_an_answer_is_on_its_way_is_not_lost(place: tuple[House, str, Any]) -> None:
    house, address, browser = place
    page = signed_in(browser, address, "editor", PASSWORD)
    page.goto(f"{address}/segments/new")
    held: list[Any] = []
    page.route(f"{address}/builder", lambda route: held.append(route))  # noqa: PLW0108 - it marks what it is given

    def answer_until(there: Callable[[], bool]) -> None:
        """Let one question after the other through; there never are two on their way."""
        while not there():
            if held:
                [one] = held
                held.clear()
                one.continue_()
            page.wait_for_timeout(10)

    rules = page.locator("#n\\.0 > .rule")
    page.get_by_label("Say it in words").fill("Page Viewed where path starts with /pricing")
    page.keyboard.press("Enter")
    page.get_by_label("Name").click()
    page.keyboard.type("qu")
    page.get_by_role("button", name="+ A trait").click()
    page.get_by_label("Name").click()
    page.wait_for_timeout(500)  # longer than the meaning waits for somebody who types
    answer_until(lambda: rules.count() == 1)
    page.keyboard.press("End")
    page.keyboard.type("ick")
    answer_until(lambda: rules.count() == 2)
    assert page.get_by_label("Name").input_value() == "quick"
    page.get_by_label("trait", exact=True).fill("plan")
    page.get_by_label("value", exact=True).last.fill("team")
    page.get_by_label("Say it in words").fill("Order Completed in the last 7 days")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Publish").click()
    answer_until(lambda: "/segments/quick?" in page.url)
    published = house.applied[-1][1]["written"][0].body["when"]["all"]
    assert [next(iter(rule)) for rule in published] == ["performed", "trait", "performed"], published

    # Without an answer nothing goes away either, and the next step is as ever.
    page.goto(f"{address}/segments/new")
    page.route(f"{address}/builder", lambda route: route.abort())
    page.get_by_label("Name").fill("slow")
    page.get_by_role("button", name="+ A trait").click()
    page.get_by_text("No answer came").wait_for()
    page.unroute_all()
    page.get_by_role("button", name="+ A trait").click()
    page.get_by_label("trait", exact=True).wait_for()
    assert page.get_by_label("Name").input_value() == "slow"
    assert not page.get_by_text("No answer came").is_visible()
    page.context.close()


def test_what_is_not_published_yet_is_not_lost_by_leaving_or_by_a_session_that_ends(
    place: tuple[House, str, Any],
) -> None:
    house, address, browser = place
    page = signed_in(browser, address, "editor", PASSWORD)
    asked: list[str] = []
    stay = [True]

    def answer(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss() if stay[0] else dialog.accept()

    page.on("dialog", answer)
    rules = page.locator("#n\\.0 > .rule")

    def say(line: str, count: int) -> None:
        page.get_by_label("Say it in words").fill(line)
        page.keyboard.press("Enter")
        page.wait_for_function("n => document.querySelectorAll('#n\\\\.0 > .rule').length === n", arg=count)

    page.goto(f"{address}/segments/new")
    page.get_by_role("link", name="People", exact=True).click()
    page.wait_for_url("**/people")
    assert asked == [], "there was nothing to lose"
    page.goto(f"{address}/segments/new")
    say("Order Completed in the last 30 days", 1)
    page.get_by_label("Name").fill("kept")
    page.get_by_role("link", name="People", exact=True).click()
    page.wait_for_timeout(300)
    assert asked == ["beforeunload"] and page.url.endswith("/segments/new") and rules.count() == 1

    # The session ends. What is typed stays; somebody signs in again in another tab, and goes on here.
    page.context.clear_cookies()
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("go on here").first.wait_for()
    assert rules.count() == 1 and page.get_by_label("Name").input_value() == "kept"
    other = page.context.new_page()
    other.goto(f"{address}/people?q=no%26body")
    other.get_by_label("Name").fill("editor")
    other.get_by_label("Password").fill(PASSWORD)
    other.keyboard.press("Enter")
    other.wait_for_url(f"{address}/people?q=no%26body")
    say("plan is team", 2)
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/segments/kept?*")
    assert asked == ["beforeunload"], "who publishes is not asked"
    assert len(house.applied[-1][1]["written"][0].body["when"]["all"]) == 2

    # A download leaves the page where it is, and what was typed with it.
    page.goto(f"{address}/segments/kept/edit")
    page.locator("#tree").wait_for()
    say("Page Viewed", 3)
    with page.expect_download():
        page.get_by_role("button", name="Download YAML").click()
    page.wait_for_timeout(1_300)
    page.get_by_role("link", name="People", exact=True).click()
    page.wait_for_timeout(300)
    assert asked == ["beforeunload"] * 2 and rules.count() == 3
    stay[0] = False
    page.context.close()


def test_a_rule_is_built_published_and_removed_with_the_keyboard_alone(place: tuple[House, str, Any]) -> None:
    house, address, browser = place
    page = signed_in(browser, address, "editor", PASSWORD)

    def reach(name: str, role: str = "") -> None:
        """Press Tab until the focus is on what is called so."""
        script = """(() => { const e = document.activeElement; const l = e.labels && e.labels[0];
            return (e.getAttribute('aria-label') || (l ? l.innerText : e.innerText) || '').trim(); })()"""
        for _ in range(120):
            page.keyboard.press("Tab")
            if page.evaluate(script).startswith(name):
                return
        raise AssertionError(f"the keyboard does not come to {name}")

    page.goto(f"{address}/segments/new")
    reach("Name")
    page.keyboard.type("by_keys")
    reach("+ A trait")
    page.keyboard.press("Enter")
    page.get_by_label("trait", exact=True).wait_for()
    reach("trait")
    page.keyboard.type("plan")
    reach("value")
    page.keyboard.type("team")
    page.get_by_text("plan is “team”").wait_for()
    reach("Publish")
    page.keyboard.press("Enter")
    page.wait_for_url("**/segments/by_keys?*")
    body = {"segment": "by_keys", "when": {"all": [{"trait": {"plan": {"equals": "team"}}}]}}
    assert house.applied[-1][1]["written"][0].body == body
    page.on("dialog", lambda dialog: dialog.accept())
    reach("Remove")
    page.keyboard.press("Enter")
    page.get_by_text("by_keys is removed").wait_for()
    assert house.applied[-1][1]["remove"] == ["segment/by_keys"]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1920, "light"), (1280, "dark"), (1920, "dark")])
def test_axe_finds_nothing_serious(place: tuple[House, str, Any], width: int, scheme: str) -> None:
    house, address, browser = place
    page = signed_in(browser, address, "operator", PASSWORD, width, scheme)
    client = house.open_client("token-of-operator")
    client.apply_definitions("segment: lookers\nwhen: {performed: {event: Page Viewed, within: 30d}}\n", take_over=True)
    client.apply_definitions("segment: lookers\nwhen: {performed: {event: Page Viewed, within: 20d}}\n", take_over=True)
    member = next(iter(client.list_members("lookers"))).profile_id
    found: dict[str, list[str]] = {}
    for path in ("/segments", "/segments/new", "/segments/lookers?a=1&b=2", "/segments/lookers/edit", *MORE):
        page.goto(address + path.replace("{member}", member))
        assert page.get_by_role("heading", level=1).inner_text() != "That did not work", path
        faults = serious_faults(page)
        # Nothing is wider than the window.
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            faults.append("the page scrolls sideways")
        if faults:
            found[path] = faults
    assert found == {}
    page.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_name_without_a_gap_makes_no_page_wider_than_the_window(place: tuple[House, str, Any], width: int) -> None:
    house, address, browser = place
    world, name = house.world, "x" * 180
    traits, profile_id = {"name": name, "owner": name, "plan": name}, world.service.identifier(f"account:{name}")
    account = ProfileDocument(profile_id, "account", [IdentifierPair("account", name)], 1, traits)
    alert = AccountAlert("a", "call", name, profile_id, name, "vip", 1, 1, 1, 1, "event", Cause("m", 0, 1), name)
    world.follower.read(
        [
            world.record("profiles", profile_id, encode(account)),
            world.record("account-alerts", profile_id, encode(alert)),
        ]
    )
    page = signed_in(browser, address, "operator", PASSWORD)
    page.set_viewport_size({"width": width, "height": 800})
    for path in (f"/accounts/of/{name}", "/accounts", "/accounts/ranking", "/accounts/ranking?trait=plan&among=free"):
        page.goto(address + path)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, (path, wider)
    page.context.close()


DEEP: dict[str, Any] = {
    "performed": {"event": "Page Viewed", "where": {"any": [{"properties.path": {"in": ["a", "b"]}}]}}
}
for kind in ("not", "any", "all") * 6:
    DEEP = {kind: DEEP if kind == "not" else [DEEP]}
MONTHS = {"unit": "month", "last": 3, "current": False, "time_zone": "America/Argentina/ComodRivadavia"}
WIDE = (
    DEEP,
    {"performed": {"event": "a" * 100, "calendar": MONTHS, "sum": {"of": "properties." + "z" * 99, "at_least": 1}}},
    {"bucket": {"salt": "s" * 80, "from": 0, "to": 10}},
    PRICING_INTENT["when"],
)


def test_the_builder_is_never_wider_than_the_window(place: tuple[House, str, Any]) -> None:
    _, address, browser = place
    page = signed_in(browser, address, "editor", PASSWORD)
    page.on("dialog", lambda dialog: dialog.accept())  # nobody publishes what is tried here
    for when in WIDE:
        page.goto(f"{address}/segments")
        page.get_by_text("Bring one in from YAML").click()
        page.locator("details textarea").fill(json.dumps({"segment": "wide", "when": when}))
        page.get_by_role("button", name="Open in the builder").click()
        page.wait_for_selector("#tree")
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, (when, width, wider)
    page.context.close()


def test_a_long_value_breaks_no_short_name_and_hides_nothing_beside_it(place: tuple[House, str, Any]) -> None:
    house, address, browser = place
    traits: dict[str, Any] = {"name": "x" * 400, "link": "https://shop.example/" + "a/" * 200, "quote": "long " * 80}
    document = profile(OLD, "user_id:long", "anonymous_id:" + "y" * 200, **traits)
    stated = event(house.world, "user_id:long", 1_700_000_000_000, name="Identify", path="/" + "z" * 300)
    house.world.follower.read([*show(house.world, document), stated])
    page = signed_in(browser, address, "operator", PASSWORD)
    page.goto(f"{address}/people/user_id:long")
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(one => one.scrollWidth <= one.clientWidth)")
    for text in ("name", "quote", "user_id", "anonymous_id", "2023-11-14", "Request"):
        shown = page.locator("th, .day, button").filter(has_text=re.compile(f"^{text}$")).first
        assert shown.evaluate(LINES_OF_TEXT) == 1, text
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.context.close()


MORE = (
    "/people",
    "/people?q=nobody",
    "/people/{member}?why=lookers",
    "/people/user_id:1002",
    "/accounts",
    "/accounts/of/acme.example",
    "/accounts/ranking?trait=plan&among=free",
    "/destinations",
    "/destinations/new/webhook",
    "/debugger?q=user_id:1001",
    "/debugger/0/0",
    "/operations",
    "/operations/dead-letters",
    "/operations/dead-letters/1/1",
    f"/privacy/{RECEIPT}",
    "/privacy/not-known-yet",
)
"""Further pages that axe looks at."""
