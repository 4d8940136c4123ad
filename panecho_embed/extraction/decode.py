"""What a worker does with one video: read it once, keep the frames that its clips need, at the model's size.

Imports no torch: a worker starts in a fraction of a second and holds no model.
"""

from __future__ import annotations

import math
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeVar

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats32, Ints, UInt8Array
from panecho_embed.core.beats import Beat
from panecho_embed.core.clips import PADDING, Clips
from panecho_embed.core.content import Stamp, content_sha256, stamp
from panecho_embed.core.errors import MediaError, PanEchoEmbedError, RemoteError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import FPS_OF_MANIFEST, Failure, VideoFacts, VideoRef
from panecho_embed.core.remote import fetched
from panecho_embed.extraction.preprocess import FramePreparer, frame_preparer, sector_of
from panecho_embed.extraction.profile import DecodeTimes
from panecho_embed.media import Cine, open_cine
from panecho_embed.media.heartbeat import watched, with_heart_rate

_T = TypeVar("_T")

# Nine hours at 30 frames per second. A header that claims more is not believed before the frames are counted.
_MOST_CLAIMED = 1_000_000
# Of one video's frames at the model's size, in memory at once: eight minutes at 30 frames per second and 224 pixels.
_MOST_BYTES = 2 << 30
# Characters of a file's name that is looked for in messages.
_SHORTEST_NAME = 4


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What every video of a run is decoded with.

    clips: one plan or several, of whose clips all are wanted; None for every frame (frame level). digest: whether to
    take the SHA-256 of the file, which reads it again.
    most_frames: of one video that may be needed; None for as many as memory allows.
    """

    feeding: Feeding
    clips: tuple[Clips, ...] | None
    include_stills: bool = False
    digest: bool = True
    most_frames: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DecodedVideo:
    """A video on its way to the encoder.

    pixels: (U, 3, S, S) uint8, the frames that are needed, each once, in order.
    clips: for every plan (N, L) int64, positions in `pixels` of every clip's frames, or `PADDING`; N is 0 if the plan
    gives no clip of this video. None at frame level.
    times: when it was decoded, None where that is not known.
    """

    video_id: str
    path: str
    pixels: UInt8Array
    clips: tuple[Ints, ...] | None
    facts: VideoFacts
    times: DecodeTimes | None = None


def decode_video(video: VideoRef, settings: DecodeSettings) -> DecodedVideo | Failure:
    """Decode one video; what is wrong with it comes back as a Failure, never as an exception."""
    outcome = _decoded(video, settings)
    if isinstance(outcome, Failure) and video.origin is not None:
        # Errors of libraries and of storage name the file.
        return replace(outcome, message=_without_names(outcome.message, video))
    return outcome


def _without_names(message: str, video: VideoRef) -> str:
    """A message in which the opaque path stands for the video's own, and for its file's name, as they are or quoted.

    A name of one to three characters identifies nobody, and is in many messages by chance ("frame 1 of 10").
    """
    name = PurePath(video.location).name
    for told in (video.location, name) if len(name) >= _SHORTEST_NAME else (video.location,):
        for form in dict.fromkeys((told, repr(told)[1:-1], ascii(told)[1:-1])):
            message = message.replace(form, video.path)
    return message


def _decoded(video: VideoRef, settings: DecodeSettings) -> DecodedVideo | Failure:
    # One video is one worker's work; OpenCV's own threads would fight over the same cores.
    cv2.setNumThreads(1)
    started = time.perf_counter()
    seen = Stamp()
    try:
        seen = stamp(video.location)
        with fetched(video.location) as path:
            cine = open_cine(path, include_stills=settings.include_stills)
            return _decode(cine, path, video, settings, started, seen)
    except RemoteError as error:
        return Failure(video.video_id, video.path, "fetch", str(error))
    except MediaError as error:
        return Failure(video.video_id, video.path, error.stage, str(error), seen.size_bytes, seen.mtime_ns)
    except PanEchoEmbedError as error:
        return Failure(video.video_id, video.path, "open", str(error))
    except OSError as error:
        return Failure(video.video_id, video.path, "open", error.strerror or str(error))
    except MemoryError as error:
        message = f"memory does not suffice for its frames ({error}); fewer --workers may do, or a smaller --image-size"
        return Failure(video.video_id, video.path, "decode", message)
    except Exception as error:
        # No file may end the run; what it did is reported in full.
        where = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} (unexpected, in {Path(where.filename).name}:{where.lineno})"
        return Failure(video.video_id, video.path, "decode", message)


def _decode(
    cine: Cine, path: str, video: VideoRef, settings: DecodeSettings, started: float, seen: Stamp
) -> DecodedVideo:
    fps, fps_source = (cine.fps, cine.fps_source) if video.fps is None else (video.fps, FPS_OF_MANIFEST)
    mask = sector_of(cine, settings.feeding)
    prepare = _Timed(frame_preparer(settings.feeding, cine.kind, cine.region, mask))
    if video.phases is not None:
        end_diastole, end_systole = video.phases
        cine = replace(cine, recording=replace(cine.recording, end_diastole=end_diastole, end_systole=end_systole))
    cine, pulse = _with_pulse(cine, fps, settings)
    beat = cine.recording.beat(fps)
    count, pixels = _needed_frames(cine, fps, beat, settings, prepare)
    recording = with_heart_rate(cine.recording, pulse, fps) if pulse and fps is not None else cine.recording
    sha256 = content_sha256(path) if settings.digest else ""
    # Of a file that is replaced meanwhile, neither frames nor digest are known to be of one state.
    if stamp(video.location) != seen:
        raise MediaError("the file changed while it was read", stage="open")
    facts = VideoFacts(
        "done",
        sha256,
        count,
        math.nan if fps is None else fps,
        fps_source,
        seen.size_bytes,
        seen.mtime_ns,
        recording,
    )
    times = DecodeTimes(started, time.perf_counter(), prepare.seconds, os.getpid())
    clips = None if settings.clips is None else _positions(settings.clips, count, fps, beat)
    return DecodedVideo(video.video_id, video.path, pixels, clips, facts, times)


def _with_pulse(cine: Cine, fps: float | None, settings: DecodeSettings) -> tuple[Cine, list[Floats32]]:
    """A cine whose heart rate is known if that can be, and pictures that show it while frames are read.

    Clips by the heartbeat need it before their frames are chosen, so that a file which does not tell it is read once
    more. A reading of all frames finds it on the way, for the clips that are made of them later. Other clips have no
    use for it, and looking for it would cost a share of the time of decoding.
    """
    if fps is None or not math.isnan(cine.recording.heart_rate_bpm):
        return cine, []
    if settings.clips is None:
        return watched(cine)
    if not any(plan.needs_beat for plan in settings.clips):
        return cine, []
    watching, pictures = watched(cine)
    count = sum(1 for _ in watching.frames())
    if not count:
        return cine, []
    return replace(cine, recording=with_heart_rate(cine.recording, pictures, fps), num_frames=count), []


def _positions(plans: Sequence[Clips], num_frames: int, fps: float | None, beat: Beat) -> tuple[Ints, ...]:
    """Clips of every plan, (N, L), by positions in the frames that any of them uses.

    Raises MediaError if the only plan gives none; of several, each file says itself why it has no row.
    """
    found = _of_each(plans, lambda plan: plan.require(num_frames, fps, beat))
    none = np.zeros((0, 1), dtype=np.int64)
    every = np.concatenate([(none if clips is None else clips).reshape(-1) for clips in found])
    frames = np.unique(every[every != PADDING])
    return tuple(none if clips is None else _places(frames, clips) for clips in found)


def _places(frames: Ints, clips: Ints) -> Ints:
    """Where the frames of clips are in `frames`; padding stays padding."""
    return np.where(clips == PADDING, PADDING, np.searchsorted(frames, clips))


def _used(plans: Sequence[Clips], num_frames: int, fps: float | None, beat: Beat) -> Bools:
    """Which frames any clip of any plan uses, (num_frames,). Raises MediaError if the only plan can't say."""
    used = np.zeros(num_frames, dtype=np.bool_)
    for found in _of_each(plans, lambda plan: plan.used(num_frames, fps, beat)):
        if found is not None:
            used |= found
    return used


