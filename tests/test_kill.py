"""Killed at any moment and run again, an extraction ends with the rows of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from panecho_embed.core.shards import Shard
from panecho_embed.extraction.merging import merge
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingFile, verify
from tests.test_extraction import moving
from tests.tiny import tiny

# Imports once, then forks a run and kills it, again and again: a kill costs milliseconds, not an interpreter's start.
# Parts of two videos, so that every stage (encode, part, merge, clean-up) takes its share of the time.
KILLER = textwrap.dedent(
    """
    import os, random, signal, sys, time
    import cv2, torch
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    import panecho_embed.extraction.run as work
    import panecho_embed.extraction.writing as writing
    from panecho_embed.core.shards import Shard
    from tests.tiny import tiny
    writing.PART_VIDEOS = 2

    source, out, kills, longest = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    shard = Shard.parse(sys.argv[5]) if sys.argv[5:] and sys.argv[5] != "plans" else None
    plans = {"four": {}, "windows": {"stride": 3}} if sys.argv[5:] == ["plans"] else None
    chance = random.Random(0)
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work.extract(source, out, backbone=tiny(), workers=0, shard=shard, plans=plans)
                code = 0
            finally:
                os._exit(code)
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended %d" % os.WEXITSTATUS(status))
    """
)


def kill(studies, out, kills, *shard):
    """What became of so many runs, each killed within 0.12 s of its start."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killer = subprocess.run(
        [sys.executable, "-c", KILLER, str(studies), str(out), str(kills), "0.12", *shard],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    fates = killer.stdout.split("\n")[:-1]
    assert set(fates) <= {"killed", "ended 0"}, killer.stderr
    assert fates.count("killed") >= 5
    return fates


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "studies"
    folder.mkdir()
    for i in range(12):
        np.save(folder / f"v{i}.npy", moving(18 + i, seed=i))
    return folder


@pytest.fixture(scope="module")
def fresh(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("fresh") / "fresh.h5"
    extract(studies, out, backbone=tiny(), workers=0)
    return EmbeddingFile(out)


def test_killed_at_many_moments_and_run_again(studies, fresh, tmp_path):
    out = tmp_path / "out.h5"
    kill(studies, out, 30)
    summary = extract(studies, out, backbone=tiny(), workers=0)
    assert summary.exit_code == 0
    assert verify(out) == []
    killed = EmbeddingFile(out)
    assert killed.rows.equals(fresh.rows)
    np.testing.assert_array_equal(killed.embeddings, fresh.embeddings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


def test_several_plans_killed_at_many_moments_and_run_again(studies, fresh, tmp_path):
    out = tmp_path / "sweep"
    kill(studies, out, 20, "plans")
    extract(studies, out, backbone=tiny(), workers=0, plans={"four": {}, "windows": {"stride": 3}})
    assert sorted(entry.name for entry in out.iterdir()) == ["four.h5", "windows.h5"]
    for name, plan in (("four", {}), ("windows", {"stride": 3})):
        alone = EmbeddingFile(extract(studies, tmp_path / f"{name}.h5", backbone=tiny(), workers=0, clips=plan).out)
        killed = EmbeddingFile(out / f"{name}.h5")
        assert verify(killed.path) == []
        assert killed.rows.equals(alone.rows)
        np.testing.assert_array_equal(killed.embeddings, alone.embeddings)


def test_a_shard_killed_beside_one_that_ended(studies, fresh, tmp_path):
    out = tmp_path / "out.h5"
    extract(studies, out, backbone=tiny(), workers=0, shard=Shard(1, 2))
    kill(studies, out, 12, "2/2")
    extract(studies, out, backbone=tiny(), workers=0, shard=Shard(2, 2))
    assert merge(out).exit_code == 0
    assert verify(out) == []
    killed = EmbeddingFile(out)
    assert killed.rows.equals(fresh.rows)
    np.testing.assert_array_equal(killed.embeddings, fresh.embeddings)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


@pytest.mark.slow
def test_the_command_killed_while_its_workers_decode(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for i in range(30):
        np.save(studies / f"v{i}.npy", moving(40, seed=i))

    def command(out):
        options = ["--backbone", "random", "--image-size", "64", "--workers", "2"]
        return [sys.executable, "-m", "panecho_embed", "extract", str(studies), "-o", str(out), *options]

    out = tmp_path / "out.h5"
    for seconds in (2.5, 4.0, 5.0, 6.0, 7.0, 8.0):
        process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(out), check=True, capture_output=True)
    subprocess.run(command(tmp_path / "fresh.h5"), check=True, capture_output=True)
    killed, fresh = EmbeddingFile(out), EmbeddingFile(tmp_path / "fresh.h5")
    assert killed.rows.equals(fresh.rows)
    np.testing.assert_allclose(killed.embeddings, fresh.embeddings, atol=1e-5)


@pytest.mark.parametrize("way", ["decode_in_pool", "picture_in_pool", "load_for_training", "wait_in_a_thread"])
def test_a_worker_that_hangs_does_not_outlive_its_command(tmp_path, way):
    started = tmp_path / "started"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-m", "tests.hanging", way, started], env=environment) as command:
        while not started.exists() and command.poll() is None:
            time.sleep(0.02)
        command.kill()
    worker = int(started.read_text())
    deadline = time.monotonic() + 20
    while lives(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(worker)


def lives(number):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    return False
