"""Requests to addresses that strangers wrote down: checked when connecting, never redirected, bounded in time and size.

The check is made on the address that is then connected to, so a name that resolves differently the second time brings
nothing. Link-local addresses, and the others where clouds keep their credentials, are refused always; private ones and
loopback unless the destination allows them. No proxy is taken from the environment: it would connect where we must not.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpcore

_PIECE_BYTES = 16_384
_LONGEST_HEAD = 128 * 1024
_END_OF_HEAD = b"\r\n\r\n"
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
# Where Amazon, Google, Azure and Oracle answer what a machine may know of itself, beside the link-local address.
_OF_CLOUDS = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "192.0.0.192")))
# All else is for inside: site-local, IPv4 in forms of former times, or not given out.
_PUBLIC = ipaddress.IPv6Network("2000::/3")


class AddressRefusedError(Exception):
    """The name leads to an address that must not be connected to."""


class Answer(NamedTuple):
    """The status, the headers in lower case, and the beginning of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


def _inner(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 one, where there is one: the way around a check of the outer form."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if any(address in network for network in _NAT64):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def address_allowed(text: str, allow_private: bool) -> bool:
    """Whether an IP address may be connected to."""
    address = _inner(ipaddress.ip_address(text.partition("%")[0]))
    if address in _OF_CLOUDS or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC and not address.is_private:
        return False
    return address.is_global or (allow_private and (address.is_private or address.is_loopback))


class _Deadline(threading.local):
    at: float = float("inf")

    def left(self, timeout: float | None) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the whole request took too long")
        return left if timeout is None else min(timeout, left)


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every read and write is under the deadline of the request that uses it now: a server that
    sends a byte, or takes a few, now and then would otherwise hold a thread for hours."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline
        self.has_read = False
        """Whether something was read since it was last written to."""
        self._head, self._bytes_read = b"", 0
        self._has_more = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.has_read = True
        data = self._stream.read(max_bytes, self._deadline.left(timeout))
        self._bytes_read += len(data)
        if _END_OF_HEAD not in self._head and len(self._head) < _LONGEST_HEAD:
            self._head += data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.has_read = False
        self._head, self._bytes_read = b"", 0
        for start in range(0, len(buffer), _PIECE_BYTES):
            self._stream.write(buffer[start : start + _PIECE_BYTES], self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _TimedStream(secured, self._deadline)

    def ends(self, body_bytes: int) -> None:
        """The answer was read, whose body has so many bytes. Of a server that answers twice there may be more, which is
        no answer to the next request."""
        head, end, _ = self._head.partition(_END_OF_HEAD)
        self._has_more = bool(end) and self._bytes_read > len(head) + len(end) + body_bytes

    def get_extra_info(self, info: str) -> Any:
        # What can be read before anything was asked ends a connection, also where it has been read already.
        return (info == "is_readable" and self._has_more) or self._stream.get_extra_info(info)


class _CheckedBackend(httpcore.NetworkBackend):
    def __init__(self, allow_private: bool, deadline: _Deadline) -> None:
        self._allow_private = allow_private
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "no host can be called so"
            raise httpcore.ConnectError(f"the name {host} was not found: {said}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if address_allowed(address, self._allow_private)]
        if not allowed:
            raise AddressRefusedError(
                f"{host} leads to {', '.join(addresses)}, which is private or reserved; "
                "`allow_private: true` allows private addresses and loopback"
            )
        for address in allowed[:-1]:
            try:
                return self._connect(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(allowed[-1], port, timeout, local_address, socket_options)

    def _connect(
        self, address: str, port: int, timeout: float | None, local: str | None, options: Iterable[Any] | None
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(address, port, self._deadline.left(timeout), local, options)
        return _TimedStream(stream, self._deadline)


class Client:
    """An HTTP client for one destination; safe to use from several threads.

    `timeout_s` bounds a whole request, `body_limit` what is read of an answer: the rest is left unread.
    """

    def __init__(
        self, *, allow_private: bool, timeout_s: float, connections: int = 16, body_limit: int = 4_096
    ) -> None:
        self._deadline = _Deadline()
        self._timeout_s = timeout_s
        self._body_limit = body_limit
        self._pool = httpcore.ConnectionPool(
            max_connections=connections,
            keepalive_expiry=30,
            network_backend=_CheckedBackend(allow_private, self._deadline),
        )

    def request(self, method: str, url: str, headers: dict[str, str], content: bytes) -> Answer:
        """Send one request. Raises AddressRefusedError, httpcore.TimeoutException, NetworkError or ProtocolError."""
        self._deadline.at = time.monotonic() + self._timeout_s
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        pairs = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        stream = self._pool.stream(method, url, headers=pairs, content=content, extensions={"timeout": timeouts})
        with stream as response:
            connection = response.extensions.get("network_stream")
            if not getattr(connection, "has_read", True):
                # A server that answers twice: its second answer would be taken for that to the next request.
                raise httpcore.RemoteProtocolError("an answer that was there before its request")
            body = b""
            for chunk in response.iter_stream():
                body += chunk
                if len(body) >= self._body_limit:
                    break
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if isinstance(connection, _TimedStream) and answered.get("content-length") == str(len(body)):
                connection.ends(len(body))
            return Answer(response.status, answered, body[: self._body_limit])

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
