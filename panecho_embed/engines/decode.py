"""What a worker does with one video: read it once, keep the frames that its clips need, at the model's size.

Imports no torch: a worker starts in a fraction of a second and holds no model.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from panecho_embed.clips import ClipPlan, IntArray
from panecho_embed.errors import MediaError
from panecho_embed.media import Cine, open_cine
from panecho_embed.media.sector import sector_mask
from panecho_embed.preprocess import FramePreparer, frame_preparer
from panecho_embed.records import Failure, Preprocess, UInt8Array, VideoFacts, VideoRef


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What every video of a run is decoded with. clips: None for every frame (frame level)."""

    preprocess: Preprocess
    clips: ClipPlan | None
    include_stills: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class DecodedVideo:
    """A video on its way to the encoder.

    pixels: (U, 3, S, S) uint8, the frames that are needed, each once, in order.
    clips: (N, L) int64, positions in `pixels` of every clip's frames; None at frame level.
    first_frame: (N,) or (U,) int64, number in the video of a row's first frame. frame_step: in frames.
    """

    video_id: str
    path: str
    pixels: UInt8Array
    clips: IntArray | None
    first_frame: IntArray
    frame_step: float
    facts: VideoFacts


def decode_video(video: VideoRef, settings: DecodeSettings) -> DecodedVideo | Failure:
    """Decode one video; what is wrong with it comes back as a Failure, never as an exception.

    Only what a file can cause is caught: MediaError, and errors of the operating system.
    """
    # One video is one worker's work; OpenCV's own threads would fight over the same cores.
    cv2.setNumThreads(1)
    try:
        cine = open_cine(video.path, include_stills=settings.include_stills)
        return _decode(cine, video, settings)
    except MediaError as error:
        return Failure(video.video_id, video.path, error.stage, str(error))
    except OSError as error:
        return Failure(video.video_id, video.path, "open", error.strerror or str(error))


def _decode(cine: Cine, video: VideoRef, settings: DecodeSettings) -> DecodedVideo:
    fps, fps_source = (cine.fps, cine.fps_source) if video.fps is None else (video.fps, "manifest")
    mask = sector_mask(cine.frames()) if settings.preprocess.mask_sector else None
    prepare = frame_preparer(settings.preprocess, cine.region, mask)
    count, pixels = _needed_frames(cine, fps, settings, prepare)
    facts = VideoFacts("done", _sha256(Path(video.path)), count, math.nan if fps is None else fps, fps_source)
    if settings.clips is None:
        every = np.arange(count, dtype=np.int64)
        return DecodedVideo(video.video_id, video.path, pixels, None, every, 1.0, facts)
    indices = settings.clips.require(count, fps)
    return DecodedVideo(
        video.video_id,
        video.path,
        pixels,
        clips=np.searchsorted(np.unique(indices), indices),
        first_frame=settings.clips.starts(count, fps),
        frame_step=settings.clips.step(fps),
        facts=facts,
    )


def _needed_frames(
    cine: Cine, fps: float | None, settings: DecodeSettings, prepare: FramePreparer
) -> tuple[int, UInt8Array]:
    """Number of frames in the video, and those that the clips use, (U, 3, S, S).

    The header's frame count says which those are before the video is read; if it proves wrong, a second reading, with
    the true count, follows.
    """
    expected = cine.num_frames
    for _ in range(2):
        wanted = _wanted(settings.clips, expected, fps)
        kept: list[UInt8Array] = []
        count = 0
        for frame in cine.frames():
            if wanted is None or (count < len(wanted) and wanted[count]):
                kept.append(prepare(frame))
            count += 1
        if count == 0:
            raise MediaError("no frame could be decoded", stage="decode")
        if wanted is None or count == expected:
            break
        expected = count
    if wanted is None and settings.clips is not None:
        wanted = _wanted(settings.clips, count, fps)
        assert wanted is not None
        kept = [kept[i] for i in np.flatnonzero(wanted)]
    side = settings.preprocess.crop
    return count, np.stack(kept) if kept else np.zeros((0, 3, side, side), dtype=np.uint8)


def _wanted(clips: ClipPlan | None, count: int | None, fps: float | None) -> npt.NDArray[np.bool_] | None:
    """Which frames of a video are used, (count,); None for all of them, or if the count is unknown."""
    if clips is None or not count:
        return None
    wanted = np.zeros(count, dtype=np.bool_)
    wanted[clips.indices(count, fps)] = True
    return wanted


def _sha256(path: Path) -> str:
    """Of a file's bytes; of a folder, of its files' names and bytes in order."""
    digest = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            digest.update(os.fsencode(file.name) + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> Iterable[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
