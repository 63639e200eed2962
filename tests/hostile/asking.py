"""Requests that nobody in their right mind sends, from a seed, and an ASGI server that only hands them over.

What a request is made of: a good one for its route, hurt in none to some places. The application is asked as a server
would ask it, from the bytes of the request line on, but without sockets.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

METHODS = ("GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "FOO", "get", "")
TEXTS: tuple[str, ...] = (
    "", " ", ".", "..", "...", "../..", "/", "//", "a/b", "\\", "%", "%2F", "%00", "?", "#", "&", ";", "=", "+", "~",
    "null", "true", "-1", "0", "1", "2", "00", "1e9", "1.5", "0x1f", "9" * 18, "9" * 25, "9" * 4_500, "-" + "9" * 30,
    "²", "²³¹", "١٢", "１２", "½", "Ⅻ", "1_000", " 1", "1\n", "+1", "NaN", "Infinity", "-Infinity", "1e999", "inf",
    "0000-01-01", "0000-00-00T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999Z", "10000-01-01",
    "2026-99-99", "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "now", "now-1d", "now+9999999999y", "1d", "-1d",
    "99999999999999999999d", "1d1d1d", "0ms", "a" * 99, "a" * 101, "a" * 501, "a" * 601, "a" * 2_001, "é" * 300,
    "漢字", "🙂", "e\u0301", "\u202eabc", "\ufeff", "\ufffd", "\u2028", "\x00", "\x01", "\x7f", "\x85", "\t", "\r\n",
    "a\r\nset-cookie: x=1", "<script>alert(1)</script>", "\"'><b>", "{{7*7}}", "{% raise %}", "${7*7}", "%s%n", "{0}",
    "'; drop table x; --", ":", "::", "a:", ":a", "email:", "email:a", "email:@", "email:a@b.c", "user_id:42",
    "user_id:1001", "user_id:" + "x" * 700, "phone:+", "phone:²", "phone:+479000000²", "account:", "account:a/b",
    "account:acme.example", "nobody:1", "user_id:\x00", "11111111-1111-5111-8111-111111111111", "----", "a-b-c-d-e",
    "json:", "json:1", 'json:"\\ud800"', "json:" + "[" * 50_000, "json:[1", "json:null", '["', "[" * 50_000,
    "{" * 3_000, '["a"]', "- a", "&a [*a]", "*a", "!!python/none", "!!timestamp x", "!!bool x", "<<", "? [a]", "---",
    "%YAML 1.1\n---\n", "segment: a\nwhen: {all: []}\n", "\ud800", "all", "*", "~segments", "__class__", "constructor",
    "(" * 3_000, "(a*)*b", "a{1000}{1000}", "[[:alpha:]]", "\\p{L}", "(?P<a>a)", "raw:0:1", "raw:²:1", "raw:0:-1",
    "raw:0:" + "9" * 30, "events:0:1", "nothing:0:1", "raw:0", "s0-1.p0-1", "s0-²", "s²-1", "p0-" + "9" * 30, "s0",
    "W/", '"*"', 'W/"x"', "profiles/0=1", "profiles:0:1", "traits", "traits.", "traits.plan,segments", ",", ",,,",
    "a,b,c", "traits.plan,traits", "lookers", "newcomers", "segment/a", "segment/", "/a", "destination/hook",
    "0/1", "0/²", "1/", "erase", "lift", "only",
)  # fmt: skip
"""What stands where something else was meant: for each of them, somebody's program has failed."""

