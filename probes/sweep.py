"""Which frames should a clip take? Samplings derived from a frame-level file, compared without the videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.store import EmbeddingFile, RowsOnDisk

if TYPE_CHECKING:
    from panecho_embed.extraction.clip_engine import ClipEngine


@dataclass(frozen=True, slots=True)
class Sampling:
    """clips: so many a video. step: between frames of a clip; None spreads its frames over the whole video."""

    frames: int
    clips: int
    step: int | None

    @property
    def name(self) -> str:
        """As it is called in tables: "step 2, 4 clips", "uniform, 1 clip"."""
        kind = "uniform" if self.step is None else "consecutive" if self.step == 1 else f"step {self.step}"
        return f"{kind}, {self.clips} clip{'s' if self.clips > 1 else ''}"

    def indices(self, num_frames: int) -> Ints:
        """Frame numbers of every clip, (N, frames)."""
        if self.step is not None:
            return ClipPlan(self.frames, frame_step=self.step, num_clips=self.clips).indices(num_frames)
        # Clip c takes frame c + 0.5 of every of `clips` equal parts of each of `frames` equal parts of the video.
        place = (np.arange(self.frames)[None] + (np.arange(self.clips)[:, None] + 0.5) / self.clips) / self.frames
        return np.minimum((place * num_frames).astype(np.int64), num_frames - 1)


def default_samplings(frames: int) -> list[Sampling]:
    """Consecutive, step 2 and uniform; 1, 2, 4 and 8 clips a video."""
    return [Sampling(frames, clips, step) for step in (1, 2, None) for clips in (1, 2, 4, 8)]


def sweep_tables(
    source: str | Path,
    samplings: Sequence[Sampling] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[tuple[str, EmbeddingTable]]:
    """Clip-level embeddings for each sampling, by its name. weights, seed: of the clip encoder, those of the file.

    Raises ArgumentError for a file without frames, SettingsMismatchError for other weights.
    """
    from panecho_embed.extraction.clip_engine import ClipEngine
    from panecho_embed.extraction.reclipping import backbone_of_frames

    file = EmbeddingFile(source)
    if file.level != "frame":
        raise ArgumentError(f"{source} holds {file.level} rows; a sweep needs frames (extract --level frame)")
    backbone = backbone_of_frames(file, weights, seed, device, flags="--backbone-weights, --backbone-seed")
    frames, rows = file.table_without_values(), file.rows_on_disk
    engine = ClipEngine(backbone, file.provenance.precision)
    for sampling in samplings or default_samplings(backbone.feeding.clips.frames_per_clip):
        yield sampling.name, _sampled_table(frames, rows, engine, sampling)


def _sampled_table(
    frames: EmbeddingTable, embeddings: RowsOnDisk, engine: ClipEngine, sampling: Sampling
) -> EmbeddingTable:
    """Clips of one sampling from the rows of a file of frames; the clip encoder runs, the image encoder does not."""
    import torch

    values, rows, firsts = [], [], []
    for start, stop in _videos(frames):
        order = start + np.argsort(frames.first_frame[start:stop], kind="stable")
        features = torch.from_numpy(embeddings[order].astype(np.float32, copy=False)).to(engine.device)
        indices = sampling.indices(stop - start)
        values.append(engine(features, indices).cpu().numpy())
        rows.append(np.full(len(indices), start))
        firsts.append(indices[:, 0])
    row, joined = np.concatenate(rows), np.concatenate(values)
    plan = None if sampling.step is None else ClipPlan(sampling.frames, sampling.step, num_clips=sampling.clips)
    provenance = replace(frames.provenance, level="clip", clips=plan, dim=joined.shape[1], pooling=sampling.name)
    return EmbeddingTable(
        values=joined,
        video_id=frames.video_id[row],
        study_id=frames.study_id[row],
        patient_id=frames.patient_id[row],
        view=frames.view[row],
        split=frames.split[row],
        first_frame=np.concatenate(firsts),
        frame_step=np.full(len(row), float(sampling.step or 0)),
        frames_per_clip=np.full(len(row), sampling.frames),
        labels={name: column[row] for name, column in frames.labels.items()},
        level="clip",
        provenance=provenance,
    )


def _videos(frames: EmbeddingTable) -> Iterator[tuple[int, int]]:
    """First and last-plus-one row of every video; a file keeps the rows of a video together."""
    starts = np.flatnonzero(np.r_[True, frames.video_id[1:] != frames.video_id[:-1]])
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(frames)], strict=True)
