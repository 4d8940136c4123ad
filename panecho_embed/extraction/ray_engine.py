"""The Ray engine: videos decoded by workers, encoded by actors wherever a cluster has room, written here.

What goes from machine to machine are rows of Ray Data, a few videos each. A worker that dies loses nothing: Ray gives
its videos to another. What is encoded comes to the machine of the command, which writes it as the local engine does:
no machine holds more than a part, and a result counts once, however often it was computed.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any

from panecho_embed.core.errors import EngineError, PanEchoEmbedError
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure
from panecho_embed.core.wording import counted
from panecho_embed.extraction.encode import EncodeSettings
from panecho_embed.extraction.job import Job
from panecho_embed.extraction.profile import Profile
from panecho_embed.extraction.ray_cluster import Shares, ray_cluster, shares
from panecho_embed.extraction.ray_decoder import DecodingWork, RayDecoder, check_versions, items, table
from panecho_embed.extraction.writing import Result, part_writers
from panecho_embed.models.backbones import Backbone

# Videos that go to an encoder together: enough to fill a GPU's batches, few enough to hold in memory.
_VIDEOS_TOGETHER = {"cpu": 4, "cuda": 16}
# Every encoder does at least this many rows: near the end all have work.
_ROWS_AN_ENCODER = 16
# A block is what a decoder is given at once. Each costs the machine of the command a moment before anything begins.
_BLOCKS, _BLOCKS_A_DECODER = 2048, 8
# Results on their way to the writer.
_ROWS_WAITING = 64
_RAISED = re.compile(r"[\w.]*(Error|Exception)\b: ")
# Without news for this long, the machines are counted.
_LOOK_SECONDS = 5.0


def embed_on_ray(job: Job, address: str | None) -> Iterator[int]:
    """Do the job on a Ray cluster; a 1 for every video that is encoded or has failed.

    address: see `ray_cluster`. Raises ArgumentError, EngineError if there is no cluster or its machines have other
    versions, and what the workers raise.
    """
    left, said = dict.fromkeys(job.todo), set[str]()
    engines: list[str] = []
    with (
        part_writers(job.outputs, job.manifest, lambda: engines, Profile()) as add,
        ray_cluster(address) as ray,
    ):
        while before := len(left):
            plan = shares(ray.cluster_resources(), job.device, job.workers)
            if before == len(job.todo):
                job.introduce(f"{plan.encoders} Ray workers ({plan.device}), {plan.decoders} decoding beside them,")
            try:
                for encoded in _watched(ray, _pipeline(ray, job, plan, list(left))):
                    engines += [name for name in encoded.engines if name not in engines]
                    for message in encoded.said:
                        if message not in said:
                            job.announce(message)
                            said.add(message)
                    for position, outcome in encoded.results:
                        if position in left:
                            del left[position]
                            add((position, outcome))
                            yield 1
            except _MachineLostError:
                job.announce(
                    f"a machine of the Ray cluster was lost; the others go on with {counted(len(left), 'video')}"
                )
            else:
                if len(left) == before:
                    raise EngineError(
                        f"{counted(len(left), 'video')} came back from no Ray worker; the same command does them"
                    )


class _MachineLostError(Exception):
    """What is left has to be started again on the machines that are left."""


def _watched(ray: Any, dataset: Any) -> Iterator[Encoded]:
    """What is in the rows of a Dataset. Raises what the workers raise, and _MachineLostError.

    Ray gives the work of a dead worker to the one that takes its place, and waits for that; where no machine that is
    left has room for it, it would wait for ever.
    """
    machines = _machines(ray)
    with _gathered(dataset) as found:
        while True:
            try:
                row = found.get(timeout=_LOOK_SECONDS)
            except Empty:
                if not _machines(ray) >= machines:
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


@contextmanager
def _gathered(dataset: Any) -> Iterator[Queue[Encoded | Exception | None]]:
    """The rows as they come, then what was raised or None; the work on them ends with the block."""
    found: Queue[Encoded | Exception | None] = Queue(_ROWS_WAITING)
    ended = threading.Event()

    def put(row: Encoded | Exception | None) -> None:
        while not ended.is_set():
            with suppress(Full):
                found.put(row, timeout=1.0)
                return

    def gather() -> None:
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                for row in items(batch):
                    put(row)
            put(None)
        except Exception as error:
            # Whatever Ray raises, it is raised again where the rows are taken.
            put(error)

    threading.Thread(target=gather, daemon=True).start()
    try:
        yield found
    finally:
        ended.set()
        # Ray Data has no other door to ending the workers that are still at it.
        if dataset._current_executor is not None:
            dataset._current_executor.shutdown(force=True)


def _pipeline(ray: Any, job: Job, plan: Shares, todo: Sequence[int]) -> Any:
    """The Dataset whose rows are Encoded."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    each = max(len(todo) // (plan.encoders * _ROWS_AN_ENCODER), 1)
    together = min(each, _VIDEOS_TOGETHER[plan.device])
    rows = -(-len(todo) // together)
    encoders = min(plan.encoders, rows)
    decoding = DecodingWork(job.decoding, job.timeout_seconds, together, job.outputs[0].provenance)
    encoding = _EncodingWork(job.encoding, plan.device, len(todo) // encoders, job.outputs[0].provenance)
    dataset = ray.data.from_arrow(list(_blocks(job, todo, together, plan.decoders)))
    dataset.context.enable_progress_bars = False
    # Every row is a block: it goes on as soon as it is there, and a task that is done again makes the same ones.
    dataset.context.target_max_block_size = 1
    return dataset.map_batches(
        RayDecoder,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=(decoding,),
        num_cpus=plan.decoder_cpus,
        compute=_pool(ray, min(plan.decoders, rows), rows if plan.more_decoders else 0),
    ).map_batches(
        _RayEncoder,
        # A row, which holds videos enough; Ray Data wants a number where GPUs are asked for.
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(encoding, ray.put(job.model)),
        num_cpus=plan.encoder_cpus,
        num_gpus=plan.encoder_gpus or None,
        compute=_pool(ray, encoders, rows),
    )


def _blocks(job: Job, todo: Sequence[int], together: int, decoders: int) -> Iterator[Any]:
    """Tables of one row, a list of (position, VideoRef): what a decoder takes at once, whole rows of an encoder."""
    rows = -(-len(todo) // together)
    each = together * -(-rows // max(_BLOCKS, _BLOCKS_A_DECODER * decoders))
    for start in range(0, len(todo), each):
        yield table([[(i, job.manifest.videos[i]) for i in todo[start : start + each]]])


def _pool(ray: Any, size: int, most: int) -> Any:
    """So many workers, and up to `most` where machines join the cluster later."""
    return ray.data.ActorPoolStrategy(min_size=size, max_size=max(size, most))


def _own(error: Exception) -> Exception:
    """The error of this package that a worker raised; what Ray made of it if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, PanEchoEmbedError):
        found = getattr(found, "cause", None) or found.__cause__
    if isinstance(found, PanEchoEmbedError):
        return found
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A worker's traceback has what began it first, and advice of Ray's at its end.
    reason = next((line for line in lines if _RAISED.match(line)), lines[-1] if lines else "")
    return EngineError(f"the Ray cluster gave up: {type(error).__name__}: {reason}")


@dataclass(frozen=True, slots=True)
class _EncodingWork:
    """The instructions to the encoders of a run. device: "cpu" or "cuda". videos_an_encoder: that each may expect."""

    settings: EncodeSettings
    device: str
    videos_an_encoder: int
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of a few videos. engines: that the encoder has used. said: what it would announce, each once."""

    results: list[Result]
    engines: tuple[str, ...]
    said: tuple[str, ...]


class _RayEncoder:
    """Encodes videos; holds the model, and the engine that it chose for it."""

    def __init__(self, work: _EncodingWork, model: Any) -> None:
        import ray
        import torch

        check_versions(work.provenance)
        if work.device == "cpu":
            # As many encoders as CPUs: threads would only fight.
            torch.set_num_threads(1)
        self._said: list[str] = []
        backbone: Backbone = ray.get(model).to(work.device)
        self._encoder = work.settings.encoder(backbone, work.videos_an_encoder, self._said.append)

    def __call__(self, batch: Any) -> Any:
        """Rows of a list of (position, DecodedVideo or Failure) -> as many rows of Encoded."""
        return table(self._encoded(outcomes) for outcomes in items(batch))

    def _encoded(self, outcomes: list[tuple[int, Any]]) -> Encoded:
        results: list[Result] = []
        for position, outcome in outcomes:
            if isinstance(outcome, Failure):
                results.append((position, outcome))
            else:
                results.extend(self._encoder.add(position, outcome))
        results.extend(self._encoder.flush())
        said = tuple(self._said)
        self._said.clear()
        return Encoded(results, tuple(self._encoder.engines), said)
