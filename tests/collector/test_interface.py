"""What callers send and what they are answered, without sockets and without a broker."""

import asyncio
import base64
import gzip
import json
import math
import re
import time
import zlib
from typing import Any

import pytest

from pipeline.collector.app import BATCH_PATHS, SINGLE_PATHS
from pipeline.collector.messages import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES
from tests.collector.asgi import KEY, NOW_MS, Site

TRACK = {"type": "track", "event": "Bought", "userId": "ada", "messageId": "m-1"}


@pytest.mark.parametrize(("path", "kind"), SINGLE_PATHS.items())
def test_the_path_says_the_type(path: str, kind: str) -> None:
    site = Site()
    answer = site.post(path, {**TRACK, "type": "dance"})
    assert (answer.status, answer.json) == (200, {"success": True})
    assert [event["type"] for event in site.outbox.events] == [kind]


@pytest.mark.parametrize("path", BATCH_PATHS)
def test_a_batch_has_types_of_its_own_and_gives_each_event_what_it_says_for_all(path: str) -> None:
    site = Site()
    own = {"type": "page", "userId": "b", "sentAt": "2026-01-01T00:00:00Z", "context": {"locale": "de"}}
    body = {"batch": [TRACK, own], "sentAt": "2026-02-02T00:00:00Z", "context": {"locale": "en", "app": 1}}
    assert site.post(path, body).json == {"success": True}
    first, second = site.outbox.events
    assert (first["type"], first["sentAt"], first["context"]) == ("track", body["sentAt"], {"locale": "en", "app": 1})
    assert (second["type"], second["sentAt"], second["context"]) == ("page", own["sentAt"], {"locale": "de", "app": 1})


def test_both_short_words_of_the_tracking_spec_are_there() -> None:
    assert {path.rpartition("/")[2] for path in (*SINGLE_PATHS, *BATCH_PATHS)} == {
        *("track identify page screen group alias batch import".split()),
        *"tipsgab",
    }


BASIC = {"authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}
ALLOWED: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "header": (BASIC, {}),
    "header with a password": ({"authorization": "basic " + base64.b64encode(f"{KEY}:x".encode()).decode()}, {}),
    "body": ({}, {"writeKey": KEY}),
    "body, beside another scheme": ({"authorization": "Bearer token"}, {"writeKey": KEY}),
    "body, beside a wrong header": ({"authorization": "Basic eDo="}, {"writeKey": KEY}),
}


@pytest.mark.parametrize("case", ALLOWED)
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_write_keys_that_open(case: str, path: str) -> None:
    headers, more = ALLOWED[case]
    body = {"batch": [TRACK]} if path == "/v1/batch" else TRACK
    site = Site()
    assert site.post(path, {**body, **more}, key=None, headers=headers).status == 200
    [(_, value)] = site.outbox.records
    assert KEY.encode() not in value, "a write key goes no further than the door"
    assert site.outbox.events[0]["source"] == "web"


