"""The ASGI application: what can be asked, and what happens around every request."""

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.api import parameters as ask
from pipeline.api.access import Caller
from pipeline.api.accounts import Accounts
from pipeline.api.definitions import Definitions
from pipeline.api.examples import (
    ACCOUNT,
    ACCOUNTS,
    ACTIVITY,
    ALERTS,
    APPLIED,
    ASKED,
    BACKFILLS,
    CHANGE,
    DEAD_LETTER,
    DEAD_LETTERS,
    DEFINITIONS,
    EVENTS,
    GROWTH,
    HISTORY,
    LINK,
    MEMBERS,
    NEWEST,
    OVERLAP,
    OVERVIEW,
    PEOPLE,
    PREVIEW,
    PROFILE,
    PROFILE_SEGMENTS,
    PROVENANCE,
    RANKING,
    RECEIPT,
    REPLAY,
    SCHEMAS,
    SEGMENT,
    SEGMENTS,
    SUPPORT,
    TRACE,
    VOCABULARY,
    WHY,
    ref,
)
from pipeline.api.live import Live
from pipeline.api.operating import Operating
from pipeline.api.operations import Call, Operation, openapi, unquoted
from pipeline.api.privacy import Privacy
from pipeline.api.problems import Problem
from pipeline.api.profiles import Profiles
from pipeline.api.provenance import Provenance
from pipeline.api.segments import Segments
from pipeline.api.service import Service
from pipeline.api.tracing import Tracing
from pipeline.api.writes import MAX_BODY, Writes

VERSION = "1"
_MAX_TARGET = 8_000

_log = logging.getLogger(__name__)

_YAML = {"application/yaml": {"schema": {"type": "string"}, "example": "segment: everyone\nwhen: {all: []}\n"}}
_CHANGE = {"application/json": {"schema": ref("ChangeRequest"), "example": CHANGE}}
_PRIVACY = {"application/json": {"schema": ref("PrivacyAsked"), "example": ASKED}}
_REPLAY = {"application/json": {"schema": ref("ReplayRequest"), "example": REPLAY}}
_LINK = {"application/json": {"schema": ref("LinkRequest"), "example": LINK}}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}


def _json(schema: str, example: Any) -> dict[str, Any]:
    return {"application/json": {"schema": ref(schema), "example": example}}


