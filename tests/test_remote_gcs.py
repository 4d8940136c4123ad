"""Inputs and outputs in Google Cloud Storage, as far as a server of this machine plays it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import fsspec
import pytest

from panecho_embed.core import remote
from panecho_embed.core.errors import RemoteError, StoreError
from panecho_embed.datasets import read_manifest
from panecho_embed.store import verify
from tests.buckets import bucket_of, names_in
from tests.test_remote import but_places, run, studies

pytest.importorskip("gcsfs", reason="gcsfs is not installed (the extra [gcs])")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed (the extra [test])")

__all__ = ["studies"]


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gcp_storage_emulator", "start", "-H", "127.0.0.1", "--port", str(port), "-M"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, studies, tmp_path, monkeypatch):
    """gs://echos-N, with the studies in `videos`."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    # Of the kind of every bucket, gcsfs asks another service of Google's, which nothing here plays.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "cache"))
    with bucket_of("gs", studies) as url:
        yield url


def test_from_bucket_to_bucket_as_from_folder_to_folder(bucket, studies, tmp_path):
    here = tmp_path / "here.h5"
    local = run(studies, here)
    summary = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert (summary.exit_code, summary.done, summary.rows) == (3, 8, local.rows)
    assert summary.failed[0].path == f"{bucket}/videos/p1/broken.avi"
    assert names_in(bucket) == ["out.h5"]
    copy = remote.cached(f"{bucket}/out.h5")
    assert verify(copy) == []
    assert but_places(copy) == but_places(here)


def test_what_is_done_stays_done_and_what_has_changed_is_seen(bucket):
    run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert run(f"{bucket}/videos", f"{bucket}/out.h5").reused == 8
    fsspec.filesystem("gs").pipe(f"{bucket}/videos/p0/v0.npy", b"something else")
    changed = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert (changed.reused, changed.done) == (7, 7)


def test_parts_are_uploaded_and_removed_at_the_end(bucket, monkeypatch):
    def stopped(source, url, upload=remote.upload):
        if ".parts" not in url:
            raise RemoteError(f"{url} can't be reached: no route")
        upload(source, url)

    with monkeypatch.context() as patch:
        patch.setattr("panecho_embed.store.mirror.upload", stopped)
        with pytest.raises(StoreError, match="no route"):
            run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert {name.partition("/")[0] for name in names_in(bucket)} == {"out.h5.parts"}
    assert run(f"{bucket}/videos", f"{bucket}/out.h5").reused == 8
    assert names_in(bucket) == ["out.h5"]


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(StoreError, match="no such bucket"):
        run(f"{bucket}/videos", "gs://no-such-bucket-at-all/out.h5")
    with pytest.raises(RemoteError, match="no such bucket"):
        read_manifest("gs://no-such-bucket-at-all/videos")
