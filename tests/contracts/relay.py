"""A way to a server that can be led elsewhere, or lose what goes along it, as names and networks do."""

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Passes on what comes to `port`, both ways. `target` is where connections that come from now on lead."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.held = threading.Event()
        self.lost = threading.Event()
        self._let_go = threading.Event()
        self._hold_at: bytes | None = None
        self._lose_at: tuple[bytes, ...] = ()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._listener.close()

    def lose_answer(self, *any_of: bytes) -> None:
        """Cut the connection at the next answer with any of these in it, which is lost."""
        self._lose_at = any_of

    def hold(self, request: bytes) -> None:
        """Keep back what goes along the next connection in which these bytes come, from them on."""
        self._hold_at = request

    def let_go(self) -> None:
        """Pass on what was held, even if whoever sent it has left since."""
        self._let_go.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, origin: socket.socket, goal: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(65_536):
                if is_request and self._hold_at is not None and self._hold_at in data:
                    self._hold_at = None
                    self.held.set()
                    self._let_go.wait(60)
                elif not is_request and any(one in data for one in self._lose_at):
                    self._lose_at = ()
                    self.lost.set()
                    break
                goal.sendall(data)
        # Of a request that was held the sender has left: the server hears that behind it.
        for one in (goal, origin):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
