"""Mutators that know the structure of DICOM files, arrays and images."""

from __future__ import annotations

import io
import re
import struct
from random import Random

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, AllTransferSyntaxes

from tests.fuzz.mutate import RAW, Mutator, flip_bits, number, put
from tests.fuzz.seeds import pack, unpack

_NUMBERS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "CineRate",
    "RecommendedDisplayFrameRate",
]
_DECIMALS = ["FrameTime", "ActualFrameDuration", "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"]
_PHOTOMETRIC = [
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
    "MONOCHROME1",
    "MONOCHROME2",
    "PALETTE COLOR",
    "CMYK",
    "",
]
_VRS = [b"OB", b"OW", b"UN", b"SQ", b"US", b"IS", b"DS", b"UI", b"PN", b"ZZ", b"\0\0"]


def dicom_value(data: bytes, chance: Random) -> bytes:
    """Other values in the header, written as pydicom writes them."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        for _ in range(chance.choice((1, 1, 2, 4))):
            _change(dataset, chance)
        out = io.BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()
    except Exception:
        return flip_bits(data, chance)


def _change(dataset: Dataset, chance: Random) -> None:
    keyword = chance.choice(
        (*_NUMBERS, *_DECIMALS, "PhotometricInterpretation", "syntax", "region", "remove", "palette")
    )
    if keyword in _NUMBERS:
        value = number(chance) % (65536 if keyword not in ("NumberOfFrames", "CineRate") else 1 << 31)
        dataset.__setattr__(keyword, chance.choice((value, value, -1 if keyword == "NumberOfFrames" else value)))
    elif keyword in _DECIMALS:
        dataset.__setattr__(keyword, chance.choice(("0", "-1", "1e-320", "1e308", "1e400", "33.3", "7" * 16)))
    elif keyword == "PhotometricInterpretation":
        dataset.PhotometricInterpretation = chance.choice(_PHOTOMETRIC)
    elif keyword == "syntax":
        dataset.file_meta.TransferSyntaxUID = UID(chance.choice([*AllTransferSyntaxes, "1.2.3", ""]))
    elif keyword == "remove":
        del dataset[chance.choice(list(dataset.keys()))]
    elif keyword == "palette":
        dataset.PhotometricInterpretation = "PALETTE COLOR"
        for colour in ("Red", "Green", "Blue"):
            size = number(chance) % 65536
            dataset.__setattr__(f"{colour}PaletteColorLookupTableDescriptor", [size, 0, chance.choice((8, 16, 255))])
            dataset.__setattr__(f"{colour}PaletteColorLookupTableData", bytes(chance.choice((0, 512, size % 4096))))
    else:
        item = Dataset()
        item.RegionSpatialFormat, item.RegionDataType = chance.choice(((1, 1), (1, 2), (2, 1), (3, 3)))
        for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1"):
            item.__setattr__(f"RegionLocation{corner}", number(chance) % 2**32)
        dataset.SequenceOfUltrasoundRegions = [item] * chance.choice((1, 2, 50))


def dicom_element(data: bytes, chance: Random) -> bytes:
    """An element of explicit VR with another length, VR or tag."""
    heads = [match.start() for match in re.finditer(rb"(?s)[\x00-\xff]{4}(?:[A-Z]{2})[\x00-\xff]{2}", data[132:8192])]
    if not heads:
        return flip_bits(data, chance)
    position = 132 + chance.choice(heads)
    match chance.randrange(4):
        case 0:
            return put(data, position + 6, "<H", number(chance))
        case 1:
            return put(data, position + 8, "<I", number(chance))
        case 2:
            return data[: position + 4] + chance.choice(_VRS) + data[position + 6 :]
        case _:
            return put(data, position + chance.choice((0, 2)), "<H", number(chance))


def dicom_items(data: bytes, chance: Random) -> bytes:
    """A fragment or sequence item of another length, or with its tag gone."""
    items = [match.start() for match in re.finditer(rb"\xfe\xff[\x00\x0d\xdd]\xe0", data)]
    if not items:
        return dicom_element(data, chance)
    position = chance.choice(items)
    return put(data, position + chance.choice((0, 2, 4, 4, 4, 8, 12)), "<I", number(chance))


def dicom_nested(data: bytes, chance: Random) -> bytes:
    """Sequences in sequences, deeper than any parser that calls itself can follow."""
    depth = chance.choice((10, 100, 1000, 20_000))
    head = b"\x18\x00\x11\x60SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    where = data.find(b"\x28\x00\x02\x00")
    return data[:where] + head + data[where:] if where > 0 else flip_bits(data, chance)


def codestream(data: bytes, chance: Random) -> bytes:
    """A JPEG, JPEG-LS or JPEG 2000 image inside that claims another size, number of components or precision."""
    marks = [
        m.start() for m in re.finditer(rb"\xff[\xc0-\xc3\xc4\xda\xdb\xdd\xf7\xf8]|\xff\x4f\xff\x51|\xff\x52", data)
    ]
    if not marks:
        return flip_bits(data, chance)
    return put(data, chance.choice(marks) + chance.randrange(2, 44), chance.choice((">B", ">H", ">I")), number(chance))


_SHAPES = (
    "({0}, 32, 48, 3)",
    "(4, {0}, 48, 3)",
    "(4, 32, {0})",
    "({0},)",
    "()",
    "(4, -32, 48)",
    "({0}, {0}, {0})",
    "(0, 32, 48)",
)
_TYPES = ("|u1", "<f4", "<f8", "|O", "<U7", "<M8[s]", "[('a', '|u1')]", "|S0", "|V60000", "<c16", "|b1", "<f2")


def npy_header(data: bytes, chance: Random) -> bytes:
    """An array header that claims another shape or type, or is code."""
    start = data.find(b"\x93NUMPY")
    if start < 0:
        return flip_bits(data, chance)
    shape = chance.choice(_SHAPES).format(number(chance))
    text = f"{{'descr': {chance.choice(_TYPES)!r}, 'fortran_order': {chance.random() < 0.3}, 'shape': {shape}}}"
    text = chance.choice((text, text, text, "__import__('os').system('touch CANARY')", "{" * 5000, text + " " * 60_000))
    length = len(text) + 1
    head = (
        b"\x93NUMPY\x01\0" + struct.pack("<H", length)
        if length < 65536
        else b"\x93NUMPY\x02\0" + struct.pack("<I", length)
    )
    end = data.find(b"\n", start) + 1
    return data[:start] + head + text.encode() + b"\n" + data[end:]


def zip_records(data: bytes, chance: Random) -> bytes:
    """A number in a zip archive's own records: sizes, offsets, methods, flags."""
    marks = [match.start() for match in re.finditer(rb"PK[\x01\x03\x05\x06][\x02\x04\x06\x08]", data)]
    if not marks:
        return flip_bits(data, chance)
    return put(data, chance.choice(marks) + chance.randrange(4, 46), chance.choice(("<H", "<I")), number(chance))


def picture_header(data: bytes, chance: Random) -> bytes:
    """A number near the beginning of an image: PNG's and BMP's sizes, TIFF's directory, a JPEG's markers."""
    return put(data, chance.randrange(8, 64), chance.choice(("<H", ">H", "<I", ">I")), number(chance))


_PICTURE: tuple[Mutator, ...] = (picture_header, codestream)


def images(data: bytes, chance: Random) -> bytes:
    """A folder of images with one of them damaged, exchanged, renamed or gone."""
    files = unpack(data)
    if not files:
        return data
    name = chance.choice(sorted(files))
    match chance.randrange(8):
        case 0:
            files[chance.choice(("frame1.jpg", "frame٣.png", "a" * 250 + ".png", "frame" + "9" * 200 + ".png"))] = (
                files[name]
            )
        case 1:
            del files[name]
        case 2:
            files[name] = files[chance.choice(sorted(files))]
        case 3:
            files[name] = b""
        case _:
            files[name] = chance.choice((*_PICTURE, *_PICTURE, *RAW))(files[name], chance)
    return pack(files)
