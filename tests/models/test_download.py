from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panecho_embed.core.digests import checked_sha256, recorded_sha256
from panecho_embed.core.errors import ArgumentError, WeightsError
from panecho_embed.models.weights import ATTEMPTS, download

from .server import Behaviour, serve

CONTENT = os.urandom(3_000_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()

Start = Callable[..., Behaviour]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    # pooch waits a second longer before each attempt.
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serve(Behaviour(CONTENT, **settings)))


def names(folder: Path) -> set[str]:
    """What is in a folder, except the lock of a file that could not be had."""
    return {path.name for path in folder.iterdir() if not (path.name.endswith(".lock") and not path.stat().st_size)}


def test_a_file_arrives_with_its_hash_and_nothing_else(start, tmp_path, capsys):
    server = start()
    download(f"{server.url}/w.pt", tmp_path / "new" / "w.pt")
    assert (tmp_path / "new" / "w.pt").read_bytes() == CONTENT
    assert names(tmp_path / "new") == {"w.pt", "w.pt.sha256"}
    assert recorded_sha256(tmp_path / "new" / "w.pt") == DIGEST
    # No terminal, no progress bar.
    assert capsys.readouterr() == ("", "")


def test_the_recorded_hash_is_what_sha256sum_reads(start, tmp_path):
    download(f"{start().url}/w.pt", tmp_path / "w.pt")
    subprocess.run(["sha256sum", "-c", "w.pt.sha256"], cwd=tmp_path, check=True, capture_output=True)


def test_a_broken_connection_is_tried_again_from_the_start(start, tmp_path):
    server = start(break_after=[1_000_000, 500_000])
    download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert server.ranges_asked == [None] * 3


def test_a_connection_that_breaks_every_time_is_an_error_and_leaves_nothing(start, tmp_path):
    server = start(break_after=[100_000] * ATTEMPTS)
    with pytest.raises(ConnectionError, match=rf"/w\.pt: .*IncompleteRead.* \(after {ATTEMPTS} attempts\)"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert names(tmp_path) == set()
    download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert names(tmp_path) == {"w.pt", "w.pt.sha256"}


@settings(max_examples=15)
@given(breaks=st.lists(st.integers(0, len(CONTENT)), max_size=ATTEMPTS - 1), ranges=st.booleans(), etag=st.booleans())
def test_the_bytes_are_right_wherever_it_breaks(tmp_path_factory, breaks, ranges, etag):
    path = tmp_path_factory.mktemp("broken") / "w.pt"
    with serve(Behaviour(CONTENT, '"one"' if etag else None, ranges=ranges, break_after=list(breaks))) as server:
        download(f"{server.url}/w.pt", path)
    assert path.read_bytes() == CONTENT


def test_a_length_that_never_arrives_is_an_error(start, tmp_path):
    server = start(lie=7, ranges=False)
    with pytest.raises(ConnectionError, match="3000001 bytes read, 7 more expected"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert len(server.requests) == ATTEMPTS
    assert not (tmp_path / "w.pt").exists()


def test_a_server_that_names_no_length_will_do(start, tmp_path):
    download(f"{start(length=False).url}/w.pt", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (401, "Unauthorized"), (403, "Forbidden")])
def test_a_refusal_is_final(start, tmp_path, status, words):
    server = start(status=[status])
    with pytest.raises(ConnectionError, match=rf"/w\.pt: HTTP {status} {words}"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert len(server.requests) == 1
    assert names(tmp_path) == set()


def test_a_busy_server_is_asked_again(start, tmp_path):
    server = start(status=[503, 429, 500])
    download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert len(server.requests) == 4


def test_nobody_listening_is_final(tmp_path):
    with serve(Behaviour(CONTENT)) as gone:
        pass
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match="Connection refused"):
        download(f"{gone.url}/w.pt", tmp_path / "w.pt")
    assert time.monotonic() - begun < 5


def test_another_hash_than_the_published_one_is_an_error(start, tmp_path):
    server = start()
    with pytest.raises(WeightsError, match=rf"sha256 {DIGEST}; the published file's begins with 0123"):
        download(f"{server.url}/w.pt", tmp_path / "w.pt", "0123")
    assert names(tmp_path) == set()


def test_other_kinds_of_address_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="must begin with http"):
        download(f"file://{tmp_path}/w.pt", tmp_path / "w.pt")


def test_a_folder_that_can_not_be_is_an_error(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"w\.pt: can't be written: .*--to DIR"):
        download(f"{start().url}/w.pt", tmp_path / "file" / "w.pt")


def test_a_full_disk_is_an_error_and_leaves_nothing(start, tmp_path):
    server = start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(WeightsError, match=r"w\.pt: can't be written: File too large"):
            download(f"{server.url}/w.pt", tmp_path / "w.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == set()


def test_two_at_once_fetch_it_once(start, tmp_path):
    server = start()
    threads = [threading.Thread(target=download, args=(f"{server.url}/w.pt", tmp_path / "w.pt")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert names(tmp_path) == {"w.pt", "w.pt.sha256"}


def test_what_a_killed_download_left_goes(start, tmp_path):
    server = start(lie=1_000_000)
    program = (
        "import sys; from pathlib import Path; from panecho_embed.models.weights import download;"
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    # The lie has it pause before it asks again.
    child = subprocess.Popen([sys.executable, "-c", program, f"{server.url}/w.pt", str(tmp_path / "w.pt")])
    while not server.requests:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    (tmp_path / ".w.pt.part").mkdir(exist_ok=True)
    (tmp_path / ".w.pt.part" / "left").touch()
    server.lie = 0
    download(f"{server.url}/w.pt", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert names(tmp_path) == {"w.pt", "w.pt.sha256"}


def test_a_file_changed_after_it_was_fetched_is_noticed(start, tmp_path):
    download(f"{start().url}/w.pt", tmp_path / "w.pt")
    assert checked_sha256(tmp_path / "w.pt") == DIGEST
    with (tmp_path / "w.pt").open("r+b") as stream:
        stream.write(b"x")
    with pytest.raises(WeightsError, match=rf"has changed since it was written.*w\.pt\.sha256 says {DIGEST}"):
        checked_sha256(tmp_path / "w.pt")
