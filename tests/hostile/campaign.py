"""Every route of the pages and of the API, asked by everybody, with requests made from a seed: `make fuzz-doors`.

What must hold of each answer: it comes, and soon; its status says whose fault it is, and never that it failed here; it
is no larger than what was asked for; one that says no has the documented form; it holds no secret, no place in the
code and no path of the machine. And afterwards a plain question is answered as before.
"""

import asyncio
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from starlette.routing import Route

from pipeline.api.app import operations
from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.errors import LookupFailed
from pipeline.letters import Letter, place_of
from pipeline.ui.drafts import Drafts
from pipeline.ui.forms import fields_of
from pipeline.ui.tree import read_segment
from pipeline.ui.users import ROLES
from tests.hostile.asking import METHODS, TEXTS, Answer, Asked, Hostile, hand_over
from tests.rooms.ui.grammar import full_definitions
from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import RECEIPT, whole_town

MOST_BYTES = 3_000_000
MOST_REFUSAL_BYTES = 150_000
SLOW_S = 10.0
_TOKENS = ("all", "web", "slow", "shy", *(f"token-of-{role}" for role in ROLES), "token-of-nobody", None)
_INSIDE = re.compile(rb"Traceback|File \"|site-packages|/pipeline/|token-of-|correct horse|<[a-z_.]+ object at 0x")
_PAGE_QUERIES = ("q", "after", "why", "version", "a", "b", "said", "longer", "reason", "entity", "onward", "segment",
                 "without", "trait", "among")  # fmt: skip


_FIELDS = {
    "/destinations": {"kind": "webhook", "name": "hook2", "url": "https://a.example/x", "secret": "A", "which": "all"},
    "/people/{profile}/privacy": {"request": "rectify", "identifier": "user_id:1", "trait": "plan", "value": "pro"},
    "/operations/dead-letters/replay": {"id": "0/0", "mended": "1", "value": "{}"},
    "/sign-in": {"name": "nobody", "password": "wrong", "onward": "/segments"},
}


_BODIES = {
    "changeDefinitions": {"pause": ["segment/lookers"], "resume": [], "remove": []},
    "replayDeadLetters": {"ids": ["0/0", "1/1"]},
}


class Findings(Exception):
    """What did not hold."""


