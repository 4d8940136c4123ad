"""A file server on this machine that misbehaves as told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Behaviour:
    """What the server does; `requests` is what it was asked, path and headers.

    break_after: bytes after which each of the first answers breaks off. status: answered instead, the first times.
    lie: bytes that Content-Length names too many.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    length: bool = True
    lie: int = 0
    break_after: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[Behaviour]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.requests.append((self.path, dict(self.headers)))
            if behaviour.status:
                self.send_response(behaviour.status.pop(0))
                self._finish_headers(0)
                return
            first = self._first_byte()
            if first is not None and first >= len(behaviour.content):
                self.send_response(416)
                self._finish_headers(0)
                return
            body = behaviour.content[first or 0 :]
            self.send_response(200 if first is None else 206)
            if first is not None:
                total = len(behaviour.content)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            self._finish_headers(len(body) + behaviour.lie if behaviour.length else None)
            if behaviour.break_after:
                body = body[: behaviour.break_after.pop(0)]
            self.wfile.write(body)

        do_HEAD = do_GET

        def _first_byte(self) -> int | None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not behaviour.ranges or asked is None:
                return None
            if self.headers.get("If-Range", behaviour.etag) != behaviour.etag:
                return None
            return int(asked[1])

        def _finish_headers(self, length: int | None) -> None:
            if length is not None:
                self.send_header("Content-Length", str(length))
            if behaviour.etag:
                self.send_header("ETag", behaviour.etag)
            for name, value in behaviour.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    behaviour.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield behaviour
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
