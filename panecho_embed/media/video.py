"""Video files to frames: AVI, MP4, MOV, MKV, WebM, WMV, MPEG and animated GIF, through OpenCV's FFmpeg.

Frames are decoded one after another and never sought, so each comes exactly once. Colours are OpenCV's own
conversion (the one that the weights were trained with), turned from BGR to RGB.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from panecho_embed.errors import MediaError
from panecho_embed.media import containers
from panecho_embed.media.cine import Cine, MediaInfo, check_size, plausible_fps
from panecho_embed.media.containers import Container
from panecho_embed.media.opencv import quiet_opencv
from panecho_embed.records import UInt8Array

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".gif"})
"""Suffixes by which a folder's video files are known, in small letters. A file named explicitly may have another."""

_INTRA_CODECS = frozenset({"mjpg", "jpeg", "mjpa", "mjpb", "dvsd", "ffv1", "hfyu", "ffvh", "png ", "mpng"})
"""Codecs whose every packet is a picture of its own."""

_LEADING_PICTURES = 8
"""Frames that a decoder may rightly leave out of an inter-coded stream: where a stream was cut without re-encoding,
the first pictures may refer to frames that are gone. Encoders keep such groups to 8 or fewer."""

_GRABS_PAST_END = 50
"""How many damaged packets in a row are stepped over to find out whether the video goes on behind them."""


def open_video(path: str) -> Cine:
    """Open a video file; the header is read, and the container checked for being whole. Raises MediaError."""
    container = _inspect(path)
    with _capture(path) as capture:
        fps, num_frames, height, width = _properties(capture, container)
    check_size(height, width)
    return Cine(
        path=path,
        kind="video",
        fps=fps,
        fps_source="container" if fps else "",
        region=None,
        num_frames=num_frames,
        reader=partial(_read, path, container),
    )


def describe_video(path: str) -> MediaInfo:
    """Say what the header says, without decoding more than the probe of a frame. Raises MediaError."""
    container = _inspect(path)
    with _capture(path) as capture:
        fps, num_frames, height, width = _properties(capture, container)
    check_size(height, width)
    still = num_frames == 1
    return MediaInfo("video", "still" if still else "cine", num_frames, fps, "container" if fps else "", height, width)


def _inspect(path: str) -> Container:
    try:
        with Path(path).open("rb") as file:
            head = file.read(4096)
        container = containers.inspect(path)
    except OSError as error:
        raise MediaError(f"the file can't be read: {error.strerror}", stage="open") from error
    if _is_text(head):
        raise MediaError(f"this is text, not a video, whatever its name says ({_allowed()})", stage="open")
    if container.damage:
        raise MediaError(f"{container.name} file: {container.damage}; copy it again", stage="open")
    return container


def _is_text(head: bytes) -> bool:
    # Playlists are text as well, and would make FFmpeg open whatever files they name.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return not any(byte < 0x20 and byte not in b"\t\n\f\r\x1b" for byte in head)


def _allowed() -> str:
    return "read are " + ", ".join(sorted(suffix[1:].upper() for suffix in VIDEO_SUFFIXES))


@contextmanager
def _capture(path: str) -> Iterator[cv2.VideoCapture]:
    # Both log what is raised here anyway; FFmpeg's level is read once, and the user's own setting wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # An absolute path can't be taken for a protocol ("concat:..."). One thread: workers share the cores already.
    absolute, options = os.path.abspath(path), [cv2.CAP_PROP_N_THREADS, 1]  # noqa: PTH100
    try:
        absolute.encode()
    except UnicodeEncodeError:
        # OpenCV would crash on it.
        raise MediaError("its name is not valid UTF-8, which the video reader needs; rename it", stage="open") from None
    with quiet_opencv():
        capture = cv2.VideoCapture(absolute, cv2.CAP_FFMPEG, options)
    try:
        if not capture.isOpened():
            raise MediaError(f"no video stream can be opened; it is damaged or no video ({_allowed()})", stage="open")
        yield capture
    finally:
        capture.release()


def _properties(capture: cv2.VideoCapture, container: Container) -> tuple[float | None, int | None, int, int]:
    """Frames per second, number of frames, height and width in pixels, as the header has them."""
    num_frames = container.stored_frames
    # A program stream has no count; OpenCV would guess one from the bit rate.
    if num_frames is None and container.name != "MPEG":
        claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        num_frames = int(claimed) if 0 < claimed < 2**31 else None
    # The delay of a GIF's only image is no frame rate.
    is_gif_still = container == Container("GIF", "", 1)
    fps = None if is_gif_still else plausible_fps(capture.get(cv2.CAP_PROP_FPS))
    height, width = (int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    return fps, num_frames, height, width


def _read(path: str, container: Container) -> Iterator[UInt8Array]:
    """Decode from the first frame to the last; raise MediaError where fewer come than the container has stored."""
    size: tuple[int, int] | None = None
    count = 0
    with _capture(path) as capture:
        codec = _codec(capture)
        while True:
            more, frame = capture.read()
            if not more:
                break
            height, width = frame.shape[:2]
            if size is None:
                check_size(height, width)
                size = height, width
            if (height, width) != size:
                raise MediaError(
                    f"frame {count + 1} is {width} x {height} pixels, the frames before it {size[1]} x {size[0]}; "
                    "the frames of a video must have one size",
                    stage="decode",
                )
            count += 1
            yield _as_rgb(frame)
        # OpenCV reports a frame that does not decode as it reports the end; past the end, nothing is left to grab.
        if any(capture.grab() for _ in range(_GRABS_PAST_END)):
            raise MediaError(f"frame {count + 1} can't be decoded; the video is damaged", stage="decode")
    stored = container.stored_frames
    if count == 0:
        raise MediaError(
            f"no frame can be decoded; the video is damaged, or OpenCV lacks its codec ({codec.strip()})",
            stage="decode",
        )
    if stored is not None and stored - count > _allowance(codec, container.name, stored):
        raise MediaError(f"only {count} of {stored} frames can be decoded; the video is damaged", stage="decode")


def _codec(capture: cv2.VideoCapture) -> str:
    """The four letters of the codec in small letters, "?" for those that are none."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in code.to_bytes(4, "little")).lower()


def _allowance(codec: str, container: str, stored: int) -> int:
    """How many of the stored frames may be missing in an honest file."""
    if container == "GIF" or codec in _INTRA_CODECS:
        return 0
    return min(_LEADING_PICTURES, max(2, stored // 10))


def _as_rgb(frame: cv2.typing.MatLike) -> UInt8Array:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
