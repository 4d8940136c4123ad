"""The Ray engine gives what the local one gives, also while its workers are killed.

Ray itself warns of its own future when it is imported; it is used in processes of their own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from panecho_embed.core.errors import ArgumentError, EngineError, StoreError
from panecho_embed.core.records import Failure, Manifest, VideoFacts, VideoRef
from panecho_embed.extraction import ray_engine, writing
from panecho_embed.extraction.decode import DecodeSettings
from panecho_embed.extraction.encode import EncodedVideo, EncodeSettings
from panecho_embed.extraction.job import Job, Output
from panecho_embed.extraction.ray_cluster import Shares, _check_answers, shares
from panecho_embed.extraction.ray_decoder import DecodingWork, RayDecoder, check_versions, items, table
from panecho_embed.extraction.ray_engine import Encoded, _own
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.store import EmbeddingFile, Parts
from tests.test_extraction import moving
from tests.test_shards import contents
from tests.tiny import INFO, tiny

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (the extra [ray])")
CLUSTER = Shares(encoders=2, encoder_cpus=0.99, encoder_gpus=0.0, decoders=1, decoder_cpus=0.01)


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


# Each kind of worker once, while it is at work: first a decoder, then an encoder, which waits for it.
KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
import psutil, ray
from panecho_embed.extraction.run import extract
from tests.tiny import Patches, tiny

class Waiting(Patches):
    def forward(self, frames):
        while not self.killed.exists() and time.time() < self.until:
            time.sleep(0.05)
        return super().forward(frames)

def at_work(name):
    title = f"ray::MapWorker(MapBatches({name})).submit"
    return [p for p in psutil.process_iter(["cmdline"]) if " ".join(p.info["cmdline"] or ()).startswith(title)]

def kill():
    for name in ("RayDecoder", "_RayEncoder"):
        while not (workers := at_work(name)):
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        print("killed", name, flush=True)
    killed.touch()

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
studies, out, killed = sys.argv[1:]
killed = Path(killed)
threading.Thread(target=kill, daemon=True).start()
waiting = tiny()
waiting.image_encoder = Waiting()
waiting.image_encoder.killed, waiting.image_encoder.until = killed, time.time() + 300
summary = extract(studies, out, backbone=waiting, engine="ray")
print("ended with", summary.exit_code, "of", summary.done)
ray.shutdown()
"""


@needs_ray
@pytest.mark.slow
def test_workers_killed_in_mid_run(studies, local, tmp_path):
    out = tmp_path / "out.h5"
    run = python(KILLED, studies, out, tmp_path / "killed")
    assert [line for line in run.stdout.splitlines() if line.startswith(("killed", "ended"))] == [
        "killed RayDecoder",
        "killed _RayEncoder",
        "ended with 3 of 20",
    ], run.stderr
    assert contents(out) == local
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed", "out.h5"]


# Two machines of two CPUs each, as far as Ray knows; the one that the command does not run on is lost.
LOST = """
import os, sys, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster
from panecho_embed.extraction import writing
from panecho_embed.extraction.run import extract
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
writing.PART_VIDEOS = 2
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20})
second = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
threading.Thread(target=lose, daemon=True).start()
slow = tiny()
slow.image_encoder = Slow()
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
    assert "lost" in said, run.stderr
    assert any("the others go on with" in line for line in said)
    assert said[-1] == "ended with 3 of 20", run.stderr
    assert contents(out) == local


# The work waits, for as long as a test may, until an encoder on the machine that joins has some of it.
JOINED = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from panecho_embed.extraction.run import extract
from tests.tiny import Patches, tiny

class Waiting(Patches):
    def forward(self, frames):
        (self.seen / ray.get_runtime_context().get_node_id()).touch()
        while len(list(self.seen.iterdir())) < 2 and time.time() < self.until:
            time.sleep(0.1)
        return super().forward(frames)

def work():
    summary = extract(studies, out, backbone=waiting, engine="ray", ray_address=cluster.address)
    print("ended with", summary.exit_code, "of", summary.done, "by", len(list(seen.iterdir())))

studies, out, seen = sys.argv[1:]
seen = Path(seen)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20})
waiting = tiny()
waiting.image_encoder = Waiting()
waiting.image_encoder.seen, waiting.image_encoder.until = seen, time.time() + 300
at_work = threading.Thread(target=work)
at_work.start()
while at_work.is_alive() and not list(seen.iterdir()):
    time.sleep(0.1)
# In the main thread: a machine of a Cluster sets a handler of signals.
cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
at_work.join()
cluster.shutdown()
"""


