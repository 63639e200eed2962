"""A schema registry for tests: a server that speaks the REST API of Confluent's, as far as its clients use it.

It keeps versions by subject, gives ids that are never used twice, and refuses with 409 what cannot read the version
before (BACKWARD, by Avro's own rules). As the real one it prints schemas in its own way: short names in a namespace.
A real one could not be had from the package registries: Confluent's and Karapace are not there, Apicurio's needs
artifacts of Confluent's repository.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.rooms.schemas.compatible import reasons

USER = "headwater:secret"


class Registry:
    """What is registered. `asked` are the requests, `fails` a status that every request is answered with."""

    def __init__(self) -> None:
        self.url = ""
        self.subjects: dict[str, list[int]] = {}
        self.texts: dict[int, str] = {}
        self.asked: list[str] = []
        self.fails = 0
        self.checks = True
        self.needs_user = False
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any, authorization: str) -> tuple[int, Any]:
        """A request's status and answer."""
        with self._lock:
            self.asked.append(f"{method} {path}")
            if self.fails:
                return self.fails, {"error_code": self.fails, "message": "out of order"}
            if self.needs_user and authorization != "Basic " + base64.b64encode(USER.encode()).decode():
                return 401, {"error_code": 401, "message": "Unauthorized"}
            match method, *[unquote(part) for part in path.strip("/").split("/")]:
                case "GET", "subjects":
                    return 200, sorted(self.subjects)
                case "GET", "schemas", "ids", number:
                    return self._by_id(number)
                case "POST", "subjects", subject:
                    return self._find(subject, body["schema"])
                case "POST", "subjects", subject, "versions":
                    return self._register(subject, body["schema"])
                case "GET", "subjects", subject, "versions" if subject in self.subjects:
                    return 200, list(range(1, len(self.subjects[subject]) + 1))
            return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _by_id(self, number: str) -> tuple[int, Any]:
        text = self.texts.get(int(number))
        if text is None:
            return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
        return 200, {"schema": json.dumps(json.loads(text)).replace('"headwater.', '"')}

    def _find(self, subject: str, text: str) -> tuple[int, Any]:
        if subject not in self.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        for version, number in enumerate(self.subjects[subject], 1):
            if json.loads(self.texts[number]) == json.loads(text):
                return 200, {"subject": subject, "version": version, "id": number, "schema": text}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _register(self, subject: str, text: str) -> tuple[int, Any]:
        status, found = self._find(subject, text)
        if status == 200:
            return 200, {"id": found["id"]}
        known = self.subjects.setdefault(subject, [])
        if known and self.checks:
            why = reasons(json.loads(text), json.loads(self.texts[known[-1]]))
            if why:
                return 409, {"error_code": 409, "message": f"Schema being registered is incompatible: {why}"}
        number = next((id_ for id_, kept in self.texts.items() if kept == text), len(self.texts) + 1)
        self.texts[number] = text
        known.append(number)
        return 200, {"id": number}


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry on a free port of this machine."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # head and body in one packet: else each answer waits for an acknowledgement

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = urlsplit(self.path).path
            status, told = registry.answer(self.command, path, body, self.headers.get("Authorization", ""))
            answer = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
