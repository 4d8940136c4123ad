"""Video files to frames: AVI, MP4, MOV, MKV, WebM, WMV, MPEG and animated GIF.

PyAV's demuxer says what a file holds and whether it is whole. OpenCV's FFmpeg decodes it, as it decoded the videos that
the weights were trained with; PyAV decodes what OpenCV can't (AV1), by the same conversion to RGB. Frames are decoded
one after another and never sought, so each comes exactly once.

Decoders stop at damage without a word, so before decoding, the frames that a file holds are compared with those that it
counts (AVI, MP4, MOV) or with the duration that it states (MKV, WebM). A WMV or MPEG file, or a live stream in MP4 or
WebM, promises neither: cut between two packets, it is a shorter video.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Recording
from panecho_embed.core.wording import brief
from panecho_embed.media.cine import Cine, check_size, plausible_fps
from panecho_embed.media.images import quiet_opencv
from panecho_embed.media.kinds import VIDEO_SUFFIXES

_LEADING_PICTURES = 8
"""Frames that a decoder may rightly leave out of an inter-coded stream: where a stream was cut without re-encoding,
the first pictures may refer to frames that are gone. Encoders keep such groups to 8 or fewer."""

_REORDERED = 16
"""How many frames H.264 and HEVC may hold back because others that are stored later are shown first (H.264 A.3.1)."""

_GRABS_PAST_END = 50
"""How many damaged packets in a row are stepped over to find out whether the video goes on behind them."""


@dataclass(frozen=True, slots=True)
class _Track:
    """The video track of a file, as the demuxer reads it.

    container, codec: FFmpeg's names. num_frames: packets that hold a frame. stored: frames that have to come, None
    where packets need not be frames. may_lack: how many of them the decoder may rightly leave out. fps: frames per
    second, None where nothing plausible is stated. height, width: pixels.
    """

    container: str
    codec: str
    num_frames: int
    stored: int | None
    may_lack: int
    fps: float | None
    height: int
    width: int


def open_video(path: str) -> Cine:
    """Open a video file: its packets are read, and found to be all there, but not decoded. Raises MediaError."""
    track = _inspect(path)
    source = "container" if track.fps else ""
    recording = Recording(track.height, track.width)
    return Cine(path, "video", track.fps, source, None, track.num_frames, partial(_read, path, track), recording)


def _inspect(path: str) -> _Track:
    try:
        with Path(path).open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise MediaError(f"the file can't be read: {error.strerror}", stage="open") from error
    if _is_text(head):
        raise MediaError(f"this is text, not a video, whatever its name says ({_allowed()})", stage="open")
    track = _read_track(path)
    check_size(track.height, track.width)
    if track.container == "gif":
        _check_gif(path)
    return track


def _is_text(head: bytes) -> bool:
    # Playlists are text as well, and would make FFmpeg open whatever files they name.
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return not any(byte < 0x20 and byte not in b"\t\n\f\r\x1b" for byte in head)


def _allowed() -> str:
    return "read are " + ", ".join(sorted(suffix[1:].upper() for suffix in VIDEO_SUFFIXES))


def _absolute(path: str) -> str:
    """The path as FFmpeg may have it: an absolute one can't be taken for a protocol ("concat:...")."""
    absolute = os.path.abspath(path)  # noqa: PTH100
    try:
        absolute.encode()
    except UnicodeEncodeError:
        # OpenCV would crash on it.
        raise MediaError("its name is not valid UTF-8, which the video reader needs; rename it", stage="open") from None
    return absolute


