"""Names and types inside an embedding file, shared by its writer and its readers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from panecho_embed.core.errors import StoreError
from panecho_embed.core.records import Recording, VideoFacts

FORMAT = "panecho-embed"
SCHEMA_VERSION = 3

_Kind = Literal["i", "f", "S"]

ID_COLUMNS = ("video_id", "study_id", "patient_id", "view", "split", "path")
FACT_TYPES: dict[str, _Kind] = {
    "status": "S",
    "sha256": "S",
    "num_frames": "i",
    "fps": "f",
    "fps_source": "S",
    "size_bytes": "i",
    "mtime_ns": "i",
}
ENCODER_PATIENTS = "encoder_patients"
"""JSON of `Provenance.patients`, an array of one text, as an attribute holds 64 KiB at most; only where recorded."""

RECORDING_COLUMNS = tuple(field.name for field in dataclasses.fields(Recording))
LABEL_UNITS = "label_units"
"""JSON of `Manifest.units`, as an array of one text, as `ENCODER_PATIENTS`; only where a unit is known."""

PHASE_COLUMNS = ("end_diastole", "end_systole")
"""Columns of the recording that only files with clips cut by them have."""

FAILURE_COLUMNS = ("video_id", "path", "stage", "message")
ROW_TYPES: dict[str, np.dtype[Any]] = {
    "video": np.dtype("<i4"),
    "first_frame": np.dtype("<i4"),
    "frame_step": np.dtype("<f8"),
    "frames_per_clip": np.dtype("<i4"),
}
REQUIRED: dict[str, _Kind] = {
    "embeddings": "f",
    "checksums": "i",
    **{f"rows/{name}": "f" if dtype.kind == "f" else "i" for name, dtype in ROW_TYPES.items()},
    **{f"videos/{name}": "S" for name in ID_COLUMNS},
    **{f"videos/{name}": kind for name, kind in FACT_TYPES.items()},
    **{f"failures/{name}": "S" for name in FAILURE_COLUMNS},
}
"""The data sets that every file has, with the kind of their types; others are handed on as they are."""

_ENCODING = ("utf-8", "surrogateescape")


def encode_column(name: str, values: npt.NDArray[Any] | Sequence[object]) -> npt.NDArray[Any]:
    """A column as it is stored: numbers as they are, text as UTF-8 of the length of the longest.

    File names that are no valid UTF-8 keep their bytes (surrogateescape, as `os.fsencode`). Raises StoreError for a
    text with a zero byte, which the format can't hold.
    """
    column = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    if column.dtype.kind in "iufbS":
        return np.ascontiguousarray(column.astype(column.dtype.newbyteorder("<"), copy=False))
    texts = [str(value).encode(*_ENCODING) for value in column]
    if any(b"\0" in text for text in texts):
        raise StoreError(f"/{name} can't be written: one of its texts has a zero byte")
    return np.array(texts, dtype=f"S{max(map(len, texts), default=0) or 1}")


def decode_column(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What `encode_column` was given: numbers, or an array of str objects."""
    if column.dtype.kind != "S":
        return column
    # As one text, in which one zero byte ends each: a hundred thousand ids, one by one, take twice as long.
    length = column.itemsize
    ended = np.zeros((len(column), length + 1), np.uint8)
    ended[:, :length] = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), length)
    kept = ended != 0
    kept[:, length] = True
    texts = (ended if kept.all() else ended[kept]).tobytes().decode(*_ENCODING).split("\0")
    return np.fromiter(texts, dtype=object, count=len(column))


def fact_columns(facts: Sequence[VideoFacts]) -> dict[str, npt.NDArray[Any]]:
    """Facts of videos, one column each: (M,), by the names of `VideoFacts` and `Recording`."""
    columns: dict[str, list[Any]] = {name: [getattr(fact, name) for fact in facts] for name in FACT_TYPES}
    for name in RECORDING_COLUMNS:
        columns[name] = [_as_stored(getattr(fact.recording, name)) for fact in facts]
    for name in PHASE_COLUMNS:
        if all(map(math.isnan, columns[name])):
            del columns[name]
    types: dict[_Kind, Any] = {"i": np.int64, "f": np.float64, "S": object}
    kinds: dict[str, _Kind] = FACT_TYPES | {field.name: _kind(field.type) for field in dataclasses.fields(Recording)}
    return {name: np.array(column, dtype=types[kinds[name]]) for name, column in columns.items()}


def _kind(annotation: object) -> _Kind:
    kinds: dict[str, _Kind] = {"int": "i", "float": "f", "str": "S", "tuple[float, ...]": "S"}
    return kinds[str(annotation)]


def _as_stored(value: Any) -> Any:
    """A fact of the recording; numbers of which there may be any number as text."""
    if isinstance(value, tuple):
        return " ".join(map(repr, map(float, value)))
    # What a header says can hold any character.
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def recording_of(stored: Mapping[str, Any]) -> Recording:
    """The recording of one video, from its columns. Raises ValueError for a text that holds no numbers."""
    times = tuple(float(time) for time in str(stored.get("r_wave_times_ms", "")).split())
    return Recording(**{**stored, "r_wave_times_ms": times})


def missing(count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """So many missing values of a type: "" or NaN; of whole numbers, which know none, 0."""
    return np.full(count, np.nan, dtype) if dtype.kind == "f" else np.zeros(count, dtype)


def common_type(types: Iterable[np.dtype[Any]], *, some_lack: bool) -> np.dtype[Any]:
    """The type that holds a column of several parts; some_lack: whether parts lack it, so that values are missing."""
    dtype = np.result_type(*types)
    return np.dtype(np.float64) if some_lack and dtype.kind in "iub" else dtype


def label_key(name: str) -> str:
    """The data set's name for a label: "/" separates groups in HDF5 and "." is the group itself."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return escaped.replace(".", "%2E") if set(escaped) == {"."} else escaped


def label_name(key: str) -> str:
    """The label that `label_key` made into `key`."""
    return unquote(key)
