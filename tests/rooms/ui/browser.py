"""A real headless Chromium at the pages, served on a free port. Skipped where there is no chromium."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline import serving, sockets

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
SIZES = {1280: 800, 1920: 1080}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application; its address."""
    listening = sockets.listen("127.0.0.1", 0, "")
    server = serving.server(app, 100, timeout_graceful_shutdown=1)

    def run() -> None:
        with serving.runner() as runner:
            runner.run(server.serve(sockets=[listening]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield sockets.address(listening)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, driven."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox needs rights a container's root does not have; only pages of our own are loaded.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def signed_in(browser: Any, address: str, role: str, password: str, width: int = 1280, scheme: str = "light") -> Any:
    """A page of somebody who signed in by the form."""
    context = browser.new_context(
        viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{address}/sign-in")
    page.get_by_label("Name").fill(role)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/segments")
    return page


def serious_faults(page: Any) -> list[str]:
    """What axe finds that is serious or worse, on a page that has come to rest: what is being asked anew is pale."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_load_state("networkidle")
    page.locator("[aria-busy]").first.wait_for(state="detached")
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]
