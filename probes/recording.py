"""What a file knows of how its videos were recorded, as numbers: the features of the recording-only baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats
from panecho_embed.core.records import SELF_SIMILARITY, EmbeddingTable
from panecho_embed.evaluation.predictions import mean_by
from panecho_embed.media.kinds import type_of_file

Facts = Mapping[str, Floats]
"""Name of a fact -> (U, F) numbers of each unit."""

# Whose a video is, what changes with every file, and what is measured or traced in the pictures themselves.
_IDENTITIES = frozenset({"video_id", "study_id", "patient_id", "split", "path", "sha256", "status", "mtime_ns"})
_IDENTITIES |= {"r_wave_times_ms", "heart_rate_confidence", "end_diastole", "end_systole"}
_WORDS = {"fps": "frame rate", "fps_source": "source of the frame rate", "num_frames": "number of frames"}
_WORDS |= {"size_bytes": "file size"}
_UNKNOWN = {"size_bytes": -1, "frame_height": 0, "frame_width": 0}  # how these numbers say so; others are NaN
_MOST_LEVELS = 20  # of a text, the most frequent first; the others count as one


def fact_name(column: str) -> str:
    """A column in words, as it is called among the facts."""
    return _WORDS.get(column.lower(), column.replace("_", " "))


def as_labelled(videos: Mapping[str, npt.NDArray[Any]], rows: EmbeddingTable) -> dict[str, npt.NDArray[Any]]:
    """Columns of a file's videos, with the studies and views that a table of labels gave their rows (`rows`)."""
    if rows.level == "study":
        return dict(videos)
    last = {name: i for i, name in enumerate(rows.video_id)}
    row = np.array([last.get(name, -1) for name in videos["video_id"]], dtype=np.int64)
    given = {name: np.append(getattr(rows, name), "")[row] for name in ("study_id", "view")}
    return {**videos, **{name: np.where(row >= 0, column, videos[name]) for name, column in given.items()}}


def recording_facts(videos: Mapping[str, npt.NDArray[Any]], units: EmbeddingTable) -> Facts:
    """Everything that a file knows of the recording of each unit.

    Parameters
    ----------
    videos : mapping of str to (M,)
        Ids and facts of the file's videos, as `as_labelled` gives them. Every column that does not name a video is
        a fact, and so is the type of its file.
    units : EmbeddingTable
        Frames, clips, videos or studies. A study has the mean of its videos, and their number.

    Returns
    -------
    mapping of str to (U, F) float64
        By the fact's name in words. Numbers as they are, unknown ones as the mean with a column that says so; texts as
        a column of 0 and 1 for each value. Facts that are the same everywhere are omitted.
    """
    of_study = units.level == "study"
    ids = (units.study_id, videos["study_id"]) if of_study else (units.video_id, videos["video_id"])
    place = {str(name): i for i, name in enumerate(dict.fromkeys(map(str, ids[0])))}
    group = np.array([place.get(str(name), -1) for name in ids[1]], dtype=np.int64)
    if "status" in videos:
        group[np.asarray(videos["status"]) != "done"] = -1
    here = np.flatnonzero(group >= 0)
    back = np.array([place[str(name)] for name in ids[0]], dtype=np.int64)
    found = {}
    for name, column in _columns(videos).items():
        known = _numbers(column[here], name) if column.dtype.kind in "fiub" else _levels(column[here])
        found[fact_name(name)] = mean_by(group[here], known)[back]
    if of_study:
        found["number of videos"] = np.bincount(group[here], minlength=len(place))[back, None].astype(np.float64)
    # Means of equal numbers differ by rounding.
    kept = {
        name: values[:, np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(axis=0)]
        for name, values in found.items()
        if len(values)
    }
    return {name: values for name, values in kept.items() if values.shape[1]}


def fact_values(videos: Mapping[str, npt.NDArray[Any]], units: EmbeddingTable) -> dict[str, npt.NDArray[Any]]:
    """The same facts as they are in the file, (U,) each: NaN for an unknown number, "not stated" for an empty text.

    videos: as `recording_facts` takes them. units: videos, or the studies of a file that holds studies.
    """
    of_study = units.level == "study"
    place = {str(name): i for i, name in enumerate(videos["video_id"])}
    row = np.array([place[str(name)] for name in (units.study_id if of_study else units.video_id)], dtype=np.int64)
    found: dict[str, npt.NDArray[Any]] = {}
    for name, column in _columns(videos).items():
        if column.dtype.kind in "fiub":
            found[fact_name(name)] = np.where(_unknown(column, name), np.nan, column.astype(np.float64))[row]
        else:
            found[fact_name(name)] = np.array([str(text) or "not stated" for text in column], dtype=object)[row]
    return found


def _columns(videos: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The facts among the columns of a file's videos, and the type of each file."""
    columns = {name: column for name, column in videos.items() if name not in _IDENTITIES}
    if {"heart_rate_bpm", "heart_rate_source"} <= columns.keys():
        # One that was found in the pictures is no fact without them.
        seen = columns["heart_rate_source"] == SELF_SIMILARITY
        columns["heart_rate_bpm"] = np.where(seen, np.nan, columns["heart_rate_bpm"])
        columns["heart_rate_source"] = np.where(seen, "", columns["heart_rate_source"])
    paths = [str(path) for path in videos["path"]]
    if not all(path.startswith("study:") for path in paths):
        columns["type of file"] = np.array([type_of_file(path) for path in paths], dtype=object)
    return columns


def _unknown(column: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
    values = column.astype(np.float64)
    return np.asarray(~np.isfinite(values) | (values == _UNKNOWN.get(name, np.nan)))


def _numbers(column: npt.NDArray[Any], name: str) -> Floats:
    """(M, 2) values, and whether they are not known."""
    values = column.astype(np.float64)
    unknown = _unknown(column, name)
    mean = values[~unknown].mean() if not unknown.all() else 0.0
    return np.column_stack([np.where(unknown, mean, values), unknown])


def _levels(column: npt.NDArray[Any]) -> Floats:
    """(M, L) 0 and 1 for each value of a text, the most frequent first."""
    texts = [str(text) for text in column]
    levels = [text for text, _ in Counter(texts).most_common(_MOST_LEVELS)]
    return np.array([[text == level for level in levels] for text in texts], dtype=np.float64).reshape(len(texts), -1)
