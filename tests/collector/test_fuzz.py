"""A few thousand of the malformed bodies; `make fuzz-collector` sends a million."""

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.collector.asgi import KEY, Site
from tests.collector.fuzz import BODIES, PATHS, campaign, judged


def test_bodies_hurt_at_random_are_answered_and_nothing_is_left_behind() -> None:
    statuses = asyncio.run(campaign(3_000, seed=7))
    assert statuses[200] > 300 and statuses[400] > 300 and statuses[413] > 10, "good and bad ones are among them"


SITE = Site(max_in_flight_bytes=4_000_000)


@settings(max_examples=400)
@given(body=BODIES, path=st.sampled_from(PATHS), known=st.booleans())
def test_bodies_of_any_shape_are_answered(body: object, path: str, known: bool) -> None:
    asyncio.run(judged(SITE, path, json.dumps(body).encode(), {}, KEY if known else None))
    assert SITE.registry.get_sample_value("headwater_collector_in_flight_bytes") == 0


@settings(max_examples=400)
@given(body=st.binary(max_size=300), path=st.sampled_from(PATHS), packed=st.booleans())
def test_bodies_of_any_bytes_are_answered(body: bytes, path: str, packed: bool) -> None:
    asyncio.run(judged(SITE, path, body, {"content-encoding": "gzip"} if packed else {}, KEY))