@needs_ray
@pytest.mark.slow
def test_a_machine_that_joins_in_mid_run_encodes_too(studies, local, tmp_path):
    out, seen = tmp_path / "out.h5", tmp_path / "seen"
    seen.mkdir()
    run = python(JOINED, studies, out, seen)
    assert run.stdout.splitlines()[-1] == "ended with 3 of 20 by 2", run.stderr
    assert contents(out) == local


# Ray believes what it is told of GPUs: as far as the encoder's first touch of one, all is as it would be with them.
PRETENDED = """
import os, sys
import ray
from panecho_embed.core.errors import EngineError
from panecho_embed.extraction.run import extract
from tests.tiny import tiny

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
studies, out = sys.argv[1:]
try:
    extract(studies, out, backbone=tiny(), engine="ray", announce=print)
except EngineError as error:
    print(error)
ray.shutdown()
"""


@needs_ray
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_encoders_are_started_on_gpus(studies, tmp_path):
    run = python(PRETENDED, studies, tmp_path / "out.h5")
    introduction, _, reason = run.stdout.partition("the Ray cluster gave up")
    assert "on 1 Ray workers (cuda), 1 decoding beside them" in introduction, run.stderr
    assert "CUDA" in reason.splitlines()[0], run.stdout


@needs_ray
@pytest.mark.slow
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


@needs_ray
def test_several_plans_on_a_cluster(studies, tmp_path):
    plans = ["--plan", "--clips 4", "--plan", "--stride 3 --short skip"]
    options = ["--backbone", "random", "--image-size", "32", "--engine-backend", "eager", *plans]
    arguments = repr(["extract", str(studies), "-o", str(tmp_path / "ray"), "--engine", "ray", *options])
    run = python(f"from panecho_embed.cli.main import main\nmain({arguments})")
    assert run.returncode == 3, run.stderr
    here = extract(
        studies,
        tmp_path / "local",
        backbone=load_backbone("random", image_size=32),
        workers=0,
        engine_backend="eager",
        plans={"clips=4": {}, "stride=3_short=skip": {"stride": 3, "short": "skip"}},
    )
    for name in here.files:
        one, other = (EmbeddingFile(tmp_path / engine / f"{name}.h5") for engine in ("local", "ray"))
        assert one.rows.equals(other.rows)
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-5)
        assert one.failures["message"].tolist() == other.failures["message"].tolist()


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
        ({"CPU": 8.0}, "auto", None, Shares(8, 0.99, 0.0, 2, 0.01)),
        ({"CPU": 8.0}, "cpu", 5, Shares(8, 0.99, 0.0, 5, 0.01)),
        ({"CPU": 64.0, "GPU": 4.0}, "auto", None, Shares(4, 0.0, 1.0, 60, 1.0, more_decoders=True)),
        ({"CPU": 64.0, "GPU": 4.0}, "cuda", 16, Shares(4, 0.0, 1.0, 16, 1.0)),
        ({"CPU": 64.0, "GPU": 4.0}, "cpu", None, Shares(64, 0.99, 0.0, 16, 0.01)),
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
        ({"CPU": 0.0, "GPU": 4.0}, "auto", None, "one CPU at least"),
    ],
)
def test_a_cluster_that_can_not_be_shared_out_so(resources, device, workers, message):
    with pytest.raises(ArgumentError, match=message):
        shares(resources, device, workers)


def test_a_machine_with_other_versions_is_named(provenance):
    with pytest.raises(EngineError, match=r"the machine .* has torch .*, not 2: install the same versions"):
        check_versions(provenance)


class Stub:
    """Stands in for a cluster whose workers give back what `rounds` says, one list for every pipeline."""

    def __init__(self, monkeypatch, *rounds):
        self.left = []
        self._rounds = iter(rounds)
        monkeypatch.setattr(ray_engine, "ray_cluster", lambda address: nullcontext(self))
        monkeypatch.setattr(ray_engine, "_pipeline", lambda ray, job, plan, todo: self.left.append(todo))
        monkeypatch.setattr(ray_engine, "_watched", lambda ray, dataset: iter(next(self._rounds)))

    def cluster_resources(self):
        return {"CPU": 2.0}


@pytest.fixture
def job(tmp_path, provenance):
    """Four videos, to be written beside OUT."""
    videos = [VideoRef(f"v{i}", "s", "p", f"/v{i}.avi") for i in range(4)]
    backbone = SimpleNamespace(weights=INFO, name="tiny")
    settings = EncodeSettings("fp32", "float32", "eager", None)
    with Parts(tmp_path / "out.h5") as parts:
        manifest = Manifest(tuple(videos))
        parts.begin(manifest, provenance)
        yield Job(
            [Output(parts, provenance)],
            manifest,
            range(4),
            backbone,
            None,
            settings,
            "cpu",
            None,
            60.0,
            lambda text: None,
        )


