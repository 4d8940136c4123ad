"""What users and machines do to an extraction: outputs that can be none, odd names, disks that fill, inputs that go."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.feeding import Feeding
from panecho_embed.datasets import read_manifest
from panecho_embed.extraction import pool, writing
from panecho_embed.extraction.run import extract
from panecho_embed.models import backbones
from panecho_embed.store import EmbeddingFile, Parts, verify
from tests.test_extraction import moving
from tests.tiny import tiny


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for i in range(12):
        np.save(folder / f"v{i:02d}.npy", moving(18 + i, seed=i))
    return folder


def run(studies, out):
    return extract(studies, out, backbone=tiny(), workers=0)


def during(monkeypatch, number, act):
    """Do something while the so-many-th video is decoded."""
    real, seen = pool.decode_video, []

    def decode(video, settings):
        seen.append(video)
        if len(seen) == number:
            act()
        return real(video, settings)

    monkeypatch.setattr(pool, "decode_video", decode)


def interrupt():
    raise KeyboardInterrupt


def long_name(folder):
    return folder / ("x" * 300 + ".h5")


def below_a_file(folder):
    (folder / "file").write_text("")
    return folder / "file" / "x.h5"


def pipe(folder):
    os.mkfifo(folder / "pipe.h5")
    return folder / "pipe.h5"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (long_name, "its name is too long"),
        (below_a_file, "a part of its path is a file"),
        (pipe, "a pipe, a socket or a device"),
        (lambda folder: Path("/dev/null"), "a pipe, a socket or a device"),
        (lambda folder: folder, "is a folder"),
    ],
    ids=["long", "below a file", "pipe", "device", "folder"],
)
def test_an_output_that_can_be_none_is_refused_in_words(studies, tmp_path, place, message):
    (tmp_path / "out").mkdir()
    out = place(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=message):
        run(studies, out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_at_the_output_stays_one(studies, tmp_path, there):
    (tmp_path / "big disk").mkdir()
    target = tmp_path / "big disk" / "out.h5"
    if there:
        run(studies, target)
    link = tmp_path / "out.h5"
    link.symlink_to(target)
    assert run(studies, link).reused == (12 if there else 0)
    assert link.is_symlink()
    assert verify(target) == []


def test_odd_files_are_failures_and_odd_names_are_printed(studies, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones._factories, "tiny", lambda weights, seed: tiny())
    os.mkfifo(studies / "pipe.avi")
    (studies / "empty.avi").touch()
    (studies / "zero.avi").symlink_to("/dev/zero")
    (studies / "self.avi").symlink_to("self.avi")
    (studies / "gone.avi").symlink_to("nowhere.avi")
    (studies / "again").symlink_to(studies)
    (studies / "sp ace").mkdir()
    for name in (b"sp ace/new\nline \xc3\xa9.npy", b"l" * 250 + b".npy", b"no utf8 \xff.npy"):
        shutil.copy(studies / "v00.npy", os.fsencode(studies) + b"/" + name)
    (studies / os.fsdecode(b"broken \xff.npy")).write_bytes(b"x")
    out = str(tmp_path / os.fsdecode(b"out \xff.h5"))
    result = CliRunner().invoke(main, ["extract", str(studies), "-o", out, "--backbone", "tiny", "--workers", "0"])
    assert result.exit_code == 3, result.output
    assert "15 of 19 videos done" in result.output
    assert "Too many levels of symbolic links" in result.output
    assert "\\udcff" in result.output
    assert verify(out) == []


def test_a_disk_that_fills_keeps_what_is_done_and_the_next_run_goes_on(studies, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PART_VIDEOS", 3)
    real = os.write

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out.h5"
    during(monkeypatch, 8, lambda: monkeypatch.setattr(os, "write", full))
    with pytest.raises(StoreError, match="no space left"):
        run(studies, out)
    monkeypatch.setattr(os, "write", real)
    assert run(studies, out).reused == 6
    assert verify(out) == []


def test_inputs_that_go_in_mid_run_are_failures(studies, tmp_path, monkeypatch):
    during(monkeypatch, 5, lambda: shutil.rmtree(studies))
    summary = run(studies, tmp_path / "out.h5")
    assert (summary.done, len(summary.failed)) == (4, 8)
    assert verify(tmp_path / "out.h5") == []


def test_an_output_folder_that_goes_in_mid_run_is_said(studies, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    during(monkeypatch, 5, lambda: shutil.rmtree(tmp_path / "out"))
    with pytest.raises(StoreError, match="the folder does not exist"):
        run(studies, tmp_path / "out" / "x.h5")


def test_a_clock_that_was_set_back_does_not_age_the_latest_word(studies, tmp_path, monkeypatch):
    broken = (studies / "v03.npy").read_bytes()
    (studies / "v03.npy").write_bytes(b"broken")
    out = tmp_path / "out.h5"
    monkeypatch.setattr(writing, "PART_VIDEOS", 4)
    # What SIGINT does; a process of pytest-xdist ignores the signal itself.
    during(monkeypatch, 8, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(studies, out)
    before = sorted(path.name for path in (tmp_path / "out.h5.parts").glob("part-*"))
    (studies / "v03.npy").write_bytes(broken)
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    with Parts(out) as parts:
        parts.begin(read_manifest(studies), EmbeddingFile(parts.folder / before[0]).provenance)
        names = [parts.new_path().name for _ in range(2)]
    assert [*before, *names] == sorted([*before, *names])
    assert run(studies, out).exit_code == 0


@pytest.mark.parametrize("workers", [-1, 100_000])
def test_numbers_of_workers_that_are_not_allowed(studies, tmp_path, workers):
    with pytest.raises(ArgumentError, match=f"workers is {workers}"):
        extract(studies, tmp_path / "out.h5", backbone=tiny(), workers=workers)


def test_an_image_size_that_no_memory_holds(studies, tmp_path):
    with pytest.raises(ArgumentError, match="32 to 4096"):
        Feeding().at_size(1_000_000)


def test_a_video_that_memory_does_not_hold_is_a_failure(studies, tmp_path, monkeypatch):
    def open_cine(*arguments, **options):
        raise MemoryError("Unable to allocate 49 TiB")

    monkeypatch.setattr("panecho_embed.extraction.decode.open_cine", open_cine)
    summary = run(studies, tmp_path / "out.h5")
    assert {failure.stage for failure in summary.failed} == {"decode"}
    assert "memory does not suffice" in summary.failed[0].message


@pytest.mark.slow
def test_the_command_interrupted_twice_leaves_no_process_and_goes_on(studies, tmp_path):
    out = tmp_path / "out.h5"
    options = ["--backbone", "random", "--image-size", "64", "--workers", "2", "--engine-backend", "eager"]
    command = [sys.executable, "-m", "panecho_embed", "extract", str(studies), "-o", str(out), *options]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    while process.poll() is None and len(process.children()) < 2:
        time.sleep(0.05)
    children = process.children(recursive=True)
    for _ in range(2):
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    subprocess.run(command, check=True, capture_output=True)
    assert verify(out) == []
