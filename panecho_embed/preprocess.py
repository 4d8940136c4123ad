"""Decoded frames -> the pixels that a model takes, still as uint8; the device does the normalising."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from panecho_embed.arraytypes import Bools, UInt8Array
from panecho_embed.media.sector import apply_mask
from panecho_embed.provenance import Interpolation, Preprocess
from panecho_embed.records import Region

# As torchvision and timm resize: with a filter that widens when an image shrinks, which OpenCV's own do not.
_PILLOW: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

FramePreparer = Callable[[UInt8Array], UInt8Array]


def frame_preparer(preprocess: Preprocess, region: Region | None = None, mask: Bools | None = None) -> FramePreparer:
    """A function (H, W, 3) RGB uint8 -> (3, S, S) uint8, channels in the model's order.

    In this order: the mask is applied ((H, W), True inside the sector; None for none), the region cut out (if the
    preprocess asks for it and there is one), the whole resized to a square without regard to its aspect ratio, and the
    centre cut out, as PanEcho's weights were trained.
    """
    low = (preprocess.resize - preprocess.crop) // 2
    high = low + preprocess.crop
    channels = slice(None, None, -1 if preprocess.channel_order == "bgr" else 1)
    cut = region if preprocess.crop_region else None

    def prepare(frame: UInt8Array) -> UInt8Array:
        if mask is not None:
            frame = apply_mask(frame, mask)
        if cut is not None:
            frame = np.ascontiguousarray(frame[cut.y0 : cut.y1, cut.x0 : cut.x1])
        resized = _resize(frame, preprocess.resize, preprocess.interpolation)
        return np.ascontiguousarray(resized[low:high, low:high, channels].transpose(2, 0, 1), dtype=np.uint8)

    return prepare


def _resize(frame: UInt8Array, side: int, interpolation: Interpolation) -> UInt8Array:
    if interpolation == "area":
        return np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(Image.fromarray(frame).resize((side, side), _PILLOW[interpolation]), dtype=np.uint8)