def encoded(provenance, *positions):
    facts = VideoFacts("done", "00", 40, 30.0, "test")
    values = np.ones((4, provenance.dim), np.float32)
    video = EncodedVideo((values,), facts)
    return Encoded([(position, video) for position in positions], ("eager",), ("one engine",))


def test_a_result_that_comes_twice_counts_once_and_what_did_not_come_is_asked_for_again(job, provenance, monkeypatch):
    cluster = Stub(monkeypatch, [encoded(provenance, 2, 0), encoded(provenance, 2)], [encoded(provenance, 3, 1)])
    assert list(ray_engine.embed_on_ray(job, None)) == [1] * 4
    assert cluster.left == [[0, 1, 2, 3], [1, 3]]
    assert job.outputs[0].parts.todo(job.manifest) == []
    (part,) = job.outputs[0].parts.folder.glob("part-*.h5")
    assert [video.video_id for video in EmbeddingFile(part).manifest().videos] == ["v0", "v1", "v2", "v3"]
    assert EmbeddingFile(part).provenance.engine == "eager"


def test_a_cluster_that_gives_nothing_back_ends_in_a_message(job, provenance, monkeypatch):
    Stub(monkeypatch, [encoded(provenance, 2)], [])
    with pytest.raises(EngineError, match="3 videos came back from no Ray worker"):
        list(ray_engine.embed_on_ray(job, None))
    assert job.outputs[0].parts.todo(job.manifest) == [0, 1, 3]


def test_parts_are_bounded_by_bytes_too(job, provenance, monkeypatch):
    monkeypatch.setattr(writing, "_PART_BYTES", 1)
    Stub(monkeypatch, [encoded(provenance, 2, 0), encoded(provenance, 3, 1)])
    list(ray_engine.embed_on_ray(job, None))
    assert len(list(job.outputs[0].parts.folder.glob("part-*.h5"))) == 4


def test_what_was_encoded_is_kept_when_the_command_is_stopped(job, provenance, monkeypatch):
    Stub(monkeypatch, [encoded(provenance, 2, 0), encoded(provenance, 3, 1)])
    at_work = ray_engine.embed_on_ray(job, None)
    next(at_work)
    at_work.close()
    assert job.outputs[0].parts.todo(job.manifest) == [0, 1, 3]


def test_rows_hold_anything():
    assert list(items(table([[(1, "one")], None, b"bytes"]))) == [[(1, "one")], None, b"bytes"]


@pytest.mark.parametrize(("videos", "blocks"), [(10, 4), (20_000, 1_667)])
def test_very_many_videos_make_few_blocks_of_whole_rows(videos, blocks):
    refs = tuple(VideoRef(f"v{i}", "s", "p", "/v.avi") for i in range(videos))
    job = SimpleNamespace(manifest=Manifest(refs))
    made = [next(items(block)) for block in ray_engine._blocks(job, range(videos), together=3, decoders=1)]
    assert len(made) == blocks
    assert {len(block) % 3 for block in made[:-1]} == {0}
    assert [position for block in made for position, _ in block] == list(range(videos))


def test_decoded_videos_go_on_together_in_order(studies, provenance):
    work = DecodingWork(DecodeSettings(tiny().feeding, None), 60.0, 2, replace(provenance, versions={}))
    decoder = RayDecoder(work)
    paths = [studies / "v0.npy", studies / "broken.avi", studies / "v1.npy"]
    refs = [(7 + i, VideoRef(path.name, "s", "p", str(path))) for i, path in enumerate(paths)]
    rows = [row for batch in decoder(table([refs])) for row in items(batch)]
    assert [[position for position, _ in row] for row in rows] == [[7, 8], [9]]
    assert isinstance(rows[0][1][1], Failure)
    assert len(rows[1][0][1].pixels) == 19
    decoder._line.pool.stop()
    decoder._line.pool.join()


def test_what_a_worker_raises_comes_out_as_it_was():
    mine = StoreError("no space left")
    wrapped = RuntimeError("ray::write_batch() failed")
    wrapped.__cause__ = mine
    assert _own(wrapped) is mine
    assert str(_own(RuntimeError("one\ntwo"))) == "the Ray cluster gave up: RuntimeError: two"
    told = RuntimeError("ray::f()\n  File ...\nAssertionError: no CUDA\n\nFailed.\nTo change that, ...")
    assert str(_own(told)) == "the Ray cluster gave up: RuntimeError: AssertionError: no CUDA"
