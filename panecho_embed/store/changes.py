"""What has changed: whether a video is done as it is now, and whether a file holds what a manifest says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.content import Stamp, unchanged
from panecho_embed.core.records import FPS_OF_MANIFEST, Manifest, VideoFacts, VideoRef
from panecho_embed.store.read import EmbeddingFile


def is_settled(video: VideoRef, fact: VideoFacts) -> bool:
    """Whether what is known of a video holds: done or skipped, with the same content and the same rate by hand."""
    if fact.status == "failed":
        return False
    by_hand = fact.fps if fact.fps_source == FPS_OF_MANIFEST else None
    if fact.status == "done" and video.fps != by_hand and not (by_hand and math.isnan(by_hand)):
        return False
    return unchanged(video.location, Stamp(fact.size_bytes, fact.mtime_ns), fact.sha256)


def says_the_same(file: EmbeddingFile, manifest: Manifest) -> bool:
    """Whether a file has the videos and labels of a manifest already, in its order."""
    if file.num_videos != len(manifest):
        return False
    names = ["video_id", "study_id", "patient_id", "view", "split", "path"]
    # By columns: a million videos as objects take their time.
    there = file.read_videos(names)
    return (
        all(there[name].tolist() == [getattr(video, name) for video in manifest.videos] for name in names)
        and file.rates_by_hand() == [video.fps for video in manifest.videos]
        and _same_labels(file.labels, manifest.labels)
    )


def _same_labels(mine: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]) -> bool:
    return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.dtype.kind != other.dtype.kind:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
