"""Read an embedding file: numpy arrays, pandas tables, one EmbeddingTable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args

import h5py
import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, EarlierReleaseError, StoreError
from panecho_embed.provenance import Level, Provenance
from panecho_embed.records import FPS_OF_MANIFEST, EmbeddingTable, Failure, FloatArray, Manifest, VideoFacts, VideoRef
from panecho_embed.store.layout import (
    FACT_COLUMNS,
    FAILURE_COLUMNS,
    ID_COLUMNS,
    ROW_TYPES,
    label_name,
    read_column,
    tables_sha256,
)
from panecho_embed.store.mapped import RowsOnDisk, rows_on_disk
from panecho_embed.store.structure import attributes_of, check_texts, problems_of_structure

if TYPE_CHECKING:
    import pandas as pd

# What h5py raises for a file that is not as its headers say.
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError, OverflowError)
_LISTED = 5


class EmbeddingFile:
    """An embedding file, opened for reading.

    Columns are read when they are asked for, and the file is not held open in between; in a `with` block it is, for
    many small readings. Raises StoreError when the file is missing, truncated, or no embedding file of a known schema,
    EarlierReleaseError for one that has to be made again.

    level: "frame", "clip", "video" or "study". provenance: how it was made. fingerprint: of those settings.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held: h5py.File | None = None
        if not self.path.is_file():
            raise StoreError(f"{self.path}: no such file")
        with self._open() as file:
            if problems := problems_of_structure(file, self.path):
                more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
                raise StoreError(f"{self.path}: {'; '.join(problems[:_LISTED])}{more}")
            self._shape: tuple[int, int] = file["embeddings"].shape
            self.dtype: np.dtype[Any] = file["embeddings"].dtype
            self._videos = len(file["videos/video_id"])
            attributes = attributes_of(file)
        self.level: Level = attributes["level"]
        self.fingerprint: str = attributes["fingerprint"]
        self.created_utc: str = attributes["created_utc"]
        self._tables_sha256 = attributes.get("tables_sha256")
        if self.level not in get_args(Level):
            raise StoreError(f"{self.path}: level is {self.level!r}; known are {', '.join(get_args(Level))}")
        try:
            self.provenance = Provenance.from_json(attributes["provenance"])
        except EarlierReleaseError as error:
            raise EarlierReleaseError(f"{self.path}: {error}") from error
        except ArgumentError as error:
            raise StoreError(f"{self.path}: its provenance can't be read: {error}") from error

    def __enter__(self) -> Self:
        self._held = self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        what = f"{len(self)} {self.level} rows of {self.dim}, {self.provenance.backbone}"
        return f"EmbeddingFile({str(self.path)!r}: {what})"

    @property
    def dim(self) -> int:
        """Length of one embedding."""
        return self._shape[1]

    @property
    def num_videos(self) -> int:
        """Videos of the manifest, those included that gave no rows."""
        return self._videos

    @property
    def embeddings(self) -> FloatArray:
        """All embeddings, (N, D) float32 or float16, read anew at each use."""
        return self.read(0, len(self))

    def read(self, start: int, stop: int) -> FloatArray:
        """Embeddings of the rows start ... stop-1, (stop-start, D)."""
        with self._open() as file:
            values: FloatArray = file["embeddings"][start:stop]
        return values

    def mapped(self) -> RowsOnDisk:
        """All embeddings, (N, D), without reading them: rows are copied from a map of the file when they are asked for.

        Each chunk is checked once, by the checksum beside it, and no memory is taken but for the rows
        asked for. See `RowsOnDisk`.
        """
        with self._open() as file:
            dataset = file["embeddings"]
            if (dataset.shape, dataset.dtype) != (self._shape, self.dtype):
                raise StoreError(f"{self.path} was replaced by another file while it was read")
            return rows_on_disk(dataset, self.read)

    def read_rows(self, column: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Column video, first_frame, frame_step or frames_per_clip of the rows start ... stop-1, read anew."""
        with self._open() as file:
            values: npt.NDArray[Any] = file[f"rows/{column}"][start:stop]
        if column == "video" and len(values) and not (values.min() >= 0 and values.max() < self._videos):
            raise StoreError(f"{self.path}: /rows/video points outside /videos (0 ... {self._videos - 1})")
        return values

    def read_videos(self, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Some of the columns in `video_columns`, read anew."""
        with self._open() as file:
            return {name: self._column(file[f"videos/{name}"]) for name in columns}

    @cached_property
    def row_columns(self) -> dict[str, npt.NDArray[Any]]:
        """video, first_frame, frame_step, frames_per_clip: (N,) each; video is a position in `video_columns`."""
        return {name: self.read_rows(name) for name in ROW_TYPES}

    @cached_property
    def video_columns(self) -> dict[str, npt.NDArray[Any]]:
        """Ids and facts of the videos, (M,) each; text as str objects."""
        return self.read_videos((*ID_COLUMNS, *FACT_COLUMNS))

    @cached_property
    def labels(self) -> dict[str, npt.NDArray[Any]]:
        """Label columns, (M,) each, one value a video: float (NaN missing) or str objects ("" missing)."""
        with self._open() as file:
            return {label_name(key): self._column(dataset) for key, dataset in file["labels"].items()}

    @cached_property
    def videos(self) -> pd.DataFrame:
        """One row a video of the manifest, with its status and labels."""
        return _frame({**self.video_columns, **self._label_columns(self.video_columns)})

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One row an embedding: whose it is, which frames, and the labels of its video."""
        columns = dict(self.row_columns)
        video = columns.pop("video")
        known = {name: self.video_columns[name][video] for name in (*ID_COLUMNS, "fps")} | columns
        return _frame(known | {name: column[video] for name, column in self._label_columns(known).items()})

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Inputs that gave no rows: video_id, path, stage ("skipped" or where it failed), message."""
        return _frame(self._failure_columns)

    def table(self) -> EmbeddingTable:
        """Everything that a later stage needs, in memory."""
        return replace(self.table_without_values(), values=self.embeddings)

    def table_without_values(self) -> EmbeddingTable:
        """`table` with values (N, 0), for those who take the rows from `mapped`, or need none."""
        columns = dict(self.row_columns)
        video = columns.pop("video")
        return EmbeddingTable(
            values=np.zeros((len(self), 0), dtype=self.dtype),
            **{name: self.video_columns[name][video] for name in ID_COLUMNS if name != "path"},
            **columns,
            labels={name: column[video] for name, column in self.labels.items()},
            level=self.level,
            provenance=self.provenance,
        )

    def manifest(self) -> Manifest:
        """The videos and labels that the file was made from."""
        columns = [self.video_columns[name] for name in ID_COLUMNS]
        videos = tuple(
            VideoRef(**dict(zip(ID_COLUMNS, values, strict=True)), fps=fps)
            for *values, fps in zip(*columns, self.rates_by_hand(), strict=True)
        )
        return Manifest(videos, self.labels)

    def rates_by_hand(self) -> list[float | None]:
        """The frame rate of each video that its manifest gave; None where it was left to the file, which is asked."""
        columns = self.read_videos(("fps", "fps_source"))
        pairs = zip(columns["fps"].tolist(), columns["fps_source"], strict=True)
        return [fps if source == FPS_OF_MANIFEST else None for fps, source in pairs]

    def facts(self) -> list[VideoFacts]:
        """What reading each video told, in the order of `manifest`."""
        columns = [self.video_columns[name].tolist() for name in FACT_COLUMNS]
        return [VideoFacts(**dict(zip(FACT_COLUMNS, values, strict=True))) for values in zip(*columns, strict=True)]

    def failure_records(self) -> list[Failure]:
        """`failures` as records."""
        rows = zip(*(self._failure_columns[name] for name in FAILURE_COLUMNS), strict=True)
        return [Failure(str(video_id), str(path), str(stage), str(message)) for video_id, path, stage, message in rows]

    def tables_are_unchanged(self) -> bool:
        """Are ids, labels and frame numbers, byte for byte, those that were written?"""
        # Whatever can't be read to its end has raised by now.
        _ = self.video_columns, self.labels, self._failure_columns
        with self._open() as file:
            return tables_sha256(file) == self._tables_sha256

    @cached_property
    def _failure_columns(self) -> dict[str, npt.NDArray[Any]]:
        with self._open() as file:
            return {name: self._column(file[f"failures/{name}"]) for name in FAILURE_COLUMNS}

    def _label_columns(self, taken: Mapping[str, object]) -> dict[str, npt.NDArray[Any]]:
        """Labels by name; one that is called as a column of our own is called "label:NAME"."""
        return {f"label:{name}" if name in taken else name: column for name, column in self.labels.items()}

    def _column(self, dataset: h5py.Dataset) -> npt.NDArray[Any]:
        check_texts(dataset, self.path)
        return read_column(dataset)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            if self._held is not None:
                yield self._held
                return
            with self._opened() as file:
                yield file
        except StoreError:
            raise
        except _DAMAGE as error:
            raise StoreError(f"{self.path}: can't be read, the file is damaged ({error})") from error

    def _opened(self) -> h5py.File:
        try:
            # Locks fail on many network file systems, and a finished file never changes.
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise StoreError(f"{self.path}: can't be opened as HDF5, truncated or another format ({error})") from error


def _frame(columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Columns as a table; text stays str objects, as pandas's own text type takes no names that are not UTF-8."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})
