"""From a body to records of the raw topic. Pure: who calls and when are arguments.

    single   the body is one event; the path says its type
    batch    {"batch": [event, …], "sentAt": …, "context": {…}}; each event says its type

An event that cannot be an event at all (no object, too large, too deep) is rejected here, alone; whatever else is wrong
with one is for ingest to say, which keeps it as a dead letter. What is stated about the request is written into each
event: `receivedAt` (nobody else may say that), `sentAt`, the name of the source, the caller's address and user agent as
far as they are kept, and whether it is a known robot. Write keys never go further than this.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

from pipeline.collector.access import kept_ip
from pipeline.collector.answers import Refused
from pipeline.ingest import MAX_DEPTH, forgiving

MAX_EVENT_BYTES = 32 * 1024
MAX_BATCH_BYTES = 500 * 1024
MAX_BATCH_EVENTS = 2_500
# The common context of a batch goes into each event, so a small body can stand for much more.
MAX_EXPANDED_BYTES = 4 * MAX_BATCH_BYTES
_MAX_ROUTE_CHARACTERS = 512
# Levels: the event itself, then those that ingest allows under a field.
_MAX_LEVELS = MAX_DEPTH + 1
# What is stated about the request is no part of the caller's 32 KB.
_OWN_BYTES = 2_048


class Caller(NamedTuple):
    """Who sent a request, as far as it is kept. `received` is ISO 8601 with milliseconds."""

    received: str
    source: str
    ip: str | None = None
    user_agent: str | None = None
    keeps_ip: Literal["drop", "truncate", "keep"] = "drop"
    keeps_user_agent: bool = True


class Rejection(Struct, frozen=True):
    """An event of a batch that was not taken: its place in the batch, and why."""

    index: int
    reason: str
    detail: str


class Parsed(NamedTuple):
    """Records (key, value) of the raw topic, and what was rejected."""

    records: list[tuple[bytes | None, bytes]]
    rejected: list[Rejection]


class Batch(Struct, rename="camel"):
    """A batch; its events are not looked into yet."""

    batch: list[Raw]
    write_key: Any = None
    sent_at: Any = None
    context: Any = None


class Single(Struct, rename="camel"):
    """What must be known of a single event before its caller is let in."""

    write_key: Any = None


# Everything up to the next number that is none, in one step, and whole strings in it: what looks so in a text is text.
_NO_NUMBER = re.compile(
    rb"""(?:[^"NI-]++|N(?!aN)|I(?!nfinity)|-(?!Infinity)|"(?:[^"\\]++|\\.)*+\\?(?:"|\Z))++|-?Infinity|NaN""", re.DOTALL
)
_MOST_NO_NUMBERS = 5_000

_Decoded = TypeVar("_Decoded")
_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_single = msgspec.json.Decoder(Single).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _read(decode: Callable[[bytes], _Decoded], text: bytes) -> _Decoded:
    """What `decode` makes of JSON as SDKs write it. That of Python writes NaN and Infinity, which are none: they become
    null, as a browser writes them, for a batch must not fail for one of its numbers. Raises what `decode` raises."""
    try:
        return forgiving(decode, text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if not 0 < text.count(b"NaN") + text.count(b"Infinity") <= _MOST_NO_NUMBERS:
            raise
        return forgiving(decode, _NO_NUMBER.sub(_null, text))


def _null(found: re.Match[bytes]) -> bytes:
    return b"null" if found[0] in (b"NaN", b"Infinity", b"-Infinity") else found[0]


def read_batch(body: bytes) -> Batch:
    """The batch in a body. Raises Refused."""
    try:
        batch = _read(_decode_batch, body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error, "an object with a list `batch`") from None
    if len(batch.batch) > MAX_BATCH_EVENTS:
        raise Refused(413, "too_many", f"The batch has {len(batch.batch):,} events, of {MAX_BATCH_EVENTS:,}.")
    return batch


def write_key_in(body: bytes) -> Any:
    """The `writeKey` of a single event's body. Raises Refused when it is no JSON object."""
    try:
        return _read(_decode_single, body).write_key
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error, "one event, an object") from None


def _no_json(error: Exception, wanted: str) -> Refused:
    if isinstance(error, RecursionError):
        return Refused(400, "too_deep", f"Objects and lists are nested deeper than {MAX_DEPTH} levels.")
    if isinstance(error, msgspec.ValidationError):
        return Refused(400, "wrong_shape", f"The body must be {wanted}: {error}.")
    return Refused(400, "not_json", "The body is not JSON in UTF-8.")


class Parser:
    """Makes records. Keys are a keyed hash of who the event is about, so that a retry meets the same partition and no
    identifier stands in a key."""

    def __init__(self, secret: bytes, is_bot: Callable[[str], bool]) -> None:
        self._is_bot = is_bot
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"collector").digest()

    def single(self, body: bytes, kind: str, caller: Caller) -> Parsed:
        """The record of a single event. Raises Refused."""
        if len(body) > MAX_EVENT_BYTES:
            raise Refused(413, "too_large", f"The event is larger than {MAX_EVENT_BYTES:,} bytes.")
        made = self._record(0, body, kind, None, None, caller)
        if isinstance(made, Rejection):
            raise Refused(400, made.reason, made.detail)
        return Parsed([made], [])

    def batch(self, batch: Batch, caller: Caller) -> Parsed:
        """The records of a batch, and the events that were rejected.

        Raises Refused when none is left of several, or when the batch with its common context is too large.
        """
        context = batch.context if isinstance(batch.context, dict) else None
        records: list[tuple[bytes | None, bytes]] = []
        rejected: list[Rejection] = []
        expanded = 0
        for index, raw in enumerate(batch.batch):
            made = self._record(index, raw, None, batch.sent_at, context, caller)
            if isinstance(made, Rejection):
                rejected.append(made)
                continue
            expanded += len(made[1])
            if expanded > MAX_EXPANDED_BYTES:
                raise Refused(413, "too_large", "With its common context in each event the batch is too large.")
            records.append(made)
        if rejected and not records:
            first = rejected[0]
            raise Refused(400, first.reason, f"No event of the batch could be taken. The first: {first.detail}")
        return Parsed(records, rejected)

    def _record(
        self,
        index: int,
        raw: bytes | Raw,
        kind: str | None,
        sent_at: Any,
        context: dict[str, Any] | None,
        caller: Caller,
    ) -> tuple[bytes | None, bytes] | Rejection:
        plain = raw if isinstance(raw, bytes) else bytes(raw)
        if len(plain) > MAX_EVENT_BYTES:
            return Rejection(index, "too_large", f"The event has {len(plain):,} bytes, of {MAX_EVENT_BYTES:,}.")
        try:
            event = _read(_decode, plain)
        except RecursionError:
            return _too_deep(index)
        except msgspec.ValidationError:
            return _too_large_a_number(index)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Rejection(index, "not_json", "The event is not JSON in UTF-8.")
        if not isinstance(event, dict):
            return Rejection(index, "not_object", "The event is not an object.")
        # Counting brackets sees at most too much; only then is the event walked.
        if plain.count(b"{") + plain.count(b"[") > _MAX_LEVELS and _levels_over(event, _MAX_LEVELS):
            return _too_deep(index)
        if kind is not None:
            event["type"] = kind
        event.pop("writeKey", None)
        event["receivedAt"] = caller.received
        event["source"] = caller.source
        if sent_at is not None and event.get("sentAt") is None:
            event["sentAt"] = sent_at
        event["context"] = self._context(event.get("context"), context, caller)
        try:
            value = _encode(event)
        except (OverflowError, ValueError, RecursionError):
            return _too_large_a_number(index)
        if len(value) > MAX_EVENT_BYTES + _OWN_BYTES:
            return Rejection(
                index, "too_large", f"With the batch's context the event exceeds {MAX_EVENT_BYTES:,} bytes."
            )
        return self._key(event), value

    def _key(self, event: dict[str, Any]) -> bytes | None:
        for field in ("userId", "anonymousId", "messageId"):
            value = event.get(field)
            if value is not None and value != "" and isinstance(value, str | int | float):
                text = f"{field}:{value}"[:_MAX_ROUTE_CHARACTERS]
                hashed = hashlib.blake2b(text.encode(), digest_size=16, key=self._secret)
                return hashed.hexdigest().encode()
        return None

    def _context(self, own: Any, common: dict[str, Any] | None, caller: Caller) -> Any:
        if own is None or own == []:
            own = {}
        elif not isinstance(own, dict):
            return own  # ingest says what is wrong with it
        context = {**common, **own} if common else own
        # A server that speaks for a browser says the browser's address; else it is who called.
        stated = context.pop("ip", None)
        if caller.keeps_ip != "drop":
            address = caller.ip if stated is None else kept_ip(stated, caller.keeps_ip)
            if address is not None:
                context["ip"] = address
        user_agent = context.get("userAgent")
        if not isinstance(user_agent, str):
            user_agent = caller.user_agent
        if user_agent is not None and self._is_bot(user_agent):
            context["bot"] = True
        if not caller.keeps_user_agent:
            for field in ("userAgent", "userAgentData"):
                context.pop(field, None)
        elif user_agent is not None:
            context.setdefault("userAgent", user_agent)
        return context


def _too_deep(index: int) -> Rejection:
    return Rejection(index, "too_deep", f"Objects and lists are nested deeper than {MAX_DEPTH} levels.")


def _too_large_a_number(index: int) -> Rejection:
    return Rejection(index, "number_out_of_range", "A number does not fit into 64 bits; send it as text.")


def _levels_over(value: Any, most: int) -> bool:
    level: list[Any] = [value]
    for _ in range(most):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
