"""The end of an embedding file: what lies where in it, and the checksums of all that lies before.

An embedding file is an HDF5 file whose data sets are each in one piece, with a table behind it that HDF5 does not look
at: for every data set its place, type, shape and checksum; one checksum of the headers, which is all other bytes; and a
tail that covers the table. So a file is known to be whole before anything in it is believed, and reading it is reading
bytes at places.
"""

from __future__ import annotations

import json
import math
import os
import struct
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import EarlierReleaseError, StoreError

_BLOCK_BYTES = 2 * 1024 * 1024
"""Most bytes that one checksum covers, unless a single item is larger."""

# A prime: no sector, page or row that is found elsewhere adds to the same sums there.
_SUMS = 1021
_MAGIC = b"PEEMBED2"
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Magic, bytes before the table, bytes of the table, CRC-32 of the table, CRC-32 of the tail so far.
_TAIL = struct.Struct("<8sQQII")
_STEP = 1 << 20
_MOST_ITEM_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set lies: its first byte, its type ("<f4", "|S17", ...), its shape, and its checksum."""

    at: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    checksum: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Contents:
    """What an embedding file holds.

    attributes: those of the HDF5 root. places: of every data set, by its path without the first "/". size: bytes before
    the table. headers: checksum of the bytes before the table that belong to no data set.
    """

    attributes: Mapping[str, str | int]
    places: Mapping[str, Place]
    size: int
    headers: int

    def to_bytes(self) -> bytes:
        """The table and the tail behind it."""
        places = {name: [p.at, p.dtype.str, list(p.shape), p.checksum] for name, p in self.places.items()}
        record = {"attributes": dict(self.attributes), "headers": self.headers, "places": places}
        return with_tail(json.dumps(record).encode(), self.size)

    def gaps(self) -> Iterator[tuple[int, int]]:
        """The bytes that belong to no data set, as (first, behind the last). Raises ValueError where data overlap."""
        end = 0
        for place in sorted(self.places.values(), key=lambda place: (place.at, place.nbytes)):
            if not place.nbytes:
                continue
            if place.at < end:
                raise ValueError("two of its data sets overlap")
            yield end, place.at
            end = place.at + place.nbytes
        if end > self.size:
            raise ValueError("a data set reaches beyond its end")
        yield end, self.size


def with_tail(table: bytes, size: int) -> bytes:
    """A table of contents and the tail that covers it. size: bytes before the table."""
    tail = _TAIL.pack(_MAGIC, size, len(table), zlib.crc32(table), 0)[:-4]
    return table + tail + struct.pack("<I", zlib.crc32(tail))


class OpenedFile:
    """A file whose bytes are read when they are asked for.

    It stays open until this object is closed or gone, so that a file that takes its place meanwhile is never mixed with
    it. Bytes are read, never mapped: a file that is cut while it is in use is an error, where a map would end the
    process (SIGBUS). Threads may share it. Raises StoreError, which names the file. remedy: what to do then, for the
    message.
    """

    def __init__(self, path: Path, remedy: str = "") -> None:
        self.path = path
        self._remedy = remedy and f"; {remedy}"
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise StoreError(f"{path}: can't be opened: {error.strerror or error}{self._remedy}") from error
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def damaged(self, what: str) -> StoreError:
        """The error for damage; what: what is hit."""
        return StoreError(f"{self.path} is damaged: {what}{self._remedy}")

    def size(self) -> int:
        """Bytes that the file has now."""
        return os.fstat(self._descriptor).st_size

    def read(self, into: npt.NDArray[Any], at: int) -> None:
        """Fill a contiguous array with the bytes from `at` on. Raises StoreError if the file ends before."""
        if not self.close.alive:
            # Its number may be another file's by now.
            raise StoreError(f"{self.path} was closed")
        view, done = as_bytes(into).data, 0
        while done < len(view):
            try:
                count = self._read_some(view[done : done + (1 << 30)], at + done)
            except OSError as error:
                raise StoreError(f"{self.path} can't be read: {error.strerror or error}{self._remedy}") from error
            if not count:
                raise self.damaged(f"it ends at byte {at + done}, within its data")
            done += count

    def read_rows(self, into: npt.NDArray[Any], places: Sequence[int]) -> None:
        """Fill each row of a contiguous array with the bytes from one of the places on. Raises as `read`."""
        if not self.close.alive:
            raise StoreError(f"{self.path} was closed")
        view, size = as_bytes(into).data, into.nbytes // max(len(places), 1)
        for row, at in enumerate(places):
            # One call a row, and nothing around it: thousands a second are asked for.
            try:
                count = self._read_some(view[row * size : (row + 1) * size], at)
            except OSError as error:
                raise StoreError(f"{self.path} can't be read: {error.strerror or error}{self._remedy}") from error
            if count < size:
                self.read(into[row : row + 1], at)

    def _read_some(self, view: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [view], at)
        # Windows. Whoever shares a file between threads there has to lock it.
        os.lseek(self._descriptor, at, os.SEEK_SET)
        data = os.read(self._descriptor, len(view))
        view[: len(data)] = data
        return len(data)


class SealedFile(OpenedFile):
    """An embedding file, opened; everything but the embeddings has been compared with its checksum.

    Raises StoreError, which names the file and what is hit; EarlierReleaseError for an earlier format.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.contents = self._contents()
            for name in self.contents.places:
                if name != "embeddings":
                    self.column(name)
        except BaseException:
            self.close()
            raise

    def column(self, name: str) -> npt.NDArray[Any]:
        """A data set, compared with its checksum: (n,); texts as bytes of fixed length."""
        place = self.contents.places[name]
        values = np.empty(place.shape, place.dtype)
        self.read(values, place.at)
        if combined(checksums(values)) != place.checksum:
            raise self.damaged(f"/{name} does not match its checksum")
        return values

    def _contents(self) -> Contents:
        size = self.size()
        tail = np.empty(_TAIL.size, np.uint8)
        if size < len(tail):
            raise self.damaged("it is cut") if size else StoreError(f"{self.path} is empty")
        self.read(tail, size - len(tail))
        magic, body, length, table_crc, tail_crc = _TAIL.unpack(tail.data)
        if magic != _MAGIC:
            raise self._unsealed(size)
        if zlib.crc32(tail[:-4].data) != tail_crc or body + length + len(tail) != size:
            raise self.damaged("its last bytes do not match their checksum, or are of another file")
        table = np.empty(length, np.uint8)
        self.read(table, body)
        if zlib.crc32(table.data) != table_crc:
            raise self.damaged("its table of contents does not match its checksum")
        try:
            contents = _parsed(table.tobytes(), body)
            headers = self.checksum_of_headers(contents)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise StoreError(f"{self.path} is no embedding file: its table of contents is none ({error})") from error
        if headers != contents.headers:
            raise self.damaged("its HDF5 headers do not match their checksum")
        return contents

    def checksum_of_headers(self, contents: Contents) -> int:
        """CRC-32 of all bytes before the table that belong to no data set."""
        crc = 0
        for first, end in list(contents.gaps()):
            for start in range(first, end, _STEP):
                piece = np.empty(min(_STEP, end - start), np.uint8)
                self.read(piece, start)
                crc = zlib.crc32(piece.data, crc)
        return crc

    def _unsealed(self, size: int) -> StoreError:
        """What to say of a file without our tail."""
        head, end = np.empty(min(size, _STEP), np.uint8), np.empty(min(size, _STEP), np.uint8)
        self.read(head, 0)
        self.read(end, size - len(end))
        if not head.tobytes().startswith(_HDF5):
            return StoreError(f"{self.path} is no embedding file: it does not begin as HDF5 does")
        if any(b"tables_sha256" in data.tobytes() for data in (head, end)):
            return EarlierReleaseError(
                f"{self.path} was written by an earlier release, in a format that is not read any more; extract again"
            )
        return StoreError(
            f"{self.path} is damaged or no embedding file: it does not end with its checksums, so it was cut or "
            "changed by another program"
        )