def operations(service: Service) -> tuple[Operation, ...]:
    """Everything that can be asked."""
    profiles, segments, live, writes = Profiles(service), Segments(service), Live(service), Writes(service)
    accounts, definitions, privacy = Accounts(service), Definitions(service), Privacy(service)
    operating, tracing, provenance = Operating(service), Tracing(service), Provenance(service)
    read, see, watch = "profiles:read", "segments:read", "streams:read"
    at = "/v1/profiles/{profile}"
    missing = (404,)
    return (
        Operation(
            "GET", at, "getProfile", "One profile", read, profiles.whole, (ask.PROFILE, ask.FIELDS, *ask.WAIT),
            returns=_json("Profile", PROFILE), fails=missing,
        ),
        Operation(
            "GET", f"{at}/segments", "getProfileSegments", "Its segments, since when and why", read,
            profiles.segments, (ask.PROFILE, *ask.WAIT), returns=_json("ProfileSegments", PROFILE_SEGMENTS),
            fails=missing,
        ),
        Operation(
            "GET", f"{at}/events", "getProfileEvents", "Its most recent events", "events:read",
            profiles.events, (ask.PROFILE, ask.EVENTS_LIMIT, *ask.WAIT), returns=_json("Events", EVENTS), fails=missing,
        ),
        Operation(
            "GET", f"{at}/support", "getSupportView", "Who is in front of an agent", "events:read",
            profiles.support, (ask.PROFILE, *ask.WAIT), returns=_json("SupportView", SUPPORT), fails=missing,
        ),
        Operation(
            "GET", f"{at}/stream", "streamProfile", "The changes of a profile, live", watch,
            live.profile, (ask.PROFILE, ask.LAST_ID), returns=_STREAM, fails=(404, 410),
        ),
        Operation(
            "GET", "/v1/accounts", "listAccounts", "The accounts, by name, by pages", read,
            accounts.all, (ask.BEGINS, ask.AFTER_NAME, ask.ACCOUNTS_LIMIT, *ask.WAIT),
            returns=_json("Accounts", ACCOUNTS),
        ),
        Operation(
            "GET", "/v1/ranking", "rankAccounts", "The accounts whose people do most, of those that are meant",
            "events:read", accounts.ranking, (*ask.RANKED, ask.DAYS, ask.ACCOUNTS_LIMIT, *ask.WAIT),
            returns=_json("Ranking", RANKING), fails=missing,
        ),
        Operation(
            "GET", "/v1/alerts", "listAlerts", "The newest alerts of all accounts", read,
            accounts.all_alerts, (ask.ACCOUNTS_LIMIT, *ask.WAIT), returns=_json("Alerts", ALERTS),
        ),
        Operation(
            "GET", "/v1/accounts/{account}/activity", "getActivity", "What its people do, by the day", "events:read",
            accounts.activity, (ask.ACCOUNT, ask.DAYS, *ask.WAIT), returns=_json("Activity", ACTIVITY), fails=(404,),
        ),
        Operation(
            "GET", "/v1/accounts/{account}/alerts", "listAlertsOfAccount", "Its newest alerts", read,
            accounts.alerts, (ask.ACCOUNT, ask.ACCOUNTS_LIMIT, *ask.WAIT),
            returns=_json("Alerts", ALERTS), fails=(404,),
        ),
        Operation(
            "GET", "/v1/accounts/{account}", "getAccount", "One account, and how many people it has", read,
            accounts.one, (ask.ACCOUNT, *ask.WAIT), returns=_json("Account", ACCOUNT), fails=(404,),
        ),
        Operation(
            "GET", "/v1/accounts/{account}/people", "listPeople", "Its people and what they have done, by pages", read,
            accounts.people, (ask.ACCOUNT, ask.AFTER, ask.MEMBERS_LIMIT, *ask.WAIT),
            returns=_json("People", PEOPLE), fails=(404,),
        ),
        Operation(
            "GET", "/v1/segments", "listSegments", "The segments in force, with their sizes", see,
            segments.all, parameters=ask.WAIT, returns=_json("Segments", SEGMENTS),
        ),
        Operation(
            "GET", "/v1/overlap", "getOverlap", "What segments have in common", see,
            segments.overlap, (ask.OF, *ask.WAIT), returns=_json("Overlap", OVERLAP), fails=missing,
        ),
        Operation(
            "GET", "/v1/segments/{segment}", "getSegment", "One segment: definition and size", see,
            segments.one, (ask.SEGMENT, *ask.WAIT), returns=_json("Segment", SEGMENT), fails=(404,),
        ),
        Operation(
            "GET", "/v1/segments/{segment}/members", "listMembers", "Its members, by pages", see,
            segments.members, (ask.SEGMENT, ask.AFTER, ask.MEMBERS_LIMIT, ask.FIELDS, *ask.WAIT),
            returns=_json("Members", MEMBERS), fails=missing,
        ),
        Operation(
            "GET", "/v1/segments/{segment}/stream", "streamSegment", "Who enters and leaves it, live", watch,
            live.segment, (ask.SEGMENT, ask.LAST_ID), returns=_STREAM, fails=(404, 410),
        ),
        Operation(
            "GET", f"{at}/provenance", "getProvenance", "Where its traits and links came from", "events:read",
            provenance.one, (ask.PROFILE, *ask.WAIT), returns=_json("Provenance", PROVENANCE), fails=(404,),
        ),
        Operation(
            "GET", f"{at}/why", "getWhy", "Why it is in a segment, or is not, by its recent events", "events:read",
            definitions.why, (ask.PROFILE, ask.WHICH, *ask.WAIT), returns=_json("Why", WHY), fails=(404, 422),
        ),
        Operation(
            "GET", "/v1/definitions", "listDefinitions", "The definitions in force", "definitions:read",
            definitions.all, returns=_json("Definitions", DEFINITIONS),
        ),
        Operation(
            "GET", "/v1/definitions/{kind}/{name}", "getHistory", "Every version of a definition, and who applied it",
            "definitions:read", definitions.one, (ask.KIND, ask.NAME), returns=_json("History", HISTORY), fails=(404,),
        ),
        Operation(
            "GET", "/v1/vocabulary", "getVocabulary", "What events, traits and consents there are, from a sample",
            "events:read", definitions.vocabulary, parameters=ask.WAIT, returns=_json("Vocabulary", VOCABULARY),
        ),
        Operation(
            "POST", "/v1/preview", "previewSegment", "A segment tried on a sample of the people", "events:read",
            definitions.preview, (), _YAML, _json("Preview", PREVIEW),
        ),
        Operation(
            "POST", "/v1/definitions/change", "changeDefinitions", "Remove, pause or resume definitions",
            "definitions:write", writes.change, (ask.DRY_RUN, ask.TAKE_OVER, ask.WAIT_IN_FORCE), _CHANGE,
            _json("Applied", APPLIED), fails=(409,),
        ),
        Operation(
            "POST", "/v1/definitions", "applyDefinitions", "Put definitions into force", "definitions:write",
            writes.definitions, (ask.DRY_RUN, ask.TAKE_OVER, ask.WAIT_IN_FORCE, ask.OVER), _YAML,
            _json("Applied", APPLIED), fails=(409, 412),
        ),
        Operation(
            "GET", "/v1/operations", "getOperations", "How the pipeline does", "operations:read",
            operating.overview, returns=_json("Overview", OVERVIEW),
        ),
        Operation(
            "GET", "/v1/dead-letters", "listDeadLetters", "The newest of what could not be used", "operations:read",
            operating.letters, (ask.REASON, ask.LETTERS_LIMIT), returns=_json("DeadLetters", DEAD_LETTERS),
        ),
        Operation(
            "GET", "/v1/dead-letters/{partition}/{offset}", "getDeadLetter", "One of them, with what the record held",
            "operations:read", operating.letter, (ask.PARTITION, ask.OFFSET),
            returns=_json("DeadLetter", DEAD_LETTER), fails=(404, 422),
        ),
        Operation(
            "POST", "/v1/dead-letters/replay", "replayDeadLetters", "Send dead letters again", "operations:write",
            operating.replay, (), _REPLAY, _json("Replayed", {"sent": {"raw": 1}}),
        ),
        Operation(
            "GET", "/v1/events", "listNewestEvents", "What came just now; where a message stands", "events:read",
            tracing.newest, (ask.MESSAGE_ID, ask.EVENTS_LIMIT), returns=_json("Newest", NEWEST),
        ),
        Operation(
            "GET", "/v1/events/{partition}/{offset}", "traceEvent", "One event, followed through every room",
            "events:read", tracing.one, (ask.EVENT_PARTITION, ask.OFFSET, ask.PATIENCE),
            returns=_json("Trace", TRACE), fails=(404, 422),
        ),
        Operation(
            "GET", "/v1/backfills", "getBackfills", "How far the history of new definitions was read",
            "operations:read", operating.backfills, returns=_json("Backfills", BACKFILLS), fails=(422,),
        ),
        Operation(
            "GET", "/v1/growth", "getGrowth", "How segments came to their size, by the hour", see,
            operating.growth, (ask.ONE_SEGMENT, ask.GROWTH_DAYS, ask.SEGMENTS_LIMIT, *ask.WAIT),
            returns=_json("Growth", GROWTH), fails=(404,),
        ),
        Operation(
            "POST", "/v1/unlink", "unlink", "Take back a link between identifiers", "identity:write",
            writes.unlink, (), _LINK, _json("Told", {"told": "identity"}), fails=(409,),
        ),
        Operation(
            "POST", "/v1/relink", "relink", "Undo an unlink", "identity:write",
            writes.relink, (), _LINK, _json("Told", {"told": "identity"}), fails=(409,),
        ),
        Operation(
            "POST", "/v1/privacy", "askPrivacy", "Erase, export, rectify or suppress a person", "privacy:write",
            privacy.request, (), _PRIVACY, _json("Requested", {"request_id": "20270115-4f1d0a9c3e"}),
            fails=(409,),
        ),
        Operation(
            "GET", "/v1/privacy/{request}", "getReceipt", "What became of such a request", "privacy:write",
            privacy.receipt, (ask.REQUEST,), returns=_json("PrivacyReceipt", RECEIPT), fails=(404,),
        ),
    )  # fmt: skip


