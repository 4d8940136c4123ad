"""The ultrasound sector of a loop: the pixels that move, and what they enclose.

Text, ECG trace, depth scale and patient data stand outside the sector and are burned into the pixels; a model that
sees them learns the wrong thing. Speckle in the sector changes with nearly every frame, text and scales don't, and a
trace changes a pixel only now and then.

`sector_mask` is this package's own; `echoprime_mask` is the mask that EchoPrime was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import cv2
import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats, UInt8Array
from panecho_embed.core.errors import ArgumentError

_FloatImage = Floats

_CHANGE_CAP = 12
"""Grey levels. A change counts up to here, so that a bright trace that passes once weighs no more than speckle."""

_MIN_ACTIVITY = 0.4
"""Grey levels a frame, mean over a neighbourhood: below it nothing moves."""

_MIN_BRIGHTNESS = 8.0
"""Grey levels above the background, where nothing moves and brightness has to tell."""

_RINGING = 0.1
"""Share of the sector's own level that JPEG carries to the blocks beside it."""

_NO_FRAMES = "a sector mask was asked for a video without frames"

_SQUARE = np.ones((3, 3), dtype=np.uint8)

_MIN_SHARE = 0.02
"""Share of the image below which a moving patch is no sector."""


def sector_mask(frames: Iterable[UInt8Array]) -> Bools:
    """Find the ultrasound sector of a loop, (H, W) bool, True inside.

    frames: (H, W, 3) uint8 of one size, at least one; read once, in constant memory. The mask is the convex hull of the
    largest connected patch of moving pixels (and of others at least half as large, as in biplane views), without what
    is as thin as text or a trace. Where nothing moves (one frame, a frozen loop) brightness takes the place of motion.
    Where neither tells, all of the image is True: a mask never blacks out a video.
    """
    activity, brightness = _statistics(frames)
    if activity is not None:
        mask = _largest_patches(activity, _threshold(activity, _MIN_ACTIVITY), corners=True)
        if mask is not None:
            return mask
    mask = _largest_patches(brightness, _threshold(brightness, _MIN_BRIGHTNESS), corners=False)
    return np.ones(brightness.shape, dtype=np.bool_) if mask is None else mask


def apply_mask(frame: UInt8Array, mask: Bools) -> UInt8Array:
    """Black out everything outside `mask`, (H, W), in a copy of `frame`, (H, W, 3) or (T, H, W, 3)."""
    if frame.shape[-3:-1] != mask.shape:
        raise ArgumentError(f"the mask is {mask.shape}, the frame {frame.shape[-3:-1]}; they must be of one size")
    inside = np.ascontiguousarray(mask).view(np.uint8)
    if frame.ndim == 3:
        return np.asarray(cv2.copyTo(frame, inside), dtype=np.uint8)
    return np.stack([apply_mask(one, mask) for one in frame])


def dicom_colours(frame: UInt8Array) -> UInt8Array:
    """Colours of a DICOM frame as EchoPrime sees them: its JPEG YCbCr values read as OpenCV's YUV.

    The published code converts the stored YCbCr values by a formula that is not theirs. Grey stays as it is, pure red
    (76, 85, 255) becomes (221, 19, 0). A file that stores RGB is converted to YCbCr first.

    Parameters
    ----------
    frame : (H, W, 3) uint8 array
        RGB, as `Cine.frames` yields it.

    Returns
    -------
    (H, W, 3) uint8 array
        RGB.
    """
    return np.asarray(cv2.cvtColor(_as_ybr(frame), cv2.COLOR_YUV2RGB), dtype=np.uint8)


