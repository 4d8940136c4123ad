"""The local engine: decoding in worker processes of this machine, encoding and writing in this one."""

from __future__ import annotations

from collections.abc import Iterator

from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Failure
from panecho_embed.extraction.encode import Encoder
from panecho_embed.extraction.job import Job
from panecho_embed.extraction.pool import decoded
from panecho_embed.extraction.profile import Profile
from panecho_embed.extraction.writing import Result, part_writers
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import Backbone


def embed_locally(job: Job, profile: Profile) -> Iterator[int]:
    """Do the job; a 1 for every video that is encoded or has failed. profile: counts where the time goes."""
    model = job.model.to(resolve_device(job.device))
    job.introduce(str(model.device))
    profile.begin()
    encoder = job.encoding.encoder(model, len(job.todo), job.announce, profile)
    with part_writers(job.outputs, job.manifest, lambda: encoder.engines, profile) as add:
        for result in _results(job, encoder, _workers(job.workers, model), profile):
            add(result)
            yield 1


def _workers(workers: int | None, model: Backbone) -> int:
    if workers is None:
        cores = usable_cores()
        # On a CPU nearly all of the time is the encoder's; more workers would only take its cores.
        return cores if model.device.type != "cpu" else max(1, cores // 4)
    if workers < 0:
        raise ArgumentError(f"workers is {workers}; it must be 0 (decode in this process) or more (--workers)")
    return workers


def _results(job: Job, encoder: Encoder, workers: int, profile: Profile) -> Iterator[Result]:
    """What became of every video, in the order of the job except failures, which come as soon as they are known."""
    videos = ((i, job.manifest.videos[i]) for i in job.todo)
    with decoded(videos, job.decoding, workers, job.timeout_seconds) as outcomes:
        waiting = iter(outcomes)
        while True:
            with profile.measure("wait"):
                position, outcome = next(waiting, (-1, None))
            if outcome is None:
                break
            if isinstance(outcome, Failure):
                yield position, outcome
                continue
            if outcome.times is not None:
                profile.decoded(outcome.times)
            yield from encoder.add(position, outcome)
    yield from encoder.flush()
