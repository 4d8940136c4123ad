"""The stored pixels of a DICOM file, frame by frame: claims checked against bytes, YCbCr turned to RGB exactly once.

Photometric interpretation and pixel format: PS3.3 C.7.6.3; transfer syntaxes: PS3.5 annex A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGBaseline8Bit, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from panecho_embed.errors import MediaError
from panecho_embed.media.cine import check_size
from panecho_embed.media.codestream import RGB_IDS, JpegHeader, is_whole_jpeg, jpeg2000_size, read_jpeg_header
from panecho_embed.media.dicom_header import DicomHeader, PixelElement, open_dataset, quiet
from panecho_embed.media.encapsulated import Fragment, read_fragments, split_frames
from panecho_embed.media.opencv import decode_image

StoredArray = npt.NDArray[Any]

_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_GREY = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_BITS = (8, 16, 32)


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

    frames: the fragments of each frame, None where the pixels are not compressed.
    """

    path: str
    format: PixelFormat
    element: PixelElement
    decoder: Decoder
    frames: list[list[Fragment]] | None

    def __iter__(self) -> Iterator[StoredArray]:
        """Yield the stored values of every frame, once, in order: (rows, columns), or (rows, columns, 3) in RGB.

        Raises MediaError(stage "decode"), naming the frame, where one can't be decoded.
        """
        with open_dataset(self.path) as stream:
            for index in range(self.format.num_frames):
                try:
                    with quiet():
                        frame = self._native(stream, index) if self.frames is None else self._compressed(stream, index)
                except MediaError as error:
                    which = f"frame {index + 1} of {self.format.num_frames}"
                    raise MediaError(f"{which}: {error}", stage=error.stage) from None
                except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
                    which = f"frame {index + 1} of {self.format.num_frames} ({self.decoder.UID.name})"
                    raise MediaError(f"{which} can't be decoded: {_in_one_line(error)}", stage="decode") from error
                yield frame

    def _native(self, stream: BinaryIO, index: int) -> StoredArray:
        stream.seek(self.element.offset)
        # A decoder of pydicom keeps what it changed for one frame and applies it to the next: each starts afresh.
        options = self.format.options() | {"pixel_vr": self.element.vr}
        return self.decoder.as_array(stream, index=index, **options)[0]

    def _compressed(self, stream: BinaryIO, index: int) -> StoredArray:
        assert self.frames is not None
        data = read_fragments(stream, self.frames[index])
        syntax, photometric = self.decoder.UID, self.format.photometric
        if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
            header = read_jpeg_header(data)
            if header is None or not is_whole_jpeg(data):
                raise MediaError("its JPEG data is cut or damaged", stage="decode")
            self._check_size((header.width, header.height))
            if syntax in JPEGTransferSyntaxes and self.format.samples == 3:
                is_ybr = _is_ybr(header, photometric)
                photometric = "YBR_FULL_422" if is_ybr else "RGB"
                # OpenCV's libjpeg-turbo gives the values of pydicom's slower ways in a sixth of their time.
                if syntax == JPEGBaseline8Bit and is_ybr == _libjpeg_takes_for_ybr(header):
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


def locate_pixels(path: str, header: DicomHeader) -> StoredPixels:
    """Find the pixels of every frame and see that all are there, decoding none. Raises MediaError."""
    element = header.pixels
    if element is None:
        raise MediaError("it has no pixel data (7FE0,0010)", stage="pixels")
    if element.keyword != "PixelData":
        raise MediaError(f"its pixels are {element.keyword}; read are integer pixels (7FE0,0010)", stage="pixels")
    form = read_format(header)
    try:
        decoder = get_decoder(header.transfer_syntax)
    except NotImplementedError:
        raise MediaError(
            f"its transfer syntax is {header.transfer_syntax.name}; read are uncompressed, deflated, RLE, JPEG, "
            "JPEG-LS and JPEG 2000",
            stage="pixels",
        ) from None
    if decoder.is_encapsulated:
        if element.length is not None:
            raise MediaError(f"its pixel data is not encapsulated, as {decoder.UID.name} has to be", stage="pixels")
        with open_dataset(path) as stream:
            frames = split_frames(stream, element.offset, form.num_frames, _extended_offsets(header))
        return StoredPixels(path, form, element, decoder, frames)
    form = _check_native_length(form, element)
    return StoredPixels(path, form, element, decoder, None)


def read_format(header: DicomHeader) -> PixelFormat:
    """Read and check the image pixel module. Raises MediaError, quoting the value and what is allowed."""
    rows, columns = (_integer(header, keyword) for keyword in ("Rows", "Columns"))
    check_size(rows, columns)
    samples, bits = _integer(header, "SamplesPerPixel", 1), _integer(header, "BitsAllocated")
    photometric = header.text("PhotometricInterpretation")
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


def _extended_offsets(header: DicomHeader) -> tuple[int, ...]:
    table = header.dataset.get("ExtendedOffsetTable")
    return tuple(np.frombuffer(table, dtype="<u8").tolist()) if isinstance(table, bytes) and len(table) % 8 == 0 else ()


def _is_ybr(header: JpegHeader, photometric: str) -> bool:
    """Whether a JPEG of three components holds YCbCr. What its own data says outweighs the DICOM header.

    JFIF allows YCbCr alone, Adobe's segment names the transform (ITU-T T.872, 6), "RGB" identifiers are what they
    say, and nobody stores green at half resolution. Only a JPEG that is silent is what the header calls it.
    """
    if header.component_ids in RGB_IDS:
        return False
    if header.jfif or header.subsampled:
        return True
    if header.adobe_transform is not None:
        return header.adobe_transform != 0
    return photometric.startswith("YBR")


def _libjpeg_takes_for_ybr(header: JpegHeader) -> bool:
    """What OpenCV's JPEG decoder will believe (libjpeg, jdapimin.c, default_decompress_parms)."""
    if header.jfif:
        return True
    if header.adobe_transform is not None:
        return header.adobe_transform != 0
    return header.component_ids != RGB_IDS[0]


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
