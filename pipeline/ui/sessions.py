"""Who is signed in: kept in memory, so a restart signs everybody out."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.api.client import ApiClient
from pipeline.ui.users import MAX_PASSWORD, ROLES, Role, User, read_users

_FAILURES = 5
_PAUSE_S = 30.0
_MOST_FAILING = 10_000
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `form_key` stands in every form: a form of another site does not know it."""

    name: str
    role: Role
    client: ApiClient
    form_key: str
    ends_at: float

    def may(self, role: Role) -> bool:
        """Whether this role, or one above it, is theirs."""
        return ROLES.index(self.role) >= ROLES.index(role)


class TooManyTries(Exception):
    """A name, or everybody, has tried too many passwords."""


class Sessions:
    """The sessions of one process. Methods may be called from several threads."""

    def __init__(
        self, users: Path, open_client: Callable[[str], ApiClient], lasts_s: float = 43_200, most: int = 1_000
    ) -> None:
        """`open_client` makes a client of the API of a token."""
        self._users = users
        self._open_client = open_client
        self._lasts_s = lasts_s
        self._most = most
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        # Trying a password takes 32 MB and a tenth of a second, on purpose.
        self._trying = threading.BoundedSemaphore(_AT_ONCE)
        self._nobody = User(name="nobody", role="viewer", salt="AAAAAAAAAAAAAAAAAAAAAA==", sealed="A" * 64)

    def sign_in(self, name: str, password: str) -> str | None:
        """The cookie of a new session; None when name and password do not belong together. Raises TooManyTries."""
        now = time.monotonic()
        with self._lock:
            count, at = self._failures.get(name, (0, 0.0))
            if count >= _FAILURES and now - at < _PAUSE_S:
                raise TooManyTries
        if not self._trying.acquire(timeout=5):
            raise TooManyTries
        try:
            user = next((one for one in read_users(self._users) if one.name == name), self._nobody)
            token = user.token(password[: MAX_PASSWORD + 1])
        finally:
            self._trying.release()
        with self._lock:
            if token is None or user is self._nobody:
                if len(self._failures) >= _MOST_FAILING:
                    self._failures.clear()
                count = 0 if now - at >= _PAUSE_S else count
                self._failures[name[:100]] = (count + 1, now)
                return None
            self._failures.pop(name, None)
            self._forget_ended(now)
            while len(self._sessions) >= self._most:
                self._end(min(self._sessions, key=lambda key: self._sessions[key].ends_at))
            cookie = secrets.token_urlsafe(32)
            session = Session(name, user.role, self._open_client(token), secrets.token_urlsafe(24), now + self._lasts_s)
            self._sessions[_hashed(cookie)] = session
            return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, while it lasts."""
        with self._lock:
            found = self._sessions.get(_hashed(cookie))
            if found is not None and found.ends_at < time.monotonic():
                self._end(_hashed(cookie))
                return None
            return found

    def sign_out(self, cookie: str) -> None:
        """End a session."""
        with self._lock:
            self._end(_hashed(cookie))

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            for key in list(self._sessions):
                self._end(key)

    def _forget_ended(self, now: float) -> None:
        for key in [key for key, one in self._sessions.items() if one.ends_at < now]:
            self._end(key)

    def _end(self, key: str) -> None:
        found = self._sessions.pop(key, None)
        if found is not None:
            found.client.close()


def _hashed(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
