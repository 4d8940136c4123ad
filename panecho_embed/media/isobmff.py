"""Whether an MP4 or MOV file is whole, and how many frames its sample table counts (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"})
"""Boxes that a file may begin with."""

_MAX_MOOV_BYTES = 2**28
_TABLES = (b"mdia", b"minf", b"stbl")


def inspect(file: BinaryIO, size: int) -> tuple[str, int | None]:
    """Damage in words, or "", and the number of frames that are shown, None where there is no exact count."""
    moov: bytes | None = None
    fragmented = False
    for name, start, end in _file_boxes(file, size):
        if name in (b"mdat", b"moov", b"moof") and end > size:
            return f"the file is cut: its {name.decode()} box ends at byte {end}, the file at byte {size}", None
        fragmented |= name == b"moof"
        if name == b"moov" and end - start <= _MAX_MOOV_BYTES:
            file.seek(start)
            moov = file.read(end - start)
    if moov is None:
        return "the file is cut: it has no index (moov box)", None
    tracks = [track for track in _children(moov, b"trak") if _handler(track) == b"vide"]
    if fragmented or len(tracks) != 1:
        return "", None
    return "", _shown_frames(tracks[0], moov)


def _file_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, first byte of the content, end) of every box at the top; the last may end beyond the file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, name = struct.unpack_from(">I4s", head)
        header = 8
        if length == 1 and len(head) == 16:
            (length,), header = struct.unpack_from(">Q", head, 8), 16
        elif length == 0:
            length = size - position
        if length < header:
            return
        yield name, position + header, position + length
        position += length


def _children(data: bytes, *path: bytes) -> list[bytes]:
    """Content of every box that lies at `path` inside `data`."""
    found: list[bytes] = []
    position = 0
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if length < 8:
            break
        if name == path[0]:
            content = data[position + 8 : position + length]
            found += [content] if len(path) == 1 else _children(content, *path[1:])
        position += length
    return found


def _handler(track: bytes) -> bytes:
    boxes = _children(track, b"mdia", b"hdlr")
    return boxes[0][8:12] if boxes else b""


def _shown_frames(track: bytes, moov: bytes) -> int | None:
    """Samples of a track, if its edit list shows all of them; None where it leaves some out."""
    sizes = _children(track, *_TABLES, b"stsz") or _children(track, *_TABLES, b"stz2")
    if len(sizes) != 1 or len(sizes[0]) < 12:
        return None
    count = int.from_bytes(sizes[0][8:12], "big")
    edits = _children(track, b"edts", b"elst")
    if not count or (edits and not _shows_everything(edits[0], track, moov)):
        return None
    return count


def _shows_everything(edits: bytes, track: bytes, moov: bytes) -> bool:
    ticks, movie_ticks = _ticks_per_second(track, b"mdia", b"mdhd"), _ticks_per_second(moov, b"mvhd")
    durations = _pairs(track, b"stts")
    if not (ticks and movie_ticks and durations):
        return False
    # An entry with media time -1 is a pause before the video begins.
    parts = [(duration, start) for duration, start in _edit_entries(edits) if start >= 0]
    composition = _pairs(track, b"ctts")
    last_frame_start = sum(count * delta for count, delta in durations) - durations[-1][1]
    return (
        len(parts) == 1
        and parts[0][1] <= (composition[0][1] if composition else 0)
        and parts[0][0] / movie_ticks > last_frame_start / ticks
    )


def _edit_entries(edits: bytes) -> list[tuple[int, int]]:
    form = struct.Struct(">Qqi" if edits[:1] == b"\1" else ">Iii")
    count = min(int.from_bytes(edits[4:8], "big"), (len(edits) - 8) // form.size)
    return [form.unpack_from(edits, 8 + i * form.size)[:2] for i in range(count)]


def _pairs(track: bytes, name: bytes) -> list[tuple[int, int]]:
    """(number of samples, value) entries of a run-length table."""
    boxes = _children(track, *_TABLES, name)
    return list(struct.iter_unpack(">II", boxes[0][8 : len(boxes[0]) // 8 * 8])) if len(boxes) == 1 else []


def _ticks_per_second(data: bytes, *path: bytes) -> int:
    boxes = _children(data, *path)
    if len(boxes) != 1:
        return 0
    start = 20 if boxes[0][:1] == b"\1" else 12
    return int.from_bytes(boxes[0][start : start + 4], "big")
