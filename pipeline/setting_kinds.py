"""Kinds of settings that need more than their type: addresses, and paths as people write them."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def _named(host: str) -> str:
    try:
        host.encode("idna")  # as the socket does it, which raises what is no OSError
    except UnicodeError:
        raise ValueError("no host can be called so") from None
    return host


def _listens(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty, and would mean every address: write 0.0.0.0 for all")
    return _named(value)


def _is_asked(value: str) -> str:
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError if there can be none
    if not parts.hostname:
        raise ValueError("it names no host")
    _named(parts.hostname)
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("nobody knows the home that its ~ means: write the path whole") from None


ListeningHost = Annotated[str, AfterValidator(_listens)]
HttpAddress = Annotated[str, AfterValidator(_is_asked)]
ExpandedPath = Annotated[Path, AfterValidator(_expanded)]