_BYTES = (
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"%ff",
    b"%c3%28",
    b"%ed%a0%80",
    b"%",
    b"%zz",
    b"%u2603",
)
_TYPES = (
    "application/x-www-form-urlencoded", "application/json", "application/yaml", "text/plain", "multipart/form-data",
    "multipart/form-data; boundary=", "application/json; charset=utf-16", "application/json;;;=", "", "/",
    "é/é", "x" * 9_000,
)  # fmt: skip
_HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("host", ("", "[", "]", "[::1", "a b", "a:99999999", "a:²", "evil.example/x", "\xff", "a" * 5_000, "ui", "u@ui")),
    ("sec-fetch-site", ("cross-site", "none", "same-origin", "same-site", "", "é", "same-origin, cross-site")),
    ("x-part", ("members", "tree", "meaning", "x", "", "é" * 100, "../../x")),
    ("x-forwarded-for", ("x", "1.2.3.4, ", "'")),
    ("x-forwarded-proto", ("gopher", "")),
    ("cookie", ("", ";", "=", "headwater_session", "headwater_session=", "headwater_session=\xff\xfe",
                "a=" + "b" * 9_000, '$Version=1; headwater_session="\\"', "headwater_session=a; headwater_session=b",
                "é=é; \x01=2")),
    ("authorization", ("", "Bearer", "Bearer ", "bearer x", "Basic Og==", "Bearer \xff\xfe", "é",
                       "Bearer " + "x" * 9_000)),
    ("content-length", ("0", "-1", "²", "9" * 30, "x", "5")),
    ("transfer-encoding", ("chunked", "gzip", "chunked, chunked")),
    ("content-encoding", ("gzip", "br", "x")),
    ("expect", ("100-continue", "x")),
    ("range", ("bytes=0-1", "bytes=-1", "bytes=9-1", "bytes=" + "0-1," * 500 + "2-3", "bytes=²-", "x",
               "bytes=99999999999999999999-")),
    ("if-range", ("x", '"x"')),
    ("if-modified-since", ("x", "Thu, 99 Foo 0000 99:99:99 GMT", "Sat, 01 Jan 10000 00:00:00 GMT", "²")),
    ("if-none-match", ("*", '"', 'W/"x"', ",,,", '"x",' * 300)),
    ("headwater-position", (*TEXTS[:60], "profiles/0=1", "profiles:0:9999999", "x.0.²")),
    ("last-event-id", ("", "s0-1.s1-1", "s0-1.s1-1.p0-1.p1-1", "p0-1.s0-1", "s0-²", "é", "x", "s0-" + "9" * 17)),
    ("accept", ("", "text/event-stream", "*/*;q=²")),
    ("accept-encoding", ("gzip", "é", "*;q=x")),
    ("accept-language", ("é",)),
    ("connection", ("upgrade", "close, x")),
    ("upgrade", ("websocket", "h2c")),
)  # fmt: skip


