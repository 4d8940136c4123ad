"""The heaps in which an HDF5 file keeps its texts, walked before the HDF5 library does.

The library never comes back from a heap in which an object of no size stands, as a single flipped bit can make one
(HDF5 2.0, H5HG__cache_heap_deserialize). Formats: HDF5 File Format Specification 3.0, III.E (global heap), IV.A.1.a
(object headers, version 1), IV.B (texts of variable length: length, address of a heap, position in it).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

_Bytes = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.int64]

ENTRY = np.dtype([("length", "<u4"), ("heap", "<u8"), ("position", "<u4")])
"""How the file holds one text."""

_HEAD_BYTES = 16
# An object's number in its heap has 16 bits.
_MOST_OBJECTS = 1 << 16
_CONTINUATION, _ATTRIBUTE = 0x0010, 0x000C
_MOST_BLOCKS = 1000
# Of fewer heaps, as a part has, numpy's steps through all at once take longer than Python's through one after another.
_FEW = 32
_GCOL = int.from_bytes(b"GCOL", "little")


def check_heaps(path: Path, heaps: npt.NDArray[np.integer]) -> None:
    """Raise ValueError unless the heaps at these addresses of a file can be read to their end. Address 0 is no heap."""
    places = np.unique(heaps[heaps != 0]).astype(np.int64)
    walk = _walk_one_by_one if len(places) < _FEW else _walk
    walk(np.memmap(path, np.uint8, "r"), places)


def heaps_of_attributes(path: Path, header: int) -> npt.NDArray[np.int64]:
    """Addresses of the heaps that the attributes of the object at `header` point to.

    Raises ValueError for another kind of header than this package's files have.
    """
    found: list[int] = []
    with path.open("rb") as stream:
        stream.seek(header)
        version, count, size = struct.unpack("<BxH4xI4x", stream.read(16))
        if version != 1:
            raise ValueError(f"its header is of version {version}, not 1")
        blocks = [(header + 16, size)]
        for start, length in blocks:
            stream.seek(start)
            block = stream.read(min(length, 1 << 20))
            position = 0
            while position + 8 <= len(block) and count > 0:
                kind, size = struct.unpack_from("<HH", block, position)
                body = block[position + 8 : position + 8 + size]
                if kind == _CONTINUATION and len(body) >= 16 and len(blocks) < _MOST_BLOCKS:
                    blocks.append(struct.unpack_from("<QQ", body))
                elif kind == _ATTRIBUTE:
                    found += _pointed_to(stream.fileno(), body)
                position, count = position + 8 + size, count - 1
    return np.array(found, dtype=np.int64)


def _pointed_to(descriptor: int, body: bytes) -> list[int]:
    """Every address in an attribute at which a heap begins."""
    places = (struct.unpack_from("<Q", body, i)[0] for i in range(0, len(body) - 7, 4))
    return [place for place in places if 0 < place < 1 << 62 and os.pread(descriptor, 4, place) == b"GCOL"]


def _walk_one_by_one(data: _Bytes, heaps: _Places) -> None:
    content = data.data
    for heap in heaps.tolist():
        if not 0 <= heap <= len(data) - _HEAD_BYTES or bytes(content[heap : heap + 4]) != b"GCOL":
            raise ValueError("its texts point to places where none are")
        (size,) = struct.unpack_from("<Q", content, heap + 8)
        if size > len(data) - heap:
            raise ValueError("its texts are cut")
        place, end = heap + _HEAD_BYTES, heap + size
        for _ in range(_MOST_OBJECTS + 1):
            if place + _HEAD_BYTES > end:
                break
            number, length = struct.unpack_from("<H6xQ", content, place)
            # As below.
            step = length if number == 0 else _HEAD_BYTES + (length + 7) // 8 * 8
            if not _HEAD_BYTES <= step <= end - place:
                raise ValueError("its texts are damaged")
            place += step
        else:
            raise ValueError("its texts are damaged")


def _walk(data: _Bytes, heaps: _Places) -> None:
    """Step from object to object, in all heaps at once."""
    if ((heaps < 0) | (heaps > len(data) - _HEAD_BYTES)).any() or not (_words(data, heaps, "<u4") == _GCOL).all():
        raise ValueError("its texts point to places where none are")
    sizes = _words(data, heaps + 8, "<u8")
    if (sizes > (len(data) - heaps).astype(np.uint64)).any():
        raise ValueError("its texts are cut")
    ends, places = heaps + sizes.astype(np.int64), heaps + _HEAD_BYTES
    for _ in range(_MOST_OBJECTS + 1):
        going = places + _HEAD_BYTES <= ends
        places, ends = places[going], ends[going]
        if not len(places):
            return
        numbers, sizes = _words(data, places, "<u2"), _words(data, places + 8, "<u8")
        # Free space counts its own head; an object's size is that of its text, filled up to 8 bytes.
        steps = np.where(numbers == 0, sizes, _HEAD_BYTES + (sizes + np.uint64(7)) // np.uint64(8) * np.uint64(8))
        if ((steps < _HEAD_BYTES) | (steps > (ends - places).astype(np.uint64))).any():
            raise ValueError("its texts are damaged")
        places = places + steps.astype(np.int64)
    raise ValueError("its texts are damaged")


def _words(data: _Bytes, places: _Places, form: str) -> npt.NDArray[np.unsignedinteger]:
    """The number that stands at each place, aligned or not."""
    everywhere = np.ndarray(len(data) - np.dtype(form).itemsize + 1, form, buffer=data, strides=(1,))
    return everywhere[places]
