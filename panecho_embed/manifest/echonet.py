"""EchoNet-Dynamic, EchoNet-Pediatric and EchoNet-LVH as downloaded -> Manifest.

A row without its file stays in the list, so that it ends as a failure with its name; files without a row, which have no
label, are counted in the notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.errors import ManifestError
from panecho_embed.manifest.table import label_columns, parse_fps, read_table, require_columns
from panecho_embed.records import Manifest, VideoRef

if TYPE_CHECKING:
    import pandas as pd

PEDIATRIC_VIEWS = ("A4C", "PSAX")
_LISTED = 5


def read_dynamic(root: Path) -> Manifest:
    """EchoNet-Dynamic: FileList.csv and Videos/*.avi; apical four-chamber, one video a patient.

    Source: Ouyang et al., Nature 2020. video_id is FileName; labels EF (%), ESV, EDV (mL) and every further column.
    """
    listing = root / "FileList.csv"
    frame = read_table(listing)
    require_columns(frame, ["FileName", "Split"], listing)
    names = frame["FileName"].str.removesuffix(".avi")
    paths = [root / "Videos" / f"{name}.avi" for name in names]
    splits = frame["Split"].str.lower()
    rates = frame["FPS"] if "FPS" in frame.columns else [""] * len(frame)
    videos = tuple(
        VideoRef(name, name, name, str(path), "A4C", split, parse_fps(rate))
        for name, path, split, rate in zip(names, paths, splits, rates, strict=True)
    )
    notes = _unmatched(paths, (root / "Videos").glob("*.avi"), root)
    return Manifest(videos, label_columns(frame, ("FileName", "Split", "FPS")), notes)


def read_pediatric(root: Path) -> Manifest:
    """EchoNet-Pediatric: A4C/ and PSAX/, each FileList.csv and Videos/; ten folds in the column Split.

    Source: Reddy et al., JASE 2023. FileName is patient-study-number.avi: the patient is its first part, the study
    its first two. video_id is view/FileName without suffix; split is the fold's number.
    """
    import pandas as pd

    frames = []
    for view in PEDIATRIC_VIEWS:
        listing = root / view / "FileList.csv"
        if listing.is_file():
            frame = read_table(listing)
            require_columns(frame, ["FileName", "Split"], listing)
            frames.append(frame.assign(_view=view))
    if not frames:
        raise ManifestError(f"{root}: not EchoNet-Pediatric, neither A4C/FileList.csv nor PSAX/FileList.csv is there")
    frame = pd.concat(frames, ignore_index=True).fillna("")
    videos, paths = [], []
    for name, view, split in zip(frame["FileName"], frame["_view"], frame["Split"], strict=True):
        stem = Path(name).stem
        parts = stem.split("-")
        path = root / view / "Videos" / (name if Path(name).suffix else f"{name}.avi")
        paths.append(path)
        videos.append(VideoRef(f"{view}/{stem}", "-".join(parts[:2]), parts[0], str(path), view, split))
    there = (file for view in PEDIATRIC_VIEWS for file in (root / view / "Videos").glob("*.avi"))
    return Manifest(tuple(videos), label_columns(frame, ("FileName", "Split", "_view")), _unmatched(paths, there, root))


def read_lvh(root: Path) -> Manifest:
    """EchoNet-LVH: MeasurementsList.csv, one row a measurement, and Batch*/*.avi; parasternal long axis.

    Source: Duffy et al., JAMA Cardiology 2022. One video a patient; a label (IVSd, LVIDd, LVPWd, LVIDs, cm) is NaN
    where it was not measured, and the mean where it was measured more than once.
    """
    listing = root / "MeasurementsList.csv"
    frame = read_table(listing)
    require_columns(frame, ["HashedFileName", "Calc", "CalcValue", "split"], listing)
    measured = _pivot(frame, listing)
    first = frame.drop_duplicates("HashedFileName").set_index("HashedFileName")
    where = {file.stem: file for file in sorted(root.glob("Batch*/*.avi"))}
    names = [str(name) for name in first.index]
    paths = [where.get(name, root / "Batch1" / f"{name}.avi") for name in names]
    rates = first["FPS"] if "FPS" in first.columns else [""] * len(first)
    videos = tuple(
        VideoRef(name, name, name, str(path), "PLAX", split.lower(), parse_fps(rate))
        for name, path, split, rate in zip(names, paths, first["split"], rates, strict=True)
    )
    labels = {str(name): measured[name].reindex(names).to_numpy(dtype=np.float64) for name in measured.columns}
    return Manifest(videos, labels, _unmatched(paths, where.values(), root))


def _pivot(frame: pd.DataFrame, listing: Path) -> pd.DataFrame:
    import pandas as pd

    values = pd.to_numeric(frame["CalcValue"].replace("", None), errors="coerce")
    unread = frame.loc[values.isna() & (frame["CalcValue"] != ""), "CalcValue"].unique()[:_LISTED]
    if len(unread):
        raise ManifestError(f"{listing}: CalcValue must be a number; found {', '.join(map(repr, unread))}")
    numbers = frame.assign(CalcValue=values)
    return numbers.pivot_table(index="HashedFileName", columns="Calc", values="CalcValue", aggfunc="mean")


def _unmatched(listed: Iterable[Path], there: Iterable[Path], root: Path) -> tuple[str, ...]:
    """Notes on rows without a file and files without a row; ManifestError if no row has its file."""
    rows, files = set(listed), set(there)
    without_file, without_row = sorted(rows - files), sorted(files - rows)
    if rows and not rows & files:
        raise ManifestError(
            f"{root}: none of the {len(rows)} files of its table is there, for example {without_file[0]}; "
            f"{len(files)} other videos are"
        )

    def some(paths: list[Path]) -> str:
        return ", ".join(path.name for path in paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")

    notes = []
    if without_file:
        notes.append(f"{len(without_file)} rows of the table have no file and will be failures: {some(without_file)}")
    if without_row:
        notes.append(f"{len(without_row)} files have no row in the table and were left out: {some(without_row)}")
    return tuple(notes)
