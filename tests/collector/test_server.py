"""The collector's HTTP server, with sockets: what comes before a body is bounded too, what comes on one connection is
answered in its order, and a stop answers what is open."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipeline import serving
from tests.collector.asgi import KEY, Site


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def served(site: Site) -> Iterator[serving.Server]:
    """The application behind the server that `headwater run collector` uses, without a broker."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = serving.server(site.app, 100, timeout_graceful_shutdown=1)
    server.port = listening.getsockname()[1]  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(served: Any) -> int:
    return int(served.port)


ENDLESS = {
    "one header": (b"POST /v1/t HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * 100_000),
    "many headers": (b"POST /v1/t HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * 12_000),
    "the path": (b"POST /v1/", b"t" * 100_000),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_head_without_end_is_cut_off(port: int, case: str) -> None:
    start, more = ENDLESS[case]
    with socket.create_connection(("127.0.0.1", port), 5) as caller:
        caller.sendall(start)
        with pytest.raises(OSError):
            for _ in range(300):  # 30 MB
                caller.sendall(more)
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/track", json={"event": "E", "userId": "u"}, auth=(KEY, ""))
    assert answer.status_code == 200


def test_several_calls_use_one_connection(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(KEY, "")) as client:
        for body in (b"{", b'{"event":"E","userId":"u"}', b"x" * 600_000, b'{"event":"E","userId":"u"}'):
            assert client.post("/v1/track", content=body).status_code in (200, 400, 413)


def request(body: bytes, path: str = "/v1/track") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


TRACK = b'{"event":"E","userId":"u","writeKey":"%s"}' % KEY.encode()


def test_requests_sent_behind_each_other_are_answered_in_their_order(port: int, site: Site) -> None:
    sent = (TRACK, b"{", TRACK, b'{"event":"E","writeKey":"a-key-of-nobody"}', TRACK)
    with socket.create_connection(("127.0.0.1", port), 10) as caller:
        caller.sendall(b"".join(map(request, sent)) + request(TRACK, "/nothing") + request(TRACK))
        told = b""
        while told.count(b"HTTP/1.1 ") < 7 or not told.endswith(b"}"):
            told += caller.recv(65_536)
    statuses = [int(each[:3]) for each in told.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 400, 200, 401, 200, 404, 200]
    assert len(site.outbox.records) == 4


def test_a_stop_answers_what_is_open_and_who_was_not_answered_in_time_is_told_to_come_again(
    served: Any, port: int, site: Site
) -> None:
    site.outbox.waits_for = asyncio.Event()  # the broker is away, for longer than a stop waits
    url, auth = f"http://127.0.0.1:{port}/v1/track", (KEY, "")
    answers: list[httpx.Response] = []
    body = {"event": "E", "userId": "u"}
    headers = {"origin": "https://shop.example"}
    callers = [
        threading.Thread(target=lambda: answers.append(httpx.post(url, json=body, auth=auth, headers=headers)))
        for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    while len(served.server_state.tasks) < 3:
        time.sleep(0.01)
    served.should_exit = True
    for caller in callers:
        caller.join(20)
    assert [answer.status_code for answer in answers] == [503] * 3
    for answer in answers:
        assert (answer.json()["code"], answer.headers["retry-after"]) == ("unavailable", "3")
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert site.registry.get_sample_value("headwater_collector_in_flight_bytes") == 0
