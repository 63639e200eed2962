"""The HTTP door: events that are posted to the collector, by docs/collector.md, and what then stands in `raw`.

What the collector answers 200 is in `raw`; what it refused is not; what was sent again because no answer came may be
there twice. When an event was received is what the collector wrote into it, so it is read from there, and must lie
between the question and the answer.
"""

import base64
import gzip
import json
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from pipeline.runtime.ports import Record
from tests.blackbox.people import Sent, namespace
from tests.blackbox.traffic import iso
from tests.blackbox.values import value_as_instant
from tests.kafka.deployment import Deployment, Role

KEY, SOURCE = "key-of-the-blackbox", "shop"
BROWSER, ROBOT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Googlebot/2.1"
PATHS = {"track": "/v1/t", "identify": "/v1/i", "page": "/v1/p", "group": "/v1/g"}
WAIT_S, YEAR_MS = 60.0, 366 * 86_400_000


@dataclass(slots=True)
class Posting:
    """Events of one request. `taken`: answered 200; `between`: when the first question was asked and the answer came,
    ms."""

    events: list[Sent]
    taken: bool = False
    between: tuple[int, int] = (0, 0)
    answer: str = ""


def is_posted(sent: Sent) -> bool:
    """Whether the collector keeps the order of whoever this is: it goes by `userId`, else by `anonymousId`."""
    return namespace(sent.route) in {"user_id", "anonymous_id"} and sum(sent.key.encode()) % 2 == 0


