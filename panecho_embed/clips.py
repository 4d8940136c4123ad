"""Which frames of a video make a clip: a pure function of the frame count and the frame rate.

Nothing here depends on workers, batches or chance, so a plan gives the same clips wherever it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, MediaError, NotACineError

ShortVideoPolicy = Literal["repeat", "wrap", "skip"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """How clips are taken from a video.

    frames_per_clip: frames in a clip, at least 1 (PanEcho: 16).
    frame_step: distance between a clip's frames, in frames of the video, at least 1; None when `target_fps` sets it.
    target_fps: frames per second of a clip, above 0; needs the video's own rate. The nearest frame is taken, so a
        target above the video's rate repeats frames.
    num_clips: clips a video, evenly spaced from the first possible start to the last (one clip: the middle);
        None when `stride` is given. A video with fewer different starts gives fewer clips, never the same one twice.
    stride: distance between the starts of neighbouring clips, in frames, at least 1; None when `num_clips` is given.
    short: what becomes of a video shorter than one clip: "repeat" its last frame (as PanEcho does), "wrap" around
        to its first, or "skip" it.
    """

    frames_per_clip: int = 16
    frame_step: int | None = 1
    target_fps: float | None = None
    num_clips: int | None = 4
    stride: int | None = None
    short: ShortVideoPolicy = "repeat"

    def __post_init__(self) -> None:
        if self.frames_per_clip < 1:
            raise ArgumentError(f"frames_per_clip is {self.frames_per_clip}; it must be 1 or more (--frames-per-clip)")
        if (self.frame_step is None) == (self.target_fps is None):
            raise ArgumentError(
                f"frame_step is {self.frame_step} and target_fps is {self.target_fps}; "
                "give exactly one of them (--frame-step or --fps)"
            )
        if self.frame_step is not None and self.frame_step < 1:
            raise ArgumentError(f"frame_step is {self.frame_step}; it must be 1 or more (--frame-step)")
        if self.target_fps is not None and not 0 < self.target_fps < float("inf"):
            raise ArgumentError(f"target_fps is {self.target_fps}; it must be above 0 and finite (--fps)")
        if (self.num_clips is None) == (self.stride is None):
            raise ArgumentError(
                f"num_clips is {self.num_clips} and stride is {self.stride}; "
                "give exactly one of them (--clips or --stride)"
            )
        if self.num_clips is not None and self.num_clips < 1:
            raise ArgumentError(f"num_clips is {self.num_clips}; it must be 1 or more (--clips)")
        if self.stride is not None and self.stride < 1:
            raise ArgumentError(f"stride is {self.stride}; it must be 1 or more (--stride)")
        if self.short not in get_args(ShortVideoPolicy):
            raise ArgumentError(f"short is {self.short!r}; allowed are {get_args(ShortVideoPolicy)} (--short)")

    def step(self, fps: float | None = None) -> float:
        """Distance between neighbouring frames of a clip, in frames of a video of `fps` frames per second.

        A whole number for `frame_step`; with `target_fps` it may be fractional. Raises MediaError when the plan needs
        the video's frame rate and it is not known.
        """
        if self.target_fps is None:
            assert self.frame_step is not None
            return float(self.frame_step)
        if fps is None or not 0 < fps < float("inf"):
            raise MediaError(
                f"clips at {self.target_fps:g} frames per second were asked for (--fps), but this video's own rate is "
                f"{'not known' if fps is None else fps}; add an fps column to the manifest, or use --frame-step",
                stage="clips",
            )
        return fps / self.target_fps

    def starts(self, num_frames: int, fps: float | None = None) -> IntArray:
        """First frame of every clip, (N,) int64, ascending and without repeats; empty if the video is skipped."""
        if num_frames < 1:
            raise ArgumentError(f"num_frames is {num_frames}; a video has 1 frame or more")
        offsets = self._offsets(fps)
        last_start = num_frames - 1 - int(offsets[-1])
        if last_start < 0:
            return np.zeros(0 if self.short == "skip" else 1, dtype=np.int64)
        if self.stride is not None:
            return np.arange(0, last_start + 1, self.stride, dtype=np.int64)
        assert self.num_clips is not None
        if self.num_clips == 1:
            return np.array([last_start // 2], dtype=np.int64)
        # In whole numbers, so that no platform rounds otherwise.
        numerators = np.arange(self.num_clips, dtype=np.int64) * last_start * 2 + (self.num_clips - 1)
        return np.unique(numerators // (2 * (self.num_clips - 1)))

    def indices(self, num_frames: int, fps: float | None = None) -> IntArray:
        """Frame numbers of every clip, (N, frames_per_clip) int64, each in [0, num_frames).

        num_frames: frames in the video, 1 or more. fps: its frame rate in Hz, needed with `target_fps` alone.
        """
        indices = self.starts(num_frames, fps)[:, None] + self._offsets(fps)[None, :]
        inside: IntArray = indices % num_frames if self.short == "wrap" else np.minimum(indices, num_frames - 1)
        return inside

    def require(self, num_frames: int, fps: float | None = None) -> IntArray:
        """`indices`, but a video that the plan skips raises NotACineError, which says why."""
        indices = self.indices(num_frames, fps)
        if not len(indices):
            raise NotACineError(
                f"{num_frames} frames; a clip needs {self.frames_per_clip} at a step of {self.step(fps):g}, and short "
                "videos are skipped (--short repeat or wrap would take it)"
            )
        return indices

    def _offsets(self, fps: float | None) -> IntArray:
        exact = np.arange(self.frames_per_clip, dtype=np.float64) * self.step(fps)
        return np.floor(exact + 0.5).astype(np.int64)