def build_app(service: Service) -> ASGIApp:
    """The application of one process."""
    found = operations(service)
    document = msgspec.json.encode(openapi(found, SCHEMAS, VERSION))

    async def describe(_: Request) -> Response:
        return Response(document, 200, None, "application/json")

    async def live(_: Request) -> Response:
        failed = service.follower.failure is not None
        return Response(b"failed" if failed else b"ok", 503 if failed else 200, None, "text/plain")

    async def ready(_: Request) -> Response:
        is_ready = service.follower.is_ready and service.follower.failure is None
        return Response(b"ready" if is_ready else b"catching up", 200 if is_ready else 503, None, "text/plain")

    routes = [Route(one.path, _endpoint(service, one), methods=[one.method]) for one in found]
    routes += [Route("/openapi.json", describe), Route("/livez", live), Route("/readyz", ready)]
    for route in routes:
        if route.path.endswith("/stream"):
            assert route.methods is not None
            route.methods.discard("HEAD")  # a stream has no end, with and without its body
    app = Starlette(routes=routes, exception_handlers={404: _nothing_here, 405: _wrong_method})
    app.router.redirect_slashes = False  # it would repeat whatever the request says its host is
    return _RawPaths(app)


def _endpoint(service: Service, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        caller: Caller | None = None
        call: Call | None = None
        try:
            if not service.audit.takes_more:
                raise Problem(503, "What is asked cannot be noted at the moment.", retry_after="5")
            caller = _caller(service, request)
            _allow(caller, operation)
            if not service.follower.is_ready:
                raise Problem(503, "This process is still reading the topics.", retry_after="2")
            call = Call(caller, operation.values(request), request)
            if operation.method == "POST":
                operation.check_type(request)
                call.body = await _body(request)
            if operation.waits:
                await service.wait_as_asked(call.values)
            response = await operation.handler(call)
        except Problem as problem:
            response = problem.response()
        except Exception as error:  # noqa: BLE001 - it is said where, without what the request or a profile holds
            places = traceback.extract_tb(error.__traceback__)[-6:]
            where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(places))
            _log.error("%s failed: %s at %s", operation.name, type(error).__name__, where)
            response = Problem(500, "It was noted, and can be tried again.").response()
        subject = (call.subject if call is not None else "") or _subject(service, request.path_params)
        name = caller.name if caller is not None else ""
        found = call.profile_id if call is not None and response.status_code < 400 else ""
        service.note(name, operation.name, subject, response.status_code, found)
        return response

    return endpoint


