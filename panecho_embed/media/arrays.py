"""Arrays in .npy and .npz files to frames, without ever unpickling.

Shapes: (T, H, W), (T, H, W, 1) or (T, H, W, 3) in RGB, in C order. Values: uint8; or floats, where a highest value of
at most 1 means a scale of 0-1, and one of at most 255 a scale of 0-255, for the whole array. An .npz holds the array
as `frames`, or as its only array, and may hold `fps`, frames per second.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Recording
from panecho_embed.core.wording import brief
from panecho_embed.media.cine import Cine, check_size, plausible_fps

"""Suffixes of array files, in small letters."""

_MOST_HEADER_BYTES = 10_000
"""What numpy itself parses at most, but only after it has read all that the file claims to be its header."""


@dataclass(frozen=True, slots=True)
class _Array:
    """member: of the .npz, "" for a .npy. shape: frames, height, width, and channels if there are any."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fps: float | None


def open_array(path: str) -> Cine:
    """Open an array as a video; only headers are read. Raises MediaError."""
    array = _inspect(path)
    source = "fps in the .npz" if array.fps else ""
    recording = Recording(array.shape[1], array.shape[2])
    return Cine(path, "array", array.fps, source, None, array.shape[0], partial(_read, path, array), recording)


def _inspect(path: str) -> _Array:
    with _readable("open"):
        member, fps = "", None
        if _is_npz(path):
            with zipfile.ZipFile(path) as archive:
                names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
            fps = _read_fps(path) if "fps" in names else None
            others = ["frames"] if "frames" in names else [name for name in names if name != "fps"]
            if len(others) != 1:
                listed = brief(", ".join(others)) or "none"
                raise MediaError(
                    f"the .npz holds {len(others)} arrays ({listed}); name the one meant `frames`", stage="open"
                )
            member = others[0]
        with _opened(path, member) as (file, size):
            shape, fortran, dtype = _header(file)
            available = size - file.tell()
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))):
        raise MediaError(
            f"the array has shape {shape}; read are (T, H, W), (T, H, W, 1) and (T, H, W, 3)", stage="open"
        )
    if fortran:
        raise MediaError("the array is in Fortran order; save np.ascontiguousarray(frames)", stage="open")
    if dtype != np.uint8 and dtype.kind != "f":
        raise MediaError(f"the array holds {dtype}; read are uint8, and floats of 0-1 or 0-255", stage="open")
    if shape[0] < 1:
        raise MediaError(f"the array has shape {shape}: no frames", stage="open")
    check_size(shape[1], shape[2])
    needed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if needed > available:
        raise MediaError(
            f"the array's header promises {needed} bytes (shape {shape}, {dtype}), the file holds {available}; "
            "it is cut",
            stage="open",
        )
    return _Array(member, shape, dtype, fps)


@contextmanager
def _readable(stage: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        # numpy, zipfile and its decompressors raise whatever they trip over.
        reason = getattr(error, "strerror", None) or brief(error)
        raise MediaError(f"the array file is damaged or can't be read: {reason}", stage=stage) from error


def _is_npz(path: str) -> bool:
    return Path(path).suffix.lower() == ".npz"


@contextmanager
def _opened(path: str, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes of an .npy file, or of one array of an .npz as they inflate; and how many there are."""
    if member or _is_npz(path):
        with zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as file:
            yield file, archive.getinfo(f"{member}.npy").file_size
    else:
        with Path(path).open("rb") as file:
            yield file, Path(path).stat().st_size


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type; `file` is then at the first value."""
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
    with _opened(path, "fps") as (file, size):
        shape, _, dtype = _header(file)
        if shape not in ((), (1,)) or dtype.kind not in "fiu" or size > 4096:
            raise MediaError(f"fps in the .npz is {dtype} of shape {shape}; it must be one number", stage="open")
        return plausible_fps(float(np.frombuffer(file.read(), dtype=dtype)[0]))


def _read(path: str, array: _Array) -> Iterator[UInt8Array]:
    scale = np.float32(1 if array.dtype == np.uint8 else _scale(path, array))
    for frame in _stored_frames(path, array):
        values = frame if array.dtype == np.uint8 else np.rint(frame.astype(np.float32) * scale)
        yield np.array(np.broadcast_to(values, (*values.shape[:2], 3)), dtype=np.uint8, order="C")


def _scale(path: str, array: _Array) -> float:
    lowest, highest = np.inf, -np.inf
    for frame in _stored_frames(path, array):
        lowest, highest = min(lowest, float(frame.min())), max(highest, float(frame.max()))
        # A NaN is lost by min() and max() of Python, not by those of numpy.
        if not np.isfinite(frame).all():
            raise MediaError("the array holds values that are not finite; allowed are 0-1 or 0-255", stage="pixels")
    if lowest < 0 or highest > 255:
        raise MediaError(
            f"the array holds values of {lowest:g} to {highest:g}; allowed are 0-1 or 0-255", stage="pixels"
        )
    return 255.0 if highest <= 1 else 1.0


def _stored_frames(path: str, array: _Array) -> Iterator[npt.NDArray[Any]]:
    """Yield the frames as they are stored, (H, W, C), one in memory."""
    shape = (*array.shape[1:3], array.shape[3] if len(array.shape) == 4 else 1)
    frame_bytes = int(np.prod(shape)) * array.dtype.itemsize
    with _readable("decode"), _opened(path, array.member) as (file, _):
        _header(file)
        for _ in range(array.shape[0]):
            yield np.frombuffer(file.read(frame_bytes), dtype=array.dtype).reshape(shape)
