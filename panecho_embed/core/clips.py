"""Which frames of a video make a clip: a pure function of the frame count and the frame rate.

Nothing here depends on workers, batches or chance, so a plan gives the same clips wherever it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from panecho_embed.core.arraytypes import Bools, Ints
from panecho_embed.core.errors import ArgumentError, MediaError, NotACineError

ShortVideoPolicy = Literal["repeat", "wrap", "zeros", "skip"]

PADDING = -1
"""The frame number of a clip's place that no frame of a short video fills, with "zeros"."""


_EXCLUSIVE = (("target_fps", "frame_step"), ("stride", "num_clips"))

# Far beyond any use, and small enough that no arithmetic overflows.
MAX_FRAMES_PER_CLIP = 4096
MAX_FRAME_STEP = 1_000_000
MIN_FPS, MAX_FPS = 0.01, 10_000.0


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
    start: first frame of the only clip, 0 or more; None for evenly spaced starts. Needs `num_clips` 1. A video that
        ends before the clip does is short.
    short: what becomes of a video shorter than one clip: "repeat" its last frame (as PanEcho does), "wrap" around
        to its first, pad it with "zeros" after normalising (as EchoPrime does; only models that see a clip as a whole
        take it), or "skip" it.
    """

    frames_per_clip: int = 16
    frame_step: int | None = 1
    target_fps: float | None = None
    num_clips: int | None = 4
    stride: int | None = None
    start: int | None = None
    short: ShortVideoPolicy = "repeat"

    def __post_init__(self) -> None:
        if not 1 <= self.frames_per_clip <= MAX_FRAMES_PER_CLIP:
            raise ArgumentError(
                f"frames_per_clip is {self.frames_per_clip}; allowed are 1 to {MAX_FRAMES_PER_CLIP} (--frames-per-clip)"
            )
        if (self.frame_step is None) == (self.target_fps is None):
            raise ArgumentError(
                f"frame_step is {self.frame_step} and target_fps is {self.target_fps}; "
                "give exactly one of them (--frame-step or --fps)"
            )
        if self.frame_step is not None and not 1 <= self.frame_step <= MAX_FRAME_STEP:
            raise ArgumentError(f"frame_step is {self.frame_step}; allowed are 1 to {MAX_FRAME_STEP} (--frame-step)")
        if self.target_fps is not None and not MIN_FPS <= self.target_fps <= MAX_FPS:
            raise ArgumentError(f"target_fps is {self.target_fps}; allowed are {MIN_FPS:g} to {MAX_FPS:g} (--fps)")
        if (self.num_clips is None) == (self.stride is None):
            raise ArgumentError(
                f"num_clips is {self.num_clips} and stride is {self.stride}; "
                "give exactly one of them (--clips or --stride)"
            )
        if self.num_clips is not None and self.num_clips < 1:
            raise ArgumentError(f"num_clips is {self.num_clips}; it must be 1 or more (--clips)")
        if self.stride is not None and self.stride < 1:
            raise ArgumentError(f"stride is {self.stride}; it must be 1 or more (--stride)")
        if self.start is not None and (self.start < 0 or self.num_clips != 1):
            raise ArgumentError(
                f"start is {self.start} with num_clips {self.num_clips}; a start of 0 or more goes with one clip "
                "(--start, --clips 1)"
            )
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

    def starts(self, num_frames: int, fps: float | None = None) -> Ints:
        """First frame of every clip, (N,) int64, ascending and without repeats; empty if the video is skipped."""
        if num_frames < 1:
            raise ArgumentError(f"num_frames is {num_frames}; a video has 1 frame or more")
        offsets = self.offsets(fps)
        last_start = num_frames - 1 - int(offsets[-1])
        if self.start is not None:
            reaches = self.start <= last_start if self.short == "skip" else self.start < num_frames
            return np.array([self.start] if reaches else [], dtype=np.int64)
        if last_start < 0:
            return np.zeros(0 if self.short == "skip" else 1, dtype=np.int64)
        if self.stride is not None:
            return np.arange(0, last_start + 1, self.stride, dtype=np.int64)
        assert self.num_clips is not None
        if self.num_clips == 1:
            return np.array([last_start // 2], dtype=np.int64)
        # There are no more different starts than this.
        count = min(self.num_clips, last_start + 1)
        if count == 1:
            return np.zeros(1, dtype=np.int64)
        # In whole numbers, so that no platform rounds otherwise.
        numerators = np.arange(count, dtype=np.int64) * last_start * 2 + (count - 1)
        return np.unique(numerators // (2 * (count - 1)))

    def indices(self, num_frames: int, fps: float | None = None) -> Ints:
        """Frame numbers of every clip, (N, frames_per_clip) int64, each in [0, num_frames), or `PADDING`.

        num_frames: frames in the video, 1 or more. fps: its frame rate in Hz, needed with `target_fps` alone.
        """
        return self.indices_from(self.starts(num_frames, fps), num_frames, fps)

    def indices_from(self, starts: Ints, num_frames: int, fps: float | None = None) -> Ints:
        """As `indices`, of the clips that begin at `starts` (N,)."""
        return self._inside(starts[:, None] + self.offsets(fps)[None, :], num_frames)

    def used(self, num_frames: int, fps: float | None = None) -> Bools:
        """Which frames any clip uses, (num_frames,), without a list of all clips' frames."""
        starts, found = self.starts(num_frames, fps), np.zeros(num_frames, dtype=np.bool_)
        for offset in self.offsets(fps):
            inside = self._inside(starts + offset, num_frames)
            found[inside[inside != PADDING]] = True
        return found

    def require(self, num_frames: int, fps: float | None = None) -> Ints:
        """`indices`, but a video that the plan skips raises NotACineError, which says why."""
        indices = self.indices(num_frames, fps)
        if not len(indices) and self.start is not None and self.short != "skip":
            raise NotACineError(f"{num_frames} frames; its clip would start at frame {self.start} (--start)")
        if not len(indices):
            raise NotACineError(
                f"{num_frames} frames; a clip needs {self.frames_per_clip} at a step of {self.step(fps):g}, and short "
                "videos are skipped (--short repeat or wrap would take it)"
            )
        return indices

    def offsets(self, fps: float | None = None) -> Ints:
        """Distance of every frame of a clip from its first, in frames, (frames_per_clip,) int64."""
        exact = np.arange(self.frames_per_clip, dtype=np.float64) * self.step(fps)
        return np.floor(exact + 0.5).astype(np.int64)

    def _inside(self, indices: Ints, num_frames: int) -> Ints:
        """Frame numbers past a short video's end, brought back into it, or `PADDING`."""
        if self.short == "zeros":
            return np.where(indices < num_frames, indices, PADDING)
        inside: Ints = indices % num_frames if self.short == "wrap" else np.minimum(indices, num_frames - 1)
        return inside


