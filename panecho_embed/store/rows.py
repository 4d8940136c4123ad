"""The embeddings of a file where they lie: rows are read when they are asked for, each block checked the first time."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from panecho_embed.core.arraytypes import DAMAGED_HEADER, FloatArray, Ints
from panecho_embed.store.contents import OpenedFile, SealedFile, as_bytes, checksum, items_per_block

_BLOCK_ROWS = 16_384
_MOST_HEADER_BYTES = 4096
# Rows that nobody asked for are cheaper to read along than another call is.
_NEAR = 8
# Up to this many, looking for neighbours among them takes longer than it saves.
_FEW = 1024


class RowsOnDisk:
    """Vectors that stay on the disk, (N, D): `rows[5]`, `rows[10:20]`, `rows[[7, 3]]` and `rows[mask]` are copies.

    shape, dtype: as those of an array. fill: copies the rows from a number on into an array of them (1 or more, D).
    gather: copies the rows of some numbers (n,) into an array (n, D), where that is quicker than many a `fill`.
    `np.asarray` reads everything. Threads may share it. A file that was cut meanwhile raises StoreError.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        fill: Callable[[FloatArray, int], None],
        gather: Callable[[FloatArray, Ints], None] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self._fill = fill
        self._fill_each = gather

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | npt.ArrayLike) -> FloatArray:
        """(D,) for a number, (n, D) for a slice, numbers (n,) or a mask (N,). Raises IndexError as an array does."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self.read(start, max(start, stop)) if step == 1 else self._gather(np.arange(start, stop, step))
        if isinstance(rows, int | np.integer) and -len(self) <= rows < len(self):
            row = int(rows) % len(self)
            found = self.read(row, row + 1)
            return found.reshape(self.shape[1])
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
        found = self._gather(np.where(numbers < 0, numbers + len(self), numbers))
        return found.reshape(*picked.shape, self.shape[1])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> FloatArray:
        if copy is False:
            raise ValueError("rows on the disk are no array without being copied")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def read(self, start: int, stop: int) -> FloatArray:
        """Rows from `start` to below `stop`, (stop - start, D), 0 <= start <= stop <= N."""
        found: FloatArray = np.empty((stop - start, self.shape[1]), self.dtype)
        if start < stop:
            self._fill(found, start)
        return found

    def not_finite(self) -> Ints:
        """Numbers of the rows with NaN or infinite values, ascending."""
        starts = range(0, len(self), _BLOCK_ROWS)
        bad = [start + np.flatnonzero(~np.isfinite(self[start : start + _BLOCK_ROWS]).all(axis=1)) for start in starts]
        return np.concatenate([np.zeros(0, np.int64), *bad])

    def _gather(self, rows: Ints) -> FloatArray:
        """Copies of rows in any order, (n, D); those that lie close to each other are read together."""
        found: FloatArray = np.empty((len(rows), self.shape[1]), self.dtype)
        if self._fill_each is not None and len(rows) <= _FEW:
            self._fill_each(found, rows)
            return found
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        ends = [0, *(np.flatnonzero(np.diff(ordered) > _NEAR) + 1).tolist(), len(rows)]
        for start, stop in pairwise(ends):
            if stop == start + 1:
                self._fill(found[order[start] : order[start] + 1], int(ordered[start]))
            elif stop > start:
                near = self.read(int(ordered[start]), int(ordered[stop - 1]) + 1)
                found[order[start:stop]] = near[ordered[start:stop] - ordered[start]]
        return found


def npy_rows(path: Path, remedy: str = "") -> RowsOnDisk:
    """The vectors of a .npy file, (N, D) float32, where they lie; nothing is compared with a checksum.

    The file stays open while they are in use. remedy: see `OpenedFile`. Raises StoreError for anything else.
    """
    file = OpenedFile(path, remedy)
    head = np.empty(min(file.size(), _MOST_HEADER_BYTES), np.uint8)
    file.read(head, 0)
    stream = io.BytesIO(head.tobytes())
    try:
        if npy_format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0 of the format")
        shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
    except DAMAGED_HEADER as error:
        raise file.damaged(f"its header is none of a .npy file ({error})") from error
    at = stream.tell()
    if len(shape) != 2 or fortran or dtype != np.float32 or at + 4 * shape[0] * shape[1] != file.size():
        raise file.damaged(f"it holds {dtype} of shape {shape}, in {file.size()} bytes")
    width = 4 * shape[1]
    return RowsOnDisk(
        (shape[0], shape[1]),
        dtype,
        lambda found, start: file.read(found, at + width * start),
        lambda found, rows: file.read_rows(found, (at + width * rows).tolist()),
    )


class CheckedBlocks:
    """The embeddings of an embedding file, block by block.

    A block that does not match its checksum raises StoreError, which names its rows; so does a file that was cut.
    """

    def __init__(self, file: SealedFile) -> None:
        place = file.contents.places["embeddings"]
        self._file, self._at, self._dtype = file, place.at, place.dtype
        self._rows, self._dim = place.shape
        self._row_bytes = self._dim * self._dtype.itemsize
        self._per_block = items_per_block(self._row_bytes)
        self._checksums = file.column("checksums")
        if len(self._checksums) != -(-self._rows // self._per_block):
            raise file.damaged(f"/checksums has {len(self._checksums)} entries for {self._rows} rows")
        self._passed = np.zeros(len(self._checksums), dtype=np.bool_)

    def fill(self, found: FloatArray, start: int) -> None:
        """Copy the rows from `start` on into `found`, (1 or more, D)."""
        first, last = start // self._per_block, (start + len(found) - 1) // self._per_block
        if self._passed[first] if first == last else self._passed[first : last + 1].all():
            self._file.read(found, self._at + start * self._row_bytes)
            return
        for block in range(first, last + 1):
            self._read_block(block, found, start)

    def _read_block(self, block: int, found: FloatArray, start: int) -> None:
        """Copy the rows of a block that belong into `found`, which begins with row `start`."""
        first, end = block * self._per_block, min((block + 1) * self._per_block, self._rows)
        low, high = max(first, start), min(end, start + len(found))
        into = found[low - start : high - start]
        if self._passed[block] or (low, high) == (first, end):
            self._file.read(into, self._at + low * self._row_bytes)
            self._check(block, into)
            return
        # All of it, to check it.
        whole = np.empty((end - first, self._dim), self._dtype)
        self._file.read(whole, self._at + first * self._row_bytes)
        self._check(block, whole)
        into[...] = whole[low - first : high - first]

    def _check(self, block: int, rows: FloatArray) -> None:
        if self._passed[block]:
            return
        if checksum(as_bytes(rows)) != self._checksums[block]:
            first = block * self._per_block
            raise self._file.damaged(f"rows {first} to {first + len(rows) - 1} do not match their checksum")
        self._passed[block] = True
