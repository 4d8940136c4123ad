"""What a compressed image says of itself before it is decoded: its size, and for JPEG how its colours are stored.

A decoder allocates what the image's own header claims, so the claim is read first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_SOS = 0xDA
_EOI = b"\xff\xd9"

RGB_IDS = ((82, 71, 66), (114, 103, 98))
"""Component identifiers "RGB" and "rgb", by which writers mark a JPEG that holds RGB."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header of a JPEG or JPEG-LS image (ITU-T T.81 annex B, T.87 annex C).

    sof: code of the start-of-frame marker, 0xC0 for baseline. precision: bits per sample.
    component_ids: one identifier a component. subsampled: True where the components differ in resolution.
    jfif: an APP0 "JFIF" segment is there. adobe_transform: of the APP14 "Adobe" segment (0 = RGB, 1 = YCbCr), or None.
    """

    width: int
    height: int
    sof: int
    precision: int
    component_ids: tuple[int, ...]
    subsampled: bool
    jfif: bool
    adobe_transform: int | None


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read the markers up to the first scan; None where `data` is no JPEG or ends too early."""
    if data[:2] != b"\xff\xd8":
        return None
    jfif, adobe = False, None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            return None
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if marker in _SOF_MARKERS:
            return _frame_header(marker, segment, jfif, adobe)
        jfif |= marker == 0xE0 and segment[:4] == b"JFIF"
        if marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe = segment[11]
        position += 2 + length
    return None


def is_whole_jpeg(data: bytes) -> bool:
    """Say whether the image's data ends with an end-of-image marker; decoders fill up what is missing with grey."""
    start = data.rfind(bytes((0xFF, _SOS)))
    return start >= 0 and data.find(_EOI, start) >= 0


def is_whole_png(data: bytes) -> bool:
    """Say whether every chunk up to the end mark lies within the file; decoders take in what a chunk claims to hold.

    PNG specification, 5.3: length, type, data, check sum.
    """
    position = 8
    while position + 12 <= len(data):
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return False


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG 2000 codestream, bare or in a JP2 file (ITU-T T.800, A.5.1: SIZ); None where none."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, JPEG, BMP or TIFF file in pixels, None where the header can't be read."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack_from(">2I", data, 16)
        return width, height
    if data[:2] == b"\xff\xd8":
        header = read_jpeg_header(data)
        return None if header is None else (header.width, header.height)
    if data[:2] == b"BM" and len(data) >= 26:
        # A negative height only says that the rows run from the top.
        width, height = struct.unpack_from("<2i", data, 18)
        return width, abs(height)
    if data[:4] in (b"II*\0", b"MM\0*"):
        directories = tiff_directories(data)
        return directories[0] if directories else None
    return None


def tiff_directories(data: bytes) -> list[tuple[int, int]]:
    """Width and height of every page of a TIFF file (TIFF 6.0, section 2); those that can be read."""
    order = "<" if data[:2] == b"II" else ">"
    sizes: list[tuple[int, int]] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        while offset and offset not in seen:
            seen.add(offset)
            (count,) = struct.unpack_from(order + "H", data, offset)
            tags: dict[int, int] = {}
            for entry in range(offset + 2, offset + 2 + 12 * count, 12):
                tag, kind = struct.unpack_from(order + "2H", data, entry)
                if tag in (256, 257):
                    (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
            sizes.append((tags.get(256, 0), tags.get(257, 0)))
            (offset,) = struct.unpack_from(order + "I", data, offset + 2 + 12 * count)
    except struct.error:
        return sizes
    return sizes


def _frame_header(marker: int, segment: bytes, jfif: bool, adobe: int | None) -> JpegHeader | None:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        return None
    precision, height, width, count = struct.unpack_from(">BHHB", segment)
    components = [segment[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    return JpegHeader(
        width=width,
        height=height,
        sof=marker,
        precision=precision,
        component_ids=tuple(component[0] for component in components),
        subsampled=len({component[1] for component in components}) > 1,
        jfif=jfif,
        adobe_transform=adobe,
    )
