"""The ids of profiles are UUIDs of version 5, as the standard library makes them."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from pipeline.identifiers import _uuid5


@given(st.binary(min_size=16, max_size=16), st.text(st.characters(codec="utf-8")))
def test_a_name_has_the_uuid_of_the_standard_library(space: bytes, name: str) -> None:
    assert _uuid5(space, name) == str(uuid.uuid5(uuid.UUID(bytes=space), name))
