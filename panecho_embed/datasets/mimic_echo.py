"""MIMIC-IV-ECHO 1.0 as downloaded: echo-record-list.csv and files/pNN/p<subject>/s<study>/<study>_NNNN.dcm.

Ids are those of the record list and of the paths, never of a header: subject_id, study_id and the file's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import VideoRef
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.reading import Table, collect, raise_problems, read_table, require_columns
from panecho_embed.datasets.walk import Tree

if TYPE_CHECKING:
    from panecho_embed.core.records import Manifest

RECORD_LIST = "echo-record-list.csv"
FILE_COLUMN = "dicom_filepath"
OWN_COLUMNS = (FILE_COLUMN, "subject_id", "acquisition_datetime")
"""Columns of the record list that are no labels."""

_PATH = re.compile(r"(?:^|/)p\d{2}/p(?P<patient>\d{8})/s(?P<study>\d+)/(?P<name>(?P=study)_\d+)\.dcm$")
_FORM = "files/pNN/p<subject_id>/s<study_id>/<study_id>_NNNN.dcm"
_SHARES = (("train", 0.70), ("val", 0.85), ("test", 1.0))


def split_of(subject_id: str, seed: int = 0) -> str:
    """train (70 %), val (15 %) or test (15 %): by a hash of patient and seed, whoever else is in the data."""
    digest = hashlib.sha256(f"{seed}\0{subject_id}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return next(name for name, upper in _SHARES if share < upper)


def video_of(relative: str, path: str, seed: int = 0) -> VideoRef:
    """The video at a place below the set's root. Raises ArgumentError for a place that is not the set's."""
    match = _PATH.search(relative)
    if match is None:
        raise ArgumentError(f"{FILE_COLUMN} is {relative!r}; the set's is {_FORM}")
    return VideoRef(match["name"], match["study"], match["patient"], path, split=split_of(match["patient"], seed))


def is_own(video: VideoRef) -> bool:
    """Whether a video of a table is an object of this set, with its own ids."""
    match = _PATH.search(video.location)
    own = match and (match["name"], match["study"], match["patient"])
    return own == (video.video_id, video.study_id, video.patient_id)


def read_records(root: Path, seed: int = 0) -> list[VideoRef]:
    """All objects that the record list at `root` names, sorted by id, whether their files are there or not.

    A copy of the list without dicom_filepath names the files of its studies that are there. Raises ManifestError for
    a list that is missing or damaged, and for rows whose path is of another patient or study than their ids.
    """
    path = root / RECORD_LIST
    if not path.is_file():
        raise ManifestError(f"{root}: no {RECORD_LIST}; give the folder of MIMIC-IV-ECHO that has it, beside files/")
    table = read_table(path)
    require_columns(table, ["subject_id", "study_id"])
    if FILE_COLUMN not in table.frame.columns:
        videos, problems = _of_studies(table, root, seed)
    else:
        videos, problems = collect(table, lambda row: _checked(row, root, seed))
    raise_problems(path, problems)
    return sorted(videos, key=lambda video: video.video_id)


def _checked(row: Mapping[str, str], root: Path, seed: int) -> VideoRef:
    video = video_of(row[FILE_COLUMN], f"{root}/{row[FILE_COLUMN]}", seed)
    for name, of_path in (("subject_id", video.patient_id), ("study_id", video.study_id)):
        if row.get(name, of_path) != of_path:
            raise ArgumentError(f"{name} is {row[name]}, and its {FILE_COLUMN} is of {of_path}: {row[FILE_COLUMN]}")
    return video


def _of_studies(table: Table, root: Path, seed: int) -> tuple[list[VideoRef], list[str]]:
    """The files in the folders of the studies that a list without paths names."""
    videos: list[VideoRef] = []
    problems = [f"line {line}: {text}" for line, text in sorted(table.problems.items())]
    ids = table.frame[["subject_id", "study_id"]].drop_duplicates()
    for line, subject, study in zip(ids.index, ids["subject_id"], ids["study_id"], strict=True):
        if not subject.isdecimal() or not study.isdecimal():
            problems.append(f"line {line}: subject_id or study_id is no number: {subject!r}, {study!r}")
            continue
        folder = Path("files") / f"p{int(subject) // 1_000_000:02d}" / f"p{int(subject):08d}" / f"s{study}"
        for file in sorted((root / folder).glob(f"{study}_*.dcm")):
            videos.append(video_of((folder / file.name).as_posix(), str(file), seed))
    return videos, problems


def with_ids(table: Table) -> Table:
    """A record list, or some rows of one, with the columns path, video_id, patient_id and split.

    The path is relative to the table's folder. Columns that are there already stay.
    """
    import pandas as pd

    frame, problems = table.frame, dict(table.problems)
    added: dict[str, list[str]] = {"path": list(frame[FILE_COLUMN]), "video_id": [], "patient_id": [], "split": []}
    for line, row in zip(frame.index, frame.to_dict("records"), strict=True):
        try:
            video = _checked({str(name): str(cell) for name, cell in row.items()}, table.path.parent, 0)
            ids = video.video_id, video.patient_id, video.split
        except ArgumentError as error:
            problems.setdefault(line, str(error))
            ids = "", "", ""
        for name, value in zip(("video_id", "patient_id", "split"), ids, strict=True):
            added[name].append(value)
    mine = {
        name: pd.Series(values, frame.index, dtype=object)
        for name, values in added.items()
        if name not in frame.columns
    }
    return Table(table.path, frame.assign(**mine), problems)


def read_views(path: Path, columns: tuple[str, str] | None = None) -> dict[str, str]:
    """Views that another data set gives to objects of this one: video_id -> view.

    Parameters
    ----------
    path : Path
        MIMICEchoQA.json, or a table such as ECHOVIEW's.
    columns : (str, str), optional
        The columns of a table that hold the file (a path, or a name, with or without suffix) and the view.

    Raises
    ------
    ManifestError
        For a file that can't be read, has no such columns, or gives one object two views.
    """
    pairs: list[tuple[str, str]]
    if path.suffix.lower() == ".json":
        try:
            items = json.loads(path.read_text(encoding="utf-8"))
            pairs = [(video, str(item["view"])) for item in items for video in item["videos"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path}: it can't be read as MIMICEchoQA's list ({error!r}) (--views)") from error
    else:
        try:
            table = read_table(path)
        except OSError as error:
            raise ManifestError(f"{path}: it can't be read: {error.strerror or error} (--views)") from error
        if columns is None:
            raise ManifestError(
                f"{path}: which columns hold the file and the view? Name them with --view-columns FILE,VIEW; the table "
                f"has {', '.join(table.frame.columns)}"
            )
        require_columns(table, columns)
        pairs = list(zip(table.frame[columns[0]], table.frame[columns[1]], strict=True))
    views: dict[str, str] = {}
    torn = set()
    for file, view in pairs:
        name = file.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        if view.strip() and views.setdefault(name, view.strip()) != view.strip():
            torn.add(name)
    raise_problems(path, [f"{name} has several views" for name in sorted(torn)])
    return views


def _roots(tree: Tree) -> Iterable[Path]:
    return {path.parent for path in tree.named(RECORD_LIST)}


def _read(root: Path, tree: Tree) -> Manifest:
    # What the others say is read by `prepare_mimic`, which takes minutes.
    tree.used.update(root / name for name in LAYOUT.tables)
    files = tree.files(root, (".dcm",))
    there = set(map(str, files))
    videos = read_records(root)
    present = [video for video in videos if video.path in there]
    notes = [
        "splits are 70/15/15 % of the patients, by a hash with seed 0; `panecho-embed mimic` chooses the cine loops in "
        "B-mode by their headers, and reads measurements and outcomes"
    ]
    if videos and not present:
        raise ManifestError(
            f"{root}: none of the {len(videos):,} files of {RECORD_LIST} is there, for example {videos[0].path}"
        )
    if len(present) < len(videos):
        notes.append(f"{len(videos) - len(present):,} of {len(videos):,} objects are not downloaded, and are left out")
    return manifest_of(root, present, {}, files, notes)


LAYOUT = Layout(
    name="mimic-iv-echo",
    title="MIMIC-IV-ECHO",
    looks_like=f"{RECORD_LIST} beside files/",
    tables=(RECORD_LIST, "echo-study-list.csv", "structured-measurement.csv.gz", "structured-measurement.csv"),
    roots=_roots,
    read=_read,
    reads="echo-record-list.csv: every object that is downloaded, spectra and stills too. `panecho-embed mimic` "
    "chooses the cine loops in B-mode, and reads measurements and outcomes (docs/mimic.md).",
    identity="the patient is subject_id, the study study_id, a video its file's name; headers are not asked",
    card=Card(
        citation="Gow et al., MIMIC-IV-ECHO: Echocardiogram Matched Subset (version 1.0), PhysioNet 2026",
        licence="PhysioNet, credentialed access",
        passing_on="Nothing of the data may be passed on, neither pictures nor rows of its tables.",
        flaws=(
            "Dates are shifted by another number of years for each patient: compare them within a patient only. A "
            "split by time is in effect a random split of patients.",
            "45 % of the objects are stills, spectral Doppler or M-mode.",
            "Two report systems name the same measurement differently; graded texts differ from valve to valve.",
            "lvef is a lower bound where lvef_upper is given. TAPSE is in cm, in some rows in mm.",
            "A valve that is not mentioned is mostly healthy: missing grades are not missing at random.",
        ),
    ),
)
