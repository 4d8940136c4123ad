"""Stored pixel values of a DICOM file to (H, W, 3) uint8 RGB, by one rule for all frames of the loop.

8-bit grey and colour stay as they are stored: ultrasound systems store what they display, and the models were
trained on that. A palette is applied (PS3.3 C.7.9). Grey of more than 8 bits, or signed, goes through the rescale
(C.11.1) and the first window (C.11.2.1.2) of the header; without a window, the lowest value of the whole loop becomes
0 and the highest 255, never frame by frame, which would make the loop flicker. MONOCHROME1 is inverted (C.7.6.3.1.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from pydicom.pixels.processing import apply_color_lut

from panecho_embed.errors import MediaError
from panecho_embed.media.dicom_header import DicomHeader, quiet
from panecho_embed.media.dicom_pixels import StoredArray, StoredPixels
from panecho_embed.records import UInt8Array

Render = Callable[[StoredArray], UInt8Array]
Levels = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Values of any range to 0-1, to be clipped."""


def render_frames(pixels: StoredPixels, header: DicomHeader) -> Iterator[UInt8Array]:
    """Yield every frame as (rows, columns, 3) uint8 RGB. Raises MediaError where one can't be decoded."""
    render = _renderer(pixels, header)
    for stored in pixels:
        yield np.ascontiguousarray(render(stored))


def _renderer(pixels: StoredPixels, header: DicomHeader) -> Render:
    form = pixels.format
    if form.samples == 3:
        return lambda stored: _to_8_bits(stored, form.bits_stored)
    if form.photometric == "PALETTE COLOR":
        table = _palette(header, form.bits_stored)
        return lambda stored: table[stored.astype(np.int64) & (len(table) - 1)]
    invert = form.photometric == "MONOCHROME1"
    if form.bits_stored == 8 and not form.signed:
        return lambda stored: _grey(_to_8_bits(stored, 8), invert)
    slope, intercept = np.float32(1), np.float32(0)
    if form.bits_stored < 8 and not form.signed:
        levels = _linear(0.0, float(2**form.bits_stored - 1))
    else:
        slope = np.float32(header.number("RescaleSlope") or 1)
        intercept = np.float32(header.number("RescaleIntercept") or 0)
        levels = _window(header) or _range_of_loop(pixels, slope, intercept)

    def render(stored: StoredArray) -> UInt8Array:
        values = levels(stored.astype(np.float32) * slope + intercept)
        return _grey(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), invert)

    return render


def _grey(values: UInt8Array, invert: bool) -> UInt8Array:
    return np.repeat((255 - values if invert else values)[..., None], 3, axis=-1)


def _to_8_bits(stored: StoredArray, bits_stored: int) -> UInt8Array:
    """The upper 8 of `bits_stored` bits; decoders may already have brought 8-bit images to 8 bits."""
    surplus = max(bits_stored - 8, 0) if stored.dtype.itemsize > 1 else 0
    return (stored >> surplus if surplus else stored).astype(np.uint8)


def _palette(header: DicomHeader, bits_stored: int) -> UInt8Array:
    """RGB of every possible stored value, (2**bits_stored, 3)."""
    if bits_stored > 16:
        raise MediaError(f"BitsStored is {bits_stored} with PALETTE COLOR; at most 16 are allowed", stage="pixels")
    try:
        with quiet():
            index = np.arange(2**bits_stored, dtype=np.uint8 if bits_stored <= 8 else np.uint16)
            table = apply_color_lut(index, header.dataset)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise MediaError(f"its colour palette can't be read ({type(error).__name__})", stage="pixels") from None
    # Some writers declare 16-bit entries and fill them with 8-bit values.
    return _to_8_bits(table, 16 if table.max() > 255 else 8)


def _window(header: DicomHeader) -> Levels | None:
    """The first window of the header, None where there is none, or none of positive width."""
    centre, width = header.number("WindowCenter"), header.number("WindowWidth")
    if centre is None or width is None or not width > 0:
        return None
    function = header.text("VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        return partial(_sigmoid, centre, width)
    if function == "LINEAR":
        # C.11.2.1.2.1: the centre is half a step lower, the width one step smaller.
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return _linear(centre - width / 2, centre + width / 2)


def _sigmoid(centre: float, width: float, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)), dtype=np.float32)


def _range_of_loop(pixels: StoredPixels, slope: np.float32, intercept: np.float32) -> Levels:
    """Decodes the whole loop once for its lowest and highest value."""
    lowest, highest = np.inf, -np.inf
    for stored in pixels:
        lowest, highest = min(lowest, float(stored.min())), max(highest, float(stored.max()))
    ends = sorted((lowest * float(slope) + float(intercept), highest * float(slope) + float(intercept)))
    return _linear(ends[0], ends[1])


def _linear(low: float, high: float) -> Levels:
    scale = np.float32(1 / (high - low) if high > low else 1)
    return lambda values: (values - np.float32(low)) * scale
