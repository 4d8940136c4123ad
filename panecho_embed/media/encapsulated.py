"""Which bytes of compressed DICOM pixel data make which frame (PS3.5 A.4)."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import BinaryIO

from panecho_embed.errors import MediaError

_ITEM = b"\xfe\xff\x00\xe0"
_END = b"\xfe\xff\xdd\xe0"
_EOI = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Fragment:
    """One item of the pixel data: where its tag stands, and where its bytes lie in the stream."""

    tag_offset: int
    offset: int
    length: int


def split_frames(
    stream: BinaryIO, offset: int, num_frames: int, extended_offsets: tuple[int, ...] = ()
) -> list[list[Fragment]]:
    """The fragments of each of `num_frames` frames; only item headers are read, and fragment ends where needed.

    stream: seekable. offset: of the pixel data's value in it. extended_offsets: the Extended Offset Table's, if any.
    Raises MediaError(stage "pixels") where the data is cut or holds fewer frames.
    """
    table, fragments = _read_items(stream, offset)
    if len(fragments) < num_frames:
        raise MediaError(
            f"the header promises {num_frames} frames, the pixel data holds {len(fragments)}; "
            "the file is cut or damaged",
            stage="pixels",
        )
    if len(fragments) == num_frames:
        # True of nearly all files, and needs no offset table, which some writers fill with nonsense.
        return [[fragment] for fragment in fragments]
    if num_frames == 1:
        return [fragments]
    first = fragments[0].tag_offset
    starts = [first + value for value in extended_offsets or table]
    frames = _split_at(fragments, starts) if starts else _split_after_images(stream, fragments)
    if len(frames) < num_frames:
        raise MediaError(
            f"the header promises {num_frames} frames, but only {len(frames)} can be told apart in the "
            f"{len(fragments)} fragments of the pixel data; the file is damaged",
            stage="pixels",
        )
    return frames[:num_frames]


def read_fragments(stream: BinaryIO, fragments: list[Fragment]) -> bytes:
    """The bytes of one frame. Raises MediaError(stage "decode") where the file has become shorter meanwhile."""
    parts = []
    for fragment in fragments:
        stream.seek(fragment.offset)
        parts.append(stream.read(fragment.length))
        if len(parts[-1]) != fragment.length:
            raise MediaError("the file ends inside a frame", stage="decode")
    return b"".join(parts)


def _read_items(stream: BinaryIO, offset: int) -> tuple[tuple[int, ...], list[Fragment]]:
    """Basic Offset Table (may be empty) and the fragments."""
    size = stream.seek(0, os.SEEK_END)
    items: list[Fragment] = []
    position = offset
    while position + 8 <= size:
        stream.seek(position)
        tag, length = struct.unpack("<4sI", stream.read(8))
        if tag == _END:
            break
        if tag != _ITEM:
            raise MediaError(f"the pixel data is damaged at byte {position}: no fragment begins there", stage="pixels")
        if position + 8 + length > size:
            raise MediaError(
                f"the file is cut: fragment {len(items)} of the pixel data ends at byte {position + 8 + length}, "
                f"the file at byte {size}",
                stage="pixels",
            )
        items.append(Fragment(position, position + 8, length))
        position += 8 + length
    if not items:
        raise MediaError("the pixel data is empty", stage="pixels")
    table = read_fragments(stream, items[:1])
    return struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4]), items[1:]


def _split_at(fragments: list[Fragment], starts: list[int]) -> list[list[Fragment]]:
    starts = sorted(starts)
    frames: list[list[Fragment]] = [[] for _ in starts]
    for fragment in fragments:
        frames[max(bisect_right(starts, fragment.tag_offset) - 1, 0)].append(fragment)
    return [frame for frame in frames if frame]


def _split_after_images(stream: BinaryIO, fragments: list[Fragment]) -> list[list[Fragment]]:
    """Without an offset table: a JPEG, JPEG-LS or JPEG 2000 image ends with the same marker, at a fragment's end."""
    frames: list[list[Fragment]] = [[]]
    for fragment in fragments:
        frames[-1].append(fragment)
        stream.seek(max(fragment.offset, fragment.offset + fragment.length - 10))
        if _EOI in stream.read(min(10, fragment.length)):
            frames.append([])
    return [frame for frame in frames if frame]
