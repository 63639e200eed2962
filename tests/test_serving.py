"""The server that every door shares, with sockets: who is slow, greedy or no HTTP at all is answered in its own words
and let go, and keeps nobody else from being served."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import serving
from pipeline.serving import BoundedProtocol, server

_HELLO = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body; on /endless it sends without end, on /slow after a while."""
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        await asyncio.sleep(1.2)
    if scope["path"] == "/endless":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            if (await _gone(receive)) is not None:
                return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _gone(receive: Any) -> Any:
    try:
        async with asyncio.timeout(0.001):
            while (message := await receive())["type"] != "http.disconnect":
                pass
            return message
    except TimeoutError:
        return None


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server with short patience, and five connections at a time."""
    monkeypatch.setattr(serving, "HEAD_WITHIN_S", 0.4)
    monkeypatch.setattr(serving, "MESSAGE_WITHIN_S", 0.8)
    monkeypatch.setattr(serving, "WRITTEN_WITHIN_S", 0.5)
    monkeypatch.setattr(serving, "_CLOSED_WITHIN_S", 0.3)
    listening = socket.create_server(("127.0.0.1", 0))
    served = server(application, 5, timeout_keep_alive=2)
    thread = threading.Thread(target=lambda: serving.runner().run(served.serve(sockets=[listening])))
    thread.start()
    while not served.started:
        time.sleep(0.01)
    served.port = listening.getsockname()[1]  # type: ignore[attr-defined]
    yield served
    served.should_exit = True
    thread.join()


def call(door: Any, *pieces: bytes, pause_s: float = 0.0) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", door.port), 60)
    for piece in pieces:
        found.sendall(piece)
        time.sleep(pause_s)
    return found


def told(caller: socket.socket) -> tuple[int, bytes]:
    """The status and the body of what is answered until the connection ends."""
    data = b""
    while piece := caller.recv(65_536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head[9:12]), body


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((b"GET / HT",), 408),
        ((b"\r\n",), 408),
        ((b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",), 408),
        ((b"\x16\x03\x01\x00\xa5\x01\x00",), 400),
        ((b"FROB / HTTP/1.1\r\nHost: x\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"a" * 40_000, b"a" * 40_000), 431),
    ],
)
def test_what_the_server_refuses_by_itself(door: Any, pieces: tuple[bytes, ...], status: int) -> None:
    with call(door, *pieces, pause_s=0.05) as caller:
        code, body = told(caller)
    assert code == status
    problem = json.loads(body)
    assert problem["status"] == status and problem["type"] == "about:blank" and problem["title"] and problem["detail"]
    with call(door, _HELLO) as caller:
        assert caller.recv(1_000).endswith(b"ok")


def test_a_connection_that_is_opened_ahead_waits_like_one_between_requests(door: Any) -> None:
    with call(door) as caller:
        time.sleep(1.0)  # longer than a head may take
        caller.sendall(_HELLO)
        assert caller.recv(1_000).endswith(b"ok")
    with call(door) as caller:
        assert caller.recv(1_000) == b""  # nothing was asked: nothing is said


def test_blank_lines_between_requests_do_not_hold_a_connection(door: Any) -> None:
    with call(door, _HELLO) as caller:
        assert caller.recv(1_000).endswith(b"ok")
        caller.sendall(b"\r\n")
        assert told(caller)[0] == 408


def test_a_body_that_drips_is_cut_off(door: Any) -> None:
    with call(door, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n") as caller:
        caller.settimeout(0.1)
        answer, sent = b"", 0
        while not answer and sent < 300:
            try:
                caller.sendall(b"a")
                sent += 1
                answer = caller.recv(100)
            except TimeoutError:
                continue
    assert answer[:12] == b"HTTP/1.1 408"


def test_who_takes_nothing_of_what_is_sent_is_cut_off(door: Any) -> None:
    with call(door, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"):
        until = time.monotonic() + 60
        while not door.server_state.connections:
            time.sleep(0.01)
        while door.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not door.server_state.connections


def test_one_connection_too_many_is_refused_and_those_there_go_on(door: Any) -> None:
    callers = [call(door, _HELLO) for _ in range(5)]
    assert all(one.recv(1_000).endswith(b"ok") for one in callers)
    with call(door, _HELLO) as extra:
        assert told(extra)[0] == 503
    for one in callers:
        one.sendall(_HELLO)
        assert one.recv(1_000).endswith(b"ok")
        one.close()
    while door.server_state.connections:
        time.sleep(0.01)
    with call(door, _HELLO) as caller:
        assert caller.recv(1_000).endswith(b"ok")


def test_what_was_ended_is_said_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    said = BoundedProtocol.said.__class__()
    for now in (10.0, 10.1, 10.2, 11.5):
        said.count("too slow", now)
    assert [one.getMessage() for one in caplog.records] == [
        "1 connection(s) ended: too slow",
        "3 connection(s) ended: too slow",
    ]


_UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answered", "says"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00", b"HTTP/1.1 400", "connection(s) ended: it is not HTTP"),
        (
            _UPGRADE % b"websocket",
            b"HTTP/1.1 200",
            "request(s) answered as plain HTTP: a protocol that is not spoken here",
        ),
        (_UPGRADE % b"h2c", b"HTTP/1.1 200", "request(s) answered as plain HTTP: a protocol that is not spoken here"),
    ],
    ids=["no HTTP", "a websocket", "HTTP 2"],
)
def test_what_anybody_can_send_again_and_again_is_logged_once_a_second(
    door: Any, caplog: pytest.LogCaptureFixture, sent: bytes, answered: bytes, says: str
) -> None:
    began = time.monotonic()
    for _ in range(100):
        with call(door, sent) as caller:
            assert caller.recv(1_000).startswith(answered)
    lines = [one.getMessage() for one in caplog.records]
    assert 1 <= len(lines) <= 1 + (time.monotonic() - began) / 1.0 and all(says in line for line in lines), lines[:5]


@pytest.fixture
def repeating(door: Any) -> Any:
    """Answers with the method, the path and the body."""

    async def repeats(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        said = f"{scope['method']} {scope['path']} ".encode() + body + b";"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
        await send({"type": "http.response.body", "body": said})

    door.config.loaded_app = repeats
    return door


_UPGRADING = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAA\r\n"
_WANTS = b"%s /%s HTTP/1.1\r\nHost: x\r\n" + _UPGRADING + b"%s\r\n"
_LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("at_once", [1, 7, 100_000])
def test_who_wants_another_protocol_is_heard_with_all_of_the_request_and_those_behind_it(
    repeating: Any, at_once: int
) -> None:
    sent = (
        _WANTS % (b"POST", b"a", b"Content-Length: 30\r\n")
        + b"GET /never HTTP/1.1\r\nHost: x\r\n"  # a body, not a request
        + _WANTS % (b"POST", b"b", b"Transfer-Encoding: chunked\r\n")
        + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        + _WANTS % (b"GET", b"c", b"")
        + _WANTS % (b"POST", b"d", b"Content-Length: 0\r\n")
        + _HELLO
        + _LAST
    )
    with call(repeating, *(sent[start : start + at_once] for start in range(0, len(sent), at_once))) as caller:
        answers = b""
        while piece := caller.recv(65_536):
            answers += piece
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [
        b"POST /a GET /never HTTP/1.1\r\nHost: x\r\n;",
        b"POST /b abcde;",
        b"GET /c ;",
        b"POST /d ;",
        b"GET / ;",
        b"GET /last ;",
    ]


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n"],
    ids=["two framings", "two lengths"],
)
def test_a_body_that_is_framed_twice_is_refused_whatever_protocol_is_wanted(repeating: Any, framing: bytes) -> None:
    with call(repeating, _WANTS % (b"POST", b"a", framing) + b"abc") as caller:
        assert told(caller)[0] == 400


def test_an_error_of_ours_is_logged_as_it_was(door: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a mistake of ours")

    door.config.loaded_app = broken
    with call(door, _HELLO) as caller:
        assert caller.recv(1_000).startswith(b"HTTP/1.1 500")
    assert "a mistake of ours" in caplog.text


_REST = b"x" * 4_000_000


def post(length: int, more: bytes = b"", path: bytes = b"/refused") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (path, length, more)


@pytest.fixture
def refusing(door: Any) -> Any:
    """Answers /refused before it has read a body, and ends the connection; /busy too, but goes on with it."""
    reads = door.config.loaded_app

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] not in ("/refused", "/busy"):
            await reads(scope, receive, send)
            return
        headers = [(b"content-length", b"2"), *([(b"connection", b"close")] if scope["path"] == "/refused" else [])]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    door.config.loaded_app = refuses
    return door


@pytest.mark.parametrize("size", [4_000_000, 16_000_000])
@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_who_still_sends_a_body_hears_why_it_is_refused(refusing: Any, size: int, pause_s: float) -> None:
    sent = post(size) + b"x" * size
    with call(refusing) as caller:
        caller.settimeout(8)
        for at in range(0, len(sent), 400_000):  # all of it, as many clients do before they look for an answer
            caller.sendall(sent[at : at + 400_000])
            time.sleep(pause_s)
        assert told(caller) == (413, b"no")


def test_who_never_ends_a_body_that_was_refused_is_cut_off(refusing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LINGERS_S", 0.3)
    with call(refusing, post(1_000)) as caller:
        assert told(caller) == (413, b"no")
        with pytest.raises(OSError):
            for _ in range(100):
                caller.sendall(b"a")
                time.sleep(0.05)
    monkeypatch.setattr(serving, "LINGERS_S", 60)
    monkeypatch.setattr(serving, "_MOST_LINGERED_BYTES", 1_000_000)
    with call(refusing, post(1_000_000_000)) as caller, pytest.raises(ConnectionError):
        caller.settimeout(5)
        for _ in range(100):
            caller.sendall(_REST)


def test_a_request_is_answered_once_also_if_its_body_never_comes(refusing: Any) -> None:
    with call(refusing, post(1_000, path=b"/busy")) as caller:
        assert told(caller) == (413, b"no"), "after the minute for a request it ends without another answer"


def test_a_head_line_by_line_and_a_large_body_behind_its_last_line(door: Any) -> None:
    first, second, rest = post(200_000).split(b"\r\n", 2)
    with call(door, first + b"\r\n", second + b"\r\n", rest + b"x" * 200_000, pause_s=0.05) as caller:
        assert caller.recv(1_000).endswith(b"ok")


def test_one_connection_too_many_is_told_when_to_come_again(door: Any) -> None:
    callers = [call(door, _HELLO) for _ in range(5)]
    assert all(one.recv(1_000).endswith(b"ok") for one in callers)
    with call(door, _HELLO) as extra:
        assert b"\r\nretry-after: 3\r\n" in extra.recv(10_000)
    for one in callers:
        one.close()


def test_of_requests_sent_behind_each_other_few_are_held_and_all_answered(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the wire a request is 27 bytes, taken in it is kilobytes: one client could fill the memory."""
    held = []
    plain = BoundedProtocol.on_headers_complete

    def counted(self: BoundedProtocol) -> None:
        plain(self)
        held.append(len(self.pipeline))

    monkeypatch.setattr(BoundedProtocol, "on_headers_complete", counted)
    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b"a" * 20_000
    with call(door) as caller:
        sent = (_HELLO * 500 + body) * 20
        sending = threading.Thread(target=caller.sendall, args=(sent,))
        sending.start()
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 501 * 20 or not answers.endswith(b"ok"):
            answers += caller.recv(65_536)
        sending.join()
    assert len(held) == 501 * 20
    assert max(held) < 300


