"""Sockets that a door listens on, for whoever serves there and for whoever only asks whether it could."""

import socket

from pipeline.errors import InputError


def listen(host: str, port: int, setting: str, shared: bool = False) -> socket.socket:
    """A socket bound to an address; with `shared`, several processes of this machine may share the port.

    Raises:
        InputError: it cannot be had; `setting` is where to choose another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared and hasattr(socket, "SO_REUSEPORT"):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise InputError(f"Nothing can listen there: {error.strerror}.", f"{host}:{port}", f"set {setting}") from None
    return listening


def address(listening: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
