"""Read an embedding file: numpy arrays, pandas tables, one EmbeddingTable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import ArgumentError, EarlierReleaseError, StoreError
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.provenance import Level, Provenance
from panecho_embed.core.records import (
    FPS_OF_MANIFEST,
    EmbeddingTable,
    Failure,
    Manifest,
    Recording,
    VideoFacts,
    VideoRef,
)
from panecho_embed.store.contents import Contents, SealedFile
from panecho_embed.store.layout import (
    ENCODER_PATIENTS,
    FACT_TYPES,
    FAILURE_COLUMNS,
    FORMAT,
    ID_COLUMNS,
    LABEL_UNITS,
    RECORDING_COLUMNS,
    REQUIRED,
    ROW_TYPES,
    SCHEMA_VERSION,
    decode_column,
    label_name,
    recording_of,
)
from panecho_embed.store.rows import CheckedBlocks, RowsOnDisk

if TYPE_CHECKING:
    import pandas as pd

_LISTED = 5
# Tables that have as many entries as another.
_LENGTH_OF = {"embeddings": "rows", "labels": "videos"}


class EmbeddingFile:
    """An embedding file, opened for reading.

    Opening checks every column, label, text and setting against its checksum; the embeddings are checked block by block
    when they are first read. Columns are read on first use. The file stays open until this object is closed, by a
    `with` block or `close`, or is gone. A notebook shows a summary.

    Parameters
    ----------
    path : str or Path
        The file.

    Attributes
    ----------
    level : {"frame", "clip", "video", "study"}
        What a row is.
    provenance : Provenance
        How the embeddings were made.
    settings_id : str
        Digest of those settings, not of the data.

    Raises
    ------
    StoreError
        If the file is missing, damaged (the message says where), or not an embedding file of a known schema.
    EarlierReleaseError
        For a file of an earlier release, which has to be made again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{self.path}: no such file")
        self._sealed = SealedFile(self.path)
        contents = self._sealed.contents
        if problems := _problems(contents):
            more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise StoreError(f"{self.path}: {'; '.join(problems[:_LISTED])}{more}")
        self._shape: tuple[int, int] = contents.places["embeddings"].shape  # type: ignore[assignment]
        self.dtype: np.dtype[Any] = contents.places["embeddings"].dtype
        self.num_videos = contents.places["videos/video_id"].shape[0]
        """Videos of the manifest, those included that gave no rows."""
        attributes = contents.attributes
        self.level: Level = attributes["level"]  # type: ignore[assignment]
        self.settings_id, self.created_utc = str(attributes["settings_id"]), str(attributes["created_utc"])
        if self.level not in get_args(Level):
            raise StoreError(f"{self.path}: level is {self.level!r}; known are {', '.join(get_args(Level))}")
        try:
            self.provenance = replace(
                Provenance.from_json(str(attributes["provenance"])), patients=self._encoder_patients()
            )
        except EarlierReleaseError as error:
            raise EarlierReleaseError(f"{self.path}: {error}") from error
        except ArgumentError as error:
            raise StoreError(f"{self.path}: its provenance can't be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        what = f"{len(self)} {self.level} rows of {self.dim}, {self.provenance.backbone}"
        return f"EmbeddingFile({str(self.path)!r}: {what})"

    def _repr_html_(self) -> str:
        """A summary for notebooks."""
        statuses = self.video_columns["status"].tolist()
        weights = self.provenance.weights
        facts = {
            "rows": f"{len(self)} {self.level} embeddings of {self.dim}, {self.dtype}",
            "videos": ", ".join(f"{statuses.count(name)} {name}" for name in dict.fromkeys(statuses)),
            "studies": len(set(self.video_columns["study_id"])),
            "patients": len(set(self.video_columns["patient_id"])),
            "labels": ", ".join(self.labels) or "none",
            "backbone": self.provenance.backbone,
            "weights": weights.source if weights.pretrained else f"RANDOM, NOT PRETRAINED: {weights.source}",
        }
        rows = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
        return f"<table><caption>{escape(self.path.name)}</caption>{rows}</table>"

    def close(self) -> None:
        """Close the file; columns that were read stay."""
        self._sealed.close()

    def moved_to(self, path: Path) -> None:
        """Call it by another path from now on: it was moved there."""
        self.path = self._sealed.path = path

    @property
    def dim(self) -> int:
        """Length of one embedding."""
        return self._shape[1]

    @property
    def embeddings(self) -> FloatArray:
        """All embeddings, (N, D) float32 or float16, read again at each use."""
        return self.read(0, len(self))

    def read(self, start: int, stop: int) -> FloatArray:
        """Embeddings of the rows start ... stop-1, (stop-start, D)."""
        return self.rows_on_disk[start:stop]

    @cached_property
    def rows_on_disk(self) -> RowsOnDisk:
        """All embeddings, (N, D), without reading them: rows are copied from the file when they are asked for.

        Each block is checked once, and no memory is taken except for the rows asked for. See `RowsOnDisk`.
        """
        return RowsOnDisk(self._shape, self.dtype, CheckedBlocks(self._sealed).fill)

    def read_videos(self, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Some of the columns in `video_columns`, read again."""
        return {name: decode_column(self._sealed.column(f"videos/{name}")) for name in columns}

    @cached_property
    def row_columns(self) -> dict[str, npt.NDArray[Any]]:
        """video, first_frame, frame_step, frames_per_clip, and columns that are not known here: (N,) each.

        video is a position in `video_columns`.
        """
        return {name: decode_column(column) for name, column in self.raw_rows.items()}

    @cached_property
    def raw_rows(self) -> dict[str, npt.NDArray[Any]]:
        """`row_columns` as they are stored: texts as bytes of fixed length."""
        columns = {name: self._sealed.column(f"rows/{name}") for name in self._names("rows")}
        video = columns["video"]
        if len(video) and not (video.min() >= 0 and video.max() < self.num_videos):
            raise StoreError(f"{self.path}: /rows/video points outside /videos (0 ... {self.num_videos - 1})")
        return columns

    def other_rows(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of `raw_rows` that are not known here."""
        return {name: column for name, column in self.raw_rows.items() if name not in ROW_TYPES}

    @cached_property
    def video_columns(self) -> dict[str, npt.NDArray[Any]]:
        """Ids and facts of the videos, and columns that are not known here: (M,) each; text as str objects."""
        return self.read_videos([*ID_COLUMNS, *self.fact_names])

    def read_facts(self) -> dict[str, npt.NDArray[Any]]:
        """The columns `fact_names`, read again, as stored, which is how `EmbeddingWriter.finish` takes them."""
        return {name: self._sealed.column(f"videos/{name}") for name in self.fact_names}

    @property
    def fact_names(self) -> list[str]:
        """Names of the columns of /videos that are no ids: facts, and those that are not known here."""
        return [*FACT_TYPES, *(name for name in self._names("videos") if name not in (*ID_COLUMNS, *FACT_TYPES))]

    @cached_property
    def labels(self) -> dict[str, npt.NDArray[Any]]:
        """Label columns, (M,) each, one value a video: float (NaN missing) or str objects ("" missing)."""
        columns = {label_name(key): self._sealed.column(f"labels/{key}") for key in self._names("labels")}
        return {name: decode_column(column) for name, column in columns.items()}

    @cached_property
    def units(self) -> dict[str, str]:
        """Units of labels, such as {"EF": "%"}; those of which the data set's layout knows none are absent."""
        if LABEL_UNITS not in self._sealed.contents.places:
            return {}
        (text,) = decode_column(self._sealed.column(LABEL_UNITS))
        try:
            return {str(name): str(unit) for name, unit in dict(json.loads(text)).items()}
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.path}: /{LABEL_UNITS} holds no units ({error})") from error

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
        """`table` with values (N, 0), for those who take the rows from `rows_on_disk`, or need none."""
        columns = {name: self.row_columns[name] for name in ROW_TYPES}
        video = columns.pop("video")
        return EmbeddingTable(
            values=np.zeros((len(self), 0), dtype=self.dtype),
            **{name: self.video_columns[name][video] for name in ID_COLUMNS if name != "path"},
            **columns,
            labels={name: column[video] for name, column in self.labels.items()},
            level=self.level,
            provenance=self.provenance,
            units=self.units,
        )

    def manifest(self) -> Manifest:
        """The videos and labels that the file was made from."""
        columns = [self.video_columns[name] for name in ID_COLUMNS]
        videos = tuple(
            VideoRef(**dict(zip(ID_COLUMNS, values, strict=True)), fps=fps)
            for *values, fps in zip(*columns, self.rates_by_hand(), strict=True)
        )
        return Manifest(videos, self.labels, units=self.units)

    def rates_by_hand(self) -> list[float | None]:
        """The frame rate of each video that its manifest gave; None where it was left to the file, which is asked."""
        columns = self.read_videos(("fps", "fps_source"))
        pairs = zip(columns["fps"].tolist(), columns["fps_source"], strict=True)
        return [fps if source == FPS_OF_MANIFEST else None for fps, source in pairs]

    def facts(self) -> list[VideoFacts]:
        """What reading each video told, in the order of `manifest`."""
        known = [name for name in RECORDING_COLUMNS if name in self.video_columns]
        recordings = zip(*(self.video_columns[name].tolist() for name in known), strict=True)
        try:
            told = [recording_of(dict(zip(known, values, strict=True))) for values in recordings]
        except ValueError as error:
            raise StoreError(f"{self.path}: /videos/r_wave_times_ms holds no times ({error})") from error
        facts = zip(*(self.video_columns[name].tolist() for name in FACT_TYPES), strict=True)
        return [
            VideoFacts(**dict(zip(FACT_TYPES, values, strict=True)), recording=recording)
            for values, recording in zip(facts, told or [Recording()] * self.num_videos, strict=True)
        ]

    def failure_records(self) -> list[Failure]:
        """`failures` as records."""
        rows = zip(*(self._failure_columns[name] for name in FAILURE_COLUMNS), strict=True)
        return [Failure(str(video_id), str(path), str(stage), str(message)) for video_id, path, stage, message in rows]

    def _encoder_patients(self) -> TrainingPatients:
        """Raises ArgumentError."""
        if ENCODER_PATIENTS not in self._sealed.contents.places:
            return TrainingPatients()
        (text,) = decode_column(self._sealed.column(ENCODER_PATIENTS))
        try:
            return TrainingPatients.from_record(json.loads(text))
        except ValueError as error:
            raise ArgumentError(f"/{ENCODER_PATIENTS}: {error}") from error

    @cached_property
    def _failure_columns(self) -> dict[str, npt.NDArray[Any]]:
        return {name: decode_column(self._sealed.column(f"failures/{name}")) for name in FAILURE_COLUMNS}

    def _names(self, table: str) -> list[str]:
        """Columns of a table, in the order of the file."""
        paths = (name.partition("/") for name in self._sealed.contents.places)
        return [name for group, _, name in paths if group == table and name]

    def _label_columns(self, taken: Mapping[str, object]) -> dict[str, npt.NDArray[Any]]:
        """Labels by name; one that is called as a column of our own is called "label:NAME"."""
        return {f"label:{name}" if name in taken else name: column for name, column in self.labels.items()}


def _problems(contents: Contents) -> list[str]:
    """What keeps the contents of a file from being an embedding file's, one sentence each."""
    attributes, places = contents.attributes, contents.places
    if attributes.get("format") != FORMAT or attributes.get("schema_version") != SCHEMA_VERSION:
        form, version = attributes.get("format"), attributes.get("schema_version")
        return [f"its format is {form!r}, version {version}; this release reads {FORMAT!r}, version {SCHEMA_VERSION}"]
    texts = ("level", "provenance", "settings_id", "created_utc")
    problems = [f"its attribute {name} is no text" for name in texts if not isinstance(attributes.get(name), str)]
    if lacking := [name for name in REQUIRED if name not in places]:
        return [*problems, f"not whole, {', '.join(lacking)} missing"]
    lengths: dict[str, int] = {}
    for name, place in places.items():
        table, _, column = name.partition("/")
        if name in (ENCODER_PATIENTS, LABEL_UNITS) and (place.dtype.kind, place.shape) != ("S", (1,)):
            problems.append(f"/{name} is no single text")
        if not column and name not in REQUIRED:
            continue
        allowed = {"labels": "fS"}.get(table, "iufbS") if name not in REQUIRED else REQUIRED[name].replace("i", "iu")
        if place.dtype.kind not in allowed or (place.dtype.kind != "S" and place.dtype.itemsize > 8):
            problems.append(f"/{name} holds {place.dtype}")
        if len(place.shape) != (2 if name == "embeddings" else 1):
            problems.append(f"/{name} has shape {place.shape}")
        length = lengths.setdefault(_LENGTH_OF.get(table, table), place.shape[0])
        if length != place.shape[0]:
            problems.append(f"/{name} has {place.shape[0]} entries, not {length}")
    return problems


def _frame(columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Columns as a table; text stays str objects, as pandas's own text type takes no names that are not UTF-8."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})
