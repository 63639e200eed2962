"""What pages of another origin send, and are told, in a real browser."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.collector.asgi import KEY, Site
from tests.rooms.ui.browser import chromium, needs_chromium, served

pytestmark = [needs_chromium, pytest.mark.debian]

# What is called with the address, the write key, an event, and that as text with the key in it.
SENDS = {
    "beacon: a text": "navigator.sendBeacon(to + '/v1/t', text)",
    "beacon: a text as a blob": "navigator.sendBeacon(to + '/v1/t', new Blob([text], {type: 'text/plain'}))",
    "beacon: JSON": "navigator.sendBeacon(to + '/v1/t', new Blob([text], {type: 'application/json'}))",
    "beacon: a batch": "navigator.sendBeacon(to + '/v1/b', JSON.stringify({batch: [event], writeKey: key}))",
    "fetch: Authorization": "post('/v1/t', {headers: {Authorization: basic}, body: JSON.stringify(event)})",
    "fetch: outlives the page": "post('/v1/t', {keepalive: true, headers: {Authorization: basic}})",
    "fetch: with cookies": "post('/v1/t', {credentials: 'include'})",
    "fetch: with cookies, as JSON": (
        "post('/v1/t', {credentials: 'include', headers: {'Content-Type': 'application/json', 'X-App': '1'}})"
    ),
    "fetch: a header of its own": "post('/v1/t', {headers: {Authorization: basic, AnonymousId: 'x'}})",
    "fetch: packed": (
        "new Response(new Blob([text]).stream().pipeThrough(new CompressionStream('gzip'))).blob()"
        ".then((body) => post('/v1/t', {headers: {'Content-Encoding': 'gzip'}, body}))"
    ),
}
RUN = """([to, key, event]) => {
  const text = JSON.stringify({...event, writeKey: key}), basic = 'Basic ' + btoa(key + ':');
  const post = (path, more) => fetch(to + path, {method: 'POST', body: text, ...more}).then((answer) => answer.status);
  return %s;
}"""


async def shop(scope: Any, receive: Any, send: Any) -> None:
    """A page of somebody's."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>shop</title>"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[tuple[Any, str]]:
    """A page of the shop, and the address of a collector at another origin."""
    with served(shop) as address, served(site.app) as collector:
        found = browser.new_page()
        found.goto(address)
        yield found, collector
        found.close()


@pytest.mark.parametrize("case", SENDS)
def test_what_a_page_of_another_origin_sends_arrives(page: tuple[Any, str], site: Site, case: str) -> None:
    tab, collector = page
    event = {"type": "track", "event": "Left", "anonymousId": "a-1", "messageId": "m-1"}
    assert tab.evaluate(RUN % SENDS[case], [collector, KEY, event]) in (True, 200)
    until = time.monotonic() + 10
    while not site.outbox.events and time.monotonic() < until:
        time.sleep(0.02)  # a beacon tells nobody when it has arrived
    [arrived] = site.outbox.events
    assert (arrived["event"], arrived["messageId"]) == ("Left", "m-1") and "writeKey" not in arrived


def test_a_page_leaves_and_its_last_word_arrives(page: tuple[Any, str], site: Site) -> None:
    tab, collector = page
    word = json.dumps({"event": "Left", "anonymousId": "a-1", "writeKey": KEY})
    listen = "([address, word]) => addEventListener('pagehide', () => navigator.sendBeacon(address, word))"
    tab.evaluate(listen, [f"{collector}/v1/t", word])
    tab.goto("about:blank")
    until = time.monotonic() + 10
    while not site.outbox.events and time.monotonic() < until:
        time.sleep(0.02)
    assert [event["event"] for event in site.outbox.events] == ["Left"]


def test_a_script_of_another_origin_sees_what_it_is_told(page: tuple[Any, str], site: Site) -> None:
    tab, collector = page
    ask = (
        "([to, path, body]) => fetch(to + path, {method: 'POST', body, headers: {'X-App': '1'}})"
        ".then(async (answer) => [answer.status, answer.headers.get('Retry-After'), (await answer.json()).code])"
    )
    body = json.dumps({"event": "E", "userId": "u", "writeKey": KEY})
    assert tab.evaluate(ask, [collector, "/track", body]) == [404, None, "no_such_path"]
    assert tab.evaluate(ask, [collector, "/v1/track", "{}"]) == [401, None, "unauthorized"]
    assert tab.evaluate(ask, [collector, "/v1/batch", "x" * 4_000_000]) == [413, None, "too_large"]
    site.outbox.fails = True
    assert tab.evaluate(ask, [collector, "/v1/track", body]) == [503, "3", "unavailable"]