@contextmanager
def _opened(source: str | BinaryIO, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a container and its first video stream by PyAV. Raises MediaError(stage "open")."""
    try:
        container = av.open(source, "r", options=options)
    except (av.error.FFmpegError, ValueError) as error:
        raise _no_stream() from error
    with container:
        # OpenCV decodes the first as well.
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None:
            raise _no_stream()
        # Workers share the cores already.
        stream.thread_count = 1
        yield container, stream


def _no_stream() -> MediaError:
    return MediaError(f"no video stream can be opened; it is cut, damaged or no video ({_allowed()})", stage="open")


def _read_track(path: str) -> _Track:
    absolute = _absolute(path)
    with _opened(absolute) as (container, stream):
        packets = _Packets(container, stream)
        codec, name, declared = stream.codec_context, container.format.name, stream.frames
        is_alone = len(container.streams) == 1
        duration = 0.0 if container.duration is None else container.duration / av.time_base
        rate = float(stream.average_rate or 0)
        is_intra = codec.codec.intra_only or not codec.codec.lossy
        size, codec_name = (codec.height, codec.width), codec.name
    shows_all = packets.discarded == 0
    if packets.total < declared and name.startswith("mov"):
        # An edit list may rightly show less than the index counts; what is counted must be there all the same.
        with _opened(absolute, ignore_editlist="1") as (container, stream):
            packets, shows_all = _Packets(container, stream), False
    if packets.damage or not packets.frames:
        raise _damaged(packets.damage or "it holds no frame")
    if packets.total < declared:
        raise _damaged(f"its index counts {declared} frames, it holds {packets.total}")
    # Sound may last longer than the frames, and ends with silence that is no packet.
    if name.startswith("matroska") and is_alone and packets.ends_before(duration, rate):
        raise _damaged(f"it says that it lasts {duration:.2f} s, its frames end after {packets.end:.2f} s")
    if name.startswith("matroska") and packets.lacks_stored_last(rate):
        raise _damaged("frames are missing that are stored behind the last one shown")
    may_lack = 0 if is_intra else min(_LEADING_PICTURES, max(2, packets.frames // 10))
    # The delay of a GIF's only image is no frame rate.
    fps = None if name == "gif" and packets.frames == 1 else plausible_fps(rate)
    stored = packets.frames if declared and shows_all else None
    return _Track(name, codec_name, packets.frames, stored, may_lack, fps, *size)


def _damaged(how: str) -> MediaError:
    return MediaError(f"the file is cut or damaged: {how}; copy it again", stage="open")


class _Packets:
    """The packets of a video stream, read to its end.

    total: all; frames: those that hold a frame (an empty one repeats the frame before it); discarded: those that an
    edit list hides. end: when the last of them ends, in seconds. damage: in words, "" for none.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.total = self.frames = self.discarded = 0
        self.end, self.damage = 0.0, ""
        self._longest_gap, last = 0.0, None
        self._starts: list[float] = []
        try:
            for packet in container.demux(stream):
                if packet.dts is None and not packet.size:
                    # Not from the file: the mark of the stream's end.
                    continue
                start = packet.pts if packet.pts is not None else packet.dts
                if start is not None and packet.time_base is not None:
                    self.end = max(self.end, float((start + (packet.duration or 0)) * packet.time_base))
                    self._starts.append(float(start * packet.time_base))
                self.total += 1
                self.frames += packet.size > 0
                self.discarded += packet.is_discard
                if packet.is_corrupt:
                    self.damage = f"frame {self.total} is not all there"
                if last is not None and packet.dts is not None and packet.time_base is not None:
                    self._longest_gap = max(self._longest_gap, float((packet.dts - last) * packet.time_base))
                last = packet.dts
        except av.error.FFmpegError as error:
            self.damage = f"it can't be read behind frame {self.total} ({error.strerror})"

    def ends_before(self, duration: float, rate: float) -> bool:
        """Whether the packets end by half a frame or more before `duration`, in seconds.

        rate: frames per second, 0 where not known. Where the rate varies, the last frame may be as long as any.
        """
        frame = 1 / rate if rate else self._longest_gap
        return self.end + max(frame / 2, self._longest_gap - frame / 2) < duration

    def lacks_stored_last(self, rate: float) -> bool:
        """Whether frames are missing that are stored behind the one that is shown last, so that the duration is whole.

        Only where frames are stored in another order than they are shown, and at a constant rate except near the end.
        rate: frames per second, 0 where not known.
        """
        starts = np.asarray(self._starts)
        if not rate or np.all(np.diff(starts) > 0):
            return False
        is_gap = np.diff(np.sort(starts)) > 1.5 / rate
        return bool(is_gap[-_REORDERED:].any() and not is_gap[:-_REORDERED].any())


def _check_gif(path: str) -> None:
    """Decode every image of a GIF by Pillow, which says where one is cut; FFmpeg fills it up with the one before."""
    try:
        with Image.open(path, formats=["GIF"]) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
    except Exception as error:
        # Pillow raises whatever its parser trips over.
        raise _damaged(brief(error)) from error


def _read(path: str, track: _Track) -> Iterator[UInt8Array]:
    """Decode from the first frame to the last. Raises MediaError where fewer come than the container has counted."""
    frames = _by_opencv(path)
    first = next(frames, None)
    # OpenCV's FFmpeg lacks some codecs; PyAV's has them all.
    decoded = decode_video(_absolute(path)) if first is None else chain([first], frames)
    size: tuple[int, int] | None = None
    count = 0
    for count, frame in enumerate(decoded, 1):
        height, width = frame.shape[:2]
        if size is None:
            check_size(height, width)
            size = height, width
        if (height, width) != size:
            raise MediaError(
                f"frame {count} is {width} x {height} pixels, the frames before it {size[1]} x {size[0]}; "
                "the frames of a video must have one size",
                stage="decode",
            )
        yield frame
    if count == 0:
        raise MediaError(f"no frame can be decoded; the video ({track.codec}) is damaged", stage="decode")
    if track.stored is not None and track.stored - count > track.may_lack:
        raise MediaError(f"only {count} of {track.stored} frames can be decoded; the video is damaged", stage="decode")


def _by_opencv(path: str) -> Iterator[UInt8Array]:
    """Decode by OpenCV; no frame at all where it can't. Raises MediaError where it stops before the end."""
    # Both log what is raised here anyway; FFmpeg's level is read once, and the user's own setting wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # One thread: workers share the cores already.
    with quiet_opencv():
        capture = cv2.VideoCapture(_absolute(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    try:
        while capture.isOpened():
            more, frame = capture.read()
            if not more:
                break
            count += 1
            yield _as_rgb(frame)
        # OpenCV reports a frame that does not decode as it reports the end; past the end, nothing is left to grab.
        if count and any(capture.grab() for _ in range(_GRABS_PAST_END)):
            raise MediaError(f"frame {count + 1} can't be decoded; the video is damaged", stage="decode")
    finally:
        capture.release()


def decode_video(source: str | BinaryIO) -> Iterator[UInt8Array]:
    """Decode a video by PyAV: (H, W, 3) uint8 RGB, by OpenCV's conversion. Raises MediaError(stage "decode").

    source: an absolute path, or a stream that holds a container or a bare MPEG-2, H.264 or HEVC stream.
    """
    count = 0
    with _opened(source) as (container, stream):
        try:
            for frame in container.decode(stream):
                count += 1
                if frame.rotation:
                    raise MediaError(f"it is to be shown turned by {frame.rotation} degrees; save it upright")
                # To BGR and bicubic, as OpenCV converts: straight to RGB, values differ by up to two grey levels.
                yield _as_rgb(frame.to_ndarray(format="bgr24", interpolation="BICUBIC"))
        except av.error.FFmpegError as error:
            name = stream.codec_context.name
            raise MediaError(
                f"frame {count + 1} can't be decoded ({name}: {error.strerror})", stage="decode"
            ) from error


def _as_rgb(frame: cv2.typing.MatLike) -> UInt8Array:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
