"""Answers from the tables: how fresh they are, and nothing that the caller has already."""

import hashlib
from typing import Any

import msgspec
from starlette.responses import Response

from pipeline.api.operations import Call
from pipeline.api.service import Service

_encode = msgspec.json.Encoder().encode


def answer(service: Service, call: Call, found: dict[str, Any] | bytes) -> Response:
    """The answer, with its tag. What is hidden from the caller is out of it already, so the tag tells nothing of it."""
    body = found if isinstance(found, bytes) else _encode(found)
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, **service.freshness()}
    if is_named(call.values.get("If-None-Match") or "", tag):
        return Response(b"", 304, headers)
    return Response(body, 200, headers, "application/json")


def is_named(wanted: str, tag: str) -> bool:
    """Whether a list of tags, as `If-None-Match` has them, names this one."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in wanted.split(","))
