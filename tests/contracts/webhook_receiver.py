"""A real HTTP server on loopback that receives webhooks and can be told to misbehave."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = tuple[int, dict[str, str], bytes]


class Request(NamedTuple):
    headers: dict[str, str]
    body: bytes
    method: str = "POST"
    path: str = ""

    @property
    def delivery_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def data(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)["data"]
        return parsed


class WebhookReceiver:
    """`answer` is asked for each request; `requests` holds those answered with 2xx, `refused` the others."""

    def __init__(self, answer: Callable[[Request], Answer | None] | None = None) -> None:
        self.answer = answer or (lambda request: (204, {}, b""))
        self.requests: list[Request] = []
        self.refused: list[Request] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {k.lower(): v for k, v in self.headers.items()}
                body = self.rfile.read(length)
                if len(body) < length:  # its sender died in the middle of it: no request, as with any server
                    self.close_connection = True
                    return
                request = Request(headers, body, self.command, self.path)
                answered = receiver.answer(request)
                if answered is None:  # accepted, and then silent
                    with receiver._lock:
                        receiver.requests.append(request)
                    time.sleep(1.0)
                    self.close_connection = True
                    return
                status, headers, content = answered
                with receiver._lock:
                    (receiver.requests if 200 <= status < 300 else receiver.refused).append(request)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_DELETE(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that gave up waiting

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
