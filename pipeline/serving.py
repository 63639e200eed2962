"""What the doors that speak HTTP share: a socket, a loop, and a server that leaves signals to its caller."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.errors import InputError

_MAX_HEAD_BYTES = 64 * 1024
_BACKLOG = 2_048


class Server(uvicorn.Server):
    """Uvicorn, but signals are its caller's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on who goes on sending request line and headers past 64 kB; the parser alone would collect them all."""

    _in_head = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            # What comes in one piece may be a whole request with its body.
            if self._head_bytes > max(_MAX_HEAD_BYTES, len(data)):
                self.transport.close()
                return
        super().data_received(data)


def server(app: Any, **own: Any) -> Server:
    """A server for a door: what all doors have alike, and `own` settings of uvicorn (limits, timeouts, proxies)."""
    return Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            **own,
        )
    )


def runner() -> asyncio.Runner:
    """A runner on the quickest loop there is."""
    try:
        import uvloop
    except ImportError:  # where it is not built for, the standard loop does
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def listen(host: str, port: int, setting: str, shared: bool = False) -> socket.socket:
    """A socket bound to an address; with `shared`, several processes of this machine may share the port.

    Raises:
        InputError: it cannot be had; `setting` is where to choose another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and hasattr(socket, "SO_REUSEPORT"):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"Nothing can listen there: {error.strerror}.", f"{host}:{port}", f"set {setting}") from None
    return listening


def address(listening: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
