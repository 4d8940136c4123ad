"""Who sends half a request is not waited for for ever."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")

from panecho_embed.retrieval.server.app import ServeSettings, create_app
from panecho_embed.retrieval.server.listen import listening, server_of

SECONDS = 3.0
WHOLE = b"GET /api/info HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer secret\r\n\r\n"


@pytest.fixture
def port(emb) -> Iterator[int]:
    app = create_app(emb, ServeSettings("secret"))
    with listening("127.0.0.1", 0) as (bound, address):
        server = server_of(app, SECONDS)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield int(address.rstrip("/").rpartition(":")[2])
        server.should_exit = True
        thread.join()


def until_closed(port: int, *sent: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        received = b""
        for part in sent:
            client.sendall(part)
            if part == WHOLE:
                received += client.recv(65536)
        while part := client.recv(65536):
            received += part
        return received


@pytest.mark.parametrize(
    "sent",
    [
        [b""],
        [b"GET /api/info HTTP/1.1\r\nHost: 127.0"],
        [b"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf"],
        [WHOLE, b"GET /api/info HTT"],
    ],
)
def test_a_connection_that_brings_half_a_request_is_closed(port, sent):
    received = until_closed(port, *sent)
    assert received.startswith(b"HTTP/1.1 401" if b"POST" in sent[0] else b"HTTP/1.1 200" if WHOLE in sent else b"")


def test_several_requests_come_over_one_connection(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(3):
        client.request("GET", "/api/info", headers={"Authorization": "Bearer secret"})
        answer = client.getresponse()
        assert answer.status == 200
        assert answer.read()
    client.close()
