"""Who may send, and from which pages: write keys and CORS."""

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Literal

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
_ORIGIN = re.compile(rb"[!-~]{1,400}")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9_, -]{1,2000}")
_USUAL_HEADERS = b"Authorization, Content-Type, Content-Encoding, X-Retry-Count"
_LONGEST_AUTHORIZATION = 1_024
_LONGEST_ADDRESS = 100
_IPV4_KEPT_BITS, _IPV6_KEPT_BITS = 24, 48


class WriteKeys:
    """The source each write key stands for. Keys are compared by their hashes: how long it takes tells nothing."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = {_hashed(key): source for key, source in sources.items()}

    def source(self, key: Any) -> str | None:
        """The name of the source, or None for a key nobody was given."""
        return self._sources.get(_hashed(key)) if isinstance(key, str) and len(key) <= 200 else None


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def key_in_header(authorization: bytes | None) -> str | None:
    """The write key of Basic authentication, where it is the user's name; None if there is none."""
    if authorization is None or len(authorization) > _LONGEST_AUTHORIZATION:
        return None
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return None


class Cors:
    """What pages of other origins may do. No cookie is ever read and no answer has a secret, so any page may be let in,
    and may bring cookies: `navigator.sendBeacon` always would, and browsers take no star from who brings them."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._everywhere = "*" in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """The headers of every answer."""
        found = [(b"vary", b"Origin")]
        if origin is not None and (origin in self._allowed or self._everywhere) and _ORIGIN.fullmatch(origin):
            found.append((b"access-control-allow-origin", origin))
            found.append((b"access-control-allow-credentials", b"true"))
            # Without it a script of another origin is not shown when it is to come again.
            found.append((b"access-control-expose-headers", b"Retry-After"))
        return found

    def preflight(self, origin: bytes | None, wanted: bytes | None) -> list[tuple[bytes, bytes]]:
        """The headers of the answer to a browser's question whether it may send `wanted` headers."""
        return [
            *self.headers(origin),
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            # Neither does a star stand for these, nor for Authorization.
            (b"access-control-allow-headers", wanted if wanted and _HEADER_NAMES.fullmatch(wanted) else _USUAL_HEADERS),
            (b"access-control-max-age", b"86400"),
        ]


def kept_ip(address: Any, how: Literal["drop", "truncate", "keep"]) -> str | None:
    """An address as far as it is kept: truncated are the last 8 bits of IPv4, and 80 of IPv6. None if it is none."""
    if how == "drop" or not isinstance(address, str) or len(address) > _LONGEST_ADDRESS:
        return None
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if how == "keep":
        return str(found)
    bits = _IPV4_KEPT_BITS if found.version == 4 else _IPV6_KEPT_BITS
    return str(ipaddress.ip_network(f"{found}/{bits}", strict=False).network_address)


def is_host(text: str) -> bool:
    """Whether a Host header can stand in an answer."""
    return _HOST.fullmatch(text) is not None
