"""Clients as their makers ship them, from npm: only the host is ours."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.settings import default_cache_dir

VERSIONS = {"@segment/analytics-node": "3.1.0", "@segment/analytics-next": "1.84.3"}
_HERE = Path(__file__).parent
_INSTALL_WITHIN_S = 120
_BROWSE_WITHIN_S = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def node_is_here() -> bool:
    return shutil.which("node") is not None and shutil.which("npm") is not None


def browser() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((found for name in BROWSERS if (found := shutil.which(name)) is not None), None)


def installed() -> Path:
    """The folder `node_modules` with the SDKs, fetched once into the cache."""
    names = [f"{name}@{version}" for name, version in VERSIONS.items()]
    folder = default_cache_dir() / ("sdks-" + "-".join(VERSIONS.values()))
    if not (folder / "whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *names]
        subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_WITHIN_S)
        (folder / "whole").touch()
    return folder / "node_modules"


def run_node(collector: str, key: str) -> None:
    """Let the SDK for servers send what node.js says, to its end."""
    command = ["node", str(_HERE / "node.js"), str(installed() / "@segment" / "analytics-node"), collector, key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def browse(collector: str, key: str, profile: Path) -> None:
    """Open the page in a browser without a window, and close it when the page says it has done everything."""
    binary = browser()
    assert binary is not None
    script = installed() / "@segment" / "analytics-next" / "dist" / "umd" / "index.js"
    page = (_HERE / "page.html").read_text().replace("$COLLECTOR", collector).replace("$KEY", key)
    with _served({"/": page.encode(), "/sdk.js": script.read_bytes()}) as (address, visited):
        command = [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", f"--user-data-dir={profile}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert visited.wait(_BROWSE_WITHIN_S), "the page never said it had done everything"
        finally:
            process.terminate()
            process.wait(120)


@contextmanager
def _served(pages: dict[str, bytes]) -> Iterator[tuple[str, threading.Event]]:
    """Serve pages on loopback; the event is set when /done is asked for."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/done":
                done.set()
            body = pages.get(path, b"")
            self.send_response(200 if path in pages else 404)
            self.send_header("content-type", "text/javascript" if path.endswith(".js") else "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", done
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
