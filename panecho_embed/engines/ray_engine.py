"""The Ray engine: videos decoded by workers, encoded by actors, written as parts, wherever a cluster has room.

What goes from machine to machine are rows of Ray Data: a video, and what became of it so far. A worker that dies loses
nothing: Ray gives its videos to another. A part is written by one task under a name of its own, and appears there when
it is whole; a task that is tried again writes another part, and `merge` takes the last word on each video.
"""

from __future__ import annotations

import logging
import pickle
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from panecho_embed.engines.decode import DecodeSettings
from panecho_embed.engines.encode import EncodedVideo, EncodeSettings
from panecho_embed.engines.job import Job
from panecho_embed.engines.pool import DecodingLine
from panecho_embed.engines.ray_cluster import Cluster, Shares, ray_cluster, shares
from panecho_embed.engines.writing import PART_VIDEOS, write_part
from panecho_embed.errors import EngineError, PanEchoEmbedError, StoreError
from panecho_embed.models.backbones import Backbone
from panecho_embed.records import Failure, Manifest, Provenance
from panecho_embed.shards import Shard
from panecho_embed.store import new_part_path
from panecho_embed.versions import package_versions

Batch = Mapping[str, Any]
"""Columns, a row a video: position in the manifest; pickled, video (VideoRef) and what became of it, outcome."""

# Videos that go from worker to worker together: enough to fill a GPU's batches, few enough to hold in memory.
_VIDEOS_A_TASK = {"cpu": 4, "cuda": 16}
# Every encoder does at least so many tasks, and its videos make so many parts: near the end all have work.
_TASKS_AN_ENCODER = 16
_ENCODERS_A_WRITER = 8
# Without news for so long, the machines are counted.
_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Work:
    """What the workers of a run are told, beside the videos."""

    decoding: DecodeSettings
    timeout_seconds: float
    encoding: EncodeSettings
    device: str
    videos_an_encoder: int
    provenance: Provenance
    folder: Path | None
    shard: Shard | None


def embed_on_ray(job: Job, address: str | None) -> Iterator[int]:
    """Do the job on a Ray cluster; the number of videos of every part, once it is there.

    address: see `ray_cluster`. The parts' folder must be on storage that all machines of the cluster share; only where
    the output is at a URL, parts travel to this machine and are uploaded from it. Raises ArgumentError, EngineError if
    there is no cluster or its machines have other versions, and what the workers raise.
    """
    left, said = dict.fromkeys(job.todo), set[str]()
    while left:
        try:
            with ray_cluster(address) as cluster:
                plan = shares(cluster.ray.cluster_resources(), job.device, job.workers)
                job.introduce(f"{plan.encoders} Ray workers ({plan.device}), {plan.decoders} decoding beside them,")
                for part in _watched(cluster, _pipeline(cluster.ray, job, plan, list(left))):
                    for message in part["said"].splitlines():
                        if message not in said:
                            job.announce(message)
                            said.add(message)
                    _take_in(part, job)
                    before = len(left)
                    for position in pickle.loads(part["positions"]):
                        left.pop(position, None)
                    yield before - len(left)
            if left:
                raise EngineError(f"{len(left)} videos came back from no Ray worker; the same command does them")
        except _MachineLostError:
            job.announce(f"a machine of the Ray cluster was lost; the others go on with {len(left)} videos")


class _MachineLostError(Exception):
    """What is left has to be begun anew on the machines that are left."""


