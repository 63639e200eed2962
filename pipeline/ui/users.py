"""Who may sign in, and as what. The file of users holds no password and nothing that could be used without one.

Each user has a token of the API of their own, with the scopes of their role: so the API itself refuses what a role may
not do, and its audit names the person. The token is sealed (AES-GCM) under a key made from the password (scrypt): a
password is right if it opens the token, which is then kept in the memory of the session only.
"""

import base64
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import InputError, SettingsError
from pipeline.private_files import is_there, read_yaml, write_private_yaml

Role = Literal["viewer", "editor", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "editor", "operator")
"""Each may do what those before it may."""

_READ = ("profiles:read", "events:read", "segments:read", "streams:read", "definitions:read", "operations:read")
SCOPES: dict[str, tuple[str, ...]] = {
    "viewer": _READ,
    "editor": (*_READ, "definitions:write"),
    "operator": (*_READ, "definitions:write", "identity:write", "privacy:write", "operations:write"),
}
"""What the token of a role may do."""

MIN_PASSWORD, MAX_PASSWORD = 12, 200
_COST = 2**15
_MAX_USERS = 1_000
_NONCE, _TAG = 12, 16
_CALLED = "file of users"
"""Bytes before what is sealed, and behind it."""


def _bytes_of(least: int) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if len(base64.b64decode(text, validate=True)) < least:
            raise ValueError("it is too short")
        return text

    return checked


class User(BaseModel):
    """One user as the file has them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
    role: Role
    salt: Annotated[str, AfterValidator(_bytes_of(16))]
    sealed: Annotated[str, AfterValidator(_bytes_of(_NONCE + _TAG))]

    def token(self, password: str) -> str | None:
        """The user's token of the API; None if the password is another. Takes about a tenth of a second."""
        sealed, key = base64.b64decode(self.sealed), _key(password, base64.b64decode(self.salt))
        try:
            opened = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(self.name, self.role))
        except InvalidTag:
            return None
        return opened.decode()


class UsersFile(BaseModel):
    """The file of users."""

    model_config = ConfigDict(extra="forbid")

    users: Annotated[list[User], Field(max_length=_MAX_USERS)] = []


def _bound(name: str, role: str) -> bytes:
    # Nobody who can write the file makes a viewer's token an editor's, or one person's another's.
    return f"{name}/{role}".encode()


def _key(password: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(password.encode())


def token_name(name: str) -> str:
    """The name of the token of a user, which the API's audit and the history of definitions show."""
    return f"ui.{name}"


def seal_user(name: str, role: Role, token: str, password: str) -> User:
    """A user whose token is sealed under a password. Raises InputError."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InputError(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.", "", "choose a longer one")
    salt, nonce = os.urandom(16), os.urandom(_NONCE)
    sealed = nonce + AESGCM(_key(password, salt)).encrypt(nonce, token.encode(), _bound(name, role))
    salted, written = (base64.b64encode(each).decode() for each in (salt, sealed))
    try:
        return User(name=name, role=role, salt=salted, sealed=written)
    except ValidationError:
        raise InputError(
            f"{name!r} is no name of a user.", "", "use small letters, digits, `_`, `.` and `-`, 60 at most"
        ) from None


def make_password() -> str:
    """A password nobody has chosen."""
    return secrets.token_urlsafe(15)


def read_users(path: Path) -> list[User]:
    """The users in a file; none if there is no file. Raises SettingsError."""
    if not is_there(path, _CALLED):
        return []
    try:
        return UsersFile.model_validate(read_yaml(path, _CALLED) or {}).users
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise SettingsError(
            f"The file of users cannot be used: {place} is wrong.", str(path), "correct it, or make it anew"
        ) from None


def write_users(path: Path, users: Iterable[User]) -> None:
    """Replace the file."""
    write_private_yaml(path, {"users": [user.model_dump(mode="json") for user in users]})
