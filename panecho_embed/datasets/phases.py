"""End diastole and end systole from the left ventricle's tracings of EchoNet-Dynamic and -Pediatric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import ArgumentError
from panecho_embed.datasets.labels import parse_number
from panecho_embed.datasets.reading import raise_problems, require_columns
from panecho_embed.datasets.walk import Tree

_ABSENT = {"no systolic": "es", "no diastolic": "ed"}
"""What EchoNet-Pediatric writes as the frame of a phase that was not traced."""

_Points = list[tuple[float, float]]


def phases_of(tree: Tree, path: Path, names: Sequence[str]) -> dict[str, FloatArray]:
    """The columns ed_frame and es_frame of the videos `names` (FileName without suffix), counted from 0.

    Of the two frames that are traced, end diastole is the one with the larger area inside the convex hull of its
    points. NaN where a phase is not traced, or more than two frames are; no columns where the table is not there.
    Raises ManifestError for a table with other columns, or with points that are no numbers.
    """
    if path not in tree.files(path.parent):
        return {}
    table = tree.table(path)
    columns = [name for name in table.frame.columns if str(name).upper() in ("X1", "Y1", "X2", "Y2", "X", "Y")]
    pairs = [("X1", "Y1"), ("X2", "Y2")] if "X1" in columns else [("X", "Y")]
    require_columns(table, ["FileName", "Frame", *(name for pair in pairs for name in pair)])
    traced: dict[str, dict[int, _Points]] = defaultdict(dict)
    absent: dict[str, set[str]] = defaultdict(set)
    problems = [f"line {line}: {text}" for line, text in table.problems.items()]
    cells = [table.frame[name].tolist() for pair in pairs for name in pair]
    for line, name, frame, *points in zip(
        table.frame.index, table.frame["FileName"], table.frame["Frame"], *cells, strict=True
    ):
        video = name.removesuffix(".avi")
        if frame.lower() in _ABSENT:
            absent[video].add(_ABSENT[frame.lower()])
            continue
        try:
            number = int(_number("Frame", frame))
            values = [_number(pair[0][0], text) for pair, text in zip([*pairs, *pairs], points, strict=False)]
        except ArgumentError as error:
            problems.append(f"line {line}: {error}")
            continue
        traced[video].setdefault(number, []).extend(zip(values[::2], values[1::2], strict=True))
    raise_problems(path, problems)
    found = np.array([_phases(traced.get(name, {}), absent.get(name, set())) for name in names], dtype=np.float64)
    return {"ed_frame": found[:, 0], "es_frame": found[:, 1]}


def _number(name: str, text: str) -> float:
    if (value := parse_number(name, text)) is None:
        raise ArgumentError(f"{name} is empty")
    return value


def _phases(traced: dict[int, _Points], absent: set[str]) -> tuple[float, float]:
    """The frames of end diastole and end systole."""
    frames = sorted(traced)
    if len(frames) == 1 and len(absent) == 1:
        return (np.nan, frames[0]) if "ed" in absent else (frames[0], np.nan)
    if len(frames) != 2:
        return np.nan, np.nan
    areas = [_area(traced[frame]) for frame in frames]
    if areas[0] == areas[1]:
        return np.nan, np.nan
    return (frames[0], frames[1]) if areas[0] > areas[1] else (frames[1], frames[0])


def _area(points: _Points) -> float:
    """Of the convex hull, in square pixels: it does not depend on the order of the table's rows."""
    import cv2

    return float(cv2.contourArea(cv2.convexHull(np.array(sorted(points), dtype=np.float32))))
