"""The socket of the page, and how long a connection may take to bring a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from panecho_embed.core.errors import ArgumentError

REQUEST_SECONDS = 30.0
"""For a connection to bring a whole request, except the body of an upload, which has another limit."""


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket and the address to open in a browser. Raises ArgumentError if it is not available."""
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


def server_of(app: ASGIApp, request_seconds: float = REQUEST_SECONDS) -> uvicorn.Server:
    """The web server; it closes connections that bring no whole request within `request_seconds`.

    Requests are not logged: they name studies.
    """
    patience = _Patience(request_seconds)

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # chosen by what is installed
        """HTTP, with a limit on how long a request takes to come."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            patience.begin(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            patience.end(self.transport)
            super().connection_lost(exc)

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        # Its head has come; until it is answered, what the application allows counts.
        with patience.suspended(scope.get("client")):
            await app(scope, receive, send)

    config = uvicorn.Config(timed, http=Protocol, log_level="warning", access_log=False, timeout_keep_alive=10)
    return uvicorn.Server(config)


class _Patience:
    """Closes connections of which too little comes, each by the address of its other end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[tuple[str, int], tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def begin(self, transport: asyncio.Transport) -> None:
        timer = asyncio.get_running_loop().call_later(self._seconds, transport.close)
        self._open[_other_end(transport)] = transport, timer

    def end(self, transport: asyncio.Transport) -> None:
        found = self._open.pop(_other_end(transport), None)
        if found is not None:
            found[1].cancel()

    @contextmanager
    def suspended(self, client: tuple[str, int] | None) -> Iterator[None]:
        """Don't close a client's connection inside; its next request has the whole time again."""
        found = self._open.get(client) if client is not None else None
        if found is not None:
            found[1].cancel()
        try:
            yield
        finally:
            if found is not None and client in self._open:
                self.begin(found[0])


def _other_end(transport: asyncio.Transport) -> tuple[str, int]:
    host, port, *_ = transport.get_extra_info("peername") or ("", 0)
    return str(host), int(port)
