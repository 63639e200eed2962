"""A webhook receiver on the loopback, for trying things out: it checks each signature and counts what came."""

import base64
import hashlib
import hmac
import json
import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MAX_BODY_BYTES = 1_000_000
_KEPT = 100


class Receiver:
    """Listens on the loopback until closed, at `port` if it is free. `calls` counts by action, `last` keeps the newest.

    A call whose Standard Webhooks signature does not fit the secret is refused with 401 and counted in `refused`.
    """

    def __init__(self, secret: str, port: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        self.refused = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = min(int(self.headers.get("content-length") or 0), _MAX_BODY_BYTES)
                body = self.rfile.read(length)
                self.send_response(204 if receiver.take(dict(self.headers.items()), body) else 401)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """The view shows the calls."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/"

    def take(self, headers: dict[str, str], body: bytes) -> bool:
        """Count one call if its signature is right."""
        named = {name.lower(): value for name, value in headers.items()}
        signed = f"{named.get('webhook-id')}.{named.get('webhook-timestamp')}.".encode() + body
        expected = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        given = [part.partition(",")[2] for part in named.get("webhook-signature", "").split()]
        with self._lock:
            if not any(hmac.compare_digest(expected, each) for each in given):
                self.refused += 1
                return False
            call = json.loads(body)
            self.last.append(call)
            self.calls[call.get("type", "")] += 1
        return True

    def total(self) -> int:
        """How many calls came with a right signature."""
        return sum(self.calls.values())

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
