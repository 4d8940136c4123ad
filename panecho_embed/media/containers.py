"""Whether a video file is whole, by its container's own sizes and index.

Decoders stop at damage without a word. So each container's structure is walked before decoding (headers only, no
pictures): what it promises beyond the file's end is missing, and where it counts its frames, that many must come.
What a container doesn't tell is left open rather than guessed: a file is called damaged on its own evidence only.
So MPEG streams that are cut between two packets, which have no overall length, can't be told from whole ones.

AVI: RIFF with OpenDML extensions. MP4, MOV: ISO/IEC 14496-12. MKV, WebM: RFC 8794 and RFC 9559. WMV: Microsoft's ASF
specification, 01.20.03. MPG: ISO/IEC 11172-1 and 13818-1. GIF: GIF89a.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from panecho_embed.media import isobmff

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
_MAX_UINT64 = 2**64 - 1

_EBML_SEGMENT = 0x18538067
_EBML_CLUSTER = 0x1F43B675

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


@dataclass(frozen=True, slots=True)
class Container:
    """What the structure of a video file says.

    name: of the container, "" where it is none of the known. damage: how the file contradicts itself, "" where it
    does not. stored_frames: frames that its index counts, None where there is no exact count.
    """

    name: str = ""
    damage: str = ""
    stored_frames: int | None = None


def inspect(path: str) -> Container:
    """Walk the structure of a video file. Raises OSError where it can't be read."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        file.seek(0)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _inspect_avi(file, size)
        if head[4:8] in isobmff.FIRST_BOXES:
            return Container("MP4", *isobmff.inspect(file, size))
        if head[:4] == b"\x1aE\xdf\xa3":
            return Container("Matroska", _matroska_damage(file, size))
        if head == _ASF_HEADER:
            return Container("WMV", _asf_damage(file, size))
        if head[:4] == b"\0\0\x01\xba":
            return Container("MPEG", _mpeg_damage(file, size))
        if head[:6] in (b"GIF87a", b"GIF89a"):
            return _inspect_gif(file.read())
    return Container()


def _cut(size: int, end: int, what: str) -> str:
    return f"the file is cut: {what} ends at byte {end}, the file at byte {size}"


def _inspect_avi(file: BinaryIO, size: int) -> Container:
    counts: Counter[bytes] = Counter()
    lists = 0
    for name, start, length in _riff_lists(file, size):
        if name != b"movi":
            continue
        lists += 1
        # A recorder that was switched off leaves the size open; what was written can still be counted.
        end = size if length in _UNKNOWN_SIZES else start + length
        damage = _count_video_chunks(counts, file, start, end, size)
        if damage or end > size:
            return Container("AVI", damage or _cut(size, end, "its list of frames"))
    if not lists:
        return Container("AVI", f"the file is cut: it ends at byte {size}, before its list of frames (movi)")
    # With two video streams in a file, it's not known here which one the decoder takes.
    return Container("AVI", "", next(iter(counts.values())) if len(counts) == 1 else None)


