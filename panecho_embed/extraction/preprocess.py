"""Decoded frames -> the pixels that a model takes, still as uint8; the device does the normalising."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from panecho_embed.core.arraytypes import Bools, UInt8Array
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Region
from panecho_embed.media import Cine
from panecho_embed.media.sector import SECTOR_METHODS, apply_mask, dicom_colours

_OPENCV = {"area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}
_PILLOW = {"bilinear-antialias": Image.Resampling.BILINEAR, "bicubic-antialias": Image.Resampling.BICUBIC}

FramePreparer = Callable[[UInt8Array], UInt8Array]


def frame_preparer(
    feeding: Feeding, kind: str = "video", region: Region | None = None, mask: Bools | None = None
) -> FramePreparer:
    """Return the function that makes of a frame what a model takes of it, up to the normalising.

    Parameters
    ----------
    feeding : Feeding
        How the model is fed.
    kind : str
        Kind of the file that the frames come from, see `Cine.kind`.
    region : Region, optional
        2-D region of the file; used if the feeding crops to it.
    mask : (H, W) bool array, optional
        True inside the sector; None for no mask.

    Returns
    -------
    callable
        (H, W, 3) RGB uint8 -> (3, S, S) uint8, channels in the model's order.
    """
    recoloured = feeding.channel_order == "echoprime" and kind == "dicom"
    reverse = recoloured or feeding.channel_order == "bgr"
    cut = region if feeding.crop_region else None

    def prepare(frame: UInt8Array) -> UInt8Array:
        if recoloured:
            frame = dicom_colours(frame)
        if mask is not None:
            frame = apply_mask(frame, mask)
        if cut is not None:
            frame = frame[cut.y0 : cut.y1, cut.x0 : cut.x1]
        image = _cropped(_resized(_shaped(frame, feeding), feeding), feeding.crop)
        channels = image[..., ::-1] if reverse else image
        return np.ascontiguousarray(channels.transpose(2, 0, 1), dtype=np.uint8)

    return prepare


def sector_of(cine: Cine, feeding: Feeding) -> Bools | None:
    """The sector mask of a file, (H, W) bool, if the model is fed with one; reads all frames. Raises MediaError."""
    return SECTOR_METHODS[feeding.mask_method](cine.frames()) if feeding.masks(cine.kind) else None


def _shaped(frame: UInt8Array, feeding: Feeding) -> UInt8Array:
    """A frame cut to what is resized: to a square where the geometry says so, and by the share off each side."""
    height, width = frame.shape[:2]
    if feeding.geometry == "square":
        # A difference of one pixel rounds to no cut at all, as one of three to the even two.
        margin = round(abs(width - height) / 2)
        across = slice(margin, width - margin)
        frame = frame[:, across] if width > height else frame[margin : height - margin]
        height, width = frame.shape[:2]
    if feeding.cut:
        down, across_by = int(feeding.cut * height), int(feeding.cut * width)
        frame = frame[down : height - down, across_by : width - across_by]
    return frame


def _resized(frame: UInt8Array, feeding: Feeding) -> UInt8Array:
    height, width = _resized_size(frame.shape[0], frame.shape[1], feeding)
    how = feeding.interpolation
    if how == "bilinear":
        return _bilinear(frame, height, width)
    frame = np.ascontiguousarray(frame)
    if how in _OPENCV:
        return np.asarray(cv2.resize(frame, (width, height), interpolation=_OPENCV[how]), dtype=np.uint8)
    return np.asarray(Image.fromarray(frame).resize((width, height), _PILLOW[how]), dtype=np.uint8)


def _resized_size(height: int, width: int, feeding: Feeding) -> tuple[int, int]:
    if feeding.geometry != "shortest":
        return feeding.resize, feeding.resize_width or feeding.resize
    # torchvision truncates the longer side.
    if width <= height:
        return int(feeding.resize * height / width), feeding.resize
    return feeding.resize, int(feeding.resize * width / height)


def _cropped(image: UInt8Array, side: int) -> UInt8Array:
    """The centre; a margin of half a pixel goes to the even whole one, as torchvision rounds."""
    top, left = (round((length - side) / 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _bilinear(frame: UInt8Array, height: int, width: int) -> UInt8Array:
    """Two taps a side in float32, at the places of torch's `interpolate` with `align_corners` False.

    OpenCV's INTER_LINEAR rounds the weights to 11 bits, so that an eighth of the pixels differ by a grey level.
    """
    above, below, from_above, from_below = _taps(frame.shape[0], height)
    left, right, from_left, from_right = _taps(frame.shape[1], width)
    rows = frame[above] * from_above[:, None, None] + frame[below] * from_below[:, None, None]
    mixed = rows[:, left] * from_left[:, None] + rows[:, right] * from_right[:, None]
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _taps(old: int, new: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], _Weights, _Weights]:
    """Of every new pixel, the two old ones that it lies between, and the weight of each."""
    half = np.float32(0.5)
    place = np.maximum((np.arange(new, dtype=np.float32) + half) * (np.float32(old) / np.float32(new)) - half, 0)
    first = np.minimum(place.astype(np.intp), old - 1)
    weight = np.clip(place - first.astype(np.float32), 0, 1).astype(np.float32)
    return first, np.minimum(first + 1, old - 1), (np.float32(1) - weight), weight


_Weights = npt.NDArray[np.float32]
