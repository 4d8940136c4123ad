"""EchoNet-Dynamic, EchoNet-Pediatric and EchoNet-LVH as downloaded -> Manifest.

A row without its file stays in the list, so that it ends as a failure with its name; files without a row, which have no
label, are counted in the notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns, parse_number
from panecho_embed.datasets.reading import collect, raise_problems, read_table, require_columns
from panecho_embed.datasets.text import shown

if TYPE_CHECKING:
    import pandas as pd

PEDIATRIC_VIEWS = ("A4C", "PSAX")
_LISTED = 5


def read_dynamic(root: Path) -> Manifest:
    """EchoNet-Dynamic: FileList.csv and Videos/*.avi; apical four-chamber, one video a patient.

    Source: Ouyang et al., Nature 2020. video_id is FileName; labels EF (%), ESV, EDV (mL) and every further column.
    """
    table = read_table(root / "FileList.csv")
    require_columns(table, ["FileName", "Split"])

    def reference(row: Mapping[str, str]) -> VideoRef:
        name = _filled(row, "FileName").removesuffix(".avi")
        path = str(root / "Videos" / f"{name}.avi")
        fps = parse_number("FPS", row.get("FPS", ""))
        return VideoRef(name, name, name, path, "A4C", row["Split"].lower(), fps)

    videos, problems = collect(table, reference)
    raise_problems(table.path, problems)
    notes = _unmatched(videos, (root / "Videos").glob("*.avi"), root)
    labels, of_labels = label_columns(table.frame, ("FileName", "Split", "FPS"), table.path)
    return Manifest(tuple(videos), labels, (*notes, *of_labels))


def read_pediatric(root: Path) -> Manifest:
    """EchoNet-Pediatric: A4C/ and PSAX/, each FileList.csv and Videos/; ten folds in the column Split.

    Source: Reddy et al., JASE 2023. FileName is patient-study-number.avi: the patient is its first part, the study
    its first two. video_id is view/FileName without suffix; split is the fold's number.
    """
    import pandas as pd

    frames, videos, problems = [], [], []
    for view in PEDIATRIC_VIEWS:
        listing = root / view / "FileList.csv"
        if listing.is_file():
            table = read_table(listing)
            require_columns(table, ["FileName", "Split"])
            found, wrong = collect(table, partial(_pediatric_reference, view=view, root=root))
            lines = [f"{line} of {view}/{listing.name}" for line in table.frame.index]
            frames.append(table.frame.set_axis(lines))
            videos += found
            problems += [f"{view}/{listing.name}, {problem}" for problem in wrong]
    if not frames:
        raise ManifestError(f"{root}: not EchoNet-Pediatric, neither A4C/FileList.csv nor PSAX/FileList.csv is there")
    raise_problems(root, problems)
    frame = pd.concat(frames).fillna("")
    there = (file for view in PEDIATRIC_VIEWS for file in (root / view / "Videos").glob("*.avi"))
    labels, of_labels = label_columns(frame, ("FileName", "Split"), root)
    return Manifest(tuple(videos), labels, (*_unmatched(videos, there, root), *of_labels))


def _pediatric_reference(row: Mapping[str, str], view: str, root: Path) -> VideoRef:
    name = _filled(row, "FileName")
    stem = Path(name).stem
    parts = stem.split("-")
    path = root / view / "Videos" / (name if Path(name).suffix else f"{name}.avi")
    return VideoRef(f"{view}/{stem}", "-".join(parts[:2]), parts[0], str(path), view, row["Split"])


def read_lvh(root: Path) -> Manifest:
    """EchoNet-LVH: MeasurementsList.csv, one row a measurement, and Batch*/*.avi; parasternal long axis.

    Source: Duffy et al., JAMA Cardiology 2022. One video a patient; a label (IVSd, LVIDd, LVPWd, LVIDs, cm) is NaN
    where it was not measured, and the mean where it was measured more than once.
    """
    table = read_table(root / "MeasurementsList.csv")
    require_columns(table, ["HashedFileName", "Calc", "CalcValue", "split"])
    where = {file.stem: file for file in sorted(root.glob("Batch*/*.avi"))}

    def reference(row: Mapping[str, str]) -> VideoRef:
        name = _filled(row, "HashedFileName")
        _filled(row, "Calc")
        parse_number("CalcValue", row["CalcValue"])
        path = where.get(name, root / "Batch1" / f"{name}.avi")
        return VideoRef(
            name, name, name, str(path), "PLAX", row["split"].lower(), parse_number("FPS", row.get("FPS", ""))
        )

    measured_videos, problems = collect(table, reference, unique=False)
    raise_problems(table.path, problems)
    first: dict[str, VideoRef] = {}
    for video in measured_videos:
        first.setdefault(video.video_id, video)
    measured = _pivot(table.frame)
    labels = {str(name): measured[name].reindex(list(first)).to_numpy(dtype=np.float64) for name in measured.columns}
    return Manifest(tuple(first.values()), labels, _unmatched(first.values(), where.values(), root))


def _pivot(frame: pd.DataFrame) -> pd.DataFrame:
    values = [parse_number("CalcValue", text) for text in frame["CalcValue"]]
    numbers = frame.assign(CalcValue=np.array(values, dtype=np.float64))
    return numbers.pivot_table(index="HashedFileName", columns="Calc", values="CalcValue", aggfunc="mean")


def _filled(row: Mapping[str, str], name: str) -> str:
    if not row[name]:
        raise ArgumentError(f"{name} is empty")
    return row[name]


def _unmatched(videos: Iterable[VideoRef], there: Iterable[Path], root: Path) -> tuple[str, ...]:
    """Notes on rows without a file and files without a row; ManifestError if no row has its file."""
    rows, files = {Path(video.path) for video in videos}, set(there)
    without_file, without_row = sorted(rows - files), sorted(files - rows)
    if rows and not rows & files:
        raise ManifestError(
            f"{root}: none of the {len(rows)} files of its table is there, for example {without_file[0]}; "
            f"{len(files)} other videos are"
        )

    def some(paths: list[Path]) -> str:
        return ", ".join(shown(path.name) for path in paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")

    notes = []
    if without_file:
        notes.append(f"{len(without_file)} rows of the table have no file and will be failures: {some(without_file)}")
    if without_row:
        notes.append(f"{len(without_row)} files have no row in the table and were left out: {some(without_row)}")
    return tuple(notes)
