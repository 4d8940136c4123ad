"""Write an embedding file so that it appears at its path only when it is whole."""

from __future__ import annotations

import datetime
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, StoreError
from panecho_embed.outputs import explain_os_error, temporary_path
from panecho_embed.provenance import Provenance
from panecho_embed.records import Failure, FloatArray, Manifest, VideoFacts
from panecho_embed.store.layout import (
    CHUNK_BYTES,
    FAILURE_COLUMNS,
    FORMAT,
    ID_COLUMNS,
    ROW_TYPES,
    SCHEMA_VERSION,
    label_key,
    tables_sha256,
    write_column,
)
from panecho_embed.store.read import EmbeddingFile

_BUFFER_BYTES = 4 * 1024 * 1024
# What HDF5 may need beside the values themselves: headers, chunk indices, heaps, and its own write at closing.
_OVERHEAD_BYTES = 256 * 1024


class EmbeddingWriter:
    """Writes one embedding file; use it in a `with` block and call `finish` last.

    Rows go to a temporary file beside `path`. `finish` adds the tables, flushes to the disk, opens the result again and
    moves it to `path` in one step. Leaving the block without `finish` leaves nothing behind.
    scratch: folder for the temporary file, on the same file system; None for the one that `path` is in.
    Numbers are stored in the provenance's dtype. Raises StoreError when the disk is full or not writable.
    """

    def __init__(self, path: str | Path, provenance: Provenance, scratch: Path | None = None) -> None:
        self.path = Path(path)
        self.provenance = provenance
        self.rows = 0
        self._dtype = np.dtype(provenance.dtype)
        self._temporary = temporary_path((scratch or self.path.parent) / self.path.name)
        self._buffer: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("embeddings", *ROW_TYPES)}
        self._buffered = 0
        self._finished = False

    def __enter__(self) -> Self:
        try:
            self._make_sure_of_room(0)
            self._file = h5py.File(self._temporary, "w", locking=False)
            self._create_datasets()
        except OSError as error:
            raise self._storage_error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished:
            return
        try:
            self._file.close()
        except (OSError, RuntimeError):
            # A full disk makes closing fail too; the error that matters is the one on its way out.
            if error is None:
                raise
        finally:
            self._temporary.unlink(missing_ok=True)

    def add(
        self,
        video: int | npt.NDArray[np.integer[Any]],
        values: FloatArray,
        first_frame: npt.NDArray[np.integer[Any]],
        frame_step: float | FloatArray,
        frames_per_clip: int | npt.NDArray[np.integer[Any]],
    ) -> None:
        """Append rows.

        video: (N,) or one number, position in the manifest given to `finish`. values: (N, D). first_frame: (N,).
        frame_step, frames_per_clip: (N,) or one value for all.
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
        self._buffer["embeddings"].append(values.astype(self._dtype))
        for name, column in columns.items():
            typed = np.array(column, ndmin=1).astype(ROW_TYPES[name])
            self._buffer[name].append(np.broadcast_to(typed, (count,)))
        self._buffered += count
        if self._buffered * self.provenance.dim * self._dtype.itemsize >= _BUFFER_BYTES:
            self._flush()

    def finish(
        self,
        manifest: Manifest,
        facts: Sequence[VideoFacts],
        failures: Sequence[Failure],
        engine: str | None = None,
    ) -> Path:
        """Write the tables and move the whole file into place.

        facts: one per video of the manifest. engine: of the provenance, if it showed only on the way.
        """
        if engine is not None:
            self.provenance = replace(self.provenance, engine=engine)
        if len(facts) != len(manifest):
            raise ArgumentError(f"{len(facts)} facts for {len(manifest)} videos")
        try:
            self._flush()
            self._make_sure_of_room(_table_bytes(manifest, facts, failures))
            self._write_tables(manifest, facts, failures)
            self._file.close()
            _fsync(self._temporary)
            if len(EmbeddingFile(self._temporary)) != self.rows:
                raise StoreError(f"{self._temporary}: fewer rows on the disk than were written")
            self._temporary.replace(self.path)
            _fsync(self.path.parent)
        except OSError as error:
            raise self._storage_error(error) from error
        self._finished = True
        return self.path

    def _create_datasets(self) -> None:
        dim = self.provenance.dim
        rows_per_chunk = max(1, CHUNK_BYTES // (dim * self._dtype.itemsize))
        self._file.create_dataset(
            "embeddings",
            shape=(0, dim),
            maxshape=(None, dim),
            dtype=self._dtype,
            chunks=(rows_per_chunk, dim),
            # A flipped bit on the disk becomes a read error, not a wrong number.
            fletcher32=True,
        )
        for name, dtype in ROW_TYPES.items():
            self._file.create_dataset(f"rows/{name}", shape=(0,), maxshape=(None,), dtype=dtype, chunks=(32_768,))

    def _flush(self) -> None:
        if not self._buffered:
            return
        stop = self.rows + self._buffered
        try:
            self._make_sure_of_room(sum(block.nbytes for blocks in self._buffer.values() for block in blocks))
            for name, blocks in self._buffer.items():
                dataset = self._file[name if name == "embeddings" else f"rows/{name}"]
                dataset.resize(stop, axis=0)
                dataset[self.rows : stop] = np.concatenate(blocks)
                blocks.clear()
        except OSError as error:
            raise self._storage_error(error) from error
        self.rows, self._buffered = stop, 0

    def _write_tables(self, manifest: Manifest, facts: Sequence[VideoFacts], failures: Sequence[Failure]) -> None:
        videos = self._file.create_group("videos")
        for name in ID_COLUMNS:
            write_column(videos, name, np.array([getattr(v, name) for v in manifest.videos], dtype=object))
        for name in ("sha256", "fps_source", "status"):
            write_column(videos, name, np.array([getattr(f, name) for f in facts], dtype=object))
        for name, dtype in (("num_frames", np.int32), ("fps", float), ("size_bytes", np.int64), ("mtime_ns", np.int64)):
            write_column(videos, name, np.array([getattr(f, name) for f in facts], dtype=dtype))
        labels = self._file.create_group("labels")
        for name, column in manifest.labels.items():
            write_column(labels, label_key(name), column)
        table = self._file.create_group("failures")
        for name in FAILURE_COLUMNS:
            write_column(table, name, np.array([getattr(f, name) for f in failures], dtype=object))
        self._file.attrs.update(
            format=FORMAT,
            schema_version=SCHEMA_VERSION,
            level=self.provenance.level,
            provenance=self.provenance.to_json(),
            fingerprint=self.provenance.fingerprint,
            tables_sha256=tables_sha256(self._file),
            created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    def _make_sure_of_room(self, count: int) -> None:
        """Raise OSError if the disk, the quota or a limit of this process leaves no room for so many more bytes.

        HDF5 can't be asked to try: a write that fails on it takes the whole process down when the file is closed.
        """
        if not hasattr(os, "posix_fallocate"):
            if shutil.disk_usage(self.path.parent).free < count + _OVERHEAD_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        size = self._temporary.stat().st_size if self._temporary.exists() else 0
        ballast = self._temporary.with_suffix(".room")
        try:
            with ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), size, count + _OVERHEAD_BYTES)
        finally:
            ballast.unlink(missing_ok=True)

    def _storage_error(self, error: OSError) -> StoreError:
        if isinstance(error, StoreError):
            return error
        return StoreError(f"can't write {self.path}: {explain_os_error(error)}")


def _table_bytes(manifest: Manifest, facts: Sequence[VideoFacts], failures: Sequence[Failure]) -> int:
    """Upper bound of what the tables take: a text its bytes and its place in a heap, a number eight bytes."""
    texts = [getattr(video, name) for video in manifest.videos for name in ID_COLUMNS]
    texts += [text for fact in facts for text in (fact.sha256, fact.fps_source, fact.status)]
    texts += [getattr(failure, name) for failure in failures for name in FAILURE_COLUMNS]
    texts += [str(value) for column in manifest.labels.values() if column.dtype.kind == "O" for value in column]
    numbers = (2 + len(manifest.labels)) * len(manifest)
    headers = 8192 * (len(manifest.labels) + len(ID_COLUMNS) + len(FAILURE_COLUMNS) + 5)
    return sum(4 * len(text) + 64 for text in texts) + 8 * numbers + headers


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        # Windows opens no folders; its file system orders the rename by itself.
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
