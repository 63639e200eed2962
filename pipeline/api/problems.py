"""Answers that say no: `application/problem+json`, as RFC 9457 has it."""

from typing import Any

import msgspec
from starlette.responses import Response

_TITLES = {
    400: "The request is not understood",
    401: "A token is needed",
    403: "The token does not allow this",
    404: "There is nothing by this name",
    405: "This method does not work here",
    408: "The request took too long",
    409: "Not here, or not yet",
    410: "No longer there",
    412: "Somebody else was first",
    413: "The request is too large",
    414: "The address is too long",
    415: "This content type is not taken",
    422: "What was sent is not valid",
    429: "Too many requests",
    500: "This failed here",
    503: "Not ready",
}
_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """A request that cannot be served: the status, what is wrong, and headers that go with it."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The answer. Nothing of the request is repeated in it but what the detail says."""
        body = _encode(
            {"type": "about:blank", "title": title(self.status), "status": self.status, "detail": self.detail}
        )
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(body, self.status, headers, "application/problem+json")


def title(status: int) -> str:
    """What a status means here."""
    return _TITLES[status]


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
