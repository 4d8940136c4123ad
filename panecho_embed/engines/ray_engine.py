"""The Ray engine: videos decoded by workers, encoded by actors, written as parts, wherever a cluster has room.

What goes from machine to machine are rows of Ray Data: a video, and what became of it so far. A worker that dies loses
nothing: Ray gives its videos to another. A part is written by one task under a name of its own, and appears there when
it is whole; a task that is tried again writes another part, and `merge` takes the last word on each video.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from panecho_embed.engines.job import Job
from panecho_embed.engines.ray_cluster import Shares, ray_cluster, shares
from panecho_embed.engines.ray_workers import RayDecoder, RayEncoder, Work, write_batch
from panecho_embed.engines.writing import PART_VIDEOS
from panecho_embed.errors import EngineError, PanEchoEmbedError, StoreError

# Videos that go from worker to worker together: enough to fill a GPU's batches, few enough to hold in memory.
_VIDEOS_A_TASK = {"cpu": 4, "cuda": 16}
# Every encoder does at least so many tasks, and its videos make so many parts: near the end all have work.
_TASKS_AN_ENCODER = 16
_ENCODERS_A_WRITER = 8
# Without news for so long, the machines are counted.
_LOOK_SECONDS = 5.0


def embed_on_ray(job: Job, address: str | None) -> Iterator[int]:
    """Do the job on a Ray cluster; the number of videos of every part, once it is there.

    address: see `ray_cluster`. The parts' folder must be on storage that all machines of the cluster share; only where
    the output is at a URL, parts travel to this machine and are uploaded from it. Raises ArgumentError, EngineError if
    there is no cluster or its machines have other versions, and what the workers raise.
    """
    left, said = dict.fromkeys(job.todo), set[str]()
    with ray_cluster(address) as ray:
        while left:
            plan = shares(ray.cluster_resources(), job.device, job.workers)
            job.introduce(f"{plan.encoders} Ray workers ({plan.device}), {plan.decoders} decoding beside them,")
            try:
                for part in _watched(ray, _pipeline(ray, job, plan, list(left))):
                    for message in part["said"].splitlines():
                        if message not in said:
                            job.announce(message)
                            said.add(message)
                    _take_in(part, job)
                    before = len(left)
                    for position in pickle.loads(part["positions"]):
                        left.pop(position, None)
                    yield before - len(left)
            except _MachineLostError:
                job.announce(f"a machine of the Ray cluster was lost; the others go on with {len(left)} videos")
            else:
                if left:
                    raise EngineError(f"{len(left)} videos came back from no Ray worker; the same command does them")


class _MachineLostError(Exception):
    """What is left has to be begun anew on the machines that are left."""


def _watched(ray: Any, parts: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a Dataset. Raises what the workers raise, and _MachineLostError.

    Ray gives the work of a dead worker to the one that takes its place, and waits for that; where no machine that is
    left has room for it, it would wait for ever.
    """
    machines = _machines(ray)
    found: SimpleQueue[Mapping[str, Any] | Exception | None] = SimpleQueue()
    Thread(target=_gather, args=(parts, found), daemon=True).start()
    while True:
        try:
            row = found.get(timeout=_LOOK_SECONDS)
        except Empty:
            if not _machines(ray) >= machines:
                _end(parts)
                raise _MachineLostError from None
            continue
        if row is None:
            return
        if isinstance(row, Exception):
            raise _own(row) from row
        yield row


def _machines(ray: Any) -> set[str]:
    """Those that belong to the cluster now."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _end(parts: Any) -> None:
    """End the work on a Dataset, with the workers that are at it. Ray Data has no other door to that."""
    executor = parts._current_executor
    if executor is None:
        raise EngineError("a machine of the Ray cluster was lost; the same command goes on with the others")
    executor.shutdown(force=True)


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
    work = Work(
        job.decoding,
        job.timeout_seconds,
        job.encoding,
        plan.device,
        len(todo) // encoders,
        job.provenance,
        job.parts.folder if job.parts.shared else None,
        job.parts.shard,
        job.parts.latest_ns,
    )
    rows = [{"position": i, "video": pickle.dumps(job.manifest.videos[i])} for i in todo]
    return (
        ray.data.from_items(rows, override_num_blocks=tasks)
        .map_batches(
            RayDecoder,
            batch_size=videos_a_task,
            fn_constructor_args=(work,),
            num_cpus=plan.decoder_cpus,
            compute=ray.data.ActorPoolStrategy(size=min(plan.decoders, tasks)),
        )
        .map_batches(
            RayEncoder,
            batch_size=videos_a_task,
            fn_constructor_args=(work, ray.put(job.model)),
            num_cpus=plan.encoder_cpus,
            num_gpus=plan.encoder_gpus or None,
            compute=ray.data.ActorPoolStrategy(size=encoders),
        )
        .map_batches(
            write_batch,
            batch_size=min(each, PART_VIDEOS),
            fn_args=(work,),
            # No CPU is left for it, nor does it take much of one; without a limit, every part had a process of its own.
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=-(-encoders // _ENCODERS_A_WRITER)),
        )
    )


def _store(content: bytes, path: Path) -> None:
    """Write a part that has travelled; it appears when it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _own(error: Exception) -> Exception:
    """The error of this package that a worker raised; what Ray made of it if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PanEchoEmbedError):
        found = getattr(found, "cause", None) or found.__cause__
    if isinstance(found, PanEchoEmbedError):
        return found
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return EngineError(f"the Ray cluster gave up: {type(error).__name__}: {lines[-1] if lines else ''}")
