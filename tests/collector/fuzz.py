"""Malformed bodies without end: `make fuzz-collector BODIES=1000000`, or python -m tests.collector.fuzz --bodies 20000.

Nine of ten are made from a corpus of good requests and known nasties, hurt at random places; the tenth by Hypothesis,
from the shapes that events have. Each goes through the whole application, without sockets. What must hold for each: an
answer, of a status that says whose fault it is, and never a 5xx; a 200 only if what went out is JSON in bounds. And for
all together: no bytes left in the budget, and memory that does not grow with their number.
"""

import argparse
import asyncio
import gzip
import json
import random
import resource
import sys
import time
import zlib
from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pipeline.collector.messages import MAX_EVENT_BYTES, MAX_EXPANDED_BYTES
from pipeline.ingest import decode
from tests.collector.asgi import KEY, Answer, Site

PATHS = ("/v1/track", "/v1/t", "/v1/identify", "/v1/p", "/v1/batch", "/v1/b", "/v1/import", "/v1/alias")
ALLOWED = {200, 400, 401, 408, 413, 415, 429}
_GOOD = {
    "type": "track",
    "event": "Order Completed",
    "userId": "ada",
    "anonymousId": "a-1",
    "messageId": "m-1",
    "timestamp": "2026-03-01T09:00:00Z",
    "sentAt": "2026-03-01T09:00:01Z",
    "properties": {"total": 12.5, "lines": [{"sku": "ä", "n": 1}], "flag": True, "none": None},
    "context": {"ip": "203.0.113.9", "userAgent": "Mozilla/5.0", "traits": {"email": "ada@example.org"}},
    "integrations": {"All": True},
    "writeKey": KEY,
}
CORPUS: tuple[bytes, ...] = (
    json.dumps(_GOOD).encode(),
    json.dumps({"batch": [_GOOD, {**_GOOD, "type": "page"}], "sentAt": "2026-03-01T09:00:01Z"}).encode(),
    json.dumps({"batch": [_GOOD] * 20, "context": {"app": {"name": "x"}}, "writeKey": KEY}).encode(),
    b"",
    b"{}",
    b"null",
    b"[]",
    b'{"batch":[]}',
    b'{"batch":{}}',
    b'{"batch":[null,1,"x",[],{},true]}',
    b'{"batch":[{}],"context":[]}',
    b'{"batch":[{"context":3,"userId":{"a":1},"sentAt":[]}],"sentAt":{}}',
    b'{"userId":1e400}',
    b'{"userId":' + b"9" * 400 + b"}",
    b'{"properties":{"x":' + b"9" * 5000 + b"}}",
    b'{"properties":{"x":NaN,"y":Infinity}}',
    b'{"userId":"\\ud800"}',
    b'{"userId":"\\u0000"}',
    b'{"\xff":1}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"[" * 20_000,
    b'{"a":' * 5_000,
    b'{"properties":' + b'{"x":' * 40 + b"1" + b"}" * 41,
    b'{"properties":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"userId":"' + b"a" * 33_000 + b'"}',
    b'{"batch":[' + b"{}," * 3_000 + b"{}]}",
    b'{"batch":[' + b"{}," * 2_000 + b'{}],"context":{"x":"' + b"y" * 30_000 + b'"}}',
    b'{"userId":"u","userId":"v","type":"track","type":3}',
    b'{"context":{"ip":{"a":[]},"userAgent":7,"bot":"x"}}',
    b'{"writeKey":{"a":1},"batch":[]}',
    b"userId=ada&event=x",
    b"<event/>",
)
_PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\x00", b"\xff", b"\\u", b"\\ud800", b"null", b"1e999", b"-",
    b"9" * 30, b'{"batch":', b'"context":', b'"writeKey":', b"//", b"\xed\xa0\x80", b"[" * 50, b'{"a":' * 50,
)  # fmt: skip

TEXTS = st.text(max_size=20) | st.sampled_from(["userId", "context", "batch", "writeKey", "sentAt", "ip", "type", KEY])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=6), max_leaves=40
)
FIELDS = st.sampled_from(
    ["type", "event", "userId", "anonymousId", "messageId", "sentAt", "receivedAt", "traits", "context", "writeKey"]
)
EVENTS = st.dictionaries(FIELDS, VALUES, max_size=10) | VALUES
BODIES = EVENTS | st.fixed_dictionaries(
    {"batch": st.lists(EVENTS, max_size=6)},
    optional={"context": VALUES, "sentAt": SCALARS, "writeKey": SCALARS},
)
"""Bodies of the shapes that events have, with anything in any place."""

# Hypothesis remembers what it has tried: what it holds is let go of after so many.
_SHAPES_AT_A_TIME = 5_000


