"""What happens around every page: who is signed in, whether they may, the form's key, errors, headers.

A page is a plain function of a `Page` that runs in a thread, because it waits for the API. What it may not do is
decided here, before it runs, and again by the API, whose token has the scopes of the role.
"""

import hmac
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

import httpx
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.api.client import ApiClient, ApiError
from pipeline.errors import HeadwaterError, SettingsError
from pipeline.ui import shown
from pipeline.ui.forms import MAX_FIELDS
from pipeline.ui.sessions import Session, Sessions, TooManyTries
from pipeline.ui.users import Role

COOKIE = "headwater_session"
FORM_KEY = "form_key"
MAX_FORM = 2_000_000
_THEIRS = frozenset((400, 403, 404, 409, 410, 413, 414, 422, 429))
"""What the API says no to because of what was asked; to all else because it fails, or does not know these pages."""
_SIGNED_OUT = "You are signed out. Sign in again in another tab, then go on here: what you typed is still there."
_NO_ANSWER = "The API does not answer. Is `headwater run api` running, where `ui.api` says?"
_PERHAPS = (
    "The API took the request and did not answer: it may have been done all the same. Look before you ask for it again."
)
_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_log = logging.getLogger(__name__)


class Refused(Exception):
    """The page cannot be shown: a status, and what to tell people."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
        self.what = what


@contextmanager
def refusals_told() -> Iterator[None]:
    """What the API does not do, people are told in its words; that a token does not allow it is told apart."""
    try:
        yield
    except ApiError as error:
        if error.status == 403:
            raise
        raise Refused(422, error.detail) from None


@dataclass(slots=True)
class Page:
    """One request of somebody who is signed in."""

    session: Session
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: list[tuple[str, str]]
    part: str
    address: str
    render: Callable[..., Response]
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def client(self) -> ApiClient:
        """The API, asked as this user."""
        return self.session.client

    def field(self, name: str) -> str:
        """A field of the form; empty if it is not there."""
        return next((text for known, text in self.form if known == name), "")

    def fields(self, name: str) -> list[str]:
        """All fields of one name."""
        return [text for known, text in self.form if known == name]


Handler = Callable[[Page], Response]


@dataclass(frozen=True, slots=True)
class Entry:
    """A page: who may ask for it. What changes something is a POST, and says a role above viewer."""

    method: Literal["GET", "POST"]
    path: str
    role: Role
    handler: Handler


def go(path: str, said: str = "") -> Response:
    """Lead on to another page, which says something first."""
    return RedirectResponse(path + (("&" if "?" in path else "?") + urlencode({"said": said}) if said else ""), 303)


def templates() -> Environment:
    """The pages' templates, with all that they use."""
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(shown.FILTERS)
    found.filters["path"] = lambda text: quote(str(text), safe=":")
    return found


