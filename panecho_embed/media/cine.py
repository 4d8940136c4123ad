"""What an opened file is: `Cine` hands out its frames, `MediaInfo` says what a header says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Recording, Region

Kind = Literal["video", "dicom", "folder", "image", "array", "nifti"]

MIN_SIDE = 16
"""Pixels. Nothing smaller is an ultrasound image: such files are icons and placeholders."""

MAX_PIXELS = 2**26
"""Pixels in a frame, 8192 x 8192: many times the largest echo, and still safe to allocate for a damaged header."""

MAX_FPS = 1000.0
"""Frames per second. Containers that know no rate write their clock's (1000, 90000) in its place."""


@dataclass(frozen=True, slots=True)
class Cine:
    """An opened file whose frames can be read, any number of times, each time from the first.

    path: as given. kind: what was opened.
    fps: frames per second, None where nothing plausible says; fps_source: "container", a DICOM tag, ... or "".
    region: the 2-D ultrasound region, in pixels of the frames; None where the file names none that fits its image.
    num_frames: what the header says, None where it says nothing; the frames that come are what counts.
    recording: what the header says of how it was made.
    """

    path: str
    kind: Kind
    fps: float | None
    fps_source: str
    region: Region | None
    num_frames: int | None
    reader: Callable[[], Iterator[UInt8Array]] = field(repr=False, compare=False)
    recording: Recording = field(default_factory=Recording)

    def frames(self) -> Iterator[UInt8Array]:
        """Yield every frame once, in order: (H, W, 3) uint8 RGB, C-contiguous, all of one size.

        A few frames are in memory at a time. Raises MediaError where the file turns out to be damaged: fewer frames
        than it holds are never given silently. Raises it behind the last frame, too, if none of them shows anything:
        every pixel of a frame has the same colour. Some blank frames do no harm.
        """
        count, is_blank = 0, True
        try:
            for frame in self.reader():
                count += 1
                is_blank = is_blank and bool((frame == frame[0, 0]).all())
                yield frame
        except OSError as error:
            raise MediaError(
                f"the file can't be read: {error.strerror or type(error).__name__}", stage="decode"
            ) from error
        if count and is_blank:
            raise MediaError(
                f"no content: {'its only frame' if count == 1 else f'each of its {count} frames'} is of one colour "
                "throughout",
                stage="pixels",
            )


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file is, by its header.

    kind: "" where it is unknown. cine: "cine" (two frames or more), "still" (one), "spectral Doppler", "M-mode",
    "no pixels" or "unreadable: <reason>". num_frames, fps, height, width: None where the header does not say.
    colour_flow: 1 with colour Doppler, 0 without, NaN where it is not known.
    heart_rate_bpm, heart_rate_source: as in `Recording`.
    """

    kind: Kind | Literal[""]
    cine: str
    num_frames: int | None = None
    fps: float | None = None
    fps_source: str = ""
    height: int | None = None
    width: int | None = None
    colour_flow: float = math.nan
    heart_rate_bpm: float = math.nan
    heart_rate_source: str = ""


def check_size(height: int, width: int, *, what: str = "the image") -> None:
    """Raise MediaError(stage "open") unless a frame of this size, in pixels, can be an ultrasound image."""
    if min(height, width) < MIN_SIDE:
        raise MediaError(
            f"{what} is {width} x {height} pixels; an ultrasound image has at least {MIN_SIDE} x {MIN_SIDE}",
            stage="open",
        )
    if height * width > MAX_PIXELS:
        raise MediaError(
            f"{what} claims {width} x {height} pixels; at most {MAX_PIXELS} in all are read (8192 x 8192)", stage="open"
        )


def plausible_fps(fps: float) -> float | None:
    """`fps` if it can be a frame rate: above 0 and below 1000 frames per second; else None."""
    return fps if 0 < fps < MAX_FPS else None