class Doors:
    """The pages and the API of a whole town, and somebody of each role."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.drafts = Drafts(folder / "drafts")
        self.house = House(folder)
        self.world = self.house.world
        town = whole_town(self.house, patched, people=30, firms=3)
        self._without_kafka(patched)
        operator = Visitor(self.house, "operator")
        self.definitions = _written()
        self.bodies = [one.body for text in self.definitions for one in load_text(text)]
        self.begin_anew()
        self.visitors: list[Visitor | None] = [
            None,
            Visitor(self.house, "viewer"),
            Visitor(self.house, "editor"),
            operator,
        ]
        trace = town.trace.split("/")[-2:]
        self.good = {
            "key": [self.drafts.all("operator")[0].key], "file": ["live.js", "look.css"],
            "profile": ["user_id:1001", town.person, "email:bob@example.org", "account:acme.example"],
            "segment": ["lookers"], "name": ["lookers", "hook"], "kind": ["segment", "destination", "webhook", "file"],
            "account": ["acme.example"], "partition": [trace[0], "0"], "offset": [trace[1], "1"],
            "request": [RECEIPT, "export", "rectify"], "id": [RECEIPT, "0/0", "1/1"], "q": ["user_id:1001", "ada"],
            "of": ["lookers,newcomers"], "fields": ["traits.plan,segments"], "limit": ["1", "20"], "days": ["7"],
            "timeout_ms": ["1"], "wait_for": ["profiles:0:1"], "patience_ms": ["1"], "wait_ms": ["0"], "after": [""],
            "dry_run": ["true"], "why": ["lookers"], "trait": ["plan"], "among": ["free,-"], "begins": ["a"],
            "a": ["user_id:1001", "1"], "b": ["email:bob@example.org", "1"], "text": self.definitions,
            "do": ["add:n:any", "add:n.0:trait", "type:n.0", "remove:n.0", "wrap:n.0:not", "unwrap:n.0", "up:n.0", ""],
            "line:n.0": ["Page Viewed at least 3 times in the last 7 days"], "identifier": ["user_id:1001"],
        }  # fmt: skip
        self._operations = {one.path: one for one in operations(self.world.service)}

    def begin_anew(self) -> None:
        """What requests have removed is there again."""
        everything = "---\n".join((_LOOKERS, _LOOKERS.replace("lookers", "newcomers"), _HOOK))
        with self.house.open_client("token-of-operator") as client:
            client.apply_definitions(everything, take_over=True)
            client.change_definitions(resume=["segment/lookers", "destination/hook"], take_over=True)
        self.drafts.save("operator", read_segment(load_text(_LOOKERS)[0].body))

    def _without_kafka(self, patched: pytest.MonkeyPatch) -> None:
        service = self.world.service
        self.world.hub.tell([], self.world.follower.positions)
        letters = {each.id: each for each in service.pulse.letters()}

        def named(_: Any, ids: Sequence[str]) -> list[Letter]:
            for each in ids:
                if "{}/{}".format(*place_of(each)) not in letters:
                    raise LookupFailed(f"There is no dead letter {each}.", "dead-letters", "see the list")
            return [letters[each]._replace(letter=replace(letters[each].letter, value=b'{"a":1}')) for each in ids]

        patched.setattr("pipeline.api.operating.named", named)
        wait = service.wait
        service.wait = lambda true, _: wait(true, 0.001)  # type: ignore[method-assign]

    # ------------------------------------------------------------------------------------------------------ requests

    def routes_of_pages(self) -> list[tuple[str, str]]:
        """(method, path) of every page, as the application has them."""
        routes = self.house.desk.app.routes
        found = [(method, one.path) for one in routes if isinstance(one, Route) for method in sorted(one.methods or ())]
        return [one for one in found if one[0] != "HEAD"] + [("GET", "/static/{file}")]

    def routes_of_api(self) -> list[tuple[str, str]]:
        """(method, path) of everything that can be asked of the API, as the application has them."""
        routes = self.world.app._app.routes
        return [(method, one.path) for one in routes for method in sorted(one.methods) if method != "HEAD"]

    def page(self, hostile: Hostile, method: str, path: str) -> Asked:
        """A request for a page."""
        rng = hostile.rng
        visitor = rng.choices(self.visitors, (1, 2, 3, 6))[0] if path != "/sign-out" else None
        first = [("cookie", f"headwater_session={visitor.cookies['headwater_session']}")] if visitor else []
        if rng.random() < 0.15:
            first.append(("x-part", rng.choice(("members", "tree", "meaning", "x"))))
        asked = Asked(method, hostile.target(path, _PAGE_QUERIES))
        if method == "POST":
            fields = self._fields(hostile, path)
            if visitor and rng.random() < 0.95:
                fields.append(("form_key", visitor.form_key))
            asked.body = hostile.form([one for one in fields if one[0] != "form_key"])
            asked.body += b"".join(b"&form_key=" + value.encode() for name, value in fields if name == "form_key")
            first += hostile.content_type("application/x-www-form-urlencoded")
        return self._sent(hostile, asked, first)

    def _fields(self, hostile: Hostile, path: str) -> list[tuple[str, str]]:
        rng = hostile.rng
        if path in ("/builder", "/builder/meaning", "/builder/yaml", "/segments/publish", "/drafts"):
            tree = read_segment(rng.choice(full_definitions(rng.randrange(40))))
            return [*fields_of(tree), ("do", hostile.text("do")), ("line:n.0", hostile.text("line:n.0"))]
        if path == "/segments/import":
            return [("text", hostile.text("text"))]
        return list(_FIELDS.get(path, {"a": "user_id:1001", "b": "email:bob@example.org", "forever": "on"}).items())

    def call(self, hostile: Hostile, method: str, path: str) -> Asked:
        """A request for the API."""
        rng = hostile.rng
        token = rng.choice(_TOKENS) if rng.random() < 0.3 else "all"
        first = [("authorization", f"Bearer {token}")] if token else []
        operation = self._operations.get(path)
        queries = [each for each in operation.parameters if each.where == "query"] if operation is not None else []
        needed = [each.name for each in queries if each.required]
        asked = Asked(method, hostile.target(path, [each.name for each in queries], needed))
        if method == "POST" and operation is not None:
            [(kind, said)] = operation.body.items()
            first += hostile.content_type(kind)
            if kind == "application/json":
                asked.body = hostile.document(_BODIES.get(operation.name, said["example"]))
            elif rng.random() < 0.5:
                asked.body = hostile.document(rng.choice(self.bodies))
            else:
                asked.body = _worse(rng, hostile.text("text")).encode("utf-8", "surrogatepass")
        return self._sent(hostile, asked, first)

    def _sent(self, hostile: Hostile, asked: Asked, first: list[tuple[str, str]]) -> Asked:
        rng = hostile.rng
        if rng.random() < 0.04:
            asked.method = rng.choice(METHODS)
        asked.headers = hostile.headers(first)
        asked.chunks, asked.cut = rng.choice((1, 1, 3)), rng.random() < 0.01
        return asked

    # ------------------------------------------------------------------------------------------------------ judgement

    def judged_page(self, asked: Asked, answer: Answer) -> Iterator[str]:
        """What is wrong with an answer of the pages."""
        yield from self._judged(asked, answer)
        if not answer.header("content-security-policy") and not asked.target.startswith(
            (b"/livez", b"/readyz", b"/static")
        ):
            yield "it lacks the headers of a page"
        location = answer.header("location")
        if location and (not location.startswith("/") or location.startswith("//")):
            yield f"it leads elsewhere: {location}"

    def judged_call(self, asked: Asked, answer: Answer) -> Iterator[str]:
        """What is wrong with an answer of the API."""
        yield from self._judged(asked, answer)
        if answer.status >= 400 and asked.method != "HEAD":
            if answer.header("content-type") != "application/problem+json":
                yield "it says no in another form than that of a problem"
                return
            problem = msgspec.json.decode(answer.body)
            if set(problem) != {"type", "title", "status", "detail"} or problem["status"] != answer.status:
                yield "it is no whole problem"
            if len(answer.body) > MOST_REFUSAL_BYTES:
                yield f"it takes {len(answer.body)} bytes to say no"

    def _judged(self, asked: Asked, answer: Answer) -> Iterator[str]:
        if answer.status >= 500:
            yield "it says that it failed"
        if len(answer.body) > MOST_BYTES + 3 * len(asked.body):
            yield f"it has {len(answer.body)} bytes"
        said = answer.body + repr(answer.headers).encode()
        for found in _INSIDE.findall(said):
            if found not in asked.body and found not in asked.target:
                yield f"it tells of the inside: {found!r}"
        if str(self.folder).encode() in said:
            yield "it tells a path"
        names = [name for name, _ in answer.headers]
        if "x" in {value.partition("=")[0] for name, value in answer.headers if name == "set-cookie"}:
            yield "a header was smuggled in"
        if len(names) - len(set(names)) > names.count("set-cookie"):
            yield "a header stands twice"

    async def still_answers(self) -> None:
        """A plain question of each door is answered as ever."""
        page = await hand_over(self.house.desk.app, Asked("GET", b"/segments", _as(self.visitors[1])))
        call = await hand_over(self.world.app, Asked("GET", b"/v1/segments", [(b"authorization", b"Bearer all")]))
        if (page.status, call.status) != (200, 200):
            raise Findings(
                f"afterwards a plain question is answered {page.status} by the pages, {call.status} by the API"
            )


def _as(visitor: Visitor | None) -> list[tuple[bytes, bytes]]:
    assert visitor is not None
    return [(b"cookie", f"headwater_session={visitor.cookies['headwater_session']}".encode())]


def _worse(rng: random.Random, text: str) -> str:
    """A definition with some of its words replaced."""
    words = re.split(r"([\w.-]+)", text[:20_000])
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        words[rng.randrange(len(words))] = rng.choice(TEXTS)
    return "".join(words)


_LOOKERS = """segment: lookers
description: who looks
when:
  all:
    - performed: {event: Page Viewed, within: 30d}
    - trait: {plan: {in: [free, team]}}