def test_who_waits_behind_a_slow_answer_is_not_late(door: Any) -> None:
    """The rest of a body waits until the request in front of it is answered: here longer than a head may take."""
    slow = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    with call(door, slow + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab") as caller:
        time.sleep(0.2)
        caller.sendall(b"cde")
        answers = b""
        while answers.count(b"ok") < 2 and (piece := caller.recv(65_536)):
            answers += piece
    assert answers.count(b"HTTP/1.1 200") == 2


def test_who_takes_no_answer_while_several_requests_wait_is_no_error_of_ours(
    door: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with call(door, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n" * 2):
        until = time.monotonic() + 60
        while "nothing of what was sent is taken" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]


_SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
_NO_CHUNK = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nno chunk\r\n"


@pytest.mark.parametrize(
    ("before", "refused", "status"),
    [
        ([_HELLO], b"FROB / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        ([_HELLO], _NO_CHUNK, b"400"),
        ([_SLOW, _HELLO, _HELLO], _NO_CHUNK, b"400"),
        ([_SLOW], b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"431"),
        ([_SLOW], b"GET / HT", b"408"),
        ([], b"POST /busy HTTP/1.1\r\n" + _NO_CHUNK.partition(b"\r\n")[2], b"400"),
    ],
    ids=["no method", "no chunk", "three before it", "a long head", "a late head", "answered before its body"],
)
def test_what_is_refused_takes_nobody_elses_answer(
    refusing: Any, caplog: pytest.LogCaptureFixture, before: list[bytes], refused: bytes, status: bytes
) -> None:
    """The answer to a request that was taken would be lost, its client told that it was refused, and the log a
    traceback longer: one for each connection of whoever likes to."""
    with call(refusing, b"".join(before) + refused) as caller:
        answers = b""
        while piece := caller.recv(65_536):
            answers += piece
    statuses = [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * len(before) + [status]
    time.sleep(0.5)
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]


def test_who_is_refused_while_asked_for_more_is_not_asked_again(
    door: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Expect: 100-continue`: whoever works on the request asks for its body when the last word is said already."""
    monkeypatch.setattr(serving, "_CLOSED_WITHIN_S", 2.0)
    head, _, body = _NO_CHUNK.replace(b" / ", b" /slow ").partition(b"\r\n\r\n")
    with call(door, head + b"\r\nExpect: 100-continue\r\n\r\n", body, pause_s=0.1) as caller:
        assert told(caller)[0] == 400
        time.sleep(1.5)
    assert not [entry for entry in caplog.records if entry.levelno >= logging.ERROR]


def test_a_head_of_thousands_of_lines_is_refused_and_few_long_heads_are_held(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of two letters takes more than a hundred bytes once it is taken in."""
    with call(door, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 5_000) as caller:
        assert told(caller)[0] == 431
    held = []
    plain = BoundedProtocol.on_headers_complete

    def counted(self: BoundedProtocol) -> None:
        plain(self)
        held.append(sum(len(cycle.scope["headers"]) for cycle, _ in self.pipeline))

    monkeypatch.setattr(BoundedProtocol, "on_headers_complete", counted)
    with call(door, (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 150 + b"\r\n") * 100) as caller:
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 100:
            answers += caller.recv(65_536)
    assert len(held) == 100 and max(held) < 1_000