def mutated(chance: random.Random) -> tuple[str, bytes, dict[str, str], str | None]:
    """A call: path, body, headers, write key; made from the corpus, hurt in a few places."""
    # The first few are good: a good one with one wound gets the farthest.
    body = bytearray(chance.choice(CORPUS[:3] if chance.random() < 0.6 else CORPUS))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 8))):
        at = chance.randrange(len(body) + 1)
        what = chance.randrange(6)
        if what == 0:
            body[at:at] = chance.choice(_PIECES)
        elif what == 1:
            del body[at : at + chance.choice((1, 3, 40))]
        elif what == 2 and at < len(body):
            body[at] = chance.randrange(256)
        elif what == 3:
            body[at:at] = chance.choice(CORPUS)[:2_000]
        elif what == 4:
            del body[at:]
        else:
            body[at:at] = chance.randbytes(chance.choice((1, 8, 100)))
    plain = bytes(body[:600_000])
    headers: dict[str, str] = {}
    packing = chance.randrange(12)
    if packing < 3:
        plain = gzip.compress(plain, 1)
        headers["content-encoding"] = "gzip"
        if packing == 1:
            cut = bytearray(plain)
            cut[chance.randrange(len(cut))] = chance.randrange(256)
            plain = bytes(cut)
        elif packing == 2 and chance.random() < 0.02:
            plain = gzip.compress(bytes(20_000_000), 1)
    elif packing == 3:
        headers["content-encoding"] = chance.choice(("br", "deflate", "", "gzip, gzip", "\xff"))
        plain = zlib.compress(plain)
    if chance.random() < 0.1:
        headers["content-length"] = chance.choice(("0", "1", "999999999999", "-1", "x", "", "²"))
    if chance.random() < 0.2:
        headers["authorization"] = chance.choice(
            ("Basic", "Basic \xff", "Basic " + "A" * 99, "Bearer x", "", "Basic ===")
        )
    if chance.random() < 0.1:
        headers["user-agent"] = "".join(chr(chance.randrange(32, 256)) for _ in range(chance.choice((1, 50, 3_000))))
    return chance.choice(PATHS), plain, headers, KEY if chance.random() < 0.9 else None


async def judged(site: Site, path: str, body: bytes, headers: dict[str, str], key: str | None) -> Answer:
    """The answer to a call, when everything that must hold does."""
    site.outbox.records.clear()
    answer = await site.call("POST", path, body, key, headers=headers)
    assert answer.status in ALLOWED, f"{answer.status} for {body[:200]!r} {headers}"
    told = answer.json
    if answer.status == 200:
        assert told["success"] is True
        assert sum(len(value) for _, value in site.outbox.records) <= MAX_EXPANDED_BYTES
        for _, value in site.outbox.records:
            assert len(value) <= MAX_EVENT_BYTES + 2_048
            event: Any = msgspec.json.decode(value)
            assert isinstance(event, dict) and "writeKey" not in event and event["source"] == "web"
            decode(value)  # ingest has a word for all of them: it raises nothing
    else:
        assert told["success"] is False and told["code"] and told["message"]
        assert not site.outbox.records, "nothing goes out of what is refused"
    return answer


async def campaign(bodies: int, seed: int) -> Counter[int]:
    """So many bodies from the corpus; counts the statuses. Prints the rate and the memory now and then."""
    chance, site = random.Random(seed), Site(max_in_flight_bytes=4_000_000)
    statuses: Counter[int] = Counter()
    slowest_ms, started = 0.0, time.monotonic()
    for number in range(1, bodies + 1):
        call = mutated(chance)
        before = time.perf_counter()
        answer = await judged(site, *call)
        slowest_ms = max(slowest_ms, (time.perf_counter() - before) * 1_000)
        statuses[answer.status] += 1
        if number % 100 == 0:
            await asyncio.sleep(0)  # a loop that never turns keeps every timer that was cancelled
        if number % 50_000 == 0 or number == bodies:
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rate = number / (time.monotonic() - started)
            print(f"{number:,} bodies, {rate:,.0f}/s, at most {held:.0f} MB, slowest {slowest_ms:.0f} ms", flush=True)
    assert site.registry.get_sample_value("headwater_collector_in_flight_bytes") == 0
    return statuses


def shapes(bodies: int, first_seed: int) -> Counter[int]:
    """So many bodies of Hypothesis's; counts the statuses."""
    site = Site(max_in_flight_bytes=4_000_000)
    statuses: Counter[int] = Counter()
    with asyncio.Runner() as runner:
        for number, done in enumerate(range(0, bodies, _SHAPES_AT_A_TIME)):

            @seed(first_seed * 1_000_003 + number)
            @settings(
                max_examples=min(_SHAPES_AT_A_TIME, bodies - done),
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(body=BODIES, path=st.sampled_from(PATHS), known=st.booleans())
            def tried(body: object, path: str, known: bool) -> None:
                plain = json.dumps(body).encode()
                statuses[runner.run(judged(site, path, plain, {}, KEY if known else None)).status] += 1

            tried()
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{statuses.total():,} bodies of Hypothesis's, at most {held:.0f} MB", flush=True)
    assert site.registry.get_sample_value("headwater_collector_in_flight_bytes") == 0
    return statuses


async def bomb_ms() -> float:
    """How long the refusal of 300 MB of nothing, packed, takes: the slowest of twenty."""
    site, bomb = Site(), gzip.compress(bytes(300_000_000), 9, mtime=0)
    slowest = 0.0
    for _ in range(20):
        before = time.perf_counter()
        answer = await site.call("POST", "/v1/batch", bomb, headers={"content-encoding": "gzip"})
        slowest = max(slowest, (time.perf_counter() - before) * 1_000)
        assert answer.status == 413
    return slowest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.collector.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    of_hypothesis = chosen.bodies // 10
    statuses = asyncio.run(campaign(chosen.bodies - of_hypothesis, chosen.seed))
    print(f"seed {chosen.seed}, from the corpus:", dict(sorted(statuses.items())), flush=True)
    statuses = shapes(of_hypothesis, chosen.seed)
    print(f"seed {chosen.seed}, of Hypothesis's:", dict(sorted(statuses.items())))
    print(f"a bomb of 300 MB is refused within {asyncio.run(bomb_ms()):.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
