"""The collector's HTTP server, with sockets: what comes before a body is bounded too."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from pipeline.serving import BoundedProtocol
from tests.collector.asgi import KEY, Site


@pytest.fixture
def port() -> Iterator[int]:
    """The application behind the server that `headwater run collector` uses, without a broker."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Site().app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


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
