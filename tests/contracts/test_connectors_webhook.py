"""What only webhooks have: signatures, addresses, answers, limits."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.answers import outcome_of, retry_after_ms
from connectors.outbound import Answer, address_allowed
from connectors.testing import sample_delivery
from connectors.webhook import WebhookConnector, WebhookOptions, signing_key
from tests.contracts.webhook_receiver import WebhookReceiver

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER_KEY = b"another key, of thirty-two bytes"
NOW_S = 1_800_000_000.0


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    server = WebhookReceiver()
    yield server
    server.close()


def connector(url: str, **options: Any) -> WebhookConnector:
    defaults: dict[str, Any] = {"url": url, "unsigned": "secret" not in options, "allow_private": True}
    return WebhookConnector("tested", WebhookOptions.model_validate({**defaults, **options}))


def test_a_receiver_verifies_the_signature(
    receiver: WebhookReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEW_SECRET", SECRET)
    (tmp_path / "old").write_text("whsec_" + base64.b64encode(OTHER_KEY).decode() + "\n")
    hook = connector(receiver.url, secret=[{"env": "NEW_SECRET"}, {"file": str(tmp_path / "old")}])
    delivery = sample_delivery(1)
    assert hook.deliver([delivery])[0].status == "delivered"
    hook.close()
    [request] = receiver.requests
    # Computed here from the convention's text, not with the connector's own code.
    signed = b".".join((request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode()))
    signed += b"." + request.body
    expected = [
        "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in (KEY, OTHER_KEY)
    ]
    assert request.headers["webhook-signature"].split(" ") == expected
    assert request.headers["webhook-id"] == delivery.delivery_id
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 5
    body = json.loads(request.body)
    assert body["type"] == "segment.entered"
    assert body["timestamp"] == "2027-01-15T08:00:00.001Z"
    assert body["data"]["identifiers"][0] == {"namespace": "user_id", "value": "ada"}


ANSWERS = [
    (200, {}, "delivered", None),
    (204, {}, "delivered", None),
    (301, {"location": "http://169.254.169.254/"}, "retry", None),
    (400, {}, "rejected", None),
    (401, {}, "retry", None),
    (404, {}, "retry", None),
    (410, {}, "retry", None),
    (413, {}, "rejected", None),
    (422, {}, "rejected", None),
    (429, {"retry-after": "7"}, "retry", 7_000),
    (500, {}, "retry", None),
    (503, {"retry-after": "Fri, 15 Jan 2027 08:01:00 GMT"}, "retry", 60_000),
    (503, {"retry-after": "soon"}, "retry", None),
    (503, {"retry-after": "99999999999999999999"}, "retry", 86_400_000),
    (503, {"retry-after": "-5"}, "retry", None),
]


@pytest.mark.parametrize(("status", "headers", "expected", "wait_ms"), ANSWERS)
def test_answers(status: int, headers: dict[str, str], expected: str, wait_ms: int | None) -> None:
    outcome = outcome_of(Answer(status, headers, b""), NOW_S)
    assert (outcome.status, outcome.retry_after_ms) == (expected, wait_ms)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_time_without_a_zone_is_utc_wherever_we_are(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after_ms("Fri Jan 15 08:01:00 2027", NOW_S) == 60_000
    finally:
        monkeypatch.undo()
        time.tzset()


def test_retry_after_in_the_past_is_at_once() -> None:
    assert retry_after_ms("Fri, 15 Jan 2027 07:00:00 GMT", NOW_S) == 0


ADDRESSES = [
    ("8.8.8.8", True, True),
    ("2606:4700::1111", True, True),
    ("127.0.0.1", False, True),
    ("::1", False, True),
    ("10.1.2.3", False, True),
    ("192.168.0.1", False, True),
    ("172.16.0.1", False, True),
    ("100.64.0.1", False, False),  # shared between carriers and clouds: nobody's own
    ("fd00::1", False, True),
    ("::ffff:10.0.0.1", False, True),
    ("::ffff:169.254.169.254", False, False),
    ("64:ff9b::7f00:1", False, True),  # 127.0.0.1 through NAT64
    ("64:ff9b:1::a9fe:a9fe", False, False),  # 169.254.169.254 through one of one's own
    ("2002:7f00:1::", False, True),  # 127.0.0.1 through 6to4
    ("::7f00:1", False, False),  # 127.0.0.1 as it was once written
    ("::ffff:0:7f00:1", False, False),
    ("fec0::1", False, False),
    ("2606:4700::1", True, True),
    ("169.254.169.254", False, False),
    ("fe80::1%eth0", False, False),
    # Where clouds say their credentials and set-up, beside the link-local one.
    ("fd00:ec2::254", False, False),
    ("fd20:ce::254", False, False),
    ("168.63.129.16", False, False),
    ("::ffff:168.63.129.16", False, False),
    ("192.0.0.192", False, False),
    ("224.0.0.1", False, False),
    ("0.0.0.0", False, False),
    ("::", False, False),
]


@pytest.mark.parametrize(("address", "public", "private"), ADDRESSES)
def test_addresses(address: str, public: bool, private: bool) -> None:
    assert address_allowed(address, allow_private=False) is public
    assert address_allowed(address, allow_private=True) is private


def test_a_name_that_leads_inside_is_refused_and_nothing_is_sent(receiver: WebhookReceiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    hook = connector(f"https://localhost:{port}/hook", allow_private=False)
    [outcome] = hook.deliver([sample_delivery(1)])
    hook.close()
    assert outcome.status == "retry" and "allow_private" in outcome.detail
    assert not receiver.requests and not receiver.refused


def test_redirects_are_not_followed(receiver: WebhookReceiver) -> None:
    other = WebhookReceiver()
    receiver.answer = lambda request: (307, {"location": other.url}, b"")
    hook = connector(receiver.url)
    assert hook.deliver([sample_delivery(1)])[0].status == "retry"
    hook.close()
    other.close()
    assert not other.requests


def test_a_closed_port_means_retry() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    hook = connector(f"http://127.0.0.1:{port}/")
    assert hook.deliver([sample_delivery(1)])[0].status == "retry"
    hook.close()


@contextmanager
def raw_server(
    answer: Callable[[socket.socket, threading.Event], None], receive_bytes: int | None = None
) -> Iterator[str]:
    """The address of a server that answers one request with what `answer` sends; it is told when the test is over."""
    with socket.socket() as server:
        if receive_bytes is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        server.bind(("127.0.0.1", 0))
        server.listen()
        is_over = threading.Event()

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(65_536)
                answer(accepted, is_over)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        is_over.set()
        thread.join()


def test_a_server_that_drips_is_left_within_the_time_out() -> None:
    def drip(accepted: socket.socket, is_over: threading.Event) -> None:
        accepted.sendall(b"HTTP/1.1 200 OK\r\n")
        while not is_over.wait(0.05):
            try:
                accepted.sendall(b"X-A: b\r\n")
            except OSError:
                return

    with raw_server(drip) as url:
        hook = connector(url, timeout_seconds=0.4)
        begun = time.monotonic()
        [outcome] = hook.deliver([sample_delivery(1)])
        took = time.monotonic() - begun
    hook.close()
    assert outcome.status == "retry" and took < 60, "it drips for ever"


def test_a_server_that_takes_little_at_a_time_is_left_within_the_time_out() -> None:
    """Each write gets on a little, and none of them takes long: all of them together take many seconds."""
    taken = 0

    def sip(accepted: socket.socket, is_over: threading.Event) -> None:
        nonlocal taken
        while not is_over.wait(0.02) and (some := accepted.recv(65_536)):
            taken += len(some)

    with raw_server(sip, receive_bytes=65_536) as url:
        hook = connector(url, timeout_seconds=1)
        [outcome] = hook.deliver([sample_delivery(1, body={"traits": {"notes": "x" * 20_000_000}})])
        time.sleep(0.5)
        before = taken
    hook.close()
    assert outcome.status == "retry" and before < 15_000_000, "what is late is not sent to its end"


def test_an_endless_answer_is_not_read() -> None:
    """It is longer than ever comes: who wants the end of it waits until the time is out."""

    def begin(accepted: socket.socket, is_over: threading.Event) -> None:
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000)
        is_over.wait(60)

    with raw_server(begin) as url:
        hook = connector(url, timeout_seconds=10)
        outcomes = hook.deliver([sample_delivery(1)])
    hook.close()
    assert [one.status for one in outcomes] == ["delivered"]


def test_a_second_answer_to_one_request_is_none_to_the_next() -> None:
    """It would count as delivered what the server had refused, or had never seen."""

    def answer_twice(accepted: socket.socket, is_over: threading.Event) -> None:
        accepted.sendall(b"".join(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status for status in (500, 200)))
        is_over.wait(60)

    with raw_server(answer_twice) as url:
        hook = connector(url, timeout_seconds=5)
        outcomes = [hook.deliver([sample_delivery(number)])[0] for number in (1, 2)]
        hook.close()
    assert [one.status for one in outcomes] == ["retry", "retry"]


@pytest.mark.parametrize("at", [17, 30])
def test_a_second_answer_that_comes_in_pieces_is_none_to_the_next_request(at: int) -> None:
    """Its beginning came with the first answer, its rest after the next request."""
    refused, taken = (b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status for status in (400, 200))

    def answer_twice(accepted: socket.socket, is_over: threading.Event) -> None:
        accepted.sendall(refused + taken[:at])
        while more := accepted.recv(65_536):
            if more.startswith(b"POST "):
                accepted.sendall(taken[at:] + refused)
                break
        is_over.wait(60)

    with raw_server(answer_twice) as url:
        hook = connector(url, timeout_seconds=1)
        outcomes = [hook.deliver([sample_delivery(number)])[0] for number in (1, 2)]
        hook.close()
    assert [one.status for one in outcomes] == ["rejected", "retry"], "the server takes no second connection"


def test_after_an_answer_that_was_left_unread_the_next_is_understood(receiver: WebhookReceiver) -> None:
    receiver.answer = lambda request: (200, {}, b"x" * 5_000_000)
    hook = connector(receiver.url)
    assert hook.deliver([sample_delivery(1)])[0].status == "delivered"
    receiver.answer = lambda request: (200, {}, b"")
    assert hook.deliver([sample_delivery(2)])[0].status == "delivered"
    hook.close()


REFUSED = [
    ({"url": "https://example.com/", "secret": SECRET}, "never stands in a definition"),
    ({"url": "https://user:pass@example.com/", "unsigned": True}, "by reference"),
    ({"url": "http://example.com/", "unsigned": True}, "in the clear"),
    ({"url": "ftp://example.com/", "unsigned": True}, "https://"),
    ({"url": "https://bücher.example.com/", "unsigned": True}, "xn--"),
    ({"url": "https://example.com/ü", "unsigned": True}, "%C3%BC"),
    ({"url": "https://example.com/a\n", "unsigned": True}, "no address has"),
    ({"url": "https://hooks..example.com/a", "unsigned": True}, "no host can be called so"),
    ({"url": f"https://{'x' * 64}.example.com/a", "unsigned": True}, "no host can be called so"),
    ({"url": "https://example.com:99999/", "unsigned": True}, "(?i)port"),
    ({"url": "https://example.com/"}, "signing secret"),
    ({"url": "https://example.com/", "unsigned": True, "headers": {"Authorization": "Bearer x"}}, "holds a secret"),
    ({"url": "https://example.com/", "unsigned": True, "headers": {"Host": "x"}}, "can be set here"),
    ({"url": "https://example.com/", "unsigned": True, "headers": {"webhook-id": "x"}}, "can be set here"),
    ({"url": "https://example.com/", "unsigned": True, "headers": {"X-A": "b\r\nc: d"}}, "line break"),
    ({"url": "https://example.com/", "secret": {"env": "A", "file": "b"}}, "either"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WebhookOptions.model_validate(options)


def test_a_missing_or_wrong_secret_is_said_at_the_start_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(ValueError, match="environment variable ABSENT"):
        connector("http://127.0.0.1:1/", secret={"env": "ABSENT"})
    with pytest.raises(ValueError, match="whsec_ and 24 to 64") as caught:
        signing_key("hunter2hunter2")
    assert "hunter2" not in str(caught.value)


def test_secret_headers_come_from_the_environment(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "Bearer abc")
    hook = connector(receiver.url, headers={"Authorization": {"env": "TOKEN"}, "X-Shop": "berlin"})
    hook.deliver([sample_delivery(1)])
    hook.close()
    assert receiver.requests[0].headers["authorization"] == "Bearer abc"
    assert receiver.requests[0].headers["x-shop"] == "berlin"


def test_an_address_that_is_a_secret_comes_from_the_environment(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_URL", receiver.url + "/s3cr3t")
    made = WebhookConnector("tested", WebhookOptions(url={"env": "HOOK_URL"}, unsigned=True, allow_private=True))
    assert [one.status for one in made.deliver([sample_delivery(1)])] == ["delivered"]
    made.close()
    assert receiver.requests[0].path == "/hook/s3cr3t"
    with pytest.raises(ValueError, match="HOOK_URL") as raised:
        WebhookConnector("tested", WebhookOptions(url={"env": "HOOK_URL"}, unsigned=True))
    assert "s3cr3t" not in str(raised.value)


def test_the_receiver_counts_no_request_whose_sender_died_in_the_middle(receiver: WebhookReceiver) -> None:
    """A sender killed between head and body leaves half a request, which no server answers or keeps."""
    port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(b'POST /hook HTTP/1.1\r\nHost: x\r\nwebhook-id: d-1\r\nContent-Length: 40\r\n\r\n{"data"')
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""  # closed without an answer
    assert receiver.requests == receiver.refused == []
