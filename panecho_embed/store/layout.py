"""Names, types and text encoding inside an embedding file, shared by its writer and its reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import unquote

import h5py
import numpy as np
import numpy.typing as npt

FORMAT = "panecho-embed"
SCHEMA_VERSION = 1
CHUNK_BYTES = 256 * 1024

ID_COLUMNS = ("video_id", "study_id", "patient_id", "view", "split", "path")
FACT_TYPES: dict[str, Literal["i", "f", "text"]] = {
    "sha256": "text",
    "num_frames": "i",
    "fps": "f",
    "fps_source": "text",
    "status": "text",
    "size_bytes": "i",
    "mtime_ns": "i",
}
FACT_COLUMNS = tuple(FACT_TYPES)
TABLES = ("rows", "videos", "labels", "failures")
FAILURE_COLUMNS = ("video_id", "path", "stage", "message")
ROW_TYPES: dict[str, np.dtype[Any]] = {
    "video": np.dtype(np.int32),
    "first_frame": np.dtype(np.int32),
    "frame_step": np.dtype(np.float64),
    "frames_per_clip": np.dtype(np.int32),
}

_TEXT = h5py.string_dtype("utf-8")


def write_column(group: h5py.Group, name: str, values: npt.NDArray[Any] | Iterable[Any]) -> None:
    """Write one column: text as UTF-8 of variable length, numbers as they are.

    File names that are no valid UTF-8 keep their bytes (surrogateescape, as `os.fsencode`).
    """
    column = np.asarray(values if isinstance(values, np.ndarray) else list(values))
    if column.dtype.kind in "iufb":
        group.create_dataset(name, data=column)
        return
    encoded = np.array([str(v).encode("utf-8", "surrogateescape") for v in column], dtype=object)
    group.create_dataset(name, shape=encoded.shape, dtype=_TEXT, data=encoded if encoded.size else None)


def read_column(dataset: h5py.Dataset) -> npt.NDArray[Any]:
    """Read what `write_column` wrote: numbers, or an array of str objects."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        numbers: npt.NDArray[Any] = dataset[...]
        return numbers
    text = np.empty(dataset.shape, dtype=object)
    text[...] = [v.decode("utf-8", "surrogateescape") for v in dataset[...]]
    return text


def tables_sha256(file: h5py.File) -> str:
    """SHA-256 over the names, types and values of every column of every table."""
    digest = hashlib.sha256()
    for table in TABLES:
        for name in sorted(file[table]):
            dataset = file[table][name]
            digest.update(f"{table}/{name} {dataset.dtype.kind} {dataset.shape}\n".encode())
            values = dataset[...]
            if h5py.check_string_dtype(dataset.dtype) is None:
                digest.update(np.ascontiguousarray(values).tobytes())
            else:
                digest.update(b"".join(len(text).to_bytes(8, "little") + text for text in values))
    return digest.hexdigest()


def label_key(name: str) -> str:
    """The data set's name for a label: "/" separates groups in HDF5 and "." is the group itself."""
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return escaped.replace(".", "%2E") if set(escaped) == {"."} else escaped


def label_name(key: str) -> str:
    """The label that `label_key` made into `key`."""
    return unquote(key)
