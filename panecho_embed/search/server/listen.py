"""The socket of the page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from panecho_embed.errors import ArgumentError


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket and the address to open in a browser. Raises ArgumentError if it can't be had."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns off Nagle's delay, 40 ms an answer, on sockets that say that they are TCP.
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ArgumentError(f"host is {host!r}, which can't be resolved: {error.strerror or error} (--host)") from error
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(where)
            # From now on a browser waits instead of being refused.
            bound.listen()
        except OSError as error:
            raise ArgumentError(f"{host}:{port} can't be used: {error.strerror} (--port 0 takes a free one)") from error
        # "All addresses" is no address that a browser can open.
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        name = f"[{name}]" if ":" in name else name
        yield bound, f"http://{name}:{bound.getsockname()[1]}/"
