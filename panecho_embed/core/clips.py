"""Which frames of a video make a clip: a pure function of the frame count, the frame rate and the heartbeat.

Nothing here depends on workers, batches or chance, so a plan gives the same clips wherever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.beats import Beat
from panecho_embed.core.errors import ArgumentError, MediaError, NotACineError

ShortVideoPolicy = Literal["repeat", "wrap", "zeros", "skip"]

PADDING = -1
"""The frame number of a clip's place that no frame of a short video fills, with "zeros"."""


_EXCLUSIVE = (
    {"target_fps": None, "frame_step": None, "uniform": False, "ed_es": False},
    {"stride": None, "num_clips": None},
)
"""Fields of which one takes the place of the others, with the value that says "not this one"."""

ED_ES = "ed-es"
"""As `num_clips` of a plan's changes: the one clip from end diastole to end systole, see `ClipPlan.ed_es`."""

_UNKNOWN = Beat()

_PLACES = 1 << 20
"""Into which a part of a video is divided for the one place that a clip of training takes."""

# Far beyond any use, and small enough that no arithmetic overflows.
_MAX_FRAMES_PER_CLIP = 4096
_MAX_FRAME_STEP = 1_000_000
_MAX_BEATS = 100
MIN_FPS, MAX_FPS = 0.01, 10_000.0


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """How clips are taken from a video.

    Parameters
    ----------
    frames_per_clip : int
        Number of frames in a clip, at least 1 (PanEcho: 16).
    frame_step : int or None
        Distance between a clip's frames, in frames of the video, at least 1; None when `target_fps` or `uniform` sets
        it.
    target_fps : float or None
        Frames per second of a clip, above 0; needs the video's own rate. The nearest frame is taken, so a target above
        the video's rate repeats frames.
    num_clips : int or None
        Number of clips per video, evenly spaced from the first possible start to the last (one clip: the middle); None
        when `stride` is given. A video with fewer different starts gives fewer clips, never the same one twice.
    stride : int or None
        Distance between the starts of neighbouring clips, in frames, at least 1; None when `num_clips` is given.
    start : int or None
        First frame of the only clip, 0 or more; None for evenly spaced starts. Needs `num_clips` 1. A video that ends
        before the clip does is short.
    short : {"repeat", "wrap", "zeros", "skip"}
        What happens to a video shorter than one clip: repeat its last frame (as PanEcho does), wrap around to its first
        frame, pad with zeros after normalising (as EchoPrime does; only models that see a clip as a whole accept it),
        or skip the video.
    uniform : bool
        Spread the frames of a clip over the whole video: it is divided into `frames_per_clip` equal parts, and one clip
        takes the middle of each; of several clips each takes its own place in all parts. A video with fewer frames
        than a clip is short.
    beats : int or None
        Spread the frames of a clip over this many heartbeats, from R wave to R wave where these are known; further
        clips are further beats, `num_clips` at most, evenly chosen. A video whose beat is not known, or that holds
        fewer beats, is cut by `frame_step` or `target_fps` (and `start`) instead. None: the beat plays no part.
    ed_es : bool
        One clip per video, its frames evenly spread from end diastole to end systole of one cycle, both included, in
        the video's order (whichever comes first); the nearest frame is taken, so that few frames between the two are
        repeated. A video whose two frames are not known raises MediaError. Instead of `frame_step`.
    """

    frames_per_clip: int = 16
    frame_step: int | None = 1
    target_fps: float | None = None
    num_clips: int | None = 4
    stride: int | None = None
    start: int | None = None
    short: ShortVideoPolicy = "repeat"
    uniform: bool = False
    beats: int | None = None
    ed_es: bool = False

    def __post_init__(self) -> None:
        if self.ed_es:
            self._check_ed_es()
        if not 1 <= self.frames_per_clip <= _MAX_FRAMES_PER_CLIP:
            raise ArgumentError(
                f"frames_per_clip is {self.frames_per_clip}; allowed are 1 to {_MAX_FRAMES_PER_CLIP} "
                "(--frames-per-clip)"
            )
        if (self.frame_step is not None) + (self.target_fps is not None) + bool(self.uniform) != (not self.ed_es):
            raise ArgumentError(
                f"frame_step is {self.frame_step}, target_fps is {self.target_fps} and uniform is {self.uniform}; "
                "give exactly one of them (--frame-step, --fps or --uniform)"
            )
        if self.frame_step is not None and not 1 <= self.frame_step <= _MAX_FRAME_STEP:
            raise ArgumentError(f"frame_step is {self.frame_step}; allowed are 1 to {_MAX_FRAME_STEP} (--frame-step)")
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
        self._check_spread()

    def _check_ed_es(self) -> None:
        others = {
            "frame_step": "--frame-step",
            "target_fps": "--fps",
            "uniform": "--uniform",
            "beats": "--beats",
            "stride": "--stride",
            "start": "--start",
        }
        values = ((flag, getattr(self, name)) for name, flag in others.items())
        if taken := [flag for flag, value in values if value is not None and value is not False]:
            raise ArgumentError(f"clips from end diastole to end systole take no {taken[0]} (--clips ed-es)")
        if self.num_clips != 1 or self.frames_per_clip < 2:
            raise ArgumentError(
                f"num_clips is {self.num_clips}, of {self.frames_per_clip} frames; from end diastole to end systole "
                "there is one clip, of 2 frames or more (--clips ed-es, --frames-per-clip)"
            )

    def _check_spread(self) -> None:
        if self.beats is not None and not (1 <= self.beats <= _MAX_BEATS and self.frames_per_clip > 1):
            raise ArgumentError(
                f"beats is {self.beats} with {self.frames_per_clip} frames in a clip; allowed are 1 to {_MAX_BEATS} "
                "beats, for clips of 2 frames or more (--beats, --frames-per-clip)"
            )
        if self.uniform and (self.beats is not None or self.start is not None):
            other = f"beats {self.beats} (--beats)" if self.beats is not None else f"start {self.start} (--start)"
            raise ArgumentError(f"uniform clips are spread over the whole video; {other} does not go with --uniform")
        if self.stride is not None and (self.uniform or self.beats is not None):
            flag = "--uniform" if self.uniform else "--beats"
            raise ArgumentError(f"stride is {self.stride}; it does not go with {flag}, whose clips --clips counts")

    @property
    def needs_beat(self) -> bool:
        """Whether the heartbeat decides which frames the clips take."""
        return self.beats is not None

    @property
    def spacing(self) -> str:
        """How the frames of a clip follow each other, for people: "step 2", "spread over the whole video"."""
        if self.uniform:
            return "spread over the whole video"
        if self.ed_es:
            return "spread from end diastole to end systole"
        step = f"{self.target_fps:g} frames/s" if self.target_fps is not None else f"step {self.frame_step}"
        if self.beats is None:
            return step
        beats = "one heartbeat" if self.beats == 1 else f"{self.beats} heartbeats"
        return f"spread over {beats} ({step} where the beat is not known)"

    def describe(self) -> str:
        """One line for people: "16 frames, step 2, 4 per video"."""
        count = f"{self.num_clips} per video" if self.num_clips is not None else f"one every {self.stride} frames"
        return f"{self.frames_per_clip} frames, {self.spacing}, {count}"

    def step(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> float:
        """Distance between neighbouring frames of a clip, in frames of a video; on average where it varies.

        A whole number for `frame_step`; else it may be fractional. Raises MediaError when the plan needs the video's
        frame rate and it is not known.
        """
        if self.uniform:
            return max(num_frames / self.frames_per_clip, 1.0)
        if self.ed_es:
            first, last = _phases(num_frames, beat)
            return (last - first) / (self.frames_per_clip - 1)
        if len(spans := self._spans(num_frames, fps, beat)):
            return float(spans[:, 1].mean() / self.frames_per_clip)
        return self._step(fps)

    def follows_beat(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> bool:
        """Whether the clips of a video are cut by its heartbeat; not so where it is not known or does not fit in."""
        return len(self._spans(num_frames, fps, beat)) > 0

    def _step(self, fps: float | None) -> float:
        if self.target_fps is None:
            assert self.frame_step is not None
            return float(self.frame_step)
        return _known(fps, f"clips at {self.target_fps:g} frames per second", "--fps") / self.target_fps

    def starts(self, num_frames: int, fps: float | None = None) -> Ints:
        """First frame of every clip at a fixed step, (N,) int64, ascending and without repeats; empty if skipped."""
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
        return _evenly(last_start + 1, self.num_clips)

    def indices(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Ints:
        """Frame numbers of every clip, (N, frames_per_clip) int64, each in [0, num_frames), or `PADDING`.

        num_frames: frames in the video, 1 or more. fps: its frame rate in Hz, needed only with `target_fps` and
        `beats`. beat: its heartbeat, used only with `beats` and `ed_es`. Raises MediaError where `ed_es` needs the
        two frames and they are not known.
        """
        if self.uniform:
            assert self.num_clips is not None
            return self.spread(num_frames, np.arange(self.num_clips), self.num_clips)
        if self.ed_es:
            first, last = _phases(num_frames, beat)
            between = self.frames_per_clip - 1
            # In whole numbers, halves rounded up, so that no platform rounds otherwise.
            places = np.arange(self.frames_per_clip, dtype=np.int64) * (last - first)
            return (first + (2 * places + between) // (2 * between))[None, :]
        if len(spans := self._spans(num_frames, fps, beat)):
            assert self.num_clips is not None
            return self._along(spans[_evenly(len(spans), self.num_clips)], num_frames)
        return self.indices_from(self.starts(num_frames, fps), num_frames, fps)

    def padding(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> tuple[int, int]:
        """Frames of the clips of a video that lie beyond its end and are padded, and all frames of its clips."""
        clips = self.indices(num_frames, fps, beat)
        if not len(clips) or self.ed_es or len(self._spans(num_frames, fps, beat)):
            return 0, clips.size
        if self.uniform:
            return max(0, self.frames_per_clip - num_frames) * len(clips), clips.size
        beyond = self.starts(num_frames, fps)[:, None] + self.offsets(fps)[None, :] >= num_frames
        return int(beyond.sum()), clips.size

    def spread(self, num_frames: int, places: Ints, of: int) -> Ints:
        """Clips over the whole video, (N, frames_per_clip): frame `places` + 1/2 of `of` of each of its equal parts."""
        if num_frames < 1:
            raise ArgumentError(f"num_frames is {num_frames}; a video has 1 frame or more")
        frames = np.arange(self.frames_per_clip, dtype=np.int64)
        if num_frames < self.frames_per_clip:
            return self._inside(frames[None, :], num_frames)[: 0 if self.short == "skip" else 1]
        # In whole numbers, so that no platform rounds otherwise.
        halves = 2 * (frames[None, :] * of + places[:, None]) + 1
        clips = halves * num_frames // (2 * of * self.frames_per_clip)
        # Of clips with the same first frame, one: rows are distinguished by it.
        return clips[np.unique(clips[:, 0], return_index=True)[1]]

    def _along(self, spans: Floats, num_frames: int) -> Ints:
        """Clips over stretches of a video, (N, 2): first frame and length; (N, frames_per_clip)."""
        share = np.arange(self.frames_per_clip) / self.frames_per_clip
        places = np.floor(spans[:, :1] + spans[:, 1:] * share + 0.5).astype(np.int64)
        return np.clip(places, 0, num_frames - 1)

    def _spans(self, num_frames: int, fps: float | None, beat: Beat) -> Floats:
        """Every stretch of `beats` beats, (N, 2); N is 0 where the beat plays no part. Raises MediaError."""
        if self.beats is None:
            return np.zeros((0, 2))
        if num_frames == 1:
            raise MediaError(
                "its only frame shows no heartbeat (--beats is for loops; leave out --include-stills)", stage="clips"
            )
        _known(fps, "clips by the heartbeat", "--beats")
        return beat.spans(self.beats, num_frames, 1 - 1 / self.frames_per_clip)

    def indices_from(self, starts: Ints, num_frames: int, fps: float | None = None) -> Ints:
        """As `indices`, of the clips that begin at `starts` (N,)."""
        return self._inside(starts[:, None] + self.offsets(fps)[None, :], num_frames)

    def used(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Bools:
        """Which frames any clip uses, (num_frames,), without a list of all clips' frames."""
        if self.uniform or self.ed_es or self.beats is not None:
            return _marked(self.indices(num_frames, fps, beat), num_frames)
        starts, found = self.starts(num_frames, fps), np.zeros(num_frames, dtype=np.bool_)
        for offset in self.offsets(fps):
            inside = self._inside(starts + offset, num_frames)
            found[inside[inside != PADDING]] = True
        return found

    def require(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Ints:
        """`indices`, but a video that the plan skips raises NotACineError, which says why."""
        indices = self.indices(num_frames, fps, beat)
        if not len(indices) and self.start is not None and self.short != "skip":
            raise NotACineError(f"{num_frames} frames; its clip would start at frame {self.start} (--start)")
        if not len(indices):
            raise NotACineError(
                f"{num_frames} frames; a clip needs {self.frames_per_clip} at a step of "
                f"{1 if self.uniform else self._step(fps):g}, and short videos are skipped (--short repeat or wrap "
                "would take it)"
            )
        return indices

    def offsets(self, fps: float | None = None) -> Ints:
        """Distance of every frame of a clip at a fixed step from its first, in frames, (frames_per_clip,) int64."""
        exact = np.arange(self.frames_per_clip, dtype=np.float64) * self._step(fps)
        return np.floor(exact + 0.5).astype(np.int64)

    def _inside(self, indices: Ints, num_frames: int) -> Ints:
        """Frame numbers past a short video's end, brought back into it, or `PADDING`."""
        if self.short == "zeros":
            return np.where(indices < num_frames, indices, PADDING)
        inside: Ints = indices % num_frames if self.short == "wrap" else np.minimum(indices, num_frames - 1)
        return inside


def _known(fps: float | None, what: str, flag: str) -> float:
    """The frame rate of a video. Raises MediaError if it is not known."""
    if fps is None or not 0 < fps < float("inf"):
        raise MediaError(
            f"{what} were asked for ({flag}), but this video's own rate is "
            f"{'not known' if fps is None else fps}; add an fps column to the manifest, or use --frame-step",
            stage="clips",
        )
    return fps


def _phases(num_frames: int, beat: Beat) -> tuple[int, int]:
    """End diastole and end systole in the video's order. Raises MediaError where they are no two frames of it."""
    found = (beat.end_diastole, beat.end_systole)
    if any(map(math.isnan, found)):
        missing = [name for name, frame in zip(("ed_frame", "es_frame"), found, strict=True) if math.isnan(frame)]
        raise MediaError(
            f"its {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not known (--clips ed-es)",
            stage="clips",
        )
    if found[0] == found[1] or not all(frame % 1 == 0 and 0 <= frame < num_frames for frame in found):
        raise MediaError(
            f"ed_frame is {found[0]:g} and es_frame {found[1]:g}; they must be two frames of its {num_frames}, counted "
            "from 0 (--clips ed-es)",
            stage="clips",
        )
    return int(min(found)), int(max(found))


def _evenly(possible: int, wanted: int) -> Ints:
    """At most `wanted` of the numbers 0 ... possible - 1, evenly from the first to the last; one: the middle."""
    count = min(wanted, possible)
    if count == 1:
        return np.array([(possible - 1) // 2], dtype=np.int64)
    # In whole numbers, so that no platform rounds otherwise.
    numerators = np.arange(count, dtype=np.int64) * (possible - 1) * 2 + (count - 1)
    return np.unique(numerators // (2 * (count - 1)))


def _marked(indices: Ints, num_frames: int) -> Bools:
    """Which frames are among the indices, (num_frames,)."""
    found = np.zeros(num_frames, dtype=np.bool_)
    found[indices[indices != PADDING]] = True
    return found


class Clips(Protocol):
    """What decoding asks of clips, however they are chosen; see `ClipPlan`."""

    @property
    def needs_beat(self) -> bool:
        """Whether the heartbeat decides which frames they take."""

    def used(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Bools:
        """Which frames any clip uses, (num_frames,)."""

    def require(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Ints:
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
        if self.plan.beats is not None or self.plan.ed_es:
            which = "ed_es" if self.plan.ed_es else f"beats is {self.plan.beats}"
            raise ArgumentError(f"{which}; clips from anywhere in a video do not follow its heartbeat")

    @property
    def needs_beat(self) -> bool:
        """As the plan's."""
        return self.plan.needs_beat

    def indices(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Ints:
        """Frame numbers of the clip, (1, frames_per_clip) int64; (0, frames_per_clip) if the plan skips the video."""
        if self.plan.uniform:
            place = np.array([int(self.position * _PLACES)], dtype=np.int64)
            return self.plan.spread(num_frames, place, _PLACES)
        return self.plan.indices_from(self.starts(num_frames, fps), num_frames, fps)

    def starts(self, num_frames: int, fps: float | None = None) -> Ints:
        """First frame of the clip at a fixed step, (1,) int64; empty if the plan skips such a short video."""
        starts = self.plan.starts(num_frames, fps)
        if self.plan.start is not None:
            return starts
        last_start = num_frames - 1 - int(self.plan.offsets(fps)[-1])
        if last_start < 0 or not len(starts):
            return starts
        return np.array([int(self.position * (last_start + 1))], dtype=np.int64)

    def used(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Bools:
        """Which frames the clip uses, (num_frames,)."""
        return _marked(self.indices(num_frames, fps, beat), num_frames)

    def require(self, num_frames: int, fps: float | None = None, beat: Beat = _UNKNOWN) -> Ints:
        """As the plan's, of this clip."""
        self.plan.require(num_frames, fps, beat)
        return self.indices(num_frames, fps, beat)


def resolve_plan(clips: ClipPlan | Mapping[str, Any] | None, default: ClipPlan) -> ClipPlan:
    """A plan as it is; or a model's default plan with some fields changed.

    {"stride": 4} takes the place of num_clips, {"target_fps": 30} or {"uniform": True} that of frame_step, and the
    other way round. {"beats": 1} leaves the model's own step and start for videos whose beat is not known.
    {"num_clips": "ed-es"} is the one clip of `ClipPlan.ed_es`. None: the default plan. Raises ArgumentError for a field
    that there is not, and for fields that exclude each other.
    """
    if isinstance(clips, ClipPlan):
        return clips
    changes = dict(clips or {})
    if unknown := changes.keys() - ClipPlan.__dataclass_fields__.keys():
        raise ArgumentError(f"no field of a clip plan: {unknown}; allowed: {', '.join(ClipPlan.__dataclass_fields__)}")
    if changes.get("num_clips") == ED_ES or changes.get("ed_es"):
        changes |= {"num_clips": 1, "ed_es": True}
        changes.setdefault("start", None)
    if changes.get("beats") is not None and changes.get("start") is not None:
        raise ArgumentError(f"start is {changes['start']}; clips by the heartbeat have no start of their own (--beats)")
    for group in _EXCLUSIVE:
        if any(changes.get(name) not in (None, False) for name in group):
            for name, unset in group.items():
                changes.setdefault(name, unset)
    if changes.get("stride") is not None or changes.get("num_clips", 1) != 1 or changes.get("uniform"):
        changes.setdefault("start", None)
    elif changes.get("start") is not None and default.start is None:
        changes.setdefault("num_clips", 1)
        changes.setdefault("stride", None)
    return replace(default, **changes)
