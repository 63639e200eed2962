"""The room for people in one process, before the API of tests/rooms/api: no socket, no Kafka."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx

from pipeline.api.access import Token, hashed
from pipeline.api.client import ApiClient
from pipeline.ui.drafts import Drafts
from pipeline.ui.server import build_desk
from pipeline.ui.sessions import Sessions
from pipeline.ui.users import ROLES, SCOPES, seal_user, write_users
from pipeline.ui.web import Desk
from tests.rooms.api.harness import World

PASSWORD = "correct horse battery"


class InProcess(httpx.BaseTransport):
    """Asks an ASGI application as if it were far away."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=str(request.url)) as client:
                found = await client.request(
                    request.method, request.url, headers=request.headers, content=request.read()
                )
                return httpx.Response(found.status_code, headers=found.headers, content=found.content)

        # In a thread of its own: whoever asks may have a loop already (Playwright does).
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(once())).result()


class House:
    """An API and the pages before it, with one user for each role, named after it."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.applied: list[tuple[str, dict[str, Any]]] = []
        tokens = [caller._token for caller in self.world.service.access._callers.values()]
        users = []
        for role in ROLES:
            token = f"token-of-{role}"
            tokens.append(Token(name=f"ui.{role}", sha256=hashed(token), scopes=SCOPES[role]))  # type: ignore[arg-type]
            users.append(seal_user(role, role, token, PASSWORD))
        self.world.service.access.replace(tokens)
        write_users(folder / "users.yaml", users)
        self.sessions = Sessions(folder / "users.yaml", self.open_client)
        self.desk: Desk = build_desk(self.sessions, Drafts(folder / "drafts"))

    def open_client(self, token: str) -> ApiClient:
        return ApiClient("http://api", token, transport=InProcess(self.world.app))


class Visitor:
    """A browser without scripts."""

    def __init__(self, house: House, role: str | None = None) -> None:
        self.house = house
        self.cookies: dict[str, str] = {}
        self.form_key = ""
        if role is not None:
            answer = self.post("/sign-in", {"name": role, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
            self.cookies = dict(answer.cookies)
            found = house.sessions.find(self.cookies["headwater_session"])
            assert found is not None
            self.form_key = found.form_key

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.house.desk.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://ui", cookies=self.cookies) as client:
                return await client.request(method, path, **more)

        return asyncio.run(once())

    def get(self, path: str, part: str = "") -> httpx.Response:
        return self.ask("GET", path, headers={"X-Part": part} if part else {})

    def post(self, path: str, fields: Any = (), part: str = "", key: bool = True) -> httpx.Response:
        pairs = list(fields.items() if isinstance(fields, dict) else fields)
        if key and self.form_key:
            pairs.append(("form_key", self.form_key))
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | ({"X-Part": part} if part else {})
        return self.ask("POST", path, content=str(httpx.QueryParams(pairs)), headers=headers)


class Fields(HTMLParser):
    """What a browser would send of a page's form: inputs, choices, areas, each with its value."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._select = self._area = ""
        self._text = ""
        self._chosen: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = {name: value or "" for name, value in attrs}
        if tag == "input" and held.get("name") and held.get("type") not in ("checkbox", "radio"):
            self.found.append((held["name"], held.get("value", "")))
        elif tag == "select":
            self._select, self._chosen = held["name"], None
        elif tag == "option" and self._select and (self._chosen is None or "selected" in held):
            self._chosen = held["value"]
        elif tag == "textarea":
            self._area, self._text = held["name"], ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self.found.append((self._select, self._chosen or ""))
            self._select = ""
        elif tag == "textarea":
            self.found.append((self._area, self._text.removeprefix("\n").replace("\n", "\r\n")))
            self._area = ""