@dataclass(slots=True)
class Asked:
    """One request as a server has it: `target` is the bytes of the request line."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    chunks: int = 1
    cut: bool = False

    def __str__(self) -> str:
        """For who must do it again."""
        return f"{self.method} {self.target[:300]!r} {[(k, v[:80]) for k, v in self.headers]} {self.body[:2_000]!r}"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """A header; empty if it is not there."""
        return next((value for known, value in self.headers if known == name), "")


async def hand_over(app: Any, asked: Asked, within_s: float = 30.0) -> Answer:
    """Ask an ASGI application. Whatever it raises comes out; who listens to a stream goes away after its beginning."""
    path, _, query = asked.target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": asked.headers,
        "client": ("203.0.113.77", 4711),
        "server": ("127.0.0.1", 80),
    }
    size = max(1, -(-len(asked.body) // asked.chunks))
    parts = [asked.body[at : at + size] for at in range(0, len(asked.body), size)] or [b""]
    told: list[Any] = []
    leaves = asyncio.Event()

    async def receive() -> Any:
        if parts:
            part = parts.pop(0)
            if asked.cut and not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        told.append(message)
        if (b"content-type", b"text/event-stream") in [
            (k, v.partition(b";")[0]) for k, v in message.get("headers", ())
        ]:
            leaves.set()

    async with asyncio.timeout(within_s):
        await app(scope, receive, send)
    headers = [(name.decode().lower(), value.decode("latin-1")) for name, value in told[0]["headers"]]
    return Answer(told[0]["status"], headers, b"".join(each.get("body", b"") for each in told[1:]))


class Hostile:
    """Makes requests; the same ones of the same seed."""

    def __init__(self, seed: int, good: dict[str, Sequence[str]]) -> None:
        """`good`: for the names of parts of paths, of queries and of fields, what would be right there."""
        self.rng = random.Random(seed)
        self._good = good
        # One thing alone must be wrong in some requests: of two the second is never looked at.
        self._wrong = self.rng.choice((0.0, 0.05, 0.2, 0.5))

    def text(self, name: str = "") -> str:
        """A value: one that would be right, or any other."""
        known = self._good.get(name)
        if known and self.rng.random() > self._wrong:
            return self.rng.choice(known)
        found = self.rng.choice(TEXTS)
        return found if self.rng.random() < 0.9 else found + self.rng.choice(TEXTS)[:3_000]

    def target(self, path: str, names: Sequence[str], needed: Sequence[str] = ()) -> bytes:
        """A path with its parts filled in, and a query of some of these names and others; mostly of those `needed`."""
        rng = self.rng
        found = b""
        for piece, name in _pieces(path):
            found += piece.encode()
            if name:
                found += self._written(self.text(name), in_path=True)
        if rng.random() < self._wrong / 8:
            found = (
                rng.choice((b"/", b"//", b"/.", b"/%2e%2e", b""))
                + found
                + rng.choice((b"/", b"//", b"/..", b"%00", b""))
            )
        chosen = list(needed) if rng.random() > self._wrong / 4 else []
        if names and rng.random() < 0.6:
            every = (*names, "x", "é") if rng.random() < self._wrong else names
            chosen += [
                rng.choice(every) for _ in range(rng.choice((1, 1, 2, 3) if rng.random() > self._wrong else (2, 40)))
            ]
        if rng.random() > self._wrong:
            chosen = sorted(set(chosen))
        if chosen:
            equals = (b"=", b"") if rng.random() < self._wrong else (b"=",)
            pairs = [self._written(name) + rng.choice(equals) + self._written(self.text(name)) for name in chosen]
            between = b"&" if rng.random() > self._wrong else rng.choice((b";", b"&&"))
            found += b"?" + between.join(pairs)
        return found[:9_000]

    def _written(self, text: str, in_path: bool = False) -> bytes:
        """A text in a request line, in one of the ways in which it can be written, among them wrong ones."""
        rng = self.rng
        draw = rng.random() / max(self._wrong, 0.01)
        if draw < 0.06:
            return rng.choice(_BYTES)
        if draw < 0.12:
            return "".join(
                f"%{one:02{rng.choice('xX')}}" for one in text[:300].encode("utf-8", "surrogatepass")
            ).encode()
        if draw < 0.16:  # as they are: a server may let them through
            return text[:300].encode("utf-8", "surrogatepass").replace(b"?", b"").replace(b"\r\n", b"")
        return quote(text.encode("utf-8", "surrogatepass"), safe=":/" if in_path and draw < 0.4 else ":").encode()

    def headers(self, first: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
        """These headers, some of them left out, doubled, or beside others that are odd."""
        rng, wrong = self.rng, self._wrong
        found = [("host", "ui"), *first]
        if rng.random() < wrong:
            for name, values in rng.sample(_HEADERS, rng.choice((1, 1, 2, 4))):
                if rng.random() < 0.5:
                    found = [one for one in found if one[0] != name]
                found.append((name, rng.choice(values)))
        if rng.random() < wrong / 4 and found:
            found.append(rng.choice(found))
        if rng.random() < wrong / 8:
            found = []
        return [(name.encode(), value.encode("latin-1", "replace")) for name, value in found]

    def content_type(self, right: str) -> list[tuple[str, str]]:
        """The content type of a body, or another, or none."""
        draw = self.rng.random()
        if draw < 1 - self._wrong / 4:
            return [("content-type", right)]
        return [] if draw < 0.95 else [("content-type", self.rng.choice(_TYPES))]

    def form(self, fields: Sequence[tuple[str, str]]) -> bytes:
        """A form: some fields left out, some given twice, some with other values, and some that nobody asked for."""
        rng, wrong = self.rng, self._wrong / 2
        pairs: list[bytes] = []
        for name, value in fields:
            draw = rng.random()
            if draw < wrong / 3:
                continue
            said = value if rng.random() > wrong else self.text(name)
            pairs.append(self._field(name) + b"=" + self._field(said))
            if draw > 1 - wrong / 4:
                pairs.append(self._field(name) + b"=" + self._field(self.text(name)))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            pairs.append(self._field(self.text()) + rng.choice((b"=", b"")) + self._field(self.text()))
        return self._hurt(b"&".join(pairs))

    def _field(self, text: str) -> bytes:
        if self.rng.random() < 0.01:
            return self.rng.choice(_BYTES)
        return quote(text.encode("utf-8", "surrogatepass"), safe="").encode()

    def document(self, good: Any) -> bytes:
        """A body of JSON: what is right there, with some of its values replaced, and perhaps hurt in its bytes."""
        return self._hurt(self._json(self._replaced(good)).encode("utf-8", "surrogatepass"))

    def _replaced(self, value: Any) -> Any:
        rng = self.rng
        if rng.random() < self._wrong / 4:
            return rng.choice(
                (
                    None,
                    True,
                    0,
                    -1,
                    1 << 70,
                    1e300,
                    float("nan"),
                    float("inf"),
                    [],
                    {},
                    [[]],
                    {"": {}},
                    _Deep(),
                    self.text(),
                )
            )
        if isinstance(value, dict):
            found = {
                name if rng.random() > self._wrong / 8 else self.text(): self._replaced(one)
                for name, one in value.items()
            }
            return found | ({self.text(): self.text()} if rng.random() < self._wrong / 4 else {})
        if isinstance(value, list):
            return [self._replaced(one) for one in value] * rng.choice((1, 1, 1, 1, 2, 200))
        return self.text() if isinstance(value, str) and rng.random() < self._wrong / 2 else value

    def _json(self, value: Any) -> str:
        if isinstance(value, _Deep):
            return self.rng.choice(("[", '{"a":')) * self.rng.choice((50, 1_000, 60_000))
        if isinstance(value, dict):
            members = [f"{self._json(str(name))}:{self._json(one)}" for name, one in value.items()]
            if members and self.rng.random() < 0.05:
                members.append(members[0])
            return "{" + ",".join(members) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self._json, value)) + "]"
        if isinstance(value, str):
            escaped = "".join(
                f"\\u{ord(one):04x}" if one < " " or one in '"\\' or "\ud800" <= one <= "\udfff" else one
                for one in value
            )
            return f'"{escaped}"'
        return (
            {True: "true", False: "false", None: "null"}.get(value, str(value))
            if isinstance(value, bool | None)
            else _number(value)
        )

    def _hurt(self, body: bytes) -> bytes:
        """Now and then something of the bytes is lost, doubled, or turned into others."""
        rng = self.rng
        if rng.random() > self._wrong / 4:
            return body
        at = rng.randrange(len(body) + 1)
        return rng.choice((
            body[:at], body[at:], body[:at] + rng.choice(_BYTES) + body[at:], body * 2, b"\xef\xbb\xbf" + body,
            body[:at] + b"\x00" + body[at:], body.replace(b"&", b";"), b"", b"\xff" * 50, b"&" * 25_000,
            b"a" * 2_100_000, body[:at] + b"[" * 50_000 + body[at:],
        ))  # fmt: skip


class _Deep:
    """Stands for something that is nested without end."""


def _number(value: float) -> str:
    return {"nan": "NaN", "inf": "Infinity"}.get(str(value), str(value))


def _pieces(path: str) -> Iterator[tuple[str, str]]:
    """What stands fast in the path of a route, and the name of the part behind it."""
    rest = path
    while rest:
        fast, _, rest = rest.partition("{")
        name, _, rest = rest.partition("}")
        yield fast, name.partition(":")[0]
