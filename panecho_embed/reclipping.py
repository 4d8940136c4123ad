"""A frame-level file -> other clips, without the videos and without the frame encoder, nearly all of the cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panecho_embed.clips import ClipPlan, resolve_plan
from panecho_embed.engines.encode import encode_clips
from panecho_embed.errors import ArgumentError, MediaError, SettingsMismatchError
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.models.devices import resolve_device
from panecho_embed.records import Failure, FloatArray, Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, refuse_to_replace


def reclip(
    source: str | Path,
    out: str | Path,
    *,
    clips: ClipPlan | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
) -> Path:
    """Write clip embeddings made from the frame embeddings of `source`; the same that `extract` would have made.

    clips: as for `extract`. weights, seed: of the clip encoder; they must be those that the frames were encoded with.
    Raises ArgumentError if `source` has no frames, SettingsMismatchError for other weights, StoreError if `out` is
    there already (unless `overwrite`) or can't be written.
    """
    refuse_to_replace(Path(out), overwrite)
    file = EmbeddingFile(source)
    backbone = backbone_of_frames(file, weights, seed, device)
    made_with = file.provenance
    plan = resolve_plan(clips, backbone.clip_plan)
    # Frames that were rounded give clips that extract would not have given.
    rounded = "from float16 frames" if made_with.dtype == "float16" else ""
    provenance = replace(made_with, level="clip", clips=plan, dim=backbone.dim, pooling=rounded)
    manifest = file.manifest()
    facts: list[VideoFacts] = []
    failures = {failure.video_id: failure for failure in file.failure_records()}
    with EmbeddingWriter(out, provenance) as writer:
        for position, (video, fact, features) in enumerate(_videos(file, manifest)):
            facts.append(fact)
            if fact.status != "done":
                continue
            try:
                indices = plan.require(fact.num_frames, None if math.isnan(fact.fps) else fact.fps)
            except MediaError as error:
                facts[-1] = replace(fact, status="skipped" if error.stage == "skipped" else "failed")
                failures[video.video_id] = Failure(video.video_id, video.path, error.stage, str(error))
                continue
            frames = torch.from_numpy(features.astype(np.float32)).to(backbone.device)
            values = encode_clips(backbone, frames, indices, provenance.precision).cpu().numpy()
            step = plan.step(None if math.isnan(fact.fps) else fact.fps)
            writer.add(position, values, indices[:, 0], step, plan.frames_per_clip)
        in_order = [failures[video.video_id] for video in manifest.videos if video.video_id in failures]
        return writer.finish(manifest, facts, in_order)


def backbone_of_frames(
    file: EmbeddingFile, weights: str | Path | None, seed: int, device: str, flags: str = "--weights, --seed"
) -> Backbone:
    """The backbone that a frame-level file was made with, on `device`; its clip encoder goes on from the frames.

    flags: what the error tells the user to set. Raises ArgumentError if the file has no frames, and
    SettingsMismatchError if the weights are others than the file's.
    """
    if file.level != "frame":
        raise ArgumentError(
            f"{file.path} holds {file.level} rows; clips are made from a frame-level file (--level frame)"
        )
    made_with = file.provenance
    backbone = load_backbone(made_with.backbone, weights, seed, image_size=made_with.preprocess.crop)
    if backbone.weights.sha256 != made_with.weights.sha256:
        raise SettingsMismatchError(
            f"{file.path} was made with the weights {made_with.weights.source} "
            f"(sha256 {made_with.weights.sha256[:12]}), not {backbone.weights.source} "
            f"(sha256 {backbone.weights.sha256[:12]}); name those ({flags})"
        )
    return backbone.to(resolve_device(device))


def _videos(file: EmbeddingFile, manifest: Manifest) -> Iterator[tuple[VideoRef, VideoFacts, FloatArray]]:
    """Every video with its frame embeddings, (T, D), read from the disk one video at a time."""
    stops = np.cumsum(np.bincount(file.row_columns["video"], minlength=len(manifest)))
    starts = np.concatenate([[0], stops[:-1]])
    for video, fact, start, stop in zip(manifest.videos, file.facts(), starts, stops, strict=True):
        yield video, fact, file.read(int(start), int(stop))
