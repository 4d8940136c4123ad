from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.checkup.machine import check_space, file_bytes
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingWriter

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def roomy(monkeypatch, tmp_path):
    """All places are one, with as much room as `roomy(bytes)` says."""
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def set_free(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))

    set_free(10**12)
    return set_free


def test_room_everywhere_is_ok(roomy, tmp_path):
    checks = check_space(tmp_path, 10**6)
    assert {check.status for check in checks} == {"ok"}
    assert len(checks) == 3


def test_too_little_room_for_the_output_is_a_problem_and_for_caches_a_warning(roomy, tmp_path):
    roomy(10**6)
    output, *caches = check_space(tmp_path, 10**6)
    assert output.status == "problem"
    assert "1.0 MB free" in output.text
    assert "2.0 MB needed" in output.text
    assert "-o" in output.mend
    assert {check.status for check in caches} == {"warning"}
    assert any("$TORCH_HOME" in check.mend for check in caches)


def test_an_output_in_a_folder_that_is_not_there(roomy, tmp_path):
    output = check_space(tmp_path / "no" / "out.h5", 1)[0]
    assert output.status == "problem"
    assert output.mend == f"mkdir -p {tmp_path / 'no'}"


def test_an_output_at_a_url_is_put_together_in_the_cache(roomy, tmp_path):
    output, cache = check_space("memory://bucket/out.h5", 10**6)[:2]
    assert (output.status, output.text[:31]) == ("ok", "output: memory://bucket/out.h5 ")
    assert (cache.status, cache.text[-len(str(tmp_path / "written")) :]) == ("ok", str(tmp_path / "written"))
    roomy(10**6)
    cache = check_space("memory://bucket/out.h5", 10**6)[1]
    assert cache.status == "problem"
    assert "2.0 MB needed" in cache.text
    assert "$PANECHO_EMBED_CACHE" in cache.mend


def test_an_output_at_a_url_that_nothing_here_can_write_to(roomy, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    # fsspec keeps the classes that it has found.
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)
    output = check_space("gs://bucket/out.h5", 1)[0]
    assert output.status == "problem"
    assert "panecho-embed[gcs]" in output.text


def test_a_folder_that_takes_no_files(roomy, tmp_path):
    # Even root can write nothing to /proc.
    output = check_space(Path("/proc"), 1)[0]
    assert output.status == "problem"
    assert "nothing can be written to /proc" in output.text


def test_the_size_of_a_file_is_foretold(tmp_path, provenance):
    videos = tuple(
        VideoRef(f"0X{i:016X}", f"s{i}", f"p{i}", f"/data/studies/Videos/0X{i:016X}.avi") for i in range(500)
    )
    facts = [VideoFacts("done", "ab" * 32, 64, 30.0, "container", 1000, 5)] * 500
    with EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        for i in range(500):
            writer.add(i, np.zeros((4, provenance.dim)), np.arange(4), 1, 16)
        path = writer.finish(Manifest(videos), facts, [])
    assert 0.8 < path.stat().st_size / file_bytes(500, provenance.dim) < 1.2
