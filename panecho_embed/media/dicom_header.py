"""The header of a DICOM file: found by content, read without its identifiers, checked against the bytes that are there.

Tags and their meaning: DICOM PS3.3; how they are written: PS3.5 and PS3.10.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from panecho_embed.core.errors import MediaError

_PIXEL_TAGS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAX_INFLATED_BYTES = 2**31

_TAGS: list[Any] = [
    # What it shows: general image, US image (PS3.3 C.8.5.6), US region calibration (C.8.5.5).
    "ImageType",
    "SequenceOfUltrasoundRegions",
    "UltrasoundColorDataPresent",
    # How it was recorded: equipment (C.7.5.1), cardiac synchronisation as US images hold it (C.8.5.6).
    "Manufacturer",
    "ManufacturerModelName",
    "HeartRate",
    "RWaveTimeVector",
    # How fast: cine and multi-frame modules (C.7.6.5, C.7.6.6).
    "RecommendedDisplayFrameRate",
    "CineRate",
    "FrameTime",
    "FrameTimeVector",
    "ActualFrameDuration",
    "FrameIncrementPointer",
    # Image pixel module (C.7.6.3).
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    # Modality and VOI LUT modules (C.11.1, C.11.2).
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
]


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data is in the data set's stream.

    keyword: PixelData, or one of the two float kinds. vr: "" where implicit. offset: of the value's first byte.
    length: in bytes, None where undefined (encapsulated). available: bytes from `offset` to the end of the stream.
    """

    keyword: str
    vr: str
    offset: int
    length: int | None
    available: int


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """The tags that frames need (no identifiers), the transfer syntax, and the place of the pixels (None = none)."""

    dataset: Dataset = field(repr=False)
    transfer_syntax: UID
    pixels: PixelElement | None

    def number(self, keyword: str) -> float | None:
        """The first value of a numeric tag, None where it is missing, empty or no number."""
        return next(iter(self.numbers(keyword)), None)

    def numbers(self, keyword: str) -> list[float]:
        """All values of a numeric tag; empty where it is missing, empty or not made of numbers."""
        return numbers(self.dataset, keyword)

    def text(self, keyword: str) -> str:
        """The value of a text tag, "" where it is missing."""
        return str(self.dataset.get(keyword) or "").strip()


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All values of a numeric tag of `dataset`; empty where it is missing, empty or not made of numbers."""
    value = dataset.get(keyword)
    values = [] if value is None else [value] if isinstance(value, int | float | str | bytes) else list(value)
    try:
        return [float(item) for item in values]
    except (ValueError, TypeError, OverflowError):
        return []


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning and logging, for the calls inside: it quotes header values, identifiers among them.

    Real files are full of invalid values that don't matter here; what matters is checked by this package. Changes
    state of the process for the moment, as `warnings.catch_warnings` does: not for several threads at once.
    """
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


@contextmanager
def open_dataset(path: str) -> Iterator[BinaryIO]:
    """Open the stream that `PixelElement.offset` counts in: the file, or what a deflated one inflates to."""
    with Path(path).open("rb") as file:
        inflated = _inflate(path, file)
        yield file if inflated is None else inflated


def read_header(path: str) -> DicomHeader:
    """Read what frames need from a DICOM file. Raises MediaError(stage "open") where the header is unreadable."""
    try:
        with quiet(), open_dataset(path) as stream:
            return _parse(stream)
    except MediaError:
        raise
    except OSError as error:
        raise MediaError(f"the file can't be read: {error.strerror or type(error).__name__}", stage="open") from None
    except Exception as error:
        # pydicom raises whatever its parser trips over, and its words may quote the header: name only the kind.
        raise MediaError(
            f"the DICOM header can't be read ({type(error).__name__}); the file is damaged", stage="open"
        ) from None


def _parse(stream: BinaryIO) -> DicomHeader:
    if isinstance(stream, io.BytesIO):
        dataset = read_dataset(stream, False, True, stop_when=_is_pixel_tag, specific_tags=_as_tags())
        syntax = DeflatedExplicitVRLittleEndian
    else:
        dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True, specific_tags=_TAGS)
        named = dataset.file_meta.get("TransferSyntaxUID")
        syntax = UID(named) if named else _guess_syntax(dataset)
    pixels = _pixel_element(stream, syntax)
    _drop_unreadable(dataset)
    return DicomHeader(dataset, syntax, pixels)


def _drop_unreadable(dataset: Dataset) -> None:
    """Take out the elements whose values can't be parsed, here and in sequences: they are as good as missing."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:
            # pydicom parses values when they are asked for, and raises whatever it trips over.
            del dataset[tag]
            continue
        for item in element.value or () if element.VR == "SQ" else ():
            _drop_unreadable(item)


def _guess_syntax(dataset: Dataset) -> UID:
    """The uncompressed syntax in which pydicom found the data set to be written, where the file does not name it."""
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _as_tags() -> list[Any]:
    return [pydicom.tag.Tag(keyword) for keyword in _TAGS]


def _is_pixel_tag(tag: pydicom.tag.BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001
    return (tag.group, tag.element) in _PIXEL_TAGS


def _pixel_element(stream: BinaryIO, syntax: UID) -> PixelElement | None:
    """Read the element's head, at which parsing stopped; None at the end of the stream."""
    order = "<" if syntax.is_little_endian else ">"
    head = stream.read(12)
    if len(head) < 8:
        return None
    keyword = _PIXEL_TAGS.get(struct.unpack_from(order + "HH", head))
    if keyword is None:
        return None
    if syntax.is_implicit_VR:
        vr, start = "", 8
    elif len(head) == 12:
        vr, start = head[4:6].decode("latin-1"), 12
    else:
        return None
    (length,) = struct.unpack_from(order + "I", head, start - 4)
    offset = stream.tell() - len(head) + start
    available = stream.seek(0, os.SEEK_END) - offset
    return PixelElement(keyword, vr, offset, None if length == _UNDEFINED_LENGTH else length, available)


def _inflate(path: str, file: BinaryIO) -> io.BytesIO | None:
    """What a deflated data set (PS3.5 A.5) inflates to, None where the file is not deflated."""
    file.seek(128)
    if file.read(4) != b"DICM":
        file.seek(0)
        return None
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return None
    file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(file.read(), _MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise MediaError(f"the deflated data set holds more than {_MAX_INFLATED_BYTES} bytes", stage="open")
    if not inflater.eof:
        raise MediaError("the file is cut: its deflated data set does not end", stage="open")
    return io.BytesIO(data)