def _riff_lists(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, first byte of the content, its length) of every LIST at the top, in all RIFF parts."""
    position = 0
    while position + 12 <= size:
        file.seek(position)
        tag, length, name = struct.unpack("<4sI4s", file.read(12))
        if tag == b"RIFF":
            position += 12
            continue
        if tag == b"LIST":
            yield name, position + 12, length - 4 if length not in _UNKNOWN_SIZES else length
            if length in _UNKNOWN_SIZES:
                return
        elif not _is_fourcc(tag):
            return
        position += 8 + length + length % 2


def _count_video_chunks(counts: Counter[bytes], file: BinaryIO, position: int, end: int, size: int) -> str:
    """Add the chunks that hold a frame, by stream; an empty one repeats the frame before it and holds none."""
    padding = 0
    while position + 8 <= min(end, size):
        file.seek(position)
        tag, length = struct.unpack("<4sI", file.read(8))
        if padding and not _is_stream_chunk(tag):
            # Some writers forget the byte that has to follow a chunk of odd length.
            file.seek(position - 1)
            if _is_stream_chunk(file.read(4)):
                position, padding = position - 1, 0
                continue
        if not _is_fourcc(tag):
            return f"it is damaged at byte {position}, inside its list of frames"
        if tag == b"LIST":
            position += 12
            continue
        if tag[2:] in (b"dc", b"db") and length:
            counts[tag[:2]] += 1
            if position + 8 + length > size:
                return _cut(size, position + 8 + length, f"frame {counts[tag[:2]]}")
        padding = length % 2
        position += 8 + length + padding
    return ""


def _is_stream_chunk(tag: bytes) -> bool:
    return tag[:2].isdigit() and tag[2:] in (b"dc", b"db", b"wb", b"pc", b"tx")


def _is_fourcc(tag: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in tag)


def _matroska_damage(file: BinaryIO, size: int) -> str:
    """Step from element to element. Segments and clusters are entered; so is what has no length, in live recordings."""
    position, segment_end = 0, size
    while position < segment_end:
        element = _ebml_element(file, position)
        if element is None:
            return f"it is damaged at byte {position}"
        identifier, start, length = element
        end = start if length is None else start + length
        if end > size:
            return _cut(size, end, "its segment" if identifier == _EBML_SEGMENT else "a cluster or block")
        if identifier == _EBML_SEGMENT and length is not None:
            segment_end = end
        position = start if identifier in (_EBML_SEGMENT, _EBML_CLUSTER) else end
    return ""


def _ebml_element(file: BinaryIO, position: int) -> tuple[int, int, int | None] | None:
    """Identifier, first byte of the content and length (None = unknown) of the element at `position`."""
    file.seek(position)
    data = file.read(12)
    if not data or not data[0] & 0xF0:
        return None
    id_width = 9 - data[0].bit_length()
    if len(data) <= id_width or not data[id_width]:
        return None
    size_width = 9 - data[id_width].bit_length()
    raw = data[id_width : id_width + size_width]
    if len(raw) < size_width:
        return None
    mask = (1 << 7 * size_width) - 1
    length = int.from_bytes(raw, "big") & mask
    start = position + id_width + size_width
    return int.from_bytes(data[:id_width], "big"), start, None if length == mask else length


def _asf_damage(file: BinaryIO, size: int) -> str:
    position = 0
    while position + 24 <= size:
        file.seek(position)
        identifier, length = struct.unpack("<16sQ", file.read(24))
        if length < 24 or length == _MAX_UINT64:
            return ""
        if identifier in (_ASF_HEADER, _ASF_DATA) and position + length > size:
            return _cut(size, position + length, "its data")
        position += length
    return ""


def _mpeg_damage(file: BinaryIO, size: int) -> str:
    """Walk the packets of a program stream, which has no overall length, and may be padded with zeros."""
    position = 0
    while position + 6 <= size:
        file.seek(position)
        head = file.read(14)
        if head[:4] == b"\0\0\x01\xb9":
            return ""
        if head[:3] != b"\0\0\x01":
            file.seek(position)
            return f"it is damaged at byte {position}, where no packet begins" if file.read().strip(b"\0") else ""
        if head[3] == 0xBA:
            if len(head) < 14:
                return ""
            # MPEG-2 packs announce their stuffing, MPEG-1 packs have a fixed length.
            position += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
            continue
        length = int.from_bytes(head[4:6], "big")
        if head[3] < 0xBB or length == 0:
            return ""
        position += 6 + length
        if position > size:
            return _cut(size, position, "a packet")
    return ""


def _inspect_gif(data: bytes) -> Container:
    count = 0
    try:
        position = 13 + _colour_table_length(data[10])
        while data[position] != 0x3B:
            if data[position] == 0x2C:
                position += 11 + _colour_table_length(data[position + 9])
                count += 1
            elif data[position] == 0x21:
                position += 2
            else:
                return Container("GIF", f"it is damaged at byte {position}, where no block begins")
            while data[position]:
                position += 1 + data[position]
            position += 1
            if position == len(data):
                # Some writers leave out the trailer; every image is there.
                break
    except IndexError:
        return Container("GIF", f"the file is cut: it ends at byte {len(data)}, inside image {max(count, 1)}", None)
    return Container("GIF", "", count)


def _colour_table_length(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