class Desk:
    """The pages of one process."""

    def __init__(
        self, sessions: Sessions, entries: tuple[Entry, ...], navigation: Any, behind_tls: bool = False
    ) -> None:
        """`navigation`: (path, title) of what the side shows."""
        self._sessions = sessions
        self._navigation = navigation
        self._behind_tls = behind_tls
        self.entries = entries
        self._pages = templates()
        routes: list[Any] = [Route(one.path, self._endpoint(one), methods=[one.method]) for one in entries]
        routes += [
            Route("/sign-in", self._ask_name, methods=["GET"]),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
            Route("/form-key", self._form_key, methods=["GET"]),
            Route("/livez", self._live),
            Route("/readyz", self._live),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ]
        self.app = Starlette(routes=routes, exception_handlers={404: self._nothing, 405: self._nothing})
        self.app.router.redirect_slashes = False  # it would repeat whatever the request says its host is

    # ------------------------------------------------------------------------------------------------------- pages

    def _endpoint(self, entry: Entry) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            session = self._sessions.find(request.cookies.get(COOKIE, ""))
            if session is None:
                if request.headers.get("x-part"):
                    return self._finish(Response(_SIGNED_OUT, 401, None, "text/plain"))
                onward = request.scope["path"] if entry.method == "GET" else "/"
                query: bytes = request.scope["query_string"]
                if entry.method == "GET" and query and query.isascii():
                    onward += f"?{query.decode()}"
                return self._finish(RedirectResponse(f"/sign-in?onward={quote(onward)}", 303))
            page = self._page(session, request)
            try:
                if entry.method == "POST":
                    page.form = await _form(request)
                    if not hmac.compare_digest(page.field(FORM_KEY).encode(), session.form_key.encode()):
                        raise Refused(403, "This form is not from this session. Load the page again, and send it anew.")
                if not session.may(entry.role):
                    raise Refused(403, f"This needs the role {entry.role}; yours is {session.role}.")
                answer = await run_in_threadpool(entry.handler, page)
            except Refused as refused:
                answer = self._sorry(page, refused.status, refused.what)
            except ApiError as error:
                answer = self._sorry(page, error.status if error.status in _THEIRS else 502, _of_api(error))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                answer = self._sorry(page, 502, _NO_ANSWER)
            except httpx.RequestError:
                changes = entry.method == "POST" and entry.role != "viewer"
                answer = self._sorry(page, 502, *((_PERHAPS, "Was it done?") if changes else (_NO_ANSWER,)))
            except HeadwaterError as error:
                answer = self._sorry(page, 422, " ".join(filter(None, (error.what, error.what_to_do))))
            return self._finish(answer)

        return endpoint

    def _page(self, session: Session, request: Request) -> Page:
        def render(template: str, status: int = 200, **context: Any) -> Response:
            return self._render(page, template, status, **context)

        part, address = request.headers.get("x-part", ""), request.scope["path"]
        page = Page(session, request.path_params, request.query_params, [], part, address, render)
        return page

    def _render(self, page: Page | None, template: str, status: int = 200, **context: Any) -> Response:
        session = page.session if page is not None else None
        held: dict[str, Any] = {
            "session": session,
            "navigation": self._navigation,
            "here": page.address if page is not None else "",
            "said": page.query.get("said", "")[:300] if page is not None else "",
            "form_key": session.form_key if session is not None else "",
            "may_edit": session is not None and session.may("editor"),
            "may_operate": session is not None and session.may("operator"),
        }
        text = self._pages.get_template(template).render(**(held | context))
        return Response(text, status, {"Cache-Control": "no-store"}, "text/html")

    def _sorry(self, page: Page, status: int, what: str, heading: str = "That did not work") -> Response:
        if page.part:
            return self._render(page, "parts/sorry.html", status, what=what)
        return self._render(page, "sorry.html", status, what=what, heading=heading)

    def _finish(self, answer: Response) -> Response:
        answer.headers.update(_HEADERS)
        return answer

    # ---------------------------------------------------------------------------------------------------- signing in

    async def _ask_name(self, request: Request) -> Response:
        onward = _inside(request.query_params.get("onward", "/"))
        return self._finish(self._render(None, "sign_in.html", onward=onward, wrong="", name=""))

    async def _sign_in(self, request: Request) -> Response:
        if not _is_own(request):
            return self._finish(Response("This form is of another site.", 403))
        try:
            form = dict(await _form(request))
        except Refused as refused:
            return self._finish(Response(refused.what, refused.status, None, "text/plain"))
        name, onward = form.get("name", "").strip(), _inside(form.get("onward", "/"))
        cookie, status, wrong = None, 401, "Name and password do not belong together."
        try:
            cookie = await run_in_threadpool(self._sessions.sign_in, name, form.get("password", ""))
        except TooManyTries:
            status, wrong = 429, "Too many tries: wait half a minute."
        except SettingsError as error:
            _log.error("nobody can sign in: %s", error)
            status, wrong = 500, "Nobody can sign in now; the log of these pages says why."
        if cookie is None:
            _log.info("a sign-in was refused")
            return self._finish(self._render(None, "sign_in.html", status, onward=onward, wrong=wrong, name=name[:60]))
        answer = RedirectResponse(onward, 303)
        answer.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=self._behind_tls, path="/")
        return self._finish(answer)

    async def _sign_out(self, request: Request) -> Response:
        if _is_own(request):
            self._sessions.sign_out(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE)
        return self._finish(answer)

    async def _live(self, _: Request) -> Response:
        return Response("ok", 200, None, "text/plain")

    async def _form_key(self, request: Request) -> Response:
        """The key of forms, for a page that was left open while somebody signed in anew."""
        session = self._sessions.find(request.cookies.get(COOKIE, ""))
        if session is None or not _is_own(request):
            return self._finish(Response(_SIGNED_OUT, 401, None, "text/plain"))
        return self._finish(Response(session.form_key, 200, {"Cache-Control": "no-store"}, "text/plain"))

    async def _nothing(self, request: Request, _: Exception) -> Response:
        session = self._sessions.find(request.cookies.get(COOKIE, ""))
        if session is None:
            return self._finish(self._render(None, "nothing.html", 404))
        return self._finish(self._sorry(self._page(session, request), 404, "There is no such page."))


def _of_api(error: ApiError) -> str:
    if error.status == 401:
        return (
            "The API does not know your token any more: it was revoked. Ask whoever made you a user to remove you and "
            "make you anew (`headwater users`), then sign in again."
        )
    if error.status == 403:
        return f"Your token does not allow this. {error.detail}"
    return f"The API says: {error.detail}"


def _inside(path: str) -> str:
    """A path of this site; the first page for anything else."""
    return path if path.startswith("/") and not path.startswith("//") and "\\" not in path else "/"


def _is_own(request: Request) -> bool:
    """Whether a form was sent from a page of this site: browsers say so, and say it truly."""
    site = request.headers.get("sec-fetch-site")
    return site in (None, "same-origin", "none")


async def _form(request: Request) -> list[tuple[str, str]]:
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_FORM:
                raise Refused(413, "The form is too large.")
            parts.append(part)
    except ClientDisconnect:
        raise Refused(400, "The form did not come whole.") from None
    try:
        return parse_qsl(
            b"".join(parts).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS + 100, errors="strict"
        )
    except (ValueError, UnicodeDecodeError):
        raise Refused(400, "The form cannot be read.") from None
