"""What kind of file a file is, by its suffix or first bytes; no decoder is loaded for it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path, PurePath

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
NIFTI_SUFFIXES = (".nii", ".nii.gz")
"""What the names of NIfTI files end in, in small letters."""

VIDEO_SUFFIXES = frozenset({".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".gif"})
"""Suffixes by which a folder's video files are known, in small letters. A file named explicitly may have another."""

_UNTOLD_SUFFIXES = (".wmv", ".mpg", ".mpeg")
"""Of containers that state neither a number of frames nor, when they are cut, a duration."""

_MEDIA_SUFFIXES = ARRAY_SUFFIXES | IMAGE_SUFFIXES | VIDEO_SUFFIXES | {".dcm", ".dicom", NIFTI_SUFFIXES[0]}

_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def type_of_file(path: str) -> str:
    """The suffix of a media file in small letters, "" for any other name: what follows a point may be part of an id."""
    name = path.lower()
    if name.endswith(NIFTI_SUFFIXES[1]):
        return NIFTI_SUFFIXES[1]
    suffix = PurePath(name).suffix
    return suffix if suffix in _MEDIA_SUFFIXES else ""


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Say by its content whether a file is DICOM: "DICM" at byte 128, or three well-formed elements from the start.

    The second kind are data sets without a preamble, as old archives hold them. Raises OSError.
    """
    with Path(path).open("rb") as file:
        head = file.read(1024)
        size = os.fstat(file.fileno()).st_size
    return begins_as_dicom(head, size)


def begins_as_dicom(head: bytes, size: int) -> bool:
    """`is_dicom` of a file whose first 1024 bytes, or all that it has, are `head`. size: of the file, in bytes."""
    return head[128:132] == b"DICM" or _starts_with_elements(head, size)


def _starts_with_elements(head: bytes, size: int) -> bool:
    if head[:2] in (b"\x02\0", b"\x08\0"):
        order = "<"
    elif head[:2] in (b"\0\x02", b"\0\x08"):
        order = ">"
    else:
        return False
    position, last = 0, (0, -1)
    for _ in range(3):
        if position + 12 > len(head):
            return False
        tag = struct.unpack_from(order + "HH", head, position)
        vr = head[position + 4 : position + 6]
        if vr in _LONG_VRS:
            start, (length,) = 12, struct.unpack_from(order + "I", head, position + 8)
        elif vr in _VRS:
            start, (length,) = 8, struct.unpack_from(order + "H", head, position + 6)
        else:
            start, (length,) = 8, struct.unpack_from(order + "I", head, position + 4)
        if tag <= last or tag[0] > 0x0010 or position + start + length > size:
            return False
        position, last = position + start + length, tag
    return True


def notes_on_videos(paths: Iterable[str]) -> tuple[str, ...]:
    """What a person should know of the files of a run: how many of them may be cut without a sign of it."""
    count = sum(path.lower().endswith(_UNTOLD_SUFFIXES) for path in paths)
    if not count:
        return ()
    return (
        f"WMV and MPEG files ({count} here) don't say how many frames they hold; one that was cut reads as a shorter "
        "video",
    )