def _of_each(plans: Sequence[Clips], ask: Callable[[Clips], _T]) -> list[_T | None]:
    """What every plan answers; None for one that can't cut this video. Raises MediaError if it is the only one."""
    answers: list[_T | None] = []
    for plan in plans:
        try:
            answers.append(ask(plan))
        except MediaError:
            if len(plans) == 1:
                raise
            answers.append(None)
    return answers


class _Timed:
    """A frame preparer that counts its seconds."""

    def __init__(self, prepare: FramePreparer) -> None:
        self._prepare = prepare
        self.seconds = 0.0

    def __call__(self, frame: UInt8Array) -> UInt8Array:
        started = time.perf_counter()
        prepared = self._prepare(frame)
        self.seconds += time.perf_counter() - started
        return prepared


def _needed_frames(
    cine: Cine, fps: float | None, beat: Beat, settings: DecodeSettings, prepare: FramePreparer
) -> tuple[int, UInt8Array]:
    """Number of frames in the video, and those that the clips use, (U, 3, S, S).

    The header's frame count says which those are before the video is read; without one the frames are counted first.
    If it proves wrong, a second reading, with the true count, follows. Raises MediaError.
    """
    expected = cine.num_frames or 0
    if expected > _MOST_CLAIMED or (settings.clips is not None and expected <= 0):
        expected = sum(1 for _ in cine.frames())
    way_out = "a smaller --image-size" if settings.clips is None else "fewer clips"
    for _ in range(2):
        wanted = None if settings.clips is None or expected <= 0 else _used(settings.clips, expected, fps, beat)
        needed = expected if wanted is None else int(wanted.sum())
        kept = _FrameStack(needed, settings.feeding.crop, way_out, settings.most_frames)
        count = 0
        for frame in cine.frames():
            if wanted is None or (count < len(wanted) and wanted[count]):
                kept.add(prepare(frame))
            count += 1
        if count == 0:
            raise MediaError("no frame could be decoded", stage="decode")
        if settings.clips is None or count == expected:
            return count, kept.pixels
        expected = count
    raise MediaError("its number of frames changes from reading to reading", stage="decode")


