"""NIfTI volumes (.nii, .nii.gz) to frames.

Shapes: (X, Y), (X, Y, T), (X, Y, 1, T), grey, or (X, Y, T, 3) and (X, Y, T) of RGB triples. Values: 0-255 in any type,
or floats of 0-1, for the whole volume.

NIfTI's first axis runs along a row of the image, its second down the image, and that is how a volume is read. Some data
sets were saved the other way, as (rows, columns, time), without a word in the header, and come out with the apex of the
sector at the left. So the first frames are looked at: what changes from frame to frame is the sector, which is alike
its mirror image in a vertical line, not in a horizontal one. Where the horizontal one fits clearly better, rows and
columns are exchanged. The header's affine is not applied, as in ITK's readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError, NotInstalledError
from panecho_embed.core.records import Recording
from panecho_embed.core.wording import brief
from panecho_embed.media.cine import Cine, check_size

_LOOKED_AT = 32
"""Frames from which the orientation is determined: about a heartbeat, in which every part of the sector changes."""

_MOVING, _LIT = 0.015, 0.05
"""Of the highest value: what changes by more over time is inside the sector; in a still, what is brighter."""

_CLEARLY = 0.1
"""By how much the overlaps with the two mirror images have to differ before rows and columns are exchanged."""


@dataclass(frozen=True, slots=True)
class _Volume:
    """image: as nibabel opened it. shape: X, Y and T. channels: how one frame holds its colours."""

    image: Any
    shape: tuple[int, int, int]
    channels: Literal["grey", "last axis", "triples"]

    def frames(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the frames as they are stored: (X, Y, C), one in memory where the file allows it."""
        # The channels of (X, Y, T, 3) lie far apart in the file, and seeking back in a .gz means reading it again.
        data = np.asanyarray(self.image.dataobj) if self.channels == "last axis" else self.image.dataobj
        for t in range(self.shape[2]):
            at = (slice(None), slice(None), *((0,) * (self.image.ndim - 3)), t)[: self.image.ndim]
            if self.channels == "last axis":
                at = (slice(None), slice(None), t)
            frame = np.asarray(data[at])
            if self.channels == "triples":
                frame = np.stack([frame[name] for name in ("R", "G", "B")], axis=-1)
            yield frame[..., np.newaxis] if frame.ndim == 2 else frame


def open_nifti(path: str) -> Cine:
    """Open a NIfTI volume as a video; the header and the first frames are read. Raises MediaError."""
    with _readable("open"):
        volume = _inspect(path)
        exchanged = _is_sideways(list(islice(volume.frames(), _LOOKED_AT)))
    width, height = volume.shape[1::-1] if exchanged else volume.shape[:2]
    reader = partial(_read, path, exchanged)
    return Cine(path, "nifti", None, "", None, volume.shape[2], reader, Recording(height, width))


def _inspect(path: str) -> _Volume:
    try:
        import nibabel
    except ModuleNotFoundError as error:
        raise MediaError(str(NotInstalledError("nibabel", "nifti", "NIfTI files")), stage="open") from error
    # One handle for all frames: each of a .gz would begin again at its start.
    image = nibabel.load(path, mmap=False, keep_file_open=True)
    if not isinstance(image, nibabel.Nifti1Image):
        raise MediaError(f"it is a {type(image).__name__}, not NIfTI-1 or NIfTI-2", stage="open")
    shape, kind = image.shape, image.get_data_dtype()
    match shape:
        case (_, _, _, 3) if not kind.fields:
            volume = _Volume(image, shape[:3], "last axis")
        case (_, _, frames) | (_, _, 1, frames):
            volume = _Volume(image, (*shape[:2], frames), "triples" if kind.fields else "grey")
        case (_, _):
            volume = _Volume(image, (*shape, 1), "triples" if kind.fields else "grey")
        case _:
            raise MediaError(
                f"the volume has shape {shape}; read are (X, Y, T), (X, Y, 1, T) and, in RGB, (X, Y, T, 3)",
                stage="open",
            )
    if volume.shape[2] < 1:
        raise MediaError(f"the volume has shape {shape}: no frames", stage="open")
    check_size(volume.shape[1], volume.shape[0])
    return volume


@contextmanager
def _readable(stage: str) -> Iterator[None]:
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        # nibabel, gzip and zlib raise whatever they trip over.
        reason = getattr(error, "strerror", None) or brief(error)
        raise MediaError(f"the NIfTI file is damaged or cut: {reason}", stage=stage) from error


def _read(path: str, exchanged: bool) -> Iterator[UInt8Array]:
    with _readable("decode"):
        volume = _inspect(path)
        scale = _scale(volume)
        for frame in volume.frames():
            if frame.min() < 0 or frame.max() * scale > 255 or not np.isfinite(frame).all():
                raise MediaError(
                    f"the volume holds values of {frame.min():g} to {frame.max():g}; allowed are 0-1 or 0-255",
                    stage="pixels",
                )
            upright = frame if exchanged else frame.swapaxes(0, 1)
            values = upright if upright.dtype == np.uint8 else np.rint(upright.astype(np.float32) * scale)
            yield np.array(np.broadcast_to(values, (*values.shape[:2], 3)), dtype=np.uint8, order="C")


def _scale(volume: _Volume) -> np.float32:
    """255 for floats of 0-1, else 1."""
    if volume.channels == "triples" or (volume.image.dataobj.slope == 1 and volume.image.get_data_dtype().kind in "iu"):
        return np.float32(1)
    return np.float32(255 if max(float(frame.max()) for frame in volume.frames()) <= 1 else 1)


def _is_sideways(frames: list[npt.NDArray[Any]]) -> bool:
    """Whether the sector of these frames, (X, Y, C) as stored, has its apex at the left when X is along a row."""
    grey = [frame.max(axis=2).T.astype(np.float32) for frame in frames]
    brightest = np.max(grey, axis=0)
    highest = max(float(brightest.max()), 1e-9)
    # Text, scales and the ground stand still; dark chambers and the far field do not.
    inside = brightest - np.min(grey, axis=0) > _MOVING * highest
    if not inside.any():
        inside = brightest > _LIT * highest
    closed = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return False
    # The largest, without an ECG beside it; its hull, because parts of it may be dark throughout.
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea))
    x, y, width, height = cv2.boundingRect(hull)
    sector = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(sector, hull - (x, y), 1)
    return _overlap(sector, sector[::-1]) - _overlap(sector, sector[:, ::-1]) > _CLEARLY


def _overlap(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float((one & other).sum() / (one | other).sum())