def begins_as_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    with path.open("rb") as stream:
        return stream.read(len(_HDF5)) == _HDF5


def _parsed(table: bytes, size: int) -> Contents:
    """A table of contents; whoever wrote it, nothing in it points outside its file."""
    record = json.loads(table)
    places = {}
    for name, (at, dtype, shape, crc) in record["places"].items():
        place = Place(at, np.dtype(str(dtype)), tuple(shape), crc)
        numbers = (at, crc, *shape)
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in numbers):
            raise ValueError(f"/{name} lies at no place")
        if place.dtype.kind not in "iufbS":
            raise ValueError(f"/{name} holds {dtype}")
        if not 1 <= len(shape) <= 2 or not 0 < math.prod(shape[1:]) * place.dtype.itemsize <= _MOST_ITEM_BYTES:
            raise ValueError(f"/{name} has shape {shape}")
        if place.at + place.nbytes > size:
            raise ValueError(f"/{name} of shape {shape} reaches beyond its end")
        places[name] = place
    attributes = record["attributes"]
    if not all(isinstance(value, str | int) for value in attributes.values()):
        raise ValueError("its attributes are none")
    return Contents(attributes, places, size, int(record["headers"]))


def items_per_block(item_bytes: int) -> int:
    """How many items of a column, or rows of embeddings, share a checksum: whole ones, 2 MiB of them or fewer."""
    return max(1, _BLOCK_BYTES // max(item_bytes, 1))


def checksum(block: UInt8Array) -> int:
    """CRC-32 of the sums of a block of bytes.

    The bytes, filled up with zeros, are 64-bit words; word i is added to sum i modulo 1,021, and the sums (modulo 2^64)
    and the number of bytes go through CRC-32. Any change within one word changes a sum, and so does what is moved;
    numpy adds many times faster than `zlib.crc32` reads.

    Parameters
    ----------
    block : array of uint8, shape (n,), contiguous

    Returns
    -------
    int
        0 to 2^32 - 1.
    """
    count = len(block)
    if short := -count % 8:
        block = np.concatenate([block, np.zeros(short, np.uint8)])
    words = block.view("<u8")
    whole = len(words) - len(words) % _SUMS
    sums = words[:whole].reshape(-1, _SUMS).sum(axis=0, dtype="<u8")
    sums[: len(words) - whole] += words[whole:]
    return zlib.crc32(count.to_bytes(8, "little"), zlib.crc32(sums.data))


def checksums(values: npt.NDArray[np.generic]) -> list[int]:
    """The checksum of each block of a column (n,) or of rows (n, D), contiguous."""
    step = items_per_block(values.itemsize * int(np.prod(values.shape[1:])))
    return [checksum(as_bytes(values[start : start + step])) for start in range(0, len(values), step)]


def combined(several: Iterable[int]) -> int:
    """One checksum of the checksums of a column's blocks."""
    return zlib.crc32(np.fromiter(several, "<u4").data)


def as_bytes(values: npt.NDArray[np.generic]) -> UInt8Array:
    """The memory of a contiguous array, as bytes that can be written to."""
    return values.reshape(-1).view(np.uint8)
