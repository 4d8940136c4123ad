"""The Ray engine gives what the local one gives, also while its workers are killed.

Ray itself warns of its own future when it is imported; it is used in processes of their own.
"""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
import textwrap
import threading
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from panecho_embed.engines.decode import DecodeSettings
from panecho_embed.engines.encode import EncodedVideo, EncodeSettings
from panecho_embed.engines.ray_cluster import Shares, _check_answers, shares
from panecho_embed.engines.ray_engine import _own, _take_in
from panecho_embed.engines.ray_workers import Work, check_versions, write_batch
from panecho_embed.errors import ArgumentError, EngineError, StoreError
from panecho_embed.extraction import extract
from panecho_embed.records import Failure, VideoFacts, VideoRef
from panecho_embed.shards import Shard
from panecho_embed.store import EmbeddingFile
from tests.test_extraction import moving
from tests.test_shards import contents
from tests.tiny import tiny

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (the extra [ray])")
CLUSTER = Shares(encoders=2, encoder_cpus=0.9, encoder_gpus=0.0, decoders=1, decoder_cpus=0.1)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "studies"
    folder.mkdir()
    for i in range(20):
        np.save(folder / f"v{i}.npy", moving(18 + i, seed=i))
    (folder / "broken.avi").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def local(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out.h5"
    extract(studies, out, backbone=tiny(), workers=0)
    return contents(out)


def python(code, *arguments):
    paths = os.pathsep.join(sys.path)
    # A token in the environment keeps Ray from leaving one in the home folder.
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )


# Each kind of worker once, while it is at work: first a decoder, then an encoder.
KILLED = """
import os, signal, sys, threading, time
import psutil, ray
from panecho_embed.extraction import extract
from tests.tiny import Patches, tiny

class Slow(Patches):
    def forward(self, frames):
        time.sleep(0.2)
        return super().forward(frames)

def at_work(name):
    title = f"ray::MapWorker(MapBatches({name})).submit"
    return [p for p in psutil.process_iter(["cmdline"]) if " ".join(p.info["cmdline"] or ()).startswith(title)]

def kill():
    for name in ("RayDecoder", "RayEncoder"):
        while not (workers := at_work(name)):
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        print("killed", name, flush=True)

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
studies, out = sys.argv[1:]
threading.Thread(target=kill, daemon=True).start()
slow = tiny()
slow.frame_encoder = Slow()
summary = extract(studies, out, backbone=slow, engine="ray")
print("ended with", summary.exit_code, "of", summary.done)
ray.shutdown()
"""


@needs_ray
def test_workers_killed_in_mid_run(studies, local, tmp_path):
    out = tmp_path / "out.h5"
    run = python(KILLED, studies, out)
    assert [line for line in run.stdout.splitlines() if line.startswith(("killed", "ended"))] == [
        "killed RayDecoder",
        "killed RayEncoder",
        "ended with 3 of 20",
    ], run.stderr
    assert contents(out) == local
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.h5"]


# Two machines of two CPUs each, as far as Ray knows; the one that the command does not run on is lost.
LOST = """
import os, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from panecho_embed.extraction import extract
from tests.tiny import Patches, tiny

class Slow(Patches):
    def forward(self, frames):
        time.sleep(0.5)
        return super().forward(frames)

def lose():
    while not list(Path(out + ".parts").glob("part-*.h5")):
        time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    print("lost", flush=True)

studies, out = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20})
second = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
threading.Thread(target=lose, daemon=True).start()
slow = tiny()
slow.frame_encoder = Slow()
summary = extract(studies, out, backbone=slow, engine="ray", ray_address=cluster.address, announce=print)
print("ended with", summary.exit_code, "of", summary.done)
cluster.shutdown()
"""


@needs_ray
@pytest.mark.slow
def test_a_machine_lost_in_mid_run(studies, local, tmp_path):
    out = tmp_path / "out.h5"
    run = python(LOST, studies, out)
    said = run.stdout.splitlines()
    assert "lost" in said
    assert any("the others go on with" in line for line in said)
    assert said[-1] == "ended with 3 of 20", run.stderr
    assert contents(out) == local


@needs_ray
def test_the_command_on_a_cluster_of_this_machine(studies, tmp_path):
    outs = {engine: tmp_path / f"{engine}.h5" for engine in ("local", "ray")}
    for engine, out in outs.items():
        options = ["--backbone", "random", "--image-size", "32", "--engine-backend", "eager", "--engine", engine]
        arguments = repr(["extract", str(studies), "-o", str(out), *options])
        run = python(f"from panecho_embed.cli.main import main\nmain({arguments})")
        assert run.returncode == 3, run.stderr
        assert "20 of 21 videos done" in run.stdout
        assert "broken.avi: this is text" in run.stdout
    one, other = (EmbeddingFile(out) for out in outs.values())
    assert one.rows.equals(other.rows)
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
    assert {column: one.failures[column].tolist() for column in one.failures} == {
        column: other.failures[column].tolist() for column in other.failures
    }


