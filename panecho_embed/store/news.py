"""What a manifest says that an embedding file, or what is known of a video, does not: news is what is worked on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.content import Stamp, unchanged
from panecho_embed.records import FPS_OF_MANIFEST, Manifest, VideoFacts, VideoRef
from panecho_embed.store.read import EmbeddingFile


def is_settled(video: VideoRef, fact: VideoFacts) -> bool:
    """Whether what is known of a video holds: done or skipped, with the same content and the same rate by hand."""
    if fact.status == "failed":
        return False
    by_hand = fact.fps if fact.fps_source == FPS_OF_MANIFEST else None
    if fact.status == "done" and video.fps != by_hand and not (by_hand and math.isnan(by_hand)):
        return False
    return unchanged(video.path, Stamp(fact.size_bytes, fact.mtime_ns), fact.sha256)


def says_the_same(file: EmbeddingFile, manifest: Manifest, *, ids_are_repeatable: bool) -> bool:
    """Whether a file has the videos and labels of a manifest already, in its order.

    ids_are_repeatable: ids hashed with a random salt differ from run to run; that they alone differ is no news.
    """
    if file.num_videos != len(manifest):
        return False
    names = ["video_id", "view", "split", "path", *(("study_id", "patient_id") if ids_are_repeatable else ())]
    # By columns: a million videos as objects take their time.
    there = file.read_videos(names)
    return (
        all(there[name].tolist() == [getattr(video, name) for video in manifest.videos] for name in names)
        and file.rates_by_hand() == [video.fps for video in manifest.videos]
        and _same_labels(file.labels, manifest.labels)
    )


def new_patient_ids(file: EmbeddingFile, patients: Mapping[str, str]) -> int:
    """How many videos of a file have another patient id in `patients`, video id -> patient id."""
    return sum(patients.get(video, patient) != patient for video, patient in patients_of(file).items())


def patients_of(file: EmbeddingFile) -> dict[str, str]:
    """Video id -> patient id."""
    columns = file.read_videos(("video_id", "patient_id"))
    return dict(zip(columns["video_id"].tolist(), columns["patient_id"].tolist(), strict=True))


def patients_in(manifest: Manifest) -> dict[str, str]:
    """Video id -> patient id."""
    return {video.video_id: video.patient_id for video in manifest.videos}


def _same_labels(mine: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]) -> bool:
    return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.dtype.kind != other.dtype.kind:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