def _watched(cluster: Cluster, parts: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a Dataset. Raises what the workers raise, and _MachineLostError.

    Ray gives the work of a dead worker to the one that takes its place, and waits for that; where no machine that is
    left has room for it, it would wait for ever.
    """
    machines = cluster.machines()
    found: SimpleQueue[Mapping[str, Any] | Exception | None] = SimpleQueue()
    Thread(target=_gather, args=(parts, found), daemon=True).start()
    while True:
        try:
            row = found.get(timeout=_LOOK_SECONDS)
        except Empty:
            if cluster.machines() >= machines:
                continue
            if cluster.ours:
                raise _MachineLostError from None
            raise EngineError("a machine of the Ray cluster was lost; the same call goes on with the others") from None
        if row is None:
            return
        if isinstance(row, Exception):
            raise _own(row) from row
        yield row


def _gather(parts: Any, found: SimpleQueue[Mapping[str, Any] | Exception | None]) -> None:
    try:
        for row in parts.iter_rows():
            found.put(row)
        found.put(None)
    except Exception as error:
        # Whatever Ray raises, it is raised again where the rows are taken.
        found.put(error)


def _take_in(part: Mapping[str, Any], job: Job) -> None:
    path = job.parts.folder / part["name"]
    if part["content"]:
        _store(part["content"], path)
    if not path.exists():
        raise StoreError(
            f"a worker on {part['host']} has written {path}, but here it is not: the output must be on storage that "
            "all machines of the cluster share (-o)"
        )
    job.parts.written(path)


def _pipeline(ray: Any, job: Job, plan: Shares, todo: Sequence[int]) -> Any:
    """The Dataset of the parts: name, positions of its videos, content if it travels, host, said (a line each)."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    each = max(len(todo) // (plan.encoders * _TASKS_AN_ENCODER), 1)
    videos_a_task = min(each, _VIDEOS_A_TASK[plan.device])
    tasks = -(-len(todo) // videos_a_task)
    encoders = min(plan.encoders, tasks)
    work = _Work(
        job.decoding,
        job.timeout_seconds,
        job.encoding,
        plan.device,
        len(todo) // encoders,
        job.provenance,
        job.parts.folder if job.parts.shared else None,
        job.parts.shard,
    )
    rows = [{"position": i, "video": pickle.dumps(job.manifest.videos[i])} for i in todo]
    return (
        ray.data.from_items(rows, override_num_blocks=tasks)
        .map_batches(
            _Decoder,
            batch_size=videos_a_task,
            fn_constructor_args=(work,),
            num_cpus=plan.decoder_cpus,
            compute=ray.data.ActorPoolStrategy(size=min(plan.decoders, tasks)),
        )
        .map_batches(
            _Encoder,
            batch_size=videos_a_task,
            fn_constructor_args=(work, ray.put(job.model)),
            num_cpus=plan.encoder_cpus,
            num_gpus=plan.encoder_gpus or None,
            compute=ray.data.ActorPoolStrategy(size=encoders),
        )
        .map_batches(
            _write,
            batch_size=min(each, PART_VIDEOS),
            fn_args=(work,),
            # No CPU is left for it, nor does it take much of one; without a limit, every part had a process of its own.
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=-(-encoders // _ENCODERS_A_WRITER)),
        )
    )


class _Decoder:
    """Decodes videos, in a process beside its own: one that hangs or crashes is a Failure."""

    def __init__(self, work: _Work) -> None:
        _check_versions(work.provenance)
        self._line = DecodingLine(work.decoding, 1, work.timeout_seconds)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """video -> outcome, DecodedVideo or Failure; a row at a time, as pixels are large."""
        videos = enumerate(map(pickle.loads, batch["video"]))
        for place, outcome in self._line.outcomes(videos):
            yield {
                "position": batch["position"][place : place + 1],
                "video": batch["video"][place : place + 1],
                "outcome": [pickle.dumps(outcome)],
            }


class _Encoder:
    """Encodes videos; holds the model, and the engine that it chose for it."""

    def __init__(self, work: _Work, model: Any) -> None:
        import ray
        import torch

        _check_versions(work.provenance)
        if work.device == "cpu":
            # As many encoders as CPUs: threads would only fight.
            torch.set_num_threads(1)
        self._said: list[str] = []
        backbone: Backbone = ray.get(model).to(work.device)
        self._encoder = work.encoding.encoder(backbone, work.videos_an_encoder, self._said.append)

    def __call__(self, batch: Batch) -> Batch:
        """outcome, DecodedVideo or Failure -> EncodedVideo or Failure; engine: which ran, said: what is announced."""
        outcomes: list[Any] = [None] * len(batch["outcome"])
        for place, outcome in enumerate(map(pickle.loads, batch["outcome"])):
            if isinstance(outcome, Failure):
                outcomes[place] = outcome
                continue
            for done, encoded in self._encoder.add(place, outcome):
                outcomes[done] = encoded
        for done, encoded in self._encoder.flush():
            outcomes[done] = encoded
        said = "\n".join(self._said)
        self._said.clear()
        count = len(outcomes)
        return {
            "position": batch["position"],
            "video": batch["video"],
            "outcome": [pickle.dumps(outcome) for outcome in outcomes],
            "engine": [", ".join(self._encoder.engines)] * count,
            "said": [said] + [""] * (count - 1),
        }


def _write(batch: Batch, work: _Work) -> Batch:
    """Write a part. Labels are left to the merge, which takes them from the manifest."""
    order = np.argsort(batch["position"])
    outcomes: list[EncodedVideo | Failure] = [pickle.loads(batch["outcome"][i]) for i in order]
    engines = {name for engine in batch["engine"] for name in engine.split(", ") if name}
    manifest = Manifest(tuple(pickle.loads(batch["video"][i]) for i in order))
    with tempfile.TemporaryDirectory() as scratch:
        path = new_part_path(work.folder or Path(scratch), work.shard)
        write_part(path, manifest, outcomes, replace(work.provenance, engine=", ".join(sorted(engines))))
        content = path.read_bytes() if work.folder is None else b""
    said = "\n".join(filter(None, batch["said"]))
    return {
        "name": [path.name],
        "content": [content],
        "host": [platform.node()],
        "positions": [pickle.dumps([int(position) for position in batch["position"]])],
        "said": [said],
    }


def _store(content: bytes, path: Path) -> None:
    """Write a part that has travelled; it appears when it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _check_versions(provenance: Provenance) -> None:
    here, asked = package_versions(), provenance.versions
    if other := [f"{name} {here.get(name)}, not {asked[name]}" for name in asked if here.get(name) != asked[name]]:
        raise EngineError(
            f"the machine {platform.node()} of the Ray cluster has {'; '.join(other)}: install the same versions on "
            "all machines"
        )


def _own(error: Exception) -> Exception:
    """The error of this package that a worker raised; what Ray made of it if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PanEchoEmbedError):
        found = getattr(found, "cause", None) or found.__cause__
    if isinstance(found, PanEchoEmbedError):
        return found
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return EngineError(f"the Ray cluster gave up: {type(error).__name__}: {lines[-1] if lines else ''}")
