"""The room for people on a real broker: a newcomer's way through the pages in Chromium, the pipeline behind them."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.rooms.ui.browser import chromium, needs_chromium, signed_in

pytestmark = [needs_chromium, pytest.mark.debian]

RULE = "Page Viewed where path starts with /pricing at least 2 times in the last 7 days"
WAIT_MS = 20_000


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    """A pipeline without a single definition, as a newcomer has it."""
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as found:
        for role in ("ingest", "identity", "unify", "deliver"):
            found.start(role)
        yield found


def view(user: str, number: int, path: str = "/pricing") -> dict[str, Any]:
    return {"type": "page", "userId": user, "messageId": f"{user}-{number}", "properties": {"path": path}}


def test_a_newcomer_builds_a_segment_and_sees_its_members_come(deployment: Deployment) -> None:
    password = deployment.command("users", "create", "ada", "--role", "editor").stdout.strip()
    api, address = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    deployment.start("api", HEADWATER_API__PORT=api.rpartition(":")[2])
    deployment.start("ui", HEADWATER_UI__PORT=address.rpartition(":")[2], HEADWATER_UI__API=api)
    deployment.produce([view("cleo", 1), view("cleo", 2), view("dan", 1), view("dan", 2, "/docs")])
    deployment.wait_until(lambda: answers(f"{api}/readyz") and answers(f"{address}/livez"), "the API and the pages")
    deployment.wait_until(lambda: len(deployment.table("profiles")) == 2, "two people are known")
    with chromium() as browser:
        page = signed_in(browser, address, "ada", password)
        page.set_default_timeout(WAIT_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda answer: faults.append(answer.url) if answer.status >= 400 else None)

        # Built in words; its size is told before anything is published.
        page.get_by_role("link", name="Build the first one").click()
        page.get_by_label("Say it in words").fill(RULE)
        page.keyboard.press("Enter")
        page.get_by_label("Name", exact=True).fill("keen")
        page.locator("#meaning .size", has_text=re.compile(r"^1 of 2 people$")).wait_for()
        assert deployment.table("definitions") == {}

        # Published: in force on the page it leads to, whose one member comes out of the history.
        page.get_by_role("button", name="Publish").click()
        page.wait_for_url("**/segments/keen?*")
        members = page.locator("#members")
        members.get_by_role("link", name="cleo").wait_for()
        assert members.locator(".size").inner_text() == "1 member"
        [history] = page.locator("section", has=page.locator("#history-title")).locator("tbody tr").all()
        assert "in force" in history.inner_text() and "ui.ada" in history.inner_text()

        # What is produced now brings members while one looks on, and puts them on their own page.
        assert "keen" not in person(page, address, "dan").inner_text()
        page.goto(f"{address}/segments/keen")
        deployment.produce([view("dan", 3), *(view("eva", number) for number in range(2)), view("finn", 1)])
        members.locator(".size", has_text=re.compile(r"^3 members$")).wait_for()
        members.get_by_role("link", name="dan").click()
        page.wait_for_url("**/people/*")
        held = page.get_by_role("table", name="Segments they are in").get_by_role("row", name="keen")
        assert "event" in held.inner_text()
        events = page.get_by_role("table", name="Recent events").locator("tbody tr")
        assert [one.count("/pricing") for one in events.all_inner_texts()] == [1, 0, 1]
        held.get_by_role("link", name="Why").click()
        page.locator("#why .why").first.wait_for()
        assert "keen" not in person(page, address, "finn").inner_text()

        # A destination by its form: the next who enters stands in the file.
        page.get_by_role("link", name="Destinations").click()
        page.get_by_role("link", name="New: a file").click()
        page.get_by_label("Name", exact=True).fill("crm")
        out = deployment.folder / "crm.jsonl"
        page.get_by_label("Path of the file").fill(str(out))
        page.get_by_label("keen", exact=True).check()
        page.get_by_role("button", name="Put into force").click()
        row = page.get_by_role("table", name="Destinations in force").get_by_role("row", name="crm")
        assert "file" in row.inner_text() and "keen" in row.inner_text() and "in force" in row.inner_text()
        deployment.produce([view("gil", number) for number in range(2)])
        deployment.wait_until(lambda: out.is_file() and "user_id" in out.read_text(), "the file is told of gil")
        [line] = [msgspec.json.decode(line) for line in out.read_text().splitlines()]
        gil = person(page, address, "gil").page.url.rpartition("/")[2]
        assert (line["profile_id"], line["segment"], line["action"]) == (gil, "keen", "segment_entered"), line

        # The event that brought gil in, followed: the rule it touched, the change, what was told to the destination.
        page.goto(f"{address}/debugger?q=user_id:gil")
        page.get_by_role("table", name="Recent events of").locator("tbody a").first.click()
        page.wait_for_url("**/debugger/*/*")
        assert "count of Page Viewed" in page.get_by_role("table", name="Parts of rules").inner_text()
        assert "entered keen" in page.locator("section", has=page.locator("#s-flips")).inner_text()
        told = page.get_by_role("table", name="Deliveries").get_by_role("row", name="crm").inner_text()
        assert "segment entered keen" in told and "handed over" in told
        page.goto(f"{address}/debugger?q=gil-1")
        page.wait_for_url("**/debugger/*/*")

        # A login is seen as evidence on the person's page, and the trait leads to it.
        login = {
            "type": "identify",
            "userId": "gil",
            "anonymousId": "a-9",
            "messageId": "gil-9",
            "traits": {"plan": "pro"},
        }
        deployment.produce([login])
        evidence = page.get_by_role("table", name="Evidence").locator("tbody tr")

        def is_seen() -> bool:
            page.goto(f"{address}/people/user_id:gil")
            return int(evidence.count()) == 1

        deployment.wait_until(is_seen, "gil's page has the evidence of the login")
        assert "anonymous_id:a-9" in evidence.inner_text()
        assert page.locator("svg.graph circle").count() == 2
        traits = page.get_by_role("table", name="Traits, and where").get_by_role("row", name="plan")
        assert "Identify from raw" in traits.inner_text()

        # Who runs it sees that everybody works, and what could not be used, which is mended and sent again.
        deployment.produce([b'{"type": "dance", "userId": "hal", "messageId": "hal-1"}'])
        page.goto(f"{address}/operations")
        roles = page.get_by_role("table", name="Roles: who works")
        for role in ("ingest", "identity", "unify", "deliver-crm"):
            roles.get_by_role("row", name=role).get_by_text("well").wait_for()
        page.get_by_role("link", name="unknown_type").click()
        page.get_by_role("table", name="Dead letters").get_by_role("link", name="unknown_type").click()
        assert '"dance"' in page.locator("main pre").inner_text()  # an editor sees it, and may not send it
        assert page.get_by_role("button", name="Send again").count() == 0
        assert faults == []
    size = {row["segment"] for row in deployment.table("segment-members").values()}, len(deployment.members("keen"))
    assert size == ({"keen"}, 4)


def person(page: Any, address: str, user_id: str) -> Any:
    """Find somebody as people do, by what stands on every page; the segments they are in."""
    page.goto(f"{address}/segments")
    page.get_by_label("Find a person").fill(user_id)
    page.keyboard.press("Enter")
    page.wait_for_url("**/people/*")
    return page.get_by_role("heading", name="Segments").locator("xpath=following-sibling::*[1]")
