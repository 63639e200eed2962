"""What the doors that speak HTTP share: a socket, a loop, and a server that leaves signals to its caller."""

import asyncio
import contextlib
import http
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MAX_HEAD_BYTES = 64 * 1024
_BACKLOG = 2_048
HEAD_WITHIN_S = 10.0
"""From the first byte of a request to the end of its headers."""
MESSAGE_WITHIN_S = 60.0
"""From the first byte of a request to the last of its body."""
WRITTEN_WITHIN_S = 30.0
"""A client that takes nothing for so long, while something waits to be sent, is cut off."""
_CLOSED_WITHIN_S = 1.0
LINGERS_S = 10.0
"""Who still sends a body that was answered already has so long to see the answer."""
_MOST_LINGERED_BYTES = 32 * 1024 * 1024
_SAID_EVERY_S = 1.0
_SPARE_FILES = 600
_MOST_REFUSED = 200
_COME_AGAIN_S = 3
_MOST_IGNORED_BYTES = 1024 * 1024
_PARSED_AT_ONCE_BYTES = 4_096
_MOST_PIPELINED = 16
_MOST_HEADERS = 200
_FRAMING = (b"content-length", b"transfer-encoding")
_REFUSED = {
    400: ("The request is not understood", "This is not HTTP."),
    408: ("The request took too long", "A request must come within a minute, its headers within ten seconds."),
    431: ("The headers are too large", "The request line and the headers have 64 kB and some hundred lines at most."),
    503: ("Not ready", "There are too many connections already."),
}
_log = logging.getLogger(__name__)
# Uvicorn warns of each request that is no HTTP, or wants another protocol, whoever sends how many: they are counted.
_errors_only = logging.getLogger("uvicorn.error.doors")
_errors_only.setLevel(logging.ERROR)


class Server(uvicorn.Server):
    """Uvicorn, but signals are its caller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Said:
    """How many connections were ended, by why, and what else callers do: said once a second at most, whoever knocks how
    often."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._at = -_SAID_EVERY_S

    def count(self, why: str, now: float, what: str = "connection(s) ended") -> None:
        said = f"{what}: {why}"
        self._counts[said] = self._counts.get(said, 0) + 1
        if now - self._at >= _SAID_EVERY_S:
            self._at = now
            for each, count in self._counts.items():
                _log.warning("%d %s", count, each)
            self._counts.clear()


