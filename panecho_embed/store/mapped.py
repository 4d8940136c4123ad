"""The embeddings of a file where they lie: rows straight from a map of it, without HDF5 in between.

A chunk that has passed no filter but Fletcher-32 lies in the file as it is in memory, row after row, its checksum in
the 4 bytes behind it (HDF5 File Format Specification 3.0, IV.A.2.l). Where each chunk is, HDF5 tells; whether its bytes
are those that were written, the checksum does, the first time that one of its rows is asked for.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from panecho_embed.errors import StoreError
from panecho_embed.records import FloatArray

Ints = npt.NDArray[np.int64]
Gather = Callable[[Ints], FloatArray]
"""Numbers of rows (n,), each from 0 to below N, to copies of the rows, (n, D)."""
Read = Callable[[int, int], FloatArray]
"""`start` and `stop` to copies of the rows from the one to below the other, 0 <= start <= stop <= N."""

_FILTERS = frozenset({h5py.h5z.FILTER_FLETCHER32})
_BLOCK_ROWS = 16_384
# So few that a core's own cache holds them; as rows of 256.
_SUMMED_WORDS = 65_536
_ONES = np.ones(256, dtype=np.float32)
# How often the first word of a row is part of the running sum, and how much less often the others of the row are.
_LEFT_OF_ROW = np.arange(_SUMMED_WORDS, 0, -256, dtype=np.float64)
_PLACE_IN_ROW = np.arange(256, dtype=np.float64)


class RowsOnDisk:
    """Embeddings that stay on the disk, (N, D): `rows[5]`, `rows[10:20]`, `rows[[7, 3]]` and `rows[mask]` are copies.

    shape, dtype: as those of an array. `np.asarray` reads everything. mapped: whether rows come from a map of the file;
    else HDF5 reads them, because they are packed, or lie in the file in another way.

    Threads may share it. Rows whose checksum, if they have one, is not theirs raise StoreError. Whoever cuts a file
    short ends the processes that have it mapped (SIGBUS). No command here does: files are replaced as a whole, and a
    map is of the file that was there when it was made.
    """

    def __init__(
        self, shape: tuple[int, int], dtype: np.dtype[Any], read: Read, gather: Gather, *, mapped: bool
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.mapped = mapped
        self._read = read
        self._gather = gather

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | npt.ArrayLike) -> FloatArray:
        """(D,) for a number, (n, D) for a slice, numbers (n,) or a mask (N,). Raises IndexError as an array does."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._read(start, max(start, stop)) if step == 1 else self._gather(np.arange(start, stop, step))
        picked = np.asarray(rows)
        if picked.dtype == np.bool_:
            if picked.shape != (len(self),):
                raise IndexError(f"a mask of shape {picked.shape}; there are {len(self)} rows")
            return self._gather(np.flatnonzero(picked))
        if picked.size and picked.dtype.kind not in "iu":
            raise IndexError(f"rows are picked by whole numbers, slices or masks, not by {picked.dtype}")
        numbers = picked.astype(np.int64).reshape(-1)
        if len(numbers) and not (numbers.min() >= -len(self) and numbers.max() < len(self)):
            raise IndexError(f"rows {numbers.min()} to {numbers.max()}; there are {len(self)}")
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if len(numbers) > 1 and (np.diff(numbers) == 1).all():
            # Neighbours are copied by the chunk, others by the row.
            found = self._read(int(numbers[0]), int(numbers[-1]) + 1)
        else:
            found = self._gather(numbers)
        return found.reshape(*picked.shape, self.shape[1])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> FloatArray:
        if copy is False:
            raise ValueError("rows on the disk are no array without being copied")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def not_finite(self) -> Ints:
        """Numbers of the rows with NaN or infinite values, ascending."""
        starts = range(0, len(self), _BLOCK_ROWS)
        bad = [start + np.flatnonzero(~np.isfinite(self[start : start + _BLOCK_ROWS]).all(axis=1)) for start in starts]
        return np.concatenate([np.zeros(0, np.int64), *bad])


def rows_on_disk(dataset: h5py.Dataset, read: Read) -> RowsOnDisk:
    """The rows of a data set (N, D), from a map of its file if they lie in it as they are, else by `read`.

    Raises ValueError if they are said to lie beyond the end of the file.
    """
    shape, dtype = dataset.shape, dataset.dtype
    found = _places(dataset)
    if found is None:
        return RowsOnDisk(shape, dtype, read, gather_by_reading(read, shape, dtype), mapped=False)
    chunks = _Chunks(dataset, *found)
    return RowsOnDisk(shape, dtype, chunks.read, chunks.gather, mapped=True)