def _subject(service: Service, parts: Mapping[str, str]) -> str:
    """Whom or what a request is about, for the audit, whether it was understood or not."""
    texts = {name: unquoted(part) for name, part in parts.items()}
    if (profile := texts.pop("profile", None)) is not None:
        return service.subject_of(profile)
    if (account := texts.pop("account", None)) is not None:
        return service.subject_of_account(account)
    return "/".join(service.name_of(text) for text in texts.values())


def _caller(service: Service, request: Request) -> Caller:
    """Who asks. Raises Problem 401."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    caller = service.access.caller(token.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise Problem(401, "Send a token: Authorization: Bearer hw_….", www_authenticate="Bearer", connection="close")
    return caller


def _allow(caller: Caller, operation: Operation) -> None:
    """Whether they may. Raises Problem 403, 429."""
    wait_s = caller.takes_one()
    if wait_s:
        raise Problem(
            429, f"This token may ask {caller.per_second:g} times a second.", retry_after=str(int(wait_s) + 1)
        )
    if operation.scope not in caller.scopes:
        raise Problem(403, f"This needs the scope {operation.scope}.")


async def _body(request: Request) -> bytes:
    """The body, bounded. Raises Problem 413."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_BODY:
                raise Problem(413, f"A body has {MAX_BODY} bytes at most.", connection="close")
            parts.append(part)
    except ClientDisconnect:
        raise Problem(400, "The body did not come whole.", connection="close") from None
    return b"".join(parts)


def _nothing_here(_: Request, __: Exception) -> Response:
    return Problem(404, "There is nothing at this path; /openapi.json lists what there is.").response()


def _wrong_method(request: Request, _: Exception) -> Response:
    here = [one for one in request.app.routes if one.matches(request.scope)[0] is not Match.NONE]
    allowed = {method for one in here if isinstance(one, Route) for method in one.methods or ()}
    return Problem(405, "/openapi.json lists what works here.", allow=", ".join(sorted(allowed))).response()


class _RawPaths:
    """Routes by the path as it was sent: a slash within an identifier is written %2F and stays within it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            if len(raw) + len(scope["query_string"]) > _MAX_TARGET:
                long = Problem(414, f"A path with its query has {_MAX_TARGET} bytes at most.")
                await long.response()(scope, receive, send)
                return
            scope["path"] = raw.decode("latin-1")
        await self._app(scope, receive, send)
