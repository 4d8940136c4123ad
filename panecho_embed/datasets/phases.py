"""End diastole and end systole from the left ventricle's tracings of EchoNet-Dynamic and -Pediatric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panecho_embed.core.arraytypes import FloatArray
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.wording import counted
from panecho_embed.datasets.labels import parse_number
from panecho_embed.datasets.reading import require_columns
from panecho_embed.datasets.walk import Tree

_ABSENT = {"no systolic": "es", "no diastolic": "ed"}
"""What EchoNet-Pediatric writes as the frame of a phase that was not traced."""

_Points = list[tuple[float, float]]


def phases_of(tree: Tree, path: Path, names: Sequence[str]) -> tuple[dict[str, FloatArray], list[str]]:
    """The columns ed_frame and es_frame of the videos `names` (FileName without suffix), counted from 0, and notes.

    Of the two frames that are traced, end diastole is the one with the larger area inside the convex hull of its
    points. NaN where a phase is not traced, more than two frames are, or a row is unusable; no columns where the table
    is not there or is of another version. Tracings are no reason to refuse a data set, so a note says what is wrong.
    """
    if path not in tree.named(path.name):
        return {}, []
    table = tree.table(path)
    pairs = [("X1", "Y1"), ("X2", "Y2")] if "X1" in table.frame.columns else [("X", "Y")]
    try:
        require_columns(table, ["FileName", "Frame", *(name for pair in pairs for name in pair)])
    except ManifestError as error:
        return {}, [f"no ed_frame and es_frame: {error}"]
    traced: dict[str, dict[int, _Points]] = defaultdict(dict)
    absent: dict[str, set[str]] = defaultdict(set)
    problems = dict.fromkeys(table.problems, "")
    for line, row in zip(table.frame.index, table.frame.to_dict("records"), strict=True):
        video, frame = row["FileName"].removesuffix(".avi"), row["Frame"]
        if phase := _ABSENT.get(frame.lower()):
            absent[video].add(phase)
            continue
        try:
            points = traced[video].setdefault(int(_number("Frame", frame)), [])
            points += [(_number(x, row[x]), _number(y, row[y])) for x, y in pairs]
        except ArgumentError as error:
            problems[line] = f" ({error})"
            # Neither a contour without one of its points, nor the other phase alone.
            absent[video] = {"ed", "es"}
    phases = [_phases(traced[name], absent[name]) if len(absent[name]) < 2 else (np.nan, np.nan) for name in names]
    found = np.array(phases, dtype=np.float64).reshape(-1, 2)
    notes = []
    if problems:
        first = min(problems)
        where = f"the first in line {first}{problems[first]}"
        rows = counted(len(problems), "unusable row")
        notes = [f"{rows} in {path.name}, {where}; their videos have no ed_frame, es_frame"]
    return {"ed_frame": found[:, 0], "es_frame": found[:, 1]}, notes


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