@dataclass
class Door:
    """A collector, and somebody who posts to it until they are answered."""

    deployment: Deployment
    random: random.Random
    findings: list[str] = field(default_factory=list)
    awaited: list[Posting] = field(default_factory=list)
    requests_again: int = 0

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.settings = {
            "HEADWATER_COLLECTOR__WRITE_KEYS": json.dumps({KEY: SOURCE}),
            "HEADWATER_COLLECTOR__PORT": str(self.port),
        }
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=15)
        self.role = self._begun()

    def _begun(self) -> Role:
        return self.deployment.start("collector", **self.settings)

    # ----------------------------------------------------------------------------------------------------------- asking

    def post(self, events: Sequence[Sent], is_killed: bool = False) -> list[Posting]:
        """Post these, in order: some in batches, some alone. With `is_killed` the collector is killed meanwhile."""
        made: list[Posting] = []
        waiting = list(events)
        while waiting:
            count = self.random.choice([1, 1, 2, 5, 9])
            made.append(Posting(waiting[:count]))
            del waiting[:count]
        for number, posting in enumerate(made):
            if is_killed and number == len(made) // 2:
                threading.Timer(self.random.random() * 0.02, self.role.process.kill).start()
            self._until_answered(posting, *self._request(posting))
        self.awaited += made
        return made

    def _until_answered(self, posting: Posting, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        began, deadline = _now_ms(), time.monotonic() + WAIT_S
        while True:
            try:
                answer = self.client.post(path, content=body, headers=dict(headers))
                if answer.status_code not in {429, 503}:
                    break
            except httpx.HTTPError:
                if self.role.process.poll() is not None:
                    self.role = self._begun()
            assert time.monotonic() < deadline, f"the collector answers nobody: {self.role.log.read_text()[-2_000:]}"
            self.requests_again += 1
            time.sleep(0.1)
        posting.taken, posting.answer = answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
        posting.between = began, _now_ms()

    def _request(self, posting: Posting) -> tuple[str, bytes, dict[str, str]]:
        """Path, body and headers, as one of the SDKs has them."""
        loners = all(event.key.startswith("l") for event in posting.events)
        agent = ROBOT if self.random.random() < 0.1 else BROWSER
        bodies = [self._body(event, agent) for event in posting.events]
        headers = {"User-Agent": agent, "Content-Type": self.random.choice(["application/json", "text/plain"])}
        named = self.random.random() < 0.5
        if named:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
        if len(bodies) == 1 and self.random.random() < 0.5:
            path = self.random.choice([PATHS[bodies[0]["type"]], f"/v1/{bodies[0]['type']}"])
            body = bodies[0] | {"type": "alias"}  # the path says what it is
        else:
            path = self.random.choice(["/v1/batch", "/v1/b", "/v1/import"])
            body = {"batch": bodies}
            if loners and self.random.random() < 0.3:
                self._send_at(posting, body)
        if not named:
            body |= {"writeKey": KEY}
        content = json.dumps(body, ensure_ascii=self.random.random() < 0.5).encode()
        if self.random.random() < 0.4:
            content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
        return path, content, headers

    def _send_at(self, posting: Posting, body: dict[str, Any]) -> None:
        """A batch says when it was sent, by a clock that may be wrong; it holds for events that do not. None does where
        an event would come to lie before 1970 by it: that is refused."""
        said = (value_as_instant(event.stated.get("timestamp")) for event in posting.events)
        if any(time is not None and time < YEAR_MS for time in said):
            return
        sent_at = iso(_now_ms() + self.random.choice([0, -3_600_000, 7_200_000]))
        body["sentAt"] = sent_at
        for event in posting.events:
            event.stated = {"sentAt": sent_at, **event.stated}

    def _body(self, event: Sent, agent: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(event.value)
        context = {**body.get("context", {}), "tag": event.number}
        body["context"] = context
        if not event.key.startswith("l") and str(body.get("messageId", "")).startswith("shared-"):
            # Those that are told apart by the order of two keys of the collector are nobody's duplicates.
            body["messageId"] = f"posted-{event.number}"
        event.message_id = body.get("messageId")
        # What is sent once more states the user agent that it was written with: that one stands.
        stated = context.get("userAgent", agent)
        added = {"userAgent": stated, "bot": True} if stated == ROBOT else {"userAgent": stated}
        event.context = context | added
        event.stated = {name: body[name] for name in ("timestamp", "sentAt") if name in body}
        return body

    # ------------------------------------------------------------------------------------------------- strange requests

    def post_strange(self, events: Sequence[Sent]) -> None:
        """Bodies that are hardly events: each is refused with a reason, or taken."""
        for sent in events:
            common = b'], "context": {"strange": %d}, "writeKey": "%s"}' % (sent.number, KEY.encode())
            answer = self.client.post("/v1/batch", content=b'{"batch": [' + sent.value + common)
            if answer.status_code not in {200, 400, 413}:
                self.findings.append(f"posted {sent.what}: {answer.status_code} {answer.text[:300]}")
            sent.posted = answer.status_code

    # --------------------------------------------------------------------------------------------------------- learning

    def learn(self, raw: Sequence[Record], strange: Sequence[Sent]) -> Callable[[Posting], list[Sent]]:
        """Read what stands in `raw`: gives what of a posting does, in order, with what the collector wrote into it."""
        found: dict[int, list[tuple[Record, Any]]] = defaultdict(list)
        hardly: dict[Any, list[Record]] = defaultdict(list)
        for record in raw:
            try:
                value = json.loads(record.value or b"")
            except (ValueError, RecursionError):
                continue
            if not isinstance(value, dict) or value.get("source") != SOURCE:
                continue
            if KEY.encode() in (record.value or b""):
                self.findings.append(f"the write key stands in raw: {record.value!r}")
            context = value["context"] if isinstance(value.get("context"), dict) else {}
            if "tag" in context:
                found[context["tag"]].append((record, value))
            else:
                hardly[context.get("strange", f"user_id:{value.get('userId')}")].append(record)
        for sent in strange:
            records = hardly[sent.number] + hardly[sent.route]
            if len(records) != (sent.posted == 200):
                self.findings.append(f"posted {sent.what}: answered {sent.posted}, {len(records)} times in raw")
            if records:
                sent.place = records[0].partition, records[0].offset
        return lambda posting: self._resolved(posting, found)

    def _resolved(self, posting: Posting, found: Mapping[int, list[tuple[Record, Any]]]) -> list[Sent]:
        if not posting.taken:
            self.findings.append(f"refused: {posting.answer}: {[event.value for event in posting.events]}")
        made: list[Sent] = []
        for event in posting.events:
            records = found.get(event.number, [])
            if posting.taken and not records:
                self.findings.append(f"answered 200, and not in raw: {event.value!r}")
            for number, (record, value) in enumerate(records):
                received = value_as_instant(value.get("receivedAt"))
                if received is None or not posting.between[0] <= received <= posting.between[1]:
                    self.findings.append(f"received between {posting.between}? {record.value!r}")
                    received = posting.between[0]
                changed = event if not number else replace(event)
                changed.received, changed.place = received, (record.partition, record.offset)
                changed.time = happened(received, changed.stated)
                changed.value = record.value or b""
                made.append(changed)
        # Of one partition in the order in which they stand there: a request that came again came whole.
        return sorted(made, key=lambda sent: sent.place)


def happened(received: int, stated: Mapping[str, Any]) -> int:
    """DESIGN, section 2: received − (sentAt − timestamp) when both are there, never later than received."""
    said, sent_at = value_as_instant(stated.get("timestamp")), value_as_instant(stated.get("sentAt"))
    if said is None:
        return received
    return max(1, min(received, said if sent_at is None else received - (sent_at - said)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
