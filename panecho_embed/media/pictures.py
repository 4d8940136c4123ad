"""Small pictures of videos, moving and still, from whatever format the videos are in."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.media import Cine

DEFAULT_FPS = 30.0
"""Frames per second at which a video is shown whose file says nothing."""

_THUMBNAIL_FPS = 15.0
_THUMBNAIL_SECONDS = 1.6
_MAX_READ = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture and its media type."""

    content: bytes
    media_type: str

    @property
    def data_uri(self) -> str:
        """The picture as an address that holds it, for a page that is one file."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode('ascii')}"


def shown_fps(known: float, cine: Cine) -> float:
    """Frames per second at which a video is played: what is known of it (above 0), else what it says, else 30."""
    return known if known > 0 else cine.fps or DEFAULT_FPS


def fitted(frame: UInt8Array, side: int) -> UInt8Array:
    """A frame (H, W, 3) no larger than `side` pixels either way, with even sides, as video codecs want them."""
    height, width = frame.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(2, round(width * factor) // 2 * 2), max(2, round(height * factor) // 2 * 2))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def thumbnail_of(cine: Cine, fps: float, side: int = 160) -> Picture:
    """The first second and a half of a file as an endless animated WebP, `side` pixels at most. Raises MediaError."""
    step = max(1, round(fps / _THUMBNAIL_FPS))
    count = min(_MAX_READ, max(1, round(_THUMBNAIL_SECONDS * fps)))
    frames = [Image.fromarray(fitted(f, side)) for f in itertools.islice(_frames(cine), 0, count, step)]
    if not frames:
        raise MediaError("no frame could be decoded")
    stream = io.BytesIO()
    frames[0].save(
        stream,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=max(20, round(1000 * step / fps)),
        loop=0,
        quality=60,
        method=2,
    )
    return Picture(stream.getvalue(), "image/webp")


def still_of(cine: Cine, side: int = 480) -> Picture:
    """The first frame of a file as JPEG, `side` pixels at most. Raises MediaError."""
    frame = next(_frames(cine), None)
    if frame is None:
        raise MediaError("no frame could be decoded")
    stream = io.BytesIO()
    Image.fromarray(fitted(frame, side)).save(stream, "JPEG", quality=80)
    return Picture(stream.getvalue(), "image/jpeg")


def _frames(cine: Cine) -> Iterator[UInt8Array]:
    """A cine's frames; the file is closed when they are no longer wanted."""
    frames = cine.frames()
    if not hasattr(frames, "close"):
        yield from frames
        return
    with closing(frames):  # type: ignore[type-var]  # just checked
        yield from frames