def test_without_ray_the_extra_is_named(studies, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArgumentError, match=r"ray is not installed: pip install 'panecho-embed\[ray\]'"):
        extract(studies, tmp_path / "out.h5", backbone=tiny(), engine="ray")
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_the_ray_engine_is_refused(studies, tmp_path):
    with pytest.raises(ArgumentError, match="--engine ray"):
        extract(studies, tmp_path / "out.h5", backbone=tiny(), ray_address="head:6379")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_time_limit_that_never_comes_is_refused_by_both_engines_before_any_work(studies, tmp_path, engine):
    with pytest.raises(ArgumentError, match=r"inf seconds.*--timeout"):
        extract(studies, tmp_path / "out.h5", backbone=tiny(), engine=engine, timeout_seconds=float("inf"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["head", "ray://head:10001", ":6379", "head:port"])
def test_addresses_that_are_none(address):
    with pytest.raises(ArgumentError, match="HOST:PORT"):
        _check_answers(address)


def test_nobody_at_the_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(EngineError, match=r"no Ray cluster answers at 127\.0\.0\.1"):
            _check_answers(f"127.0.0.1:{taken.getsockname()[1]}")


def test_somebody_else_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(EngineError, match="what answers there is no Ray cluster"):
            _check_answers(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize(
    ("resources", "device", "workers", "expected"),
    [
        ({"CPU": 2.0}, "auto", None, CLUSTER),
        ({"CPU": 8.0}, "auto", None, Shares(8, 0.9, 0.0, 2, 0.1)),
        ({"CPU": 8.0}, "cpu", 5, Shares(8, 0.9, 0.0, 5, 0.1)),
        ({"CPU": 64.0, "GPU": 4.0}, "auto", None, Shares(4, 1.0, 1.0, 60, 1.0)),
        ({"CPU": 64.0, "GPU": 4.0}, "cuda", 16, Shares(4, 1.0, 1.0, 16, 1.0)),
        ({"CPU": 64.0, "GPU": 4.0}, "cpu", None, Shares(64, 0.9, 0.0, 16, 0.1)),
    ],
)
def test_how_a_cluster_is_shared_out(resources, device, workers, expected):
    assert shares(resources, device, workers) == expected


@pytest.mark.parametrize(
    ("resources", "device", "workers", "message"),
    [
        ({"CPU": 4.0}, "cuda", None, "no GPU"),
        ({"CPU": 4.0}, "cuda:1", None, "auto, cpu or cuda"),
        ({"CPU": 4.0}, "auto", 0, "room for 1 to 4"),
        ({"CPU": 4.0}, "auto", 5, "room for 1 to 4"),
        ({"CPU": 4.0, "GPU": 4.0}, "auto", None, "one CPU more than GPUs"),
    ],
)
def test_a_cluster_that_can_not_be_shared_out_so(resources, device, workers, message):
    with pytest.raises(ArgumentError, match=message):
        shares(resources, device, workers)


def test_a_machine_with_other_versions_is_named(provenance):
    with pytest.raises(EngineError, match=r"the machine .* has torch .*, not 2: install the same versions"):
        check_versions(provenance)


@pytest.mark.parametrize("shared", [True, False])
def test_a_part_is_written_where_it_belongs_or_travels(tmp_path, provenance, shared):
    videos = [VideoRef(f"v{i}", "s", "p", f"/v{i}.avi") for i in range(2)]
    facts = VideoFacts("done", "00", 40, 30.0, "test")
    encoded = EncodedVideo(np.ones((1, provenance.dim), np.float32), np.zeros(1, np.int64), 1.0, 16, facts)
    outcomes = [Failure("v1", "/v1.avi", "decode", "broken"), encoded]
    batch = {
        "position": np.array([7, 3]),
        "video": [pickle.dumps(video) for video in reversed(videos)],
        "outcome": [pickle.dumps(outcome) for outcome in outcomes],
        "engine": ["eager", "eager, rearranged"],
        "said": ["", "one engine"],
    }
    work = Work(
        DecodeSettings(provenance.preprocess, provenance.clips),
        60.0,
        EncodeSettings("fp32", "float32", "eager", None),
        "cpu",
        1,
        provenance,
        tmp_path if shared else None,
        Shard(2, 3),
        10**20 - 2,
    )
    (part,) = zip(*write_batch(batch, work).values(), strict=True)
    name, content, _, positions, said = part
    assert bool(content) is not shared
    assert (sorted(pickle.loads(positions)), said) == ([3, 7], "one engine")
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    file = EmbeddingFile(path)
    assert [video.video_id for video in file.manifest().videos] == ["v0", "v1"]
    assert file.provenance.engine == "eager, rearranged"
    # Behind the latest part, whatever the clock says.
    assert re.fullmatch(r"part-9{20}-[0-9a-f]{8}-2of3\.h5", name)


def test_a_part_that_can_not_be_seen_names_its_machine(tmp_path):
    job = SimpleNamespace(parts=SimpleNamespace(folder=tmp_path))
    with pytest.raises(StoreError, match=r"a worker on node7 has written .*p\.h5, but here it is not.*share \(-o\)"):
        _take_in({"name": "p.h5", "content": b"", "host": "node7"}, job)


def test_what_a_worker_raises_comes_out_as_it_was():
    mine = StoreError("no space left")
    wrapped = RuntimeError("ray::write_batch() failed")
    wrapped.__cause__ = mine
    assert _own(wrapped) is mine
    assert str(_own(RuntimeError("one\ntwo"))) == "the Ray cluster gave up: RuntimeError: two"
