"""The embeddings of a file where they lie: rows are read when they are asked for, each block checked the first time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray, Ints
from panecho_embed.store.checksums import as_bytes, checksum, items_per_block
from panecho_embed.store.contents import SealedFile

_BLOCK_ROWS = 16_384
# Rows that nobody asked for are cheaper to read along than another call is.
_NEAR = 8


class RowsOnDisk:
    """Embeddings that stay on the disk, (N, D): `rows[5]`, `rows[10:20]`, `rows[[7, 3]]` and `rows[mask]` are copies.

    shape, dtype: as those of an array. `np.asarray` reads everything. Threads may share it. A block that does not match
    its checksum raises StoreError, which names its rows; so does a file that was cut.
    """

    def __init__(self, file: SealedFile) -> None:
        place = file.contents.places["embeddings"]
        self.shape = (place.shape[0], place.shape[1])
        self.dtype = place.dtype
        self._file, self._at = file, place.at
        self._row_bytes = self.shape[1] * self.dtype.itemsize
        self._per_block = items_per_block(self._row_bytes)
        self._checksums = file.column("checksums")
        if len(self._checksums) != -(-len(self) // self._per_block):
            raise file.damaged(f"/checksums has {len(self._checksums)} entries for {len(self)} rows")
        self._passed = np.zeros(len(self._checksums), dtype=np.bool_)

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

    def _fill(self, found: FloatArray, start: int) -> None:
        """Copy the rows from `start` on into `found`, (1 or more, D)."""
        first, last = start // self._per_block, (start + len(found) - 1) // self._per_block
        if self._passed[first] if first == last else self._passed[first : last + 1].all():
            self._file.read(found, self._at + start * self._row_bytes)
            return
        for block in range(first, last + 1):
            self._read_block(block, found, start)

    def _read_block(self, block: int, found: FloatArray, start: int) -> None:
        """Copy the rows of a block that belong into `found`, which begins with row `start`."""
        first, end = block * self._per_block, min((block + 1) * self._per_block, len(self))
        low, high = max(first, start), min(end, start + len(found))
        into = found[low - start : high - start]
        if self._passed[block] or (low, high) == (first, end):
            self._file.read(into, self._at + low * self._row_bytes)
            self._check(block, into)
            return
        # All of it, to check it.
        whole = np.empty((end - first, self.shape[1]), self.dtype)
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

    def _gather(self, rows: Ints) -> FloatArray:
        """Copies of rows in any order, (n, D); those that lie close to each other are read together."""
        found: FloatArray = np.empty((len(rows), self.shape[1]), self.dtype)
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