REFUSED: dict[str, tuple[dict[str, str], Any]] = {
    "none": ({}, None),
    "unknown": ({}, "somebody-else"),
    "not a text": ({}, [KEY]),
    "a part of it": ({}, KEY[:-1]),
    "broken base64": ({"authorization": "Basic %%%"}, None),
    "not UTF-8": ({"authorization": "Basic " + base64.b64encode(b"\xff:").decode()}, None),
    "very long": ({"authorization": "Basic " + "QUFB" * 1000}, None),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_write_keys_that_do_not(case: str, path: str) -> None:
    headers, key = REFUSED[case]
    site = Site()
    answer = site.post(path, {**TRACK, "batch": [TRACK], "writeKey": key}, key=None, headers=headers)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert not site.outbox.records


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


BAD_EVENTS: dict[str, tuple[bytes, str]] = {
    "a number": (b"3", "not_object"),
    "null": (b"null", "not_object"),
    "a list": (b"[{}]", "not_object"),
    "too large": (json.dumps({**TRACK, "properties": {"x": "y" * MAX_EVENT_BYTES}}).encode(), "too_large"),
    "too deep": (json.dumps({**TRACK, "properties": deep(33)}).encode(), "too_deep"),
    "a number without end": (b'{"userId": 1e400}', "number_out_of_range"),
    "not UTF-8": (b'{"userId": "\xff"}', "not_json"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_one_bad_event_does_not_fail_the_others(case: str) -> None:
    bad, reason = BAD_EVENTS[case]
    site = Site()
    good = json.dumps(TRACK).encode()
    answer = site.post("/v1/batch", b'{"batch": [%b, %b, %b]}' % (good, bad, good.replace(b"m-1", b"m-2")))
    assert answer.status == 200
    assert (answer.json["success"], answer.json["accepted"], answer.json["rejected"]) == (True, 2, 1)
    assert [(each["index"], each["reason"]) for each in answer.json["first"]] == [(1, reason)]
    assert [event["messageId"] for event in site.outbox.events] == ["m-1", "m-2"]
    labels = {"source": "web", "reason": reason}
    assert site.registry.get_sample_value("headwater_collector_rejected_total", labels) == 1
    alone = site.post("/v1/batch", b'{"batch": [%b]}' % bad)
    assert (alone.status, alone.json["code"]) == (400, reason)
    assert {"success", "code", "message"} == set(alone.json), "what the SDKs read of an error"


CUT = {**TRACK, "properties": {"title": "Sale! \ud83d"}}


@pytest.mark.parametrize("key", [KEY, None])
def test_a_text_that_was_cut_within_an_emoji_is_taken(key: str | None) -> None:
    site = Site()
    for path, body in (
        ("/v1/track", {**CUT, "writeKey": KEY}),
        ("/v1/batch", {"batch": [TRACK, CUT, TRACK], "writeKey": KEY}),
        ("/v1/batch", {"batch": [TRACK], "context": CUT["properties"], "writeKey": KEY}),
    ):
        # As every SDK writes it: the half is escaped.
        assert site.post(path, json.dumps(body).encode(), key=key).json == {"success": True}
    titles = [{**event["context"], **event.get("properties", {})}.get("title") for event in site.outbox.events]
    assert titles == ["Sale! \ufffd", None, "Sale! \ufffd", None, "Sale! \ufffd"]


NO_NUMBERS = {**TRACK, "properties": {"a": math.nan, "b": [-math.inf, 1], "says": 'NaN "Infinity" \\', "c": math.inf}}


@pytest.mark.parametrize("key", [KEY, None])
def test_a_number_that_is_none_is_null_and_fails_no_batch(key: str | None) -> None:
    site = Site()
    events = [TRACK, NO_NUMBERS, TRACK]
    body = json.dumps({"batch": events, "writeKey": KEY, "sentAt": math.nan}).encode()  # as SDKs of Python write it
    assert site.post("/v1/batch", body, key=key).json == {"success": True}
    assert site.post("/v1/track", json.dumps({**NO_NUMBERS, "writeKey": KEY}).encode(), key=key).json["success"]
    expected = {"a": None, "b": [None, 1], "says": 'NaN "Infinity" \\', "c": None}
    assert [event.get("properties") for event in site.outbox.events] == [None, expected, None, expected]
    assert site.post("/v1/track", b'{"event": NaNa, "userId": "u"}').json["code"] == "not_json"
    assert site.post("/v1/track", b'{"event": -NaN, "userId": "u"}').json["code"] == "not_json"


@pytest.mark.parametrize(
    "rest", [b'\\"' * 240_000, b'"' * 480_001, b"-" * 480_000, b"\\" * 480_001, b'"\\' * 240_000, b'",NaN' * 90_000]
)
def test_looking_for_numbers_that_are_none_costs_what_the_body_has(rest: bytes) -> None:
    site = Site()
    began = time.process_time()
    assert site.post("/v1/batch", b'{"batch": [NaN], "x": "' + rest).json["code"] == "not_json"
    assert time.process_time() - began < 0.5  # 0.02 on a machine at rest; squared it is minutes


def test_a_byte_order_mark_is_passed_over() -> None:
    site = Site()
    for path, body in (("/v1/track", TRACK), ("/v1/batch", {"batch": [TRACK]})):
        assert site.post(path, b"\xef\xbb\xbf" + json.dumps(body).encode()).status == 200
    assert [event["userId"] for event in site.outbox.events] == ["ada", "ada"]


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"{", 400),
    "not UTF-8": (b'{"userId":"\xff","event":"E"}', 400),
    "a list": (b"[]", 400),
    "a text": (b'"x"', 400),
    "nested without end": (b'{"properties":' * 20_000, 413),
    "nested very deep": (b"[" * 30_000, 400),
    "too large for an event": (b'{"x":"' + b"y" * MAX_EVENT_BYTES + b'"}', 413),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_single_event_is_refused(case: str) -> None:
    body, status = BAD_BODIES[case]
    site = Site()
    answer = site.post("/v1/track", body)
    assert answer.status == status and answer.json["code"] and answer.json["message"]
    assert not site.outbox.records


def test_the_levels_that_ingest_takes_are_taken() -> None:
    site = Site()
    assert site.post("/v1/track", {**TRACK, "properties": deep(31), "traits": deep(31)}).status == 200
    assert site.post("/v1/track", {**TRACK, "properties": deep(33)}).status == 400


BAD_BATCHES: dict[str, tuple[Any, int]] = {
    "no list": ({"batch": {}}, 400),
    "no batch": ({"events": []}, 400),
    "too many": ({"batch": [{}] * (MAX_BATCH_EVENTS + 1)}, 413),
    "too large": ({"batch": ["x" * 1_000] * (MAX_BATCH_BYTES // 1_000)}, 413),
    "a context that swells": ({"batch": [{}] * 500, "context": {"x": "y" * 20_000}}, 413),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_a_bad_batch_is_refused(case: str) -> None:
    body, status = BAD_BATCHES[case]
    site = Site()
    assert site.post("/v1/batch", body).status == status
    assert not site.outbox.records


def test_an_empty_batch_is_nothing_to_do() -> None:
    assert Site().post("/v1/batch", {"batch": []}).status == 200


@pytest.mark.parametrize("coding", ["gzip", "GZip", "x-gzip"])
def test_gzip_is_unpacked_also_in_pieces(coding: str) -> None:
    site = Site()
    packed = gzip.compress(json.dumps({"batch": [TRACK] * 50}).encode())
    answer = asyncio.run(site.call("POST", "/v1/batch", packed, headers={"content-encoding": coding}, chunk=7))
    assert answer.status == 200 and len(site.outbox.records) == 50


def test_a_body_of_several_gzip_members_is_one_body() -> None:
    site = Site()
    plain = json.dumps({"batch": [TRACK] * 50}).encode()
    packed = b"".join(gzip.compress(plain[start : start + 900]) for start in range(0, len(plain), 900)) + gzip.compress(
        b""
    )
    assert site.post("/v1/batch", packed, headers={"content-encoding": "gzip"}).status == 200
    assert len(site.outbox.records) == 50


def test_the_room_of_a_body_is_that_of_all_its_members_together() -> None:
    head, rest = b'{"batch":[]', b" " * (MAX_BATCH_BYTES - 12) + b"}"
    for more, status in ((b"", 200), (b" ", 413)):
        packed = gzip.compress(head) + gzip.compress(more + rest) + gzip.compress(b"")
        assert Site().post("/v1/batch", packed, headers={"content-encoding": "gzip"}).status == status


BAD_PACKED: dict[str, tuple[bytes, str, int]] = {
    "a bomb": (gzip.compress(bytes(300_000_000), 9, mtime=0), "gzip", 413),
    "not gzip": (b"{}", "gzip", 400),
    "cut short": (gzip.compress(b'{"batch":[]}')[:-3], "gzip", 400),
    "a bomb behind another member": (gzip.compress(b"[") + gzip.compress(bytes(300_000_000), 9, mtime=0), "gzip", 413),
    "members without end": (gzip.compress(b"") * 25_000, "gzip", 400),
    "a second member cut short": (gzip.compress(b'{"batch":[') + gzip.compress(b"]}")[:-3], "gzip", 400),
    "with something behind it": (gzip.compress(b'{"batch":[]}') + b"x", "gzip", 400),
    "zlib": (zlib.compress(b'{"batch":[]}'), "gzip", 400),
    "br": (b"{}", "br", 415),
}


@pytest.mark.parametrize("case", BAD_PACKED)
def test_bad_packing_is_refused_at_once(case: str) -> None:
    body, encoding, status = BAD_PACKED[case]
    site = Site()
    started = time.process_time()
    answer = site.post("/v1/batch", body, headers={"content-encoding": encoding})
    assert answer.status == status
    # 300 MB would take a second to unpack: this is no time limit, it tells the two apart.
    assert time.process_time() - started < 0.5


def test_a_body_without_length_is_bounded_too() -> None:
    site = Site()
    body = b'{"batch":[' + b" " * MAX_BATCH_BYTES + b"]}"
    answer = asyncio.run(site.call("POST", "/v1/batch", body, headers={"content-length": "12"}, chunk=10_000))
    assert answer.status == 413 and answer.headers["connection"] == "close"


def test_a_caller_that_never_sends_its_body_is_let_go() -> None:
    site = Site(read_timeout_seconds=1)
    answer = asyncio.run(site.call("POST", "/v1/batch", TRACK, silent=True))
    assert (answer.status, answer.json["code"]) == (408, "too_slow")
    assert answer.headers["connection"] == "close", "what comes of it later is no next request"


def test_received_is_stamped_here_and_nowhere_else() -> None:
    site = Site()
    site.post("/v1/track", {**TRACK, "receivedAt": "1999-01-01T00:00:00Z", "source": "billing"})
    [event] = site.outbox.events
    assert (event["receivedAt"], event["source"]) == ("2026-09-21T14:13:20.123Z", "web")


def test_received_is_stamped_when_the_body_is_there() -> None:
    # Earlier, and the log could have gone on beyond it: what did not happen until then would be believed too soon.
    site = Site()

    async def slowly() -> None:
        call = asyncio.create_task(site.call("POST", "/v1/batch", {"batch": [TRACK] * 20}, chunk=100, pause_s=0.01))
        await asyncio.sleep(0.05)
        site.now_ms = NOW_MS + 15_000
        assert (await call).status == 200

    asyncio.run(slowly())
    assert {event["receivedAt"] for event in site.outbox.events} == {"2026-09-21T14:13:35.123Z"}


IPS = [
    ("drop", "203.0.113.77", None, None),
    ("drop", "203.0.113.77", "198.51.100.9", None),
    ("keep", "203.0.113.77", None, "203.0.113.77"),
    ("keep", "203.0.113.77", "198.51.100.9", "198.51.100.9"),
    ("keep", "::ffff:203.0.113.77", None, "203.0.113.77"),
    ("truncate", "203.0.113.77", None, "203.0.113.0"),
    ("truncate", "2001:db8:aaaa:bbbb::1", None, "2001:db8:aaaa::"),
    ("truncate", "203.0.113.77", "198.51.100.9", "198.51.100.0"),
    ("truncate", "203.0.113.77", "no address", None),
]


@pytest.mark.parametrize(("how", "caller", "stated", "kept"), IPS)
def test_the_address_is_kept_as_set(how: str, caller: str, stated: str | None, kept: str | None) -> None:
    site = Site(ip=how)
    context = {} if stated is None else {"ip": stated}
    asyncio.run(site.call("POST", "/v1/track", {**TRACK, "context": context}, client=caller))
    assert site.outbox.events[0]["context"].get("ip") == kept


def test_the_user_agent_is_kept_or_dropped_and_robots_are_flagged_either_way() -> None:
    robot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    person = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
    for how in ("keep", "drop"):
        site = Site(user_agent=how)
        for header, stated in ((robot, None), (person, None), ("okhttp/4.9", None), ("some-sdk/1", robot)):
            context = {} if stated is None else {"userAgent": stated, "userAgentData": {"mobile": False}}
            site.post("/v1/track", {**TRACK, "context": context}, headers={"user-agent": header})
        contexts = [event["context"] for event in site.outbox.events]
        assert [context.get("bot", False) for context in contexts] == [True, False, False, True]
        kept = [robot, person, "okhttp/4.9", robot] if how == "keep" else [None] * 4
        assert [context.get("userAgent") for context in contexts] == kept
        assert ("userAgentData" in contexts[3]) == (how == "keep")


def test_a_retry_has_the_key_it_had_and_no_identifier_stands_in_it() -> None:
    site = Site()
    for number in (1, 2):
        site.post("/v1/track", {**TRACK, "sentAt": f"2026-01-0{number}T00:00:00Z"})
    site.post("/v1/track", {**TRACK, "userId": "bob"})
    site.post("/v1/track", {"event": "E", "anonymousId": "a-1"})
    first, again, other, anonymous = (key for key, _ in site.outbox.records)
    assert first == again and len({first, other, anonymous}) == 3
    assert first is not None and re.fullmatch(rb"[0-9a-f]{32}", first)
    site.post("/v1/track", {"event": "E"})
    assert site.outbox.records[-1][0] is None


def test_nothing_is_accepted_that_was_not_acknowledged() -> None:
    site = Site()
    site.outbox.fails = True
    answer = site.post("/v1/track", TRACK)
    assert answer.status == 503 and int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(("healthy", "status"), [(True, 429), (False, 503)])
def test_what_waits_for_a_slow_broker_is_bounded(healthy: bool, status: int) -> None:
    site = Site(max_in_flight_bytes=2_000_000)
    body = {"batch": [{**TRACK, "properties": {"x": "y" * 10_000}}] * 40}

    async def crowd() -> list[Any]:
        site.outbox.waits_for = asyncio.Event()
        site.outbox.is_healthy = healthy
        calls = [asyncio.create_task(site.call("POST", "/v1/batch", body)) for _ in range(20)]
        while not any(call.done() for call in calls):  # who is refused is answered at once
            await asyncio.sleep(0.01)
        held = site.registry.get_sample_value("headwater_collector_in_flight_bytes")
        assert held is not None and 1_000_000 < held <= 2_000_000
        site.outbox.waits_for.set()
        return list(await asyncio.gather(*calls))

    answers = asyncio.run(crowd())
    told = {answer.status for answer in answers}
    assert told == {200, status}
    assert all("retry-after" in answer.headers for answer in answers if answer.status != 200)
    assert site.registry.get_sample_value("headwater_collector_in_flight_bytes") == 0
    assert site.post("/v1/batch", body).status == 200


ORIGINS = [
    (("*",), "https://any.example", True),
    (("*",), "null", True),
    (("https://shop.example",), "https://shop.example", True),
    (("https://shop.example",), "https://other.example", False),
    (("*",), "https://any.example\t", False),
]


@pytest.mark.parametrize(("allowed", "origin", "may"), ORIGINS)
def test_pages_of_allowed_origins_may_send(allowed: tuple[str, ...], origin: str, may: bool) -> None:
    site = Site(allowed_origins=allowed)
    asked = {"origin": origin, "access-control-request-method": "POST"}
    told = [asyncio.run(site.call("OPTIONS", "/v1/t", key=None, headers=asked))]
    assert told[0].status == 204 and "POST" in told[0].headers["access-control-allow-methods"]
    told += [site.post("/v1/t", body, headers={"origin": origin}) for body in (TRACK, b"{")]
    told.append(site.post("/v1/m", b"{}", headers={"origin": origin}))
    for answer in told:
        assert answer.headers.get("access-control-allow-origin") == (origin if may else None)
        # By name, and with cookies: no browser takes a star from who brings them, and sendBeacon does.
        assert answer.headers.get("access-control-allow-credentials") == ("true" if may else None)
        assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in site.post("/v1/t", TRACK).headers


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("authorization,x-app", "authorization,x-app"),
        (None, "Authorization, Content-Type, Content-Encoding, X-Retry-Count"),
        ("a" * 2_001, "Authorization, Content-Type, Content-Encoding, X-Retry-Count"),
        ("x: y", "Authorization, Content-Type, Content-Encoding, X-Retry-Count"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/t", "/v1/b", "/v1/m", f"/v1/projects/{KEY}/settings", "/livez", "/track"])
def test_a_browser_may_send_any_header_to_any_path(path: str, wanted: str | None, told: str) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    if wanted is not None:
        asked["access-control-request-headers"] = wanted
    answer = asyncio.run(Site().call("OPTIONS", path, key=None, headers=asked))
    assert (answer.status, answer.body, answer.headers["access-control-allow-headers"]) == (204, b"", told)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


def settings_of(site: Site, key: str = KEY, **headers: str) -> Any:
    return asyncio.run(site.call("GET", f"/v1/projects/{key}/settings", key=None, headers=headers))


def test_the_browser_sdk_is_told_to_send_here() -> None:
    told = settings_of(Site()).json["integrations"]["Segment.io"]
    assert (told["apiKey"], told["protocol"], told["apiHost"]) == (KEY, "http", "events.shop.example/v1")
    told = settings_of(Site(public_url="https://e.shop.example/")).json["integrations"]["Segment.io"]
    assert (told["protocol"], told["apiHost"]) == ("https", "e.shop.example/v1")
    assert settings_of(Site(), "somebody-else").status == 404
    assert settings_of(Site(), host='x"></script>').status == 404


def test_liveness_and_readiness() -> None:
    site = Site()

    def status(path: str) -> int:
        return asyncio.run(site.call("GET", path, key=None)).status

    assert (status("/livez"), status("/readyz")) == (200, 200)
    site.ready = False
    assert (status("/livez"), status("/readyz")) == (200, 503)


def test_what_is_not_there_is_404_and_says_what_there_is() -> None:
    site = Site(allowed_origins=["https://shop.example"])
    path = "/v2/" + "track" * 1_000
    answer = site.post(path, TRACK, headers={"origin": "https://shop.example"})
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert (answer.json["success"], answer.json["code"]) == (False, "no_such_path")
    told = re.findall(r"/v1/[a-z]+", answer.json["message"])
    assert [site.post(each, TRACK).status for each in told] == [200] * 6 + [400], "those it names are there"
    assert b"tracktrack" not in answer.body and len(answer.body) < 400
    assert answer.headers["access-control-allow-origin"] == "https://shop.example", "a page may read it"
    assert site.registry.get_sample_value("headwater_collector_requests_total", {"path": "other", "status": "404"}) == 1


@pytest.mark.parametrize("path", ["/v1/import/", "//v1/import/", "//v1/import"])
def test_a_slash_too_many_is_passed_over(path: str) -> None:
    """`analytics-java` asks so, by how its host is written."""
    site = Site()
    assert site.post(path, {"batch": [TRACK]}).json == {"success": True}
    assert site.post(path.replace("import", "track"), TRACK).json == {"success": True}
    assert [event["messageId"] for event in site.outbox.events] == ["m-1", "m-1"]


def test_nobody_is_led_elsewhere_with_a_write_key() -> None:
    answer = asyncio.run(Site().call("GET", f"/v1/projects/{KEY}/settings/"))
    assert (answer.status, answer.json["code"], "location" in answer.headers) == (404, "no_such_path", False)


def test_another_method_is_405_and_says_which_there_are() -> None:
    site = Site()
    answer = asyncio.run(site.call("GET", "/v1/track"))
    assert (answer.status, answer.json["code"]) == (405, "wrong_method")
    assert sorted(answer.headers["allow"].split(", ")) == ["OPTIONS", "POST"]
    assert answer.json["message"] == f"This path takes {answer.headers['allow']}."
    answer = asyncio.run(site.call("HEAD", "/v1/nothing"))
    assert answer.status == 404
    assert site.post("/v1/m", b"{}", key=None).status == 204
