"""What callers are answered. An SDK reads the status; `code` and `message` are for its log and for people."""

import msgspec

ACCEPTED = b'{"success":true}'


class Refused(Exception):
    """A request that is not accepted, and what its caller is told.

    `retry_after_s` makes clients come again by themselves. `close` ends the connection: the rest of the body is not
    wanted.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: int | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.close = close

    def body(self) -> bytes:
        """The answer's JSON."""
        return msgspec.json.encode({"success": False, "code": self.code, "message": self.message})


def busy() -> Refused:
    """More waits for the broker than may: the broker works, callers are quicker."""
    return Refused(429, "busy", "More is coming in than can be kept just now; come again.", retry_after_s=1)


def unavailable() -> Refused:
    """The broker does not acknowledge."""
    return Refused(503, "unavailable", "The events could not be kept just now; come again.", retry_after_s=3)


def nothing_here() -> Refused:
    """A path nobody serves. It is not repeated: what is there instead is told."""
    return Refused(
        404,
        "no_such_path",
        "There is nothing at this path. One event goes to POST /v1/track, /v1/identify, /v1/page, /v1/screen, /v1/group"
        " or /v1/alias, several go to POST /v1/batch.",
    )


def wrong_method(allowed: str) -> Refused:
    """A method that a path does not know."""
    return Refused(405, "wrong_method", f"This path takes {allowed}.")