class _FrameStack:
    """Frames in one array that grows as they come, so that a long video is not held twice."""

    def __init__(self, expected: int, side: int, way_out: str, allowed: int | None) -> None:
        # A header can claim anything; beyond this, the array grows as the frames prove it right.
        self._room = np.empty((min(expected if expected > 0 else 64, 4096), 3, side, side), dtype=np.uint8)
        self._way_out = way_out
        self._most = _MOST_BYTES // (3 * side * side)
        self._allowed = allowed
        self._count = 0

    def add(self, frame: UInt8Array) -> None:
        if self._count == self._allowed:
            raise MediaError(f"more than {self._allowed} of its frames would have to be encoded", stage="frames")
        if self._count >= self._most:
            raise MediaError(
                f"more than {self._count} of its frames are needed, {_MOST_BYTES >> 30} GiB of memory at "
                f"{frame.shape[-1]} pixels; cut the video into shorter ones, or take {self._way_out}",
                stage="clips",
            )
        if self._count == len(self._room):
            self._room.resize((2 * len(self._room) + 1, *self._room.shape[1:]), refcheck=False)
        self._room[self._count] = frame
        self._count += 1

    @property
    def pixels(self) -> UInt8Array:
        """The frames so far, (T, 3, S, S)."""
        return self._room[: self._count]
