"""Records and values as bytes, by way of buffers that are kept: what an encoder gives."""

import random
from typing import Any

import msgspec

from pipeline.records import Cause, SegmentChange, encode
from pipeline.unify.actor import VERSION, Actor
from pipeline.unify.writer import Writer

_sorted = msgspec.json.Encoder(order="deterministic").encode
_kept = msgspec.msgpack.Encoder().encode


def _record(chance: random.Random) -> SegmentChange:
    at = chance.randrange(1 << 41)
    name = "s" * chance.choice((1, 30, 364, 5_000))
    return SegmentChange("p" * 36, "person", name, 1, "entered", at, at, 1, "event", Cause("m1", 0, 1), False, [])


def _names(chance: random.Random) -> dict[str, Any]:
    return {f"n{chance.randrange(99)}": "ü" * chance.choice((0, 1, 2_000)) for _ in range(chance.randrange(9))}


def test_what_is_written_is_what_an_encoder_gives_and_stays_so() -> None:
    writer, chance = Writer(), random.Random(4)
    written: list[tuple[bytes, bytes]] = []
    for _ in range(500):
        record, names, actor = _record(chance), _names(chance), Actor(VERSION, "x" * chance.choice((1, 3_000)))
        written += [
            (writer.plain(record), encode(record)),
            (writer.sorted(names), _sorted(names)),
            (writer.kept(actor), _kept(actor)),
        ]
    assert all(type(here) is bytes and here == there for here, there in written)


def test_what_cannot_be_written_leaves_nothing_behind() -> None:
    writer = Writer()
    for write in (writer.plain, writer.sorted, writer.kept):
        try:
            write({"a": "b" * 100, "c": object()})
        except TypeError:
            assert write({"a": 1}) in (b'{"a":1}', b"\x81\xa1a\x01")
        else:
            raise AssertionError("an object was written")