def echoprime_mask(frames: Iterable[UInt8Array]) -> Bools:
    """Find the sector as EchoPrime's published pipeline does, (H, W) bool, True inside.

    Pixels that are lit in some frame, eroded, and that differ between the first frame and the last, dilated; then the
    convex hull of each patch. Three differences, where the published code would make a video useless: frames are
    counted in more than eight bits (which turned 255 frames into none), a video without a difference between its first
    and last frame is not masked (it was blacked out), and a file that stores RGB is converted to YCbCr first.

    frames: (H, W, 3) RGB uint8 of one size, at least one; read once, in constant memory.
    """
    first = last = None
    lit = np.zeros((0, 0), dtype=np.bool_)
    for frame in frames:
        ybr = _as_ybr(frame)
        last = _grey(cv2.cvtColor(ybr, cv2.COLOR_YUV2RGB))
        if first is None:
            first = last
            # The published code counts frame 0 twice, first in floating point, where chroma is centred at .5, not 128.
            lit = _grey(cv2.cvtColor(ybr.astype(np.float32), cv2.COLOR_YUV2RGB)) > 0
        lit = lit | (last > 0)
    if first is None or last is None:
        raise ArgumentError(_NO_FRAMES)
    moved = first != last
    moved[:20, :20] = False
    always = cv2.erode(lit.astype(np.uint8), _SQUARE, iterations=10).astype(np.bool_)
    patches = _inside(cv2.dilate((always & moved).astype(np.uint8), _SQUARE, iterations=10))
    contours, _ = cv2.findContours(patches, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        cv2.drawContours(patches, [cv2.convexHull(contour)], -1, 1, 3)
    mask = _inside(patches).astype(np.bool_)
    return mask if mask.any() else np.ones_like(mask)


def _inside(patches: cv2.typing.MatLike) -> UInt8Array:
    """0 where the black that begins at the upper left corner reaches, else 1."""
    filled = np.ascontiguousarray(patches)
    cv2.floodFill(filled, None, (0, 0), 2)
    return np.asarray(filled != 2, dtype=np.uint8)


def _as_ybr(frame: UInt8Array) -> UInt8Array:
    """JPEG YCbCr of an RGB frame; OpenCV's order is Y, Cr, Cb."""
    y, cr, cb = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
    return np.asarray(cv2.merge((y, cb, cr)), dtype=np.uint8)


def _grey(rgb: cv2.typing.MatLike) -> cv2.typing.MatLike:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _statistics(frames: Iterable[UInt8Array]) -> tuple[_FloatImage | None, _FloatImage]:
    """Mean capped change from frame to frame (None for one frame), and mean brightness, (H, W) each.

    Summed in float64: sums of uint8 overflow after the second frame, and counts in it after 255.
    """
    count = 0
    previous: UInt8Array | None = None
    change = brightness = np.zeros((0, 0))
    for frame in frames:
        grey = np.asarray(cv2.max(cv2.max(frame[..., 0], frame[..., 1]), frame[..., 2]), dtype=np.uint8)
        if previous is None:
            change, brightness = np.zeros(grey.shape), np.zeros(grey.shape)
        else:
            capped = cv2.threshold(cv2.absdiff(grey, previous), _CHANGE_CAP, 0, cv2.THRESH_TRUNC)[1]
            cv2.accumulate(capped, change)
        cv2.accumulate(grey, brightness)
        previous = grey
        count += 1
    if not count:
        raise ArgumentError(_NO_FRAMES)
    return change / (count - 1) if count > 1 else None, brightness / count


def _threshold(values: _FloatImage, least: float) -> float:
    """What is above belongs to the sector.

    Where part of the image is still, or black: a tenth of the sector's level, as the blocks of a JPEG that the sector's
    edge runs through flicker a little. Where all of the image is noisy: what parts two levels best (Otsu). Where all
    of it is sector: 0.6 of its level, so that it is not parted from itself.
    """
    smooth = _smooth(values)
    top = float(np.percentile(smooth, 95))
    side = max(min(values.shape) // 16, 1)
    if np.percentile(cv2.blur(values, (side, side)), 20) < least / 2:
        return max(least, _RINGING * top)
    levels = np.rint(np.clip(smooth / top, 0, 1) * 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    return max(least, min(otsu / 255, 0.6) * top)


def _smooth(values: _FloatImage) -> _FloatImage:
    reach = _reach(values)
    return np.asarray(cv2.blur(values, (2 * reach + 1, 2 * reach + 1)), dtype=np.float64)


def _reach(values: _FloatImage) -> int:
    """How far smoothing carries, in pixels."""
    return max((int(min(values.shape)) + 64) // 128, 1)


def _disc(radius: int) -> cv2.typing.MatLike:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _largest_patches(values: _FloatImage, threshold: float, *, corners: bool) -> Bools | None:
    """Convex hulls of the largest patches above `threshold` that are no thin lines; None where there are none.

    corners: take back what the removal of thin lines took from the patches' corners, such as the sector's apex. Not
    where the values are brightness: right beside the sector, text is as bright as a corner.
    """
    above = (_smooth(values) > threshold).astype(np.uint8)
    # A line of text, once smoothed, is less than a sixteenth of the image high.
    opening = _disc(max(round(min(values.shape) / 32), 1))
    core = cv2.morphologyEx(cv2.morphologyEx(above, cv2.MORPH_CLOSE, _disc(2)), cv2.MORPH_OPEN, opening)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < _MIN_SHARE * core.size:
        return None
    mask = np.zeros(core.shape, dtype=np.uint8)
    for label in np.flatnonzero(areas >= areas.max() / 2) + 1:
        patch = (labels == label).astype(np.uint8)
        if corners:
            patch = np.maximum(patch, np.minimum(cv2.dilate(patch, opening), above))
        cv2.fillConvexPoly(mask, cv2.convexHull(cv2.findNonZero(patch)), 1)
    # Smoothing carried the edge outwards, to where a depth scale may stand; the image's own border is no edge.
    eroded = cv2.erode(mask, _disc(_reach(values)), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(eroded, dtype=np.bool_)


SECTOR_METHODS: Mapping[str, Callable[[Iterable[UInt8Array]], Bools]] = {
    "motion": sector_mask,
    "echoprime": echoprime_mask,
}
"""By the names of `panecho_embed.core.feeding.Feeding`."""
