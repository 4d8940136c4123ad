"""What a compressed image says of itself before it is decoded: its size, and for JPEG how its colours are stored.

A decoder allocates what the image's own header claims, so the claim is read first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_SOS = 0xDA

_RGB_IDS = ((82, 71, 66), (114, 103, 98))
"""Component identifiers "RGB" and "rgb", by which writers mark a JPEG that holds RGB."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header of a JPEG or JPEG-LS image (ITU-T T.81 annex B, T.87 annex C).

    component_ids: one identifier a component. subsampled: True where the components differ in resolution.
    jfif: an APP0 "JFIF" segment is there. adobe_transform: of the APP14 "Adobe" segment (0 = RGB, 1 = YCbCr), or None.
    """

    width: int
    height: int
    component_ids: tuple[int, ...]
    subsampled: bool
    jfif: bool
    adobe_transform: int | None

    def is_ybr(self, photometric: str) -> bool:
        """Whether three components hold YCbCr. What the image's own data says outweighs the DICOM header's word.

        JFIF allows YCbCr only, Adobe's segment names the transform (ITU-T T.872, 6), "RGB" identifiers are what they
        say, and nobody stores green at half resolution. Only a JPEG that is silent is what `photometric` calls it.
        """
        if self.component_ids in _RGB_IDS:
            return False
        if self.jfif or self.subsampled:
            return True
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return photometric.startswith("YBR")

    @property
    def is_ybr_to_libjpeg(self) -> bool:
        """What OpenCV's JPEG decoder will believe (libjpeg, jdapimin.c, default_decompress_parms)."""
        if self.jfif:
            return True
        if self.adobe_transform is not None:
            return self.adobe_transform != 0
        return self.component_ids != _RGB_IDS[0]


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
            return _frame_header(segment, jfif, adobe)
        jfif |= marker == 0xE0 and segment[:4] == b"JFIF"
        if marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe = segment[11]
        position += 2 + length
    return None


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG 2000 codestream, bare or in a JP2 file (ITU-T T.800, A.5.1: SIZ); None where none."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def _frame_header(segment: bytes, jfif: bool, adobe: int | None) -> JpegHeader | None:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        return None
    height, width, count = struct.unpack_from(">xHHB", segment)
    components = [segment[6 + 3 * i : 9 + 3 * i] for i in range(count)]
    return JpegHeader(
        width=width,
        height=height,
        component_ids=tuple(component[0] for component in components),
        subsampled=len({component[1] for component in components}) > 1,
        jfif=jfif,
        adobe_transform=adobe,
    )
