"""The pixels of a DICOM file, frame by frame: claims checked against bytes, stored values turned to RGB exactly once.

Photometric interpretation and pixel format: PS3.3 C.7.6.3; transfer syntaxes: PS3.5 annex A.

8-bit grey and colour stay as they are stored: ultrasound systems store what they display, and the models were
trained on that. A palette is applied (PS3.3 C.7.9). Grey of more than 8 bits, or signed, goes through the rescale
(C.11.1) and the first window (C.11.2.1.2) of the header; without a window, the lowest value of the whole loop becomes
0 and the highest 255, never frame by frame, which would make the loop flicker. MONOCHROME1 is inverted (C.7.6.3.1.2).
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate, generate_fragments, generate_frames, parse_basic_offsets, parse_fragments
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    MPEGTransferSyntaxes,
)

from panecho_embed.core.arraytypes import Floats32, UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.core.wording import brief
from panecho_embed.media.cine import check_size
from panecho_embed.media.codestream import jpeg2000_size, read_jpeg_header
from panecho_embed.media.dicom_header import DicomHeader, PixelElement, open_dataset, quiet
from panecho_embed.media.images import decode_image, is_whole_jpeg
from panecho_embed.media.video import decode_video

StoredArray = npt.NDArray[Any]
Render = Callable[[StoredArray], UInt8Array]
Levels = Callable[[Floats32], Floats32]
"""Values of any range to 0-1, to be clipped."""

_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_BITS = (8, 16, 32)

_REFUSALS = (RuntimeError, ValueError, NotImplementedError, AttributeError, struct.error)
"""What pydicom and its plug-ins raise for what they can't decode."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The image pixel module (PS3.3 C.7.6.3), checked. Frames of `samples` 3 are decoded to RGB."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    num_frames: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of an uncompressed frame."""
        # YBR_FULL_422 stores two chroma samples for two pixels (C.7.6.3.1.2).
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8

    def options(self) -> dict[str, Any]:
        """The same, as pydicom's decoders want it."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": self.samples,
            "photometric_interpretation": self.photometric,
            "planar_configuration": self.planar,
            "bits_allocated": self.bits_allocated,
            "bits_stored": self.bits_stored,
            "pixel_representation": int(self.signed),
            "number_of_frames": self.num_frames,
            "pixel_keyword": "PixelData",
        }


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """The pixel data of one file, located and found whole.

    decoder: None for a video stream (MPEG-2, H.264, HEVC). extended_offsets: tables of the header, None without.
    """

    path: str
    format: PixelFormat
    element: PixelElement
    decoder: Decoder | None
    extended_offsets: tuple[bytes, bytes] | None = None

    def __iter__(self) -> Iterator[StoredArray]:
        """Yield the stored values of every frame, once, in order: (rows, columns), or (rows, columns, 3) in RGB.

        Raises MediaError(stage "decode"), naming the frame, where one can't be decoded.
        """
        with open_dataset(self.path) as stream:
            stream.seek(self.element.offset)
            if self.decoder is None:
                yield from self._video(stream)
                return
            frames = self._compressed(stream) if self.decoder.is_encapsulated else self._native(stream)
            for number in range(1, self.format.num_frames + 1):
                which = f"frame {number} of {self.format.num_frames}"
                try:
                    with quiet():
                        frame = next(frames, None)
                except MediaError as error:
                    raise MediaError(f"{which}: {error}", stage=error.stage) from None
                except _REFUSALS as error:
                    raise MediaError(f"{which} ({self.decoder.UID.name}) {_why(error, self.decoder)}") from error
                if frame is None:
                    raise MediaError(f"{which} is not in the pixel data; the file is damaged", stage="pixels")
                yield frame

    def _native(self, stream: BinaryIO) -> Iterator[StoredArray]:
        assert self.decoder is not None
        options = self.format.options() | {"pixel_vr": self.element.vr}
        for index in range(self.format.num_frames):
            stream.seek(self.element.offset)
            # A decoder of pydicom keeps what it changed for one frame and applies it to the next: each starts afresh.
            yield self.decoder.as_array(stream, index=index, **options)[0]

    def _compressed(self, stream: BinaryIO) -> Iterator[StoredArray]:
        count = self.format.num_frames
        parse_basic_offsets(stream)
        if parse_fragments(stream)[0] == count:
            # True of nearly all files, and needs no offset table, which some writers fill with nonsense.
            images = generate_fragments(stream)
        else:
            stream.seek(self.element.offset)
            images = generate_frames(stream, number_of_frames=count, extended_offsets=self.extended_offsets)
        yield from map(self._decode, images)

    def _video(self, stream: BinaryIO) -> Iterator[StoredArray]:
        try:
            parse_basic_offsets(stream)
            data = b"".join(generate_fragments(stream))
        except _REFUSALS as error:
            raise MediaError(f"the pixel data is cut or damaged: {brief(error)}", stage="pixels") from error
        promised, count = self.format.num_frames, 0
        for frame in decode_video(io.BytesIO(data)):
            self._check_size((frame.shape[1], frame.shape[0]))
            count += 1
            yield frame
        if count < promised:
            raise MediaError(f"the header promises {promised} frames, its video holds {count}", stage="decode")

    def _decode(self, data: bytes) -> StoredArray:
        assert self.decoder is not None
        syntax, photometric = self.decoder.UID, self.format.photometric
        if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
            header = read_jpeg_header(data)
            if header is None or not is_whole_jpeg(data):
                raise MediaError("its JPEG data is cut or damaged", stage="decode")
            self._check_size((header.width, header.height))
            if syntax in JPEGTransferSyntaxes and self.format.samples == 3:
                is_ybr = header.is_ybr(photometric)
                photometric = "YBR_FULL_422" if is_ybr else "RGB"
                # OpenCV's libjpeg-turbo gives the values of pydicom's slower ways in a sixth of their time.
                if syntax == JPEGBaseline8Bit and is_ybr == header.is_ybr_to_libjpeg:
                    return decode_image(data)
            elif syntax == JPEGBaseline8Bit and len(header.component_ids) == 1:
                return decode_image(data, grey=True)
        elif syntax in JPEG2000TransferSyntaxes:
            self._check_size(jpeg2000_size(data))
        options = self.format.options() | {"number_of_frames": 1, "photometric_interpretation": photometric}
        return self.decoder.as_array(encapsulate([data], has_bot=False), index=0, **options)[0]

    def _check_size(self, size: tuple[int, int] | None) -> None:
        if size != (self.format.columns, self.format.rows):
            found = "of unknown size" if size is None else f"{size[0]} x {size[1]} pixels"
            raise MediaError(
                f"its compressed image is {found}, the header says {self.format.columns} x {self.format.rows}",
                stage="decode",
            )


def _why(error: Exception, decoder: Decoder) -> str:
    if JPEGExtended12Bit == decoder.UID and "pylibjpeg" not in decoder.available_plugins:
        return (
            "can't be decoded; 12 bits of JPEG Extended are read by a GPL-3 plug-in only: "
            "pip install 'panecho-embed[gpl]'"
        )
    return f"can't be decoded: {brief(error, 400)}"


def locate_pixels(path: str, header: DicomHeader) -> StoredPixels:
    """Find the pixels of every frame and see that all are there, decoding none. Raises MediaError."""
    element, syntax = header.pixels, header.transfer_syntax
    if element is None:
        raise MediaError("it has no pixel data (7FE0,0010)", stage="pixels")
    if element.keyword != "PixelData":
        raise MediaError(f"its pixels are {element.keyword}; read are integer pixels (7FE0,0010)", stage="pixels")
    form = read_format(header)
    try:
        decoder = None if syntax in MPEGTransferSyntaxes else get_decoder(syntax)
    except NotImplementedError:
        raise MediaError(
            f"its transfer syntax is {syntax.name}; read are uncompressed, deflated, RLE, JPEG, JPEG-LS, JPEG 2000, "
            "MPEG-2, H.264 and HEVC",
            stage="pixels",
        ) from None
    if decoder is not None and not decoder.is_encapsulated:
        return StoredPixels(path, _check_native_length(form, element), element, decoder)
    if element.length is not None:
        raise MediaError(f"its pixel data is not encapsulated, as {syntax.name} has to be", stage="pixels")
    with open_dataset(path) as stream:
        # All frames of a video are one stream, in as many fragments as its writer liked.
        _check_fragments(stream, element, 1 if decoder is None else form.num_frames)
    tables = tuple(header.dataset.get(f"ExtendedOffsetTable{name}") for name in ("", "Lengths"))
    extended = (tables[0], tables[1]) if all(isinstance(table, bytes) and table for table in tables) else None
    return StoredPixels(path, form, element, decoder, extended)


def _check_fragments(stream: BinaryIO, element: PixelElement, num_frames: int) -> None:
    """Walk the items of compressed pixel data (PS3.5 A.4); their heads are read, not their content."""
    stream.seek(element.offset)
    try:
        parse_basic_offsets(stream)
        count, offsets = parse_fragments(stream)
    except (ValueError, struct.error) as error:
        raise MediaError(f"the pixel data is cut or damaged: {brief(error)}", stage="pixels") from None
    end = element.offset + element.available
    if offsets:
        stream.seek(offsets[-1] + 4)
        last = offsets[-1] + 8 + int.from_bytes(stream.read(4), "little")
        if last > end:
            raise MediaError(
                f"the file is cut: fragment {count} of the pixel data ends at byte {last}, the file at byte {end}",
                stage="pixels",
            )
    if count < num_frames:
        raise MediaError(
            f"the header promises {num_frames} frames, the pixel data holds {count}; the file is cut or damaged",
            stage="pixels",
        )


def read_format(header: DicomHeader) -> PixelFormat:
    """Read and check the image pixel module. Raises MediaError, quoting the value and what is allowed."""
    rows, columns = (_integer(header, keyword) for keyword in ("Rows", "Columns"))
    check_size(rows, columns)
    samples, bits = _integer(header, "SamplesPerPixel", 1), _integer(header, "BitsAllocated")
    photometric = header.text("PhotometricInterpretation")
    # The photometric interpretation of video streams (PS3.5 8.2.5 to 8.2.8); there, it is the stream that counts.
    if photometric == "YBR_PARTIAL_420" and header.transfer_syntax in MPEGTransferSyntaxes:
        photometric = "YBR_FULL"
    if photometric not in (_COLOUR if samples == 3 else _GREY if samples == 1 else ()):
        raise MediaError(
            f"PhotometricInterpretation is {photometric!r} with {samples} samples a pixel; read are "
            f"{', '.join(sorted(_COLOUR))} with 3, {', '.join(sorted(_GREY))} with 1",
            stage="pixels",
        )
    stored = _integer(header, "BitsStored", bits)
    if bits not in _BITS or not 1 <= stored <= bits:
        raise MediaError(
            f"BitsAllocated is {bits}, BitsStored is {stored}; read are {_BITS} allocated, 1 to that many stored",
            stage="pixels",
        )
    return PixelFormat(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        planar=_integer(header, "PlanarConfiguration", 0),
        bits_allocated=bits,
        bits_stored=stored,
        signed=_integer(header, "PixelRepresentation", 0) == 1,
        num_frames=num_frames(header),
    )


def num_frames(header: DicomHeader) -> int:
    """NumberOfFrames (0028,0008); 1 where it is missing or 0. Raises MediaError where it is negative."""
    count = _integer(header, "NumberOfFrames", 1) or 1
    if count < 0:
        raise MediaError(f"NumberOfFrames is {count}; it must be 1 or more", stage="pixels")
    return count


def _integer(header: DicomHeader, keyword: str, default: int | None = None) -> int:
    value = header.number(keyword)
    if value is not None and math.isfinite(value):
        return int(value)
    if default is None:
        raise MediaError(f"the header has no {keyword}, which an image must have", stage="pixels")
    return default


def _check_native_length(form: PixelFormat, element: PixelElement) -> PixelFormat:
    if element.length is None:
        raise MediaError("its pixel data is encapsulated, but its transfer syntax is uncompressed", stage="pixels")
    if form.photometric == "YBR_FULL_422":
        whole = form.rows * form.columns * 3 * form.bits_allocated // 8 * form.num_frames
        if element.length in (whole, whole + whole % 2):
            # Named 422, but no chroma was left out: some writers keep the name of the compressed original.
            form = replace(form, photometric="YBR_FULL")
    needed = form.frame_bytes * form.num_frames
    present = min(element.length, element.available)
    if present < needed:
        raise MediaError(
            f"the header promises {form.num_frames} frames of {form.columns} x {form.rows} pixels ({needed} bytes), "
            f"the file holds {present} bytes of pixels; it is cut or damaged",
            stage="pixels",
        )
    return form


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


def _sigmoid(centre: float, width: float, values: Floats32) -> Floats32:
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
