"""Write an embedding file so that it appears at its path only when it is whole."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import explain_os_error, flush, sweep, temporary_path
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure, Manifest, VideoFacts
from panecho_embed.store.contents import Contents, Place, as_bytes, checksum, checksums, combined, items_per_block
from panecho_embed.store.layout import (
    ENCODER_PATIENTS,
    FAILURE_COLUMNS,
    FORMAT,
    ID_COLUMNS,
    LABEL_UNITS,
    ROW_TYPES,
    SCHEMA_VERSION,
    encode_column,
    fact_columns,
    label_key,
)
from panecho_embed.store.read import EmbeddingFile

_PAGE = 4096
_STEP = 1 << 20


class EmbeddingWriter:
    """Writes one embedding file; use it in a `with` block and call `finish` last.

    Embeddings go to a temporary file beside `path` as they come, the other columns stay in memory. `finish` adds them
    and the headers, flushes to the disk, opens and checks the result and moves it to `path` in one step. Leaving the
    block without `finish` leaves nothing behind.

    path : Path
        Where the file appears.
    provenance : Provenance
        How the rows were made; numbers are stored in its dtype.
    scratch : Path, optional
        Folder for the temporary file, on the same file system; default: the one that `path` is in.
    """

    def __init__(self, path: str | Path, provenance: Provenance, scratch: Path | None = None) -> None:
        self.path = Path(path)
        self.provenance = provenance
        self.rows = 0
        self._scratch = scratch
        self._dtype = np.dtype(provenance.dtype).newbyteorder("<")
        self._columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ROW_TYPES}
        row_bytes = provenance.dim * self._dtype.itemsize
        self._block = np.empty((items_per_block(row_bytes), provenance.dim), self._dtype)
        self._in_block = 0
        self._checksums: list[int] = []

    def __enter__(self) -> Self:
        folder = self._scratch or self.path.parent
        self._temporary = temporary_path(folder / self.path.name)
        try:
            sweep(folder)
            self._descriptor = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise self._storage_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def add(
        self,
        video: int | npt.NDArray[np.integer[Any]],
        values: FloatArray,
        first_frame: npt.NDArray[np.integer[Any]],
        frame_step: float | FloatArray,
        frames_per_clip: int | npt.NDArray[np.integer[Any]],
        **others: npt.NDArray[Any],
    ) -> None:
        """Append rows.

        video: (N,) or one number, position in the manifest given to `finish`. values: (N, D). first_frame: (N,).
        frame_step, frames_per_clip: (N,) or one value for all. others: further columns of /rows, (N,) each, the same in
        every call. Raises StoreError when the disk is full.
        """
        count = len(values)
        if values.shape != (count, self.provenance.dim):
            raise ArgumentError(f"values have shape {values.shape}; they must be (N, {self.provenance.dim})")
        columns = {
            "video": video,
            "first_frame": first_frame,
            "frame_step": frame_step,
            "frames_per_clip": frames_per_clip,
        }
        for name, column in columns.items():
            self._columns[name].append(np.full(count, column, ROW_TYPES[name]))
        for name, column in others.items():
            self._columns.setdefault(name, []).append(encode_column(f"rows/{name}", column))
        done = 0
        while done < count:
            some = min(count - done, len(self._block) - self._in_block)
            self._block[self._in_block : self._in_block + some] = values[done : done + some]
            self._in_block, done = self._in_block + some, done + some
            if self._in_block == len(self._block):
                self._flush()

    def finish(
        self,
        manifest: Manifest,
        facts: Sequence[VideoFacts] | Mapping[str, npt.NDArray[Any]],
        failures: Sequence[Failure],
        engine: str | None = None,
    ) -> Path:
        """Write the tables and move the whole file into place.

        Parameters
        ----------
        manifest
            The videos, in order, and their labels.
        facts
            One per video; or columns of /videos, (M,) each: those of `fact_columns`, and any others.
        failures
            Of the videos that gave no row.
        engine
            Of the provenance, if it showed only on the way.

        Returns
        -------
        Path
            That of the file; `written` is the file itself, as it was opened and checked.
        """
        if engine is not None:
            self.provenance = replace(self.provenance, engine=engine)
        columns = facts if isinstance(facts, Mapping) else fact_columns(facts)
        if bad := [name for name, column in columns.items() if len(column) != len(manifest)]:
            raise ArgumentError(f"{len(columns[bad[0]])} facts for {len(manifest)} videos")
        try:
            self._flush()
            self._write_rest(self._tables(manifest, columns, failures))
            os.fsync(self._descriptor)
            self.written = EmbeddingFile(self._temporary)
            if len(self.written) != self.rows:
                raise StoreError(f"{self._temporary}: {len(self.written)} rows on the disk, {self.rows} were written")
            self._temporary.replace(self.path)
            flush(self.path.parent)
        except OSError as error:
            raise self._storage_error(error) from error
        self.written.moved_to(self.path)
        return self.path

    def _flush(self) -> None:
        """Write the block that is being filled."""
        if not self._in_block:
            return
        rows = self._block[: self._in_block]
        self._checksums.append(checksum(as_bytes(rows)))
        try:
            self._write(rows, place_of_rows() + self.rows * rows[0].nbytes)
        except OSError as error:
            raise self._storage_error(error) from error
        self.rows, self._in_block = self.rows + self._in_block, 0

    def _tables(
        self, manifest: Manifest, facts: Mapping[str, npt.NDArray[Any]], failures: Sequence[Failure]
    ) -> dict[str, npt.NDArray[Any]]:
        """Every data set but the embeddings, by its path, as it is stored."""
        tables: dict[str, Any] = {"checksums": np.array(self._checksums, dtype=np.uint32)}
        for name, pieces in self._columns.items():
            tables[f"rows/{name}"] = np.concatenate(pieces) if pieces else np.zeros(0, ROW_TYPES[name])
        tables |= {f"videos/{name}": [getattr(video, name) for video in manifest.videos] for name in ID_COLUMNS}
        tables |= {f"videos/{name}": column for name, column in facts.items()}
        tables |= {f"labels/{label_key(name)}": column for name, column in manifest.labels.items()}
        for name in FAILURE_COLUMNS:
            # What a decoder says of a damaged file can quote any of its bytes.
            tables[f"failures/{name}"] = [str(getattr(f, name)).replace("\0", "\ufffd") for f in failures]
        if self.provenance.patients.known:
            tables[ENCODER_PATIENTS] = [json.dumps(self.provenance.patients.record())]
        if units := {name: manifest.units[name] for name in manifest.labels if manifest.units.get(name)}:
            tables[LABEL_UNITS] = [json.dumps(units)]
        return {name: encode_column(name, column) for name, column in tables.items()}

    def _write_rest(self, tables: Mapping[str, npt.NDArray[Any]]) -> None:
        """Everything but the embeddings."""
        attributes: dict[str, str | int] = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "level": self.provenance.level,
            "provenance": self.provenance.to_json(),
            "settings_id": self.provenance.settings_id,
            "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        shapes = {"embeddings": (self._dtype, (self.rows, self.provenance.dim))}
        shapes |= {name: (column.dtype, column.shape) for name, column in tables.items()}
        places, size, headers = _make_headers(attributes, shapes)
        if self.rows and places["embeddings"].at != place_of_rows():
            raise StoreError("HDF5 lays the file out in another way than it did before")
        places["embeddings"] = replace(places["embeddings"], checksum=combined(self._checksums))
        for name, column in tables.items():
            places[name] = replace(places[name], checksum=combined(checksums(column)))
            self._write(column, places[name].at)
        contents, crc = Contents(attributes, places, size, 0), 0
        for first, end in contents.gaps():
            for start in range(first, end, _STEP):
                piece = headers(start, min(start + _STEP, end))
                crc = zlib.crc32(piece, crc)
                self._write(np.frombuffer(piece, np.uint8), start)
        self._write(np.frombuffer(replace(contents, headers=crc).to_bytes(), np.uint8), size)

    def _write(self, values: npt.NDArray[Any], at: int) -> None:
        """Write the bytes of a contiguous array from the place `at` on."""
        view = as_bytes(values).data
        os.lseek(self._descriptor, at, os.SEEK_SET)
        while view:
            view = view[os.write(self._descriptor, view[: 1 << 30]) :]

    def _storage_error(self, error: OSError) -> StoreError:
        if isinstance(error, StoreError):
            return error
        return StoreError(f"can't write {self.path}: {explain_os_error(error)}")


def _make_headers(
    attributes: Mapping[str, str | int], shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> tuple[dict[str, Place], int, Callable[[int, int], bytes]]:
    """Lay out an HDF5 file, in memory: HDF5 crashes when it closes a file that the disk has no room for.

    Parameters
    ----------
    attributes
        Of the root.
    shapes
        Type and shape of every data set by its path; the first lies first.

    Returns
    -------
    places, size, headers
        Where HDF5 will look for every data set; bytes of the file; and a function of two places that returns the bytes
        from the one to the other, where no data set lies.
    """
    image = _Image()
    with h5py.File(image, "w") as file:
        places = {name: _allocated(file, name, *form) for name, form in shapes.items()}
        for group in ("rows", "videos", "labels", "failures"):
            file.require_group(group)
        file.attrs.update(attributes)

    def headers(start: int, end: int) -> bytes:
        image.seek(start)
        return image.read(end - start)

    return places, image.end, headers


@cache
def place_of_rows() -> int:
    """The byte at which the first data set begins, whatever its shape and whatever comes behind it."""
    places, _, _ = _make_headers({}, {"embeddings": (np.dtype("<f4"), (1, 1))})
    return places["embeddings"].at


def _allocated(file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Place:
    """Add a data set whose bytes have their place at once, and are not written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    link.set_char_encoding(h5py.h5t.CSET_UTF8)
    stored = h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype
    kind, space = h5py.h5t.py_create(stored, logical=True), h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, creation, link)
    return Place(dataset.get_offset() or 0, dtype, shape)


class _Image(io.RawIOBase):
    """A file in memory of which only the pages that were written take any. end: its size in bytes."""

    def __init__(self) -> None:
        self.end = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, first, part in self._parts(view):
            self._pages.setdefault(page, bytearray(_PAGE))[first : first + len(part)] = part
        self._at += len(view)
        self.end = max(self.end, self._at)
        return len(view)

    def readinto(self, into: Any) -> int:
        view = memoryview(into).cast("B")
        for page, first, part in self._parts(view):
            part[:] = self._pages.get(page, bytearray(_PAGE))[first : first + len(part)]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.end = self._at if size is None else size
        return self.end

    def _parts(self, view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """A view from the current place on, cut at the pages: number of the page, place in it, part of the view."""
        done = 0
        while done < len(view):
            page, first = divmod(self._at + done, _PAGE)
            count = min(_PAGE - first, len(view) - done)
            yield page, first, view[done : done + count]
            done += count
