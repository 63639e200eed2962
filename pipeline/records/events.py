"""`events` and `dead-letters`: what applications said, clean, and what could not be used."""

from typing import Any

from msgspec import Struct

EVERYTHING = "*"
"""The consent that stands for all purposes and channels: who denies it is left alone."""

CHANNEL = "channel:"
"""Begins the consent that stands for a channel: `channel:email`."""


class Event(Struct, tag_field="kind", tag="event", omit_defaults=True):
    """A clean event. `identifiers` stand strongest first: the first is the route. `time` <= `received`.

    `event` is the name rules refer to: that of a track call, or `Page Viewed`, `Screen Viewed`, `Identify`, `Group`,
    `Alias`. `source` is the position of the raw record, "topic/partition/offset". `origin` is the
    source's name where that is not the topic's: what a write key stands for at the collector. `contract` is
    "name/version" of the contract the event was checked against.
    """

    message_id: str
    type: str
    event: str
    identifiers: list[str]
    time: int
    received: int
    source: str = ""
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    context: dict[str, Any] = {}
    group_id: str | None = None
    contract: str | None = None
    flags: list[str] = []
    origin: str = ""


def source_name(origin: str, position: str) -> str:
    """The name of the source of an event, by its `origin` and `source`: what definitions and statistics go by. A topic
    outside of the workspace is known without the slash it begins with."""
    return origin or position.rsplit("/", 2)[0].removeprefix("/")


class Received(Struct):
    """Of an event, only when it was received."""

    received: int


class Marker(Struct, tag_field="kind", tag="marker", omit_defaults=True):
    """From this offset on, events of the partition belong to `generation` of the definitions."""

    generation: int
    received: int


class CaughtUp(Struct, tag_field="kind", tag="caught_up", omit_defaults=True):
    """Ingest had read its sources to their end at `received`: everything accepted before stands before this record."""

    received: int


class Ready(Struct, tag_field="kind", tag="ready", omit_defaults=True):
    """Every partition has folded its history into `generation`; evaluation may move to it."""

    generation: int
    received: int


class Sealed(Struct, tag_field="kind", tag="sealed", omit_defaults=True):
    """An event under lock (docs/privacy.md), where the format is Avro: a reader can tell it, and needs the keys to read
    it. In JSON its bytes stand by themselves."""

    value: bytes


EventsRecord = Event | Marker | CaughtUp | Ready


class DeadLetter(Struct, omit_defaults=True):
    """A record that could not be used. `value` and `key` are the original bytes (base64 in JSON)."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    at: int
    value: bytes | None = None
    key: bytes | None = None
    stage: str = "ingest"
    pointer: str = ""


class Cause(Struct, omit_defaults=True):
    """What made a change: the message and its position in `events`, where it was one."""

    message_id: str | None = None
    partition: int | None = None
    offset: int | None = None
