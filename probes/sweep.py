"""Which frames should a clip take? Samplings derived from a frame-level file, compared without the videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed.core.beats import Beat
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable, VideoFacts
from panecho_embed.core.wording import counted
from panecho_embed.extraction.summary import notes_on_beats
from panecho_embed.store import EmbeddingFile, RowsOnDisk

if TYPE_CHECKING:
    from panecho_embed.extraction.clip_engine import ClipEngine


def default_samplings(frames: int, *, beats: bool = False) -> dict[str, ClipPlan]:
    """Consecutive, step 2, uniform and, with `beats`, one heartbeat; 1, 2, 4 and 8 clips a video; by their names."""
    ways: dict[str, dict[str, Any]] = {"consecutive": {}, "step 2": {"frame_step": 2}}
    ways["uniform"] = {"frame_step": None, "uniform": True}
    if beats:
        ways["one heartbeat"] = {"beats": 1}
    return {
        f"{name}, {counted(clips, 'clip')}": ClipPlan(frames, num_clips=clips, **way)
        for name, way in ways.items()
        for clips in (1, 2, 4, 8)
    }


def sweep_tables(
    source: str | Path,
    samplings: Mapping[str, ClipPlan] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    announce: Callable[[str], object] = lambda message: None,
) -> Iterator[tuple[str, EmbeddingTable]]:
    """Clip-level embeddings for each sampling, by its name.

    samplings: None for `default_samplings`, with heartbeats where the file knows any. weights, seed: of the clip
    encoder, those of the file. announce: told which videos are not cut by their heartbeat. Raises ArgumentError for a
    file without frames, SettingsMismatchError for other weights, MediaError where a sampling can't cut a video.
    """
    from panecho_embed.extraction.clip_engine import ClipEngine
    from panecho_embed.extraction.reclipping import backbone_of_frames

    file = EmbeddingFile(source)
    if file.level != "frame":
        raise ArgumentError(f"{source} holds {file.level} rows; a sweep needs frames (extract --level frame)")
    backbone = backbone_of_frames(file, weights, seed, device, flags="--backbone-weights, --backbone-seed")
    frames, rows = file.table_without_values(), file.rows_on_disk
    engine = ClipEngine(backbone, file.provenance.precision)
    facts = file.facts()
    if samplings is None:
        samplings = default_samplings(backbone.feeding.clips.frames_per_clip, beats=_know_beats(facts))
    by_beats = next((plan for plan in samplings.values() if plan.beats is not None), None)
    for note in notes_on_beats(file, by_beats):
        announce(note)
    timings = [facts[position].timing for position in file.row_columns["video"]]
    for name, plan in samplings.items():
        yield name, _sampled_table(frames, rows, engine, timings, name, plan)


def _know_beats(facts: Sequence[VideoFacts]) -> bool:
    """Whether the rate of every video is known, and the heartbeat of any."""
    done = [fact for fact in facts if fact.status == "done"]
    known = [fact.recording.heart_rate_bpm for fact in done if not math.isnan(fact.recording.heart_rate_bpm)]
    return bool(known) and not any(math.isnan(fact.fps) for fact in done)


def _sampled_table(
    frames: EmbeddingTable,
    embeddings: RowsOnDisk,
    engine: ClipEngine,
    timings: Sequence[tuple[int, float | None, Beat]],
    name: str,
    plan: ClipPlan,
) -> EmbeddingTable:
    """Clips of one sampling from the rows of a file of frames; the clip encoder runs, the image encoder does not."""
    import torch

    values, rows, firsts, steps = [], [], [], []
    for start, stop in _videos(frames):
        order = start + np.argsort(frames.first_frame[start:stop], kind="stable")
        features = torch.from_numpy(embeddings[order].astype(np.float32, copy=False)).to(engine.device)
        _, fps, beat = timings[start]
        indices = plan.require(stop - start, fps, beat)
        values.append(engine(features, indices).cpu().numpy())
        rows.append(np.full(len(indices), start))
        firsts.append(indices[:, 0])
        steps.append(np.full(len(indices), plan.step(stop - start, fps, beat)))
    row, joined = np.concatenate(rows), np.concatenate(values)
    provenance = replace(frames.provenance, level="clip", clips=plan, dim=joined.shape[1], pooling=name)
    return EmbeddingTable(
        values=joined,
        video_id=frames.video_id[row],
        study_id=frames.study_id[row],
        patient_id=frames.patient_id[row],
        view=frames.view[row],
        split=frames.split[row],
        first_frame=np.concatenate(firsts),
        frame_step=np.concatenate(steps),
        frames_per_clip=np.full(len(row), plan.frames_per_clip),
        labels={name: column[row] for name, column in frames.labels.items()},
        level="clip",
        provenance=provenance,
    )


def _videos(frames: EmbeddingTable) -> Iterator[tuple[int, int]]:
    """First and last-plus-one row of every video; a file keeps the rows of a video together."""
    starts = np.flatnonzero(np.r_[True, frames.video_id[1:] != frames.video_id[:-1]])
    yield from zip(starts.tolist(), [*starts[1:].tolist(), len(frames)], strict=True)