"""
_HOOK = "destination: hook\nkind: webhook\nurl: https://hook.example/x\nunsigned: true\nsegments: '*'\n"
_FENCED = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)


def _written() -> list[str]:
    """Definitions of every kind: those of the docs."""
    docs = Path(__file__).parents[2].joinpath("docs").glob("*.md")
    found = [_LOOKERS, _HOOK]
    for block in (block for page in sorted(docs) for block in _FENCED.findall(page.read_text())):
        try:
            load_text(block)
        except InvalidDefinitionsError:
            continue  # a part of one, or another file
        found.append(block)
    return found


async def campaign(doors: Doors, requests: int, seed: int, told: Callable[[str], None] | None = None) -> Counter[Any]:
    """So many requests, spread over all routes; gives what was answered: (door, method, path) and (door, status) →
    how often. Raises Findings."""
    counted: Counter[Any] = Counter()
    wrong: dict[str, str] = {}
    kinds = [
        ("pages", doors.house.desk.app, doors.routes_of_pages(), doors.page, doors.judged_page),
        ("api", doors.world.app, doors.routes_of_api(), doors.call, doors.judged_call),
    ]
    every = [(*kind, route) for kind in kinds for route in kind[2]]
    for number in range(requests):
        door, app, _, make, judge, (method, path) = every[number % len(every)]
        hostile = Hostile(hash_of(seed, number), doors.good)
        if path == "/sign-in" and method == "POST" and number // len(every) % 10:
            continue  # a password takes a tenth of a second to try
        asked = make(hostile, method, path)
        began = time.monotonic()
        try:
            answer = await hand_over(app, asked)
        except Exception as error:  # noqa: BLE001 - whatever comes out of an application is what is looked for
            answer, found = None, [f"{type(error).__name__} came out: {_where(error)}"]
        else:
            counted[door, answer.status] += 1
            is_told = answer.status < 400 and "/sign-in" not in answer.header("location")
            counted[door, method, path, "as asked"] += is_told
            found = list(judge(asked, answer))
        took_s = time.monotonic() - began
        if took_s > SLOW_S:
            found.append("it takes too long")
        counted[door, method, path] += 1
        for what in found:
            wrong.setdefault(f"{door}: {what}", f"{method} {path}, seed {seed} number {number}, {took_s:.1f} s: {asked}"
                             + (f"\n      {answer.status} {answer.body[:300]!r}" if answer else ""))  # fmt: skip
        if number % 100 == 99:
            await asyncio.to_thread(doors.begin_anew)
        if number % 500 == 499:
            await doors.still_answers()
            if told is not None:
                told(f"{number + 1:,} requests, {len(wrong)} findings")
    await doors.still_answers()
    if wrong:
        raise Findings("\n".join(f"- {what}\n      {how}" for what, how in wrong.items()))
    return counted


def _where(error: BaseException) -> str:
    places, at = [], error.__traceback__
    while at is not None:
        places.append(f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}")
        at = at.tb_next
    return f"{str(error)[:100]!r} at {' < '.join(reversed(places[-6:]))}"


def hash_of(seed: int, number: int) -> int:
    """The seed of one request, so that it can be made without those before it."""
    return seed * 1_000_003 + number


class _Log(logging.Handler):
    """What the doors log of failures, for who looks for their place."""

    def emit(self, record: logging.LogRecord) -> None:
        print("   logged:", record.getMessage()[:400], file=sys.stderr)


@contextmanager
def opened(folder: Path) -> Iterator[Doors]:
    """Doors that are open until the end of the block."""
    with pytest.MonkeyPatch.context() as patched:
        yield Doors(folder, patched)


def main() -> None:
    """See `make fuzz-doors`."""
    import argparse
    import tempfile

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    logging.getLogger("pipeline.api.app").addHandler(_Log())
    logging.getLogger("pipeline.api.app").propagate = False
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as doors:
        try:
            counted = asyncio.run(campaign(doors, asked.requests, asked.seed, print))
        except Findings as found:
            sys.exit(f"these did not hold:\n{found}")
    routes = [one for one in counted if len(one) == 3]
    print("never answered as asked:", [one for one in routes if not counted[(*one, "as asked")]])
    print(
        f"{asked.requests:,} requests of {len(routes)} routes:",
        {k: v for k, v in sorted(counted.items(), key=str) if len(k) == 2},
    )


if __name__ == "__main__":
    main()
