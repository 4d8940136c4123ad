"""A table of labels, joined to embeddings by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.datasets import LocalIds, is_opaque
from panecho_embed.datasets.describe import DESCRIPTION_COLUMNS
from panecho_embed.datasets.labels import label_columns
from panecho_embed.datasets.reading import read_table
from panecho_embed.evaluation.targets import some

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("video_id", "study_id", "patient_id")
_OF_THE_FILE = ("study_id", "patient_id", "view", "split")  # what a table of labels may correct
_OF_A_VIDEO = ("video_id", "view", "path", "fps")  # what is nothing of a study
_NO_LABELS = (*_KEYS, "view", "split", "path", "fps")


_OTHER_NAMES = {"StudyInstanceUID": "study_id", "PatientID": "patient_id", "FileName": "video_id", "path": "video_id"}


def join_labels(table: EmbeddingTable, csv: str | Path, known: LocalIds | None = None) -> EmbeddingTable:
    """The table with the columns of a CSV as labels, joined by video_id, study_id or patient_id, never by position.

    The first of these columns that the CSV has is the key; without any of them, StudyInstanceUID, PatientID, FileName
    or path. Embeddings of studies are joined by study_id where it is there. study_id, patient_id and view beside it
    replace the file's where they are filled in, split replaces it altogether. Every other column is a label, as in a
    manifest, and takes the place of one of the same name. Rows whose id the CSV lacks have no label. known: the local
    table of the embedding file, by which ids as the hospital has them become the opaque ones of the file. Raises
    ArgumentError when an id is empty or there twice, when no id matches, or for a column of numbers with other text.
    """
    path = Path(csv)
    frame = _read(path)
    described = DESCRIPTION_COLUMNS if set(DESCRIPTION_COLUMNS) <= set(frame.columns) else ()
    if table.level == "study" and {"study_id", "video_id"} <= set(frame.columns):
        frame = frame.drop(columns=[*described, *(set(_OF_A_VIDEO) & set(frame.columns))]).drop_duplicates()
    if not set(_KEYS) & set(frame.columns):
        frame = frame.rename(columns=_OTHER_NAMES)
    key = next((name for name in _KEYS if name in frame.columns), None)
    if key is None:
        raise ArgumentError(
            f"{path}: no column {', '.join(_KEYS)} to join by; it has {', '.join(frame.columns)} (--labels)"
        )
    if nameless := [str(line) for line in frame.index[frame[key] == ""]]:
        raise ArgumentError(
            f"{path}: {key} is empty in {len(nameless)} lines, so they can't be joined: line {', '.join(nameless[:20])}"
            f"{', ...' if len(nameless) > 20 else ''}; fill it in or remove them (--labels)"
        )
    columns = _labels(frame, described, path)
    frame = _with_opaque_ids(frame, table, known, path)
    frame = frame.set_index(key)
    ids = getattr(table, key)
    _check_ids(path, key, frame.index, ids)
    row = frame.index.get_indexer(ids)
    labels = {name: _at(column, row) for name, column in columns.items()}
    own: dict[str, Any] = {
        name: _at(frame[name].to_numpy(dtype=object), row) for name in _OF_THE_FILE if name in frame.columns
    }
    for name in own.keys() - {"split"}:
        own[name] = np.where(own[name] == "", getattr(table, name), own[name])
    # A label of this table may be in another unit than the file's own of that name.
    units = {name: unit for name, unit in table.units.items() if name not in labels}
    return replace(table, labels={**table.labels, **labels}, units=units, **own)


def _read(path: Path) -> pd.DataFrame:
    """All cells as text."""
    try:
        table = read_table(path, undecodable=_KEYS)
    except OSError as error:
        raise ArgumentError(f"{path}: can't be read ({error.strerror or error}) (--labels)") from error
    except ManifestError as error:
        raise ArgumentError(f"{error} (--labels)") from error
    if table.problems:
        line, problem = next(iter(sorted(table.problems.items())))
        raise ArgumentError(f"{path}: {len(table.problems)} unusable lines, first line {line}: {problem} (--labels)")
    return table.frame


def _with_opaque_ids(frame: pd.DataFrame, table: EmbeddingTable, known: LocalIds | None, path: Path) -> pd.DataFrame:
    """The frame with the ids of the embedding file, where those are opaque; no id of a hospital goes further."""
    if not any(map(is_opaque, table.patient_id[:1])):
        return frame
    names = [name for name in _KEYS if name in frame.columns]
    if known is not None:
        return frame.assign(**{name: known.translated(name.removesuffix("_id"), list(frame[name])) for name in names})
    if plain := [name for name in names if not all(is_opaque(value) for value in frame[name] if value)]:
        raise ArgumentError(
            f"{path}: the embedding file has opaque ids, and {', '.join(plain)} here are others; they are joined by "
            "the local table that lies beside the file (its name with .ids.csv added): put it back (--labels)"
        )
    return frame


def _labels(frame: pd.DataFrame, described: Sequence[str], path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        return label_columns(frame, (*_NO_LABELS, *described), path)[0]
    except ManifestError as error:
        raise ArgumentError(f"{error} (--labels)") from error


def _at(column: npt.NDArray[Any], row: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """The column's values at rows (N,), missing where the row is -1."""
    missing = np.nan if column.dtype.kind == "f" else ""
    values: npt.NDArray[Any] = np.append(column, np.array([missing], dtype=column.dtype))
    return values[row]


def _check_ids(path: Path, key: str, given: pd.Index[Any], wanted: Texts) -> None:
    twice = given[given.duplicated()].unique()
    if len(twice):
        raise ArgumentError(f"{path}: {key} stands more than once for {some(twice)} ({len(twice)} in all) (--labels)")
    if not len(given):
        raise ArgumentError(f"{path}: no line has a {key} (--labels)")
    if not given.isin(wanted).any():
        raise ArgumentError(
            f"{path}: no {key} matches the embedding file; the table has {some(given)}, "
            f"the file has {some(dict.fromkeys(wanted))} (--labels)"
        )
