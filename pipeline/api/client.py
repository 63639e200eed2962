"""A client of the API, with the names of its operations. It never reads backwards, and streams go on after a cut."""

import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from pipeline.records import ProfileChange, ProfileDocument, SegmentChange, SegmentMember

_LONGEST_PAUSE_S = 5.0
# A Kafka takes its time for a transaction, and who publishes may wait until it is in force.
_WRITTEN_WITHIN_S = 30.0

_decode_profile = msgspec.json.Decoder(ProfileDocument).decode
_decode_segment_change = msgspec.json.Decoder(SegmentChange).decode
_decode_profile_change = msgspec.json.Decoder(ProfileChange).decode


class ApiError(Exception):
    """The API said no: `status`, and what it said, `detail`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class ApiClient:
    """One caller. Keeps the position of the newest answer and asks for nothing older."""

    def __init__(
        self, url: str, token: str, timeout_s: float = 5.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s, transport=transport
        )
        self._writing = httpx.Timeout(timeout_s, read=max(timeout_s, _WRITTEN_WITHIN_S))
        self._position = ""

    def get_profile(
        self, profile: str, fields: Sequence[str] = (), wait_for: str | None = None, timeout_ms: int | None = None
    ) -> ProfileDocument | dict[str, Any] | None:
        """The profile of an identifier or profile_id; None if nobody is known by it. With `fields`, a mapping of those.
        `wait_for` names a record, TOPIC:PARTITION:OFFSET, whose effect is to be seen first. Raises ApiError."""
        wanted = {"fields": ",".join(fields) or None, "wait_for": wait_for, "timeout_ms": timeout_ms}
        answer = self._get(f"/v1/profiles/{_part(profile)}", wanted, may_be_missing=True)
        if answer is None:
            return None
        return _object_in(answer) if fields else _decode_profile(answer)

    def get_profile_segments(self, profile: str) -> list[dict[str, Any]]:
        """Its memberships, each with `since` and `why`. Raises ApiError."""
        return self._list(f"/v1/profiles/{_part(profile)}/segments", "segments", {})

    def get_profile_events(self, profile: str, limit: int = 20) -> list[dict[str, Any]]:
        """Its most recent events, newest first. Raises ApiError."""
        return self._list(f"/v1/profiles/{_part(profile)}/events", "events", {"limit": limit})

    def get_support_view(self, profile: str) -> dict[str, Any]:
        """Who is in front of an agent. Raises ApiError."""
        return self._object(f"/v1/profiles/{_part(profile)}/support", {})

    def get_account(self, account: str) -> dict[str, Any] | None:
        """An account and how many people it has; None if there is none of the name. Raises ApiError."""
        found = self._get(f"/v1/accounts/{_part(account)}", {}, may_be_missing=True)
        return None if found is None else _object_in(found)

    def list_people(self, account: str) -> Iterator[dict[str, Any]]:
        """All people of an account with what they have done, page by page. Raises ApiError."""
        after: str | None = ""
        while after is not None:
            page = self._object(f"/v1/accounts/{_part(account)}/people", {"after": after, "limit": 1_000})
            yield from page["people"]
            after = page["next"]

    def list_accounts(self, begins: str = "", after: str = "", limit: int = 100) -> dict[str, Any]:
        """One page of the accounts by name, with `next`. Raises ApiError."""
        return self._object("/v1/accounts", {"begins": begins, "after": after, "limit": limit})

    def get_people(self, account: str, after: str = "", limit: int = 100) -> dict[str, Any]:
        """One page of the people of an account, with `next`. Raises ApiError."""
        return self._object(f"/v1/accounts/{_part(account)}/people", {"after": after, "limit": limit})

    def rank_accounts(
        self, segment: str = "", without: str = "", trait: str = "", among: str = "", days: int = 30, limit: int = 25
    ) -> dict[str, Any]:
        """The accounts whose people did most, of those in `segment` and not in `without`, whose `trait` has one of the
        values `among` (commas between; `-`: none). Raises ApiError."""
        asked = {"segment": segment, "without": without, "trait": trait, "among": among if trait else ""}
        return self._object(
            "/v1/ranking", {name: text or None for name, text in asked.items()} | {"days": days, "limit": limit}
        )

    def get_activity(self, account: str, days: int = 30) -> dict[str, Any]:
        """What the people of an account did, by the day. Raises ApiError."""
        return self._object(f"/v1/accounts/{_part(account)}/activity", {"days": days})

    def list_alerts(self, account: str = "", limit: int = 50) -> list[dict[str, Any]]:
        """The newest alerts of an account, or of all. Raises ApiError."""
        path = f"/v1/accounts/{_part(account)}/alerts" if account else "/v1/alerts"
        return self._list(path, "alerts", {"limit": limit})

    def list_segments(self) -> list[dict[str, Any]]:
        """The segments in force, with their sizes. Raises ApiError."""
        return self._list("/v1/segments", "segments", {})

    def get_members(self, segment: str, after: str = "", limit: int = 50, fields: Sequence[str] = ()) -> dict[str, Any]:
        """One page of the members, with `size` and `next`; each with `fields` of its `document`. Raises ApiError."""
        asked = {"after": after, "limit": limit, "fields": ",".join(fields) or None}
        return self._object(f"/v1/segments/{_part(segment)}/members", asked)

    def get_segment(self, segment: str) -> dict[str, Any] | None:
        """The definition and size of a segment in force; None if there is none. Raises ApiError."""
        found = self._get(f"/v1/segments/{_part(segment)}", {}, may_be_missing=True)
        return None if found is None else _object_in(found)

    def list_members(self, segment: str) -> Iterator[SegmentMember]:
        """All members, page by page. Raises ApiError."""
        after: str | None = ""
        while after is not None:
            page = self._object(f"/v1/segments/{_part(segment)}/members", {"after": after, "limit": 1_000})
            yield from msgspec.convert(page["members"], list[SegmentMember])
            after = page["next"]

    def get_overlap(self, segments: Sequence[str]) -> dict[str, Any]:
        """What segments have in common. Raises ApiError."""
        return self._object("/v1/overlap", {"of": ",".join(segments)})

    def stream_segment(self, segment: str, last_id: str = "") -> Iterator[tuple[str, SegmentChange]]:
        """Who enters and leaves, for ever: (id, change). Goes on behind the last id you saw. Raises ApiError."""
        for event_id, data, _ in self._stream(f"/v1/segments/{_part(segment)}/stream", last_id):
            yield event_id, _decode_segment_change(data)

    def stream_profile(self, profile: str, last_id: str = "") -> Iterator[tuple[str, SegmentChange | ProfileChange]]:
        """The changes of one profile, for ever. Raises ApiError."""
        for event_id, data, kind in self._stream(f"/v1/profiles/{_part(profile)}/stream", last_id):
            decode = _decode_segment_change if kind == "segment_change" else _decode_profile_change
            yield event_id, decode(data)

    def apply_definitions(
        self, text: str, dry_run: bool = False, take_over: bool = False, wait_ms: int = 0, over: int | None = None
    ) -> dict[str, Any]:
        """Put definitions into force; `wait_ms`: wait so long for `in_force` to become true; `over`: only if that
        version of what is sent is in force (0: none). Raises ApiError, 412 if it is not."""
        flags = {"dry_run": str(dry_run).lower(), "take_over": str(take_over).lower(), "wait_ms": str(wait_ms)}
        flags |= {"over": str(over)} if over is not None else {}
        return self._post("/v1/definitions", text.encode(), flags)

    def change_definitions(
        self,
        remove: Sequence[str] = (),
        pause: Sequence[str] = (),
        resume: Sequence[str] = (),
        dry_run: bool = False,
        take_over: bool = False,
    ) -> dict[str, Any]:
        """Remove, pause or resume definitions, each as kind/name. Raises ApiError."""
        flags = {"dry_run": str(dry_run).lower(), "take_over": str(take_over).lower()}
        asked = {"remove": list(remove), "pause": list(pause), "resume": list(resume)}
        return self._post("/v1/definitions/change", msgspec.json.encode(asked), flags)

    def list_definitions(self) -> list[dict[str, Any]]:
        """The definitions in force, without their bodies. Raises ApiError."""
        return self._list("/v1/definitions", "definitions", {})

    def get_history(self, kind: str, name: str) -> dict[str, Any] | None:
        """Every version of a definition, the newest first; None if there never was one. Raises ApiError."""
        path = f"/v1/definitions/{_part(kind)}/{_part(name)}"
        found = self._get(path, {}, may_be_missing=True)
        return None if found is None else _object_in(found)

    def preview_segment(self, text: str) -> dict[str, Any]:
        """A segment, as YAML or JSON, tried on a sample of the people. Raises ApiError."""
        return self._post("/v1/preview", text.encode(), {}, writes=False)

    def get_why(self, profile: str, segment: str) -> dict[str, Any]:
        """Why somebody is in a segment, or is not, by what the API knows of them. Raises ApiError."""
        return self._object(f"/v1/profiles/{_part(profile)}/why", {"segment": segment})

    def get_provenance(self, profile: str) -> dict[str, Any]:
        """Where somebody's traits and links came from, what is not followed, what was taken back. Raises ApiError."""
        return self._object(f"/v1/profiles/{_part(profile)}/provenance", {})

    def get_vocabulary(self) -> dict[str, Any]:
        """What events, traits and consents there are, with some of their values. Raises ApiError."""
        return self._object("/v1/vocabulary", {})

    def get_operations(self) -> dict[str, Any]:
        """How the pipeline does. Raises ApiError."""
        return self._object("/v1/operations", {})

    def list_dead_letters(self, reason: str = "", limit: int = 100) -> dict[str, Any]:
        """The newest dead letters, without content; `reasons` counts them. Raises ApiError."""
        return self._object("/v1/dead-letters", {"reason": reason or None, "limit": limit})

    def get_dead_letter(self, letter_id: str) -> dict[str, Any]:
        """One dead letter, PARTITION/OFFSET, with what the record held if one may see it. Raises ApiError."""
        return self._object(f"/v1/dead-letters/{'/'.join(map(_part, letter_id.split('/')))}", {})

    def replay_dead_letters(self, ids: Sequence[str], value: str | None = None) -> dict[str, int]:
        """Send dead letters again; `value` mends one. Gives how many went to which topic. Raises ApiError."""
        asked = {"ids": list(ids)} | ({"value": value} if value is not None else {})
        found: dict[str, int] = self._post("/v1/dead-letters/replay", msgspec.json.encode(asked), {})["sent"]
        return found

    def list_newest_events(self, message_id: str = "", limit: int = 30) -> dict[str, Any]:
        """What came just now; with `message_id`, where that message stands (`found`). Raises ApiError."""
        return self._object("/v1/events", {"message_id": message_id or None, "limit": limit})

    def trace_event(self, partition: int, offset: int, patience_ms: int | None = None) -> dict[str, Any] | None:
        """One event followed through every room; None if there is none at this place. `patience_ms`: so long the topics
        are read for what changed by it. Raises ApiError."""
        found = self._get(f"/v1/events/{partition}/{offset}", {"patience_ms": patience_ms}, may_be_missing=True)
        return None if found is None else _object_in(found)

    def get_backfills(self) -> dict[str, Any]:
        """How far the history of new definitions was read. Raises ApiError."""
        return self._object("/v1/backfills", {})

    def get_growth(self, segment: str = "", days: int = 7, limit: int = 20) -> dict[str, Any]:
        """Entries and exits by the hour of the largest segments, or of one. Raises ApiError."""
        return self._object("/v1/growth", {"segment": segment or None, "days": days, "limit": limit})

    def unlink(self, a: str, b: str = "", forever: bool = False) -> None:
        """Take back a link between identifiers. Raises ApiError."""
        self._post("/v1/unlink", msgspec.json.encode({"a": a, "b": b, "forever": forever}), {})

    def relink(self, a: str, b: str = "") -> None:
        """Undo an unlink. Raises ApiError."""
        self._post("/v1/relink", msgspec.json.encode({"a": a, "b": b}), {})

    def ask_privacy(
        self, request: str, identifier: str, traits: dict[str, Any] | None = None, lift: bool = False
    ) -> str:
        """Ask to erase, export, rectify or suppress a person; the id of the request. Raises ApiError."""
        asked = {"request": request, "identifier": identifier, "traits": traits or {}, "lift": lift}
        found: str = self._post("/v1/privacy", msgspec.json.encode(asked), {})["request_id"]
        return found

    def get_receipt(self, request_id: str) -> dict[str, Any] | None:
        """What became of a request; None if nothing is known yet. Raises ApiError."""
        try:
            return self._object(f"/v1/privacy/{_part(request_id)}", {})
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- inside

    def _get(self, path: str, query: dict[str, Any], may_be_missing: bool = False) -> bytes | None:
        headers = {"Headwater-Position": self._position} if self._position else {}
        answer = self._ask("GET", path, params={k: v for k, v in query.items() if v is not None}, headers=headers)
        if answer.status_code == 404 and may_be_missing:
            return None
        _check(answer)
        self._position = answer.headers.get("headwater-position", self._position)
        return answer.content

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **what)
        except httpx.InvalidURL:  # nobody has a name of so many letters
            raise ApiError(414, "The address is too long.") from None

    def _object(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        return _object_in(self._get(path, query) or b"{}")

    def _list(self, path: str, name: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._object(path, query)[name]
        return found

    def _post(self, path: str, body: bytes, query: dict[str, str], writes: bool = True) -> dict[str, Any]:
        timeout = self._writing if writes else httpx.USE_CLIENT_DEFAULT
        answer = self._ask("POST", path, content=body, params=query, timeout=timeout)
        _check(answer)
        return _object_in(answer.content)

    def _stream(self, path: str, last_id: str) -> Iterator[tuple[str, bytes, str]]:
        pause_s = 0.1
        while True:
            try:
                headers = {"Last-Event-ID": last_id} if last_id else {}
                with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(5.0, read=60.0)) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        _check(answer)
                    for last_id, kind, data in _events(answer.iter_lines()):
                        pause_s = 0.1
                        if kind:
                            yield last_id, data.encode(), kind
            except httpx.TransportError:
                pass  # cut: it comes back, with the last id
            except ApiError as error:
                if error.status not in (429, 503):
                    raise
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """Server-sent events: (id, event, data)."""
    last_id, kind = "", ""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data or last_id:
                yield last_id, kind if data else "", "\n".join(data)
            kind, data = "", []
        elif name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)


def _part(text: str) -> str:
    """A text as one part of a path. Dots alone would lead elsewhere."""
    return quote(text, safe=":") if text.strip(".") else text.replace(".", "%2E")


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ApiError(502, "What answers at this address is no API of Headwater.") from None


def _check(answer: httpx.Response) -> None:
    if answer.status_code >= 400:
        try:
            detail = str(msgspec.json.decode(answer.content)["detail"])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            detail = answer.text[:200]
        raise ApiError(answer.status_code, detail)
