"""Arrays in .npy and .npz files to frames, without ever unpickling.

Shapes: (T, H, W), (T, H, W, 1) or (T, H, W, 3) in RGB; (3, T, H, W) in RGB where it can't be meant otherwise.
Values: uint8; or floats, where a highest value of at most 1 means a scale of 0-1, and one of at most 255 a scale of
0-255, for the whole array. An .npz holds the array as `frames`, or as its only array of three or four dimensions, and
may hold `fps`, frames per second.
"""

from __future__ import annotations

import io
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from panecho_embed.brief import brief
from panecho_embed.errors import MediaError
from panecho_embed.media.cine import Cine, MediaInfo, check_size, plausible_fps
from panecho_embed.records import UInt8Array

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
"""Suffixes of array files, in small letters."""

_DAMAGE = (
    ValueError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    # An unknown compression method, an encrypted member.
    NotImplementedError,
    RuntimeError,
)
"""What numpy and zipfile raise for damaged files."""

_MOST_MEMBERS = 1000
"""In an .npz; a video needs two."""

_MOST_HEADER_BYTES = 10_000
"""What numpy itself reads at most, but only after it has taken in all that the file claims to be its header."""

_MOST_SCATTERED_BYTES = 2 << 30
"""Of an array in an .npz whose frames do not lie one behind the other, so that all of it is needed at once."""

_SHAPES = "(T, H, W), (T, H, W, 1), (T, H, W, 3) and (3, T, H, W)"


@dataclass(frozen=True, slots=True)
class _ArrayHeader:
    """member: of the .npz, "" for a .npy. data_bytes: what follows the header."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    data_bytes: int

    @property
    def channels_first(self) -> bool:
        return len(self.shape) == 4 and self.shape[0] == 3 and self.shape[3] not in (1, 3)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Frames, height, width."""
        t, h, w = self.shape[1:4] if self.channels_first else self.shape[:3]
        return t, h, w


def open_array(path: str) -> Cine:
    """Open an array as a video; only headers are read. Raises MediaError."""
    header, fps = _read_headers(path)
    frames = partial(_read, path, header)
    return Cine(path, "array", fps, "fps in the .npz" if fps else "", None, header.sizes[0], frames)


def describe_array(path: str) -> MediaInfo:
    """Say what the array's header says. Raises MediaError."""
    header, fps = _read_headers(path)
    count, height, width = header.sizes
    kind = "still" if count == 1 else "cine"
    return MediaInfo("array", kind, count, fps, "fps in the .npz" if fps else "", height, width)


def _read_headers(path: str) -> tuple[_ArrayHeader, float | None]:
    try:
        members = _members(path)
        fps = _read_fps(path) if "fps" in members else None
        headers = [_read_header(path, member) for member in members if member != "fps"]
    except MediaError:
        raise
    except (OSError, *_DAMAGE) as error:
        reason = getattr(error, "strerror", None) or brief(error)
        raise MediaError(f"the array file can't be read: {reason}", stage="open") from error
    named = [header for header in headers if header.member == "frames"]
    candidates = named or [header for header in headers if len(header.shape) in (3, 4)] or headers
    if len(candidates) != 1:
        raise MediaError(
            f"the .npz holds {len(candidates)} arrays that could be the frames "
            f"({', '.join(header.member for header in candidates)}); name the one meant `frames`",
            stage="open",
        )
    _check(candidates[0])
    return candidates[0], fps


def _members(path: str) -> list[str]:
    if not _is_npz(path):
        return [""]
    with zipfile.ZipFile(path) as archive:
        members = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    if len(members) > _MOST_MEMBERS:
        raise MediaError(f"the .npz holds {len(members)} arrays; name the one meant `frames`", stage="open")
    return members


def _is_npz(path: str) -> bool:
    return Path(path).suffix.lower() == ".npz"