class _Lingering:
    """A transport whose connection ends once the client has had the answer.

    Who closes while something that was sent is still unread resets the connection, and a reset takes the answer out of
    the client's hands: it would not learn that its body is too large, and send it again, for ever.
    """

    def __init__(
        self, transport: asyncio.Transport, is_awaited: Callable[[], bool], linger: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._is_awaited = is_awaited
        self._linger = linger
        self._lingers = False
        self.write = transport.write  # asked for with every answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def close(self) -> None:
        if self._lingers or self._transport.is_closing():
            return
        if not self._is_awaited():
            self._transport.close()
            return
        self._lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger()


class _Flow(FlowControl):
    """Uvicorn's, but nothing more is read while requests wait for the one before them: it would go on reading after
    every answer, and while one is made, and what waits is much larger in memory than on the wire."""

    def __init__(self, transport: asyncio.Transport, may_read: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._may_read = may_read

    def resume_reading(self) -> None:
        if self._may_read():
            super().resume_reading()


class _BehindHead:
    """Hears all that a parser finds for a protocol, but for the head of the first request, which it knows."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._is_in_first = True
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._is_in_first:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_in_first:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_first:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_in_first:
            self._is_in_first = False
        else:
            self._protocol.on_headers_complete()


class BoundedProtocol(HttpToolsProtocol):
    """HTTP whose clients cannot hold on to what is scarce: the head of a request has 64 kB, some hundred lines and ten
    seconds, all of it a minute; who does not take what is sent is cut off after half a minute; one connection more than
    `most` is refused; of requests that are sent behind each other no more are taken in than a few, and what is refused
    is told behind the answers to those before it.

    The parser alone would collect headers without end, and wait for the rest of a request, or for a reader, for ever.
    """

    most: int | None = None
    said = _Said()
    _in_head = False
    _in_message = False
    _head_bytes = 0
    _began_at = 0.0
    _refused = False
    _refused_later: int | None = None
    _most_ignored_bytes = _MOST_IGNORED_BYTES
    _is_unused = False
    _unparsed = b""
    _answered_now: RequestResponseCycle | None = None
    _message_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.logger = _errors_only
        super().connection_made(transport)
        self.transport = _Lingering(transport, self._body_is_unread, self._linger)  # type: ignore[assignment]
        self.flow = _Flow(transport, self._may_read)
        if self.most is not None and len(self.connections) > self.most:
            self._refuse(503, "there are too many")
            return
        # Browsers and pools open connections before they need them: such a one waits as long as between two requests.
        self._is_unused = True
        self._message_timer = self.loop.call_later(self.timeout_keep_alive, self._look_at_message)

    def _may_read(self) -> bool:
        if self._refused:
            return self._refused_later is None
        return not (self.pipeline or self._unparsed)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered_now = cycle
        if self._refused_later is None or self._others_come_first():
            super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        # Uvicorn tells the request that came last; others may be in front of it.
        if self._answered_now is not None:
            self._answered_now.disconnected = True
        self._forget_message_timer()
        self._forget_write_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._head_bytes, self._began_at = 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # said before the body: see `_read_on`
        self._in_message = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > self._most_ignored_bytes:
                self.transport.abort()
            return
        if self._is_unused:
            self._is_unused = False
            self._forget_message_timer()
        self._unparsed += data
        if not self.pipeline:
            self._parse()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refused_later is not None and not self._others_come_first():
            self._end_with(self._refused_later)
        elif self._unparsed and not self.pipeline:
            self.loop.call_soon(self._parse_on)

    def _parse_on(self) -> None:
        if self.transport.is_closing() or self.pipeline:
            return
        self._began_at = self.loop.time()  # what was there was not late
        self._parse()
        self.flow.resume_reading()

    def _parse(self) -> None:
        data, self._unparsed = self._unparsed, b""
        for start in range(0, len(data), _PARSED_AT_ONCE_BYTES):
            if self._refused or self.transport.is_closing():
                return
            if self._holds_enough():
                self._unparsed = data[start:]
                self._forget_message_timer()
                return
            self._parse_piece(data[start : start + _PARSED_AT_ONCE_BYTES])

    def _holds_enough(self) -> bool:
        """Whether no more requests are taken in until some are answered."""
        if len(self.pipeline) >= _MOST_PIPELINED:
            return True
        # One of a few letters takes thirty times as much memory as on the wire.
        held = 0
        for cycle, _ in self.pipeline:
            held += len(cycle.scope["headers"])  # type: ignore[arg-type]  # a list, which the specification leaves open
        return held > _MOST_HEADERS

    def _parse_piece(self, data: bytes) -> None:
        if self._in_head or not self._in_message:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(400, "it is not HTTP")
        except httptools.HttpParserUpgrade as wanted:
            self._read_on()
            self._parse_piece(data[wanted.args[0] :])
            return
        if not self._in_message:
            self._head_bytes = 0
        # A piece that ends a head may have a body behind it, of whatever size.
        elif self._in_head and not self._refused and self._is_too_long():
            self._refuse(431, "headers without end")
            return
        if not self._is_awaited():
            self._forget_message_timer()  # a request that came in one piece never has one
        elif self._message_timer is None and not self._refused:
            self._message_timer = self.loop.call_later(HEAD_WITHIN_S, self._look_at_message)

    def _is_too_long(self) -> bool:
        return self._head_bytes > _MAX_HEAD_BYTES or len(self.headers) > _MOST_HEADERS

    def _is_awaited(self) -> bool:
        """Whether the client is to send something now: the rest of a request, or one after blank lines."""
        if self._in_message:
            return True
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self.timeout_keep_alive_task is None

    def _body_is_unread(self) -> bool:
        """Whether an answer was given before the body of its request had come."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        return is_answered and self._in_message and not self._in_head

    def _linger(self) -> None:
        self._refused = True
        self._head_bytes, self._most_ignored_bytes = 0, _MOST_LINGERED_BYTES
        self._forget_message_timer()
        self.flow.resume_reading()
        self.loop.call_later(LINGERS_S, self.transport.abort)

    def _look_at_message(self) -> None:
        self._message_timer = None
        if self._is_unused:
            self.transport.close()
            return
        if not self._is_awaited():
            return
        if self.pipeline:  # it is not the client that the rest waits for
            self._began_at = self.loop.time()
            self._message_timer = self.loop.call_later(HEAD_WITHIN_S, self._look_at_message)
        elif self._in_head or not self._in_message:
            self._refuse(408, "the head of a request did not come in time")
        elif (left := self._began_at + MESSAGE_WITHIN_S - self.loop.time()) > 0:
            self._message_timer = self.loop.call_later(left, self._look_at_message)
        else:
            self._refuse(408, "the body of a request did not come in time")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITTEN_WITHIN_S, self._cut_off)

    def resume_writing(self) -> None:
        self._forget_write_timer()
        super().resume_writing()

    def _cut_off(self) -> None:
        self._write_timer = None
        self.said.count("nothing of what was sent is taken", self.loop.time())
        self.transport.abort()

    def _read_on(self) -> None:
        """Take what follows a head that wants another protocol for the rest of its request, and for requests.

        Who does not speak that protocol answers as if nobody had wanted it. The parser ends there, and would take a
        body for the next request: a new one is told how the body is framed.
        """
        why = "a protocol that is not spoken here was wanted"
        self.said.count(why, self.loop.time(), "request(s) answered as plain HTTP")
        self.parser = httptools.HttpRequestParser(_BehindHead(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        framing = [name + b": " + value + b"\r\n" for name, value in self.headers if name in _FRAMING]
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")

    def _refuse(self, status: int, why: str) -> None:
        """Answer in the server's own name, and end the connection. Nothing of the request is repeated."""
        self._refused = True
        self._forget_message_timer()
        self.said.count(why, self.loop.time())
        if self.transport.is_closing():
            return
        if self.most is not None and len(self.connections) > self.most + _MOST_REFUSED:
            self.transport.abort()
            return
        if self._others_come_first():
            self._refused_later = status
            self.flow.pause_reading()
        else:
            self._end_with(status)

    def _others_come_first(self) -> bool:
        """Whether requests that came before the refused one are still to be answered."""
        now = self._answered_now
        if now is None or now.response_complete:
            return False
        is_of_the_refused = now is self.cycle and self._in_message and not self._in_head
        return not is_of_the_refused

    def _end_with(self, status: int) -> None:
        self._refused_later = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not is_answering and not self._body_is_unread():
            self.transport.write(_refusal(status))
        if self.cycle is not None:
            # Whoever works on it hears that nothing more comes, and neither asks for it nor says anything behind the
            # last word.
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        # Who closes at once while the client still sends takes the answer out of its hands.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_CLOSED_WITHIN_S, self.transport.abort)

    def _forget_message_timer(self) -> None:
        if self._message_timer is not None:
            self._message_timer.cancel()
            self._message_timer = None

    def _forget_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _refusal(status: int) -> bytes:
    title, detail = _REFUSED[status]
    body = b'{"type":"about:blank","title":"%s","status":%d,"detail":"%s"}' % (title.encode(), status, detail.encode())
    head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/problem+json\r\n"
    if status == 503:
        head += f"retry-after: {_COME_AGAIN_S}\r\n"
    return head.encode() + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def server(app: Any, most_connections: int, **own: Any) -> Server:
    """A server for a door: what all doors have alike, and `own` settings of uvicorn (timeouts, proxies). One connection
    more than `most_connections` at a time is answered 503; those there are go on."""
    most = min(most_connections, _files() - _SPARE_FILES)
    if most < most_connections:
        _log.warning("this process may open %d files: it takes %d connections (`ulimit -n`)", _files(), max(1, most))

    class Protocol(BoundedProtocol):
        pass

    Protocol.most, Protocol.said = max(1, most), _Said()
    return Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            **own,
        )
    )


def _files() -> int:
    """How many files and connections this process may have open; raised as far as it may raise it itself."""
    try:
        import resource
    except ImportError:  # where there is no such bound
        return 1 << 30
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def runner() -> asyncio.Runner:
    """A runner on the quickest loop there is."""
    try:
        import uvloop
    except ImportError:  # where it is not built for, the standard loop does
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