class Clips(Protocol):
    """What decoding asks of clips, however they are chosen; see `ClipPlan`."""

    def used(self, num_frames: int, fps: float | None = None) -> Bools:
        """Which frames any clip uses, (num_frames,)."""

    def require(self, num_frames: int, fps: float | None = None) -> Ints:
        """Frame numbers of every clip, (N, L) int64; raises NotACineError for a video that is skipped."""


@dataclass(frozen=True, slots=True)
class OneClip:
    """One clip from anywhere in a video, as training takes them.

    plan: its length and step. position: where among all possible starts, 0 to below 1; drawn at random by the caller,
    so that the clip itself is a pure function.
    """

    plan: ClipPlan
    position: float

    def __post_init__(self) -> None:
        if not 0 <= self.position < 1:
            raise ArgumentError(f"position is {self.position}; allowed is 0 to below 1")

    def starts(self, num_frames: int, fps: float | None = None) -> Ints:
        """First frame of the clip, (1,) int64; empty if the plan skips such a short video."""
        starts = self.plan.starts(num_frames, fps)
        if self.plan.start is not None:
            return starts
        last_start = num_frames - 1 - int(self.plan.offsets(fps)[-1])
        if last_start < 0 or not len(starts):
            return starts
        return np.array([int(self.position * (last_start + 1))], dtype=np.int64)

    def indices(self, num_frames: int, fps: float | None = None) -> Ints:
        """Frame numbers of the clip, (1, frames_per_clip) int64."""
        return self.plan.indices_from(self.starts(num_frames, fps), num_frames, fps)

    def used(self, num_frames: int, fps: float | None = None) -> Bools:
        """Which frames the clip uses, (num_frames,)."""
        found = np.zeros(num_frames, dtype=np.bool_)
        indices = self.indices(num_frames, fps)
        found[indices[indices != PADDING]] = True
        return found

    def require(self, num_frames: int, fps: float | None = None) -> Ints:
        """As the plan's, of this clip."""
        self.plan.require(num_frames, fps)
        return self.indices(num_frames, fps)


def resolve_plan(clips: ClipPlan | Mapping[str, Any] | None, default: ClipPlan) -> ClipPlan:
    """A plan as it is; or a model's default plan with some fields changed.

    {"stride": 4} takes the place of num_clips, {"target_fps": 30} that of frame_step, and the other way round. None:
    the default plan.
    Raises ArgumentError for a field that there is not.
    """
    if isinstance(clips, ClipPlan):
        return clips
    changes = dict(clips or {})
    if unknown := changes.keys() - ClipPlan.__dataclass_fields__.keys():
        raise ArgumentError(f"no field of a clip plan: {unknown}; allowed: {', '.join(ClipPlan.__dataclass_fields__)}")
    for one, other in (*_EXCLUSIVE, *((b, a) for a, b in _EXCLUSIVE)):
        if changes.get(one) is not None:
            changes.setdefault(other, None)
    if changes.get("stride") is not None or changes.get("num_clips", 1) != 1:
        changes.setdefault("start", None)
    elif changes.get("start") is not None and default.start is None:
        changes.setdefault("num_clips", 1)
        changes.setdefault("stride", None)
    return replace(default, **changes)