@contextmanager
def _open(path: str, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of an .npy file, or of one array of an .npz as they inflate; and how many there are."""
    if member or _is_npz(path):
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            yield file, archive.getinfo(f"{member}.npy").file_size
    else:
        with Path(path).open("rb") as file:
            yield file, Path(path).stat().st_size


def _read_header(path: str, member: str) -> _ArrayHeader:
    with _open(path, member) as (file, size):
        shape, fortran, dtype = _parse(file)
        return _ArrayHeader(member, shape, dtype, fortran, size - file.tell())


def _parse(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    start, width = file.tell(), 2 if version == (1, 0) else 4
    claimed = int.from_bytes(file.read(width), "little")
    if claimed > _MOST_HEADER_BYTES:
        raise MediaError(
            f"the array's header claims {claimed} bytes; at most {_MOST_HEADER_BYTES} are read", stage="open"
        )
    file.seek(start)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    return read(file)


def _read_fps(path: str) -> float | None:
    with _open(path, "fps") as (file, size):
        shape, _, dtype = _parse(file)
        if shape not in ((), (1,)) or dtype.kind not in "fiu" or size > 4096:
            raise MediaError(f"fps in the .npz is {dtype} of shape {shape}; it must be one number", stage="open")
        return plausible_fps(float(np.frombuffer(file.read(), dtype=dtype)[0]))


def _check(header: _ArrayHeader) -> None:
    shape, dtype = header.shape, header.dtype
    right = len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or header.channels_first))
    if not right or shape[:2] == (3, 3):
        raise MediaError(f"the array has shape {shape}; read are {_SHAPES}", stage="open")
    if dtype != np.uint8 and dtype.kind != "f":
        raise MediaError(f"the array holds {dtype}; read are uint8, and floats of 0-1 or 0-255", stage="open")
    count, height, width = header.sizes
    if count < 1:
        raise MediaError(f"the array has shape {shape}: no frames", stage="open")
    check_size(height, width)
    needed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if needed > header.data_bytes:
        raise MediaError(
            f"the array's header promises {needed} bytes (shape {shape}, {dtype}), the file holds {header.data_bytes}; "
            "it is cut",
            stage="open",
        )


def _read(path: str, header: _ArrayHeader) -> Iterator[UInt8Array]:
    scale = 1.0 if header.dtype == np.uint8 else _scale(path, header)
    for frame in _stored_frames(path, header):
        grey = frame.ndim == 2 or frame.shape[-1] == 1
        values = frame if frame.dtype == np.uint8 else np.rint(frame.astype(np.float32) * np.float32(scale))
        pixels = np.broadcast_to(values.reshape(*values.shape[:2], -1), (*values.shape[:2], 3)) if grey else values
        yield np.array(pixels, dtype=np.uint8, order="C")


def _scale(path: str, header: _ArrayHeader) -> float:
    lowest, highest = np.inf, -np.inf
    for frame in _stored_frames(path, header):
        lowest, highest = min(lowest, float(frame.min())), max(highest, float(frame.max()))
        # A NaN is lost by min() and max() of Python, not by those of numpy.
        if not np.isfinite(frame).all():
            raise MediaError("the array holds values that are not finite; allowed are 0-1 or 0-255", stage="pixels")
    if lowest < 0 or highest > 255:
        raise MediaError(
            f"the array holds values of {lowest:g} to {highest:g}; allowed are 0-1 or 0-255", stage="pixels"
        )
    return 255.0 if highest <= 1 else 1.0


def _stored_frames(path: str, header: _ArrayHeader) -> Iterator[npt.NDArray[Any]]:
    """Yield the frames as they are stored, (H, W) or (H, W, C), one in memory where the file's order allows it."""
    try:
        if header.channels_first or header.fortran:
            yield from _strided_frames(path, header)
            return
        frame_bytes = int(np.prod(header.shape[1:])) * header.dtype.itemsize
        with _open(path, header.member) as (file, _):
            _parse(file)
            for _ in range(header.shape[0]):
                data = file.read(frame_bytes)
                yield np.frombuffer(data, dtype=header.dtype).reshape(header.shape[1:])
    except _DAMAGE as error:
        raise MediaError(f"the array file is damaged: {brief(error)}", stage="decode") from error


def _strided_frames(path: str, header: _ArrayHeader) -> Iterator[npt.NDArray[Any]]:
    """Frames that lie scattered in the file: mapped from an .npy, whole in memory from an .npz."""
    if header.member:
        if header.data_bytes > _MOST_SCATTERED_BYTES:
            raise MediaError(
                f"the array of shape {header.shape} has {header.data_bytes} bytes whose frames do not lie one behind "
                "the other; save it with the frames first, in C order, or as .npy",
                stage="open",
            )
        with _open(path, header.member) as (file, _):
            array = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield from (np.moveaxis(array, 0, -1) if header.channels_first else array)