class _Chunks:
    """A map of the file of a data set, the byte at which each of its chunks begins, and the rows of one."""

    def __init__(self, dataset: h5py.Dataset, places: Ints, rows_per_chunk: int) -> None:
        self._dim, self._dtype = dataset.shape[1], dataset.dtype
        self._places, self._rows_per_chunk = places, rows_per_chunk
        self._row_bytes = self._dim * self._dtype.itemsize
        # Of the descriptor that HDF5 reads from: what has taken the file's place meanwhile is another file.
        data = mmap.mmap(dataset.file.id.get_vfd_handle(), 0, access=mmap.ACCESS_READ)
        # The last chunk is as long as the others; in one piece, there is one.
        self._chunk_bytes = rows_per_chunk * self._row_bytes
        self._passed = np.full(len(places), not dataset.fletcher32)
        room = len(data) - self._chunk_bytes - (4 if dataset.fletcher32 else 0)
        if places.min() < 0 or places.max() > room:
            raise ValueError(f"its rows go to byte {int(places.max()) + self._chunk_bytes}, and it has {len(data)}")
        self._path = dataset.file.filename
        self._bytes = np.frombuffer(data, np.uint8)

    def read(self, start: int, stop: int) -> FloatArray:
        """See `Read`; chunk by chunk."""
        self._check(np.arange(start // self._rows_per_chunk, -(-stop // self._rows_per_chunk)))
        found = np.empty((stop - start, self._dim), self._dtype)
        target, per_chunk = found.view(np.uint8).reshape(-1), self._rows_per_chunk
        for chunk in range(start // per_chunk, -(-stop // per_chunk)):
            first, last = max(start, chunk * per_chunk), min(stop, (chunk + 1) * per_chunk)
            place = int(self._places[chunk]) + (first - chunk * per_chunk) * self._row_bytes
            count = (last - first) * self._row_bytes
            into = (first - start) * self._row_bytes
            target[into : into + count] = self._bytes[place : place + count]
        return found

    def gather(self, rows: Ints) -> FloatArray:
        """See `Gather`."""
        chunk, within = np.divmod(rows, self._rows_per_chunk)
        self._check(np.unique(chunk))
        # A row is one item, which may begin at any byte.
        count = len(self._bytes) - self._row_bytes + 1
        everywhere = np.ndarray(count, f"V{self._row_bytes}", buffer=self._bytes, strides=(1,))
        found: FloatArray = everywhere[self._places[chunk] + within * self._row_bytes].view(self._dtype)
        return found.reshape(len(rows), self._dim)

    def _check(self, chunks: Ints) -> None:
        """Compare chunks that no row was asked of before with their checksums. Raises StoreError."""
        for chunk in chunks[~self._passed[chunks]].tolist():
            place, end = int(self._places[chunk]), int(self._places[chunk]) + self._chunk_bytes
            stored = int.from_bytes(self._bytes[end : end + 4].tobytes(), "little")
            sums = fletcher32(self._bytes[place:end])
            if sums != (stored % 2**16 % 65_535, (stored >> 16) % 65_535):
                first = chunk * self._rows_per_chunk
                raise StoreError(
                    f"{self._path} is damaged: rows {first} to {first + self._rows_per_chunk - 1} do not match their "
                    "checksum"
                )
            self._passed[chunk] = True


def fletcher32(data: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Both sums of the checksum that HDF5 keeps (H5checksum.c), modulo 65,535, of an even number of bytes.

    HDF5 adds 16-bit words, the first byte the higher. Modulo 65,535 swapping the bytes of a word multiplies it by 256:
    the words are added as they lie here, and the sums swapped.
    """
    words = data.view("<u2")
    plain = running = 0
    for start in range(0, len(words), _SUMMED_WORDS):
        some = words[start : start + _SUMMED_WORDS]
        if len(some) < _SUMMED_WORDS:
            # Zeros in front are no part of either sum but for the sum so far.
            running -= plain * (_SUMMED_WORDS - len(some))
            some = np.concatenate([np.zeros(_SUMMED_WORDS - len(some), words.dtype), some])
        # As products of float32, the fastest there are; up to 256 words add up to less than 2^24, exactly.
        table = some.reshape(-1, 32, 256).astype(np.float32)
        rows = (table @ _ONES).astype(np.float64).reshape(-1)
        columns = (_ONES[:32] @ table).astype(np.float64)
        running += _SUMMED_WORDS * plain + int(_LEFT_OF_ROW @ rows) - int((columns @ _PLACE_IN_ROW).sum())
        plain += int(rows.sum())
    return 256 * plain % 65_535, 256 * running % 65_535


def gather_by_reading(read: Read, shape: tuple[int, int], dtype: np.dtype[Any]) -> Gather:
    """What copies rows in any order by `read`, neighbours together."""

    def gather(rows: Ints) -> FloatArray:
        found = np.empty((len(rows), shape[1]), dtype)
        order = np.argsort(rows, kind="stable")
        for run in np.split(order, np.flatnonzero(np.diff(rows[order]) > 1) + 1):
            if len(run):
                first, last = rows[run[0]], rows[run[-1]]
                found[run] = read(int(first), int(last) + 1)[rows[run] - first]
        return found

    return gather


def _places(dataset: h5py.Dataset) -> tuple[Ints, int] | None:
    """The byte at which each chunk begins, in order, and the rows of one; None where rows can't be read there."""
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - _FILTERS or dataset.file.userblock_size or not len(dataset):
        return None
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return None if offset is None else (np.array([offset], dtype=np.int64), len(dataset))
    rows_per_chunk, dim = dataset.chunks
    if dim != dataset.shape[1]:
        return None
    places = np.full(-(-len(dataset) // rows_per_chunk), -1, dtype=np.int64)
    size = rows_per_chunk * dim * dataset.dtype.itemsize + (4 if dataset.fletcher32 else 0)

    def note(chunk: Any) -> None:
        number = chunk.chunk_offset[0] // rows_per_chunk
        # One that was stored without its checksum is read by HDF5, and the others with it.
        if number < len(places) and chunk.byte_offset is not None and chunk.size == size and not chunk.filter_mask:
            places[number] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    # Chunks that were never written are no bytes of the file, but zeros.
    return None if (places == -1).any() else (places, rows_per_chunk)
