"""SegRWMA as downloaded: NIfTI loops of three modes and three apical views, patientN-2D-A4C_image.nii.gz."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from panecho_embed.core.errors import ManifestError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.reading import Table, column_names, raise_problems
from panecho_embed.datasets.walk import Tree
from panecho_embed.media import NIFTI_SUFFIXES

_NAME = re.compile(r"((patient\d+)-(2D|LVO|MCE)-(A[234]C))(_image)?(\.nii(\.gz)?)?", re.IGNORECASE)
_OF_TABLE = "first_annotated_frame_index"


def _images(tree: Tree, root: Path | None = None) -> dict[str, Path]:
    """The loops by name, patient1-2D-A4C; masks (_label) are none."""
    files = [file for file in tree.files(root, NIFTI_SUFFIXES) if "_image." in file.name.lower()]
    return {match[1]: file for file in files if (match := _NAME.fullmatch(file.name))}


def _roots(tree: Tree) -> Iterable[Path]:
    return {file.parent for file in _images(tree).values()}


def _read(root: Path, tree: Tree) -> Manifest:
    files, table = _images(tree, root), _table(tree)
    row_of = {} if table is None else _rows(table)
    videos = []
    for name in sorted({*files, *row_of}):
        _, patient, _, view, *_ = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
        path = files.get(name, root / f"{name}_image.nii.gz")
        videos.append(VideoRef(name, patient, patient, str(path), view.upper()))
    mode = [video.video_id.split("-")[1].upper() for video in videos]
    if table is None:
        note = f"no labels: no table with a column {_OF_TABLE} lies below it"
        return manifest_of(root, videos, {"mode": mode}, files.values(), [note])
    # Of a video without a row the last, empty one.
    frame = table.frame.drop(columns=_key_column(table))
    frame.loc[-1] = ""
    frame = frame.loc[[row_of.get(video.video_id, -1) for video in videos]]
    labels, notes = label_columns(frame, (), table.path)
    return manifest_of(root, videos, {"mode": mode, **labels}, files.values(), notes)


def _table(tree: Tree) -> Table | None:
    """The one table with a column first_annotated_frame_index, whatever its name, beside the loops or above them."""
    found = [path for path in tree.files(suffixes=(".csv",)) if _OF_TABLE in column_names(path)]
    if len(found) > 1:
        raise ManifestError(f"{tree.root}: {len(found)} tables have a column {_OF_TABLE}: {', '.join(map(str, found))}")
    return tree.table(found[0]) if found else None


def _key_column(table: Table) -> str:
    """The column that names the loops."""
    for name in table.frame.columns:
        if len(table.frame) and all(_NAME.fullmatch(Path(cell).name) for cell in table.frame[name]):
            return str(name)
    raise ManifestError(
        f"{table.path}: no column names the loops as patient1-2D-A4C does; the columns are "
        f"{', '.join(map(str, table.frame.columns))}"
    )


def _rows(table: Table) -> dict[str, int]:
    """The line of each loop's row."""
    lines: dict[str, int] = {}
    problems = [f"line {line}: {problem}" for line, problem in table.problems.items()]
    for line, cell in table.frame[_key_column(table)].items():
        name = _NAME.fullmatch(Path(cell).name)[1]  # type: ignore[index]
        if name in lines:
            problems.append(f"line {line}: {name} stands in line {lines[name]} already")
        lines[name] = int(str(line))
    raise_problems(table.path, problems)
    return lines


LAYOUT = Layout(
    name="segrwma",
    title="SegRWMA",
    looks_like="files named patient1-2D-A4C_image.nii.gz",
    tables=(),
    roots=_roots,
    read=_read,
    identity="the video is patient1-2D-A4C; patient and study are its first part",
    units={"first_annotated_frame_index": "frame"},
    reads="*_image.nii.gz, the view by the name; the one table with a column first_annotated_frame_index, wherever "
    "it lies: every further column as a label; `mode` is 2D, LVO or MCE.",
    card=Card(
        citation="Regional wall motion abnormality echo, Kaggle (regional-wall-motion-abnormality-echo)",
        licence="See the download page",
        passing_on="Link to the download page.",
        flaws=(
            "2D is B-mode; LVO and MCE are recorded with contrast. The label `mode` says which.",
            "45 of 3,564 segments are abnormal: an accuracy says nothing.",
            "The masks (_label) are not read.",
        ),
    ),
)
