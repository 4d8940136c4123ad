"""MIMIC-IV-ECHO made ready: which videos to embed, and a label table, in a folder of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.digests import listed_sums
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.outputs import refuse_to_replace, settled, written_run
from panecho_embed.core.records import VideoRef
from panecho_embed.core.wording import counted
from panecho_embed.datasets.mimic_echo import RECORD_LIST, read_records, read_views
from panecho_embed.datasets.mimic_headers import FOLDER, Selection, read_headers
from panecho_embed.datasets.mimic_labels import (
    WINDOW_DAYS,
    LvefRule,
    Matched,
    check_rules,
    described_columns,
    match,
    measured_labels,
    read_studies,
)
from panecho_embed.datasets.mimic_measurements import Measurements, pivot_measurements
from panecho_embed.datasets.mimic_outcomes import check_hosp, read_outcomes

if TYPE_CHECKING:
    import pandas as pd

VIDEOS, LABELS, STUDIES, COLUMNS, MEASUREMENTS = (
    "videos.csv",
    "labels.csv",
    "studies.csv",
    "columns.csv",
    "measurements.npz",
)
_LONG_TABLES = ("structured-measurement.csv.gz", "structured-measurement.csv")
_DEEPEST = 4
_LISTED = 5

Progress = Callable[[str, int, int], object]
"""Called with what is being read ("headers" or "measurements"), how much of it is new, and how much there is in all."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What was made ready.

    Parameters
    ----------
    root : Path
        Folder of the set.
    objects, present : int
        Objects of the record list, and how many of them are downloaded.
    selection : Selection
        What their headers say.
    chosen : list of VideoRef
        The cine loops in B-mode.
    labels, columns : DataFrame or None
        As written to labels.csv and columns.csv; None for a dry run.
    notes : tuple of str
        What a person should know.
    """

    root: Path
    objects: int
    present: int
    selection: Selection
    chosen: list[VideoRef]
    labels: pd.DataFrame | None = None
    columns: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    views: Counter[str] = field(default_factory=Counter)


def prepare_mimic(
    source: str | Path,
    out: str | Path,
    *,
    lvef: LvefRule = "measured",
    window_days: float = WINDOW_DAYS,
    hosp: str | Path | None = None,
    views: str | Path | None = None,
    view_columns: tuple[str, str] | None = None,
    seed: int = 0,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda what, new, total: None,
) -> Prepared:
    """Choose the cine loops in B-mode and make a table of labels per study, in a folder of tables.

    Resumable: headers and the long table of measurements are read once, kept in the folder, and used again.

    Parameters
    ----------
    source : str or Path
        The set as downloaded, or a folder up to four levels above; nothing is written there.
    out : str or Path
        Folder for videos.csv, labels.csv, studies.csv, columns.csv, measurements.npz, headers/ and SHA256SUMS.
    lvef : {"measured", "reported", "teichholz"}
        Rule for the column lvef, see `panecho_embed.datasets.mimic_labels.lvef`.
    window_days : float
        Farthest measurements from a study, in days.
    hosp : str or Path, optional
        MIMIC-IV's hosp folder, for outcomes, age and sex; None leaves them out.
    views : str or Path, optional
        Table of views (ECHOVIEW's) or MIMICEchoQA.json, see `read_views`.
    view_columns : (str, str), optional
        The columns of that table with the file and the view.
    seed : int
        Seed of the split of patients.
    dry_run : bool
        Read the headers only, and write no table.
    overwrite : bool
        Replace the tables of an earlier run.
    progress : callable
        See `Progress`.

    Returns
    -------
    Prepared
        Counts, the chosen videos, and the tables of labels and of columns (DataFrames).

    Raises
    ------
    ManifestError
        For tables that are missing, cut, or do not belong together.
    ArgumentError
        For a rule, a window or options that are not allowed.
    StoreError
        If the folder has the tables of an earlier run, is damaged, or can't be written.
    """
    source, out = Path(source), Path(out)
    hosp, views = (None if path is None else Path(path) for path in (hosp, views))
    if view_columns is not None and views is None:
        raise ArgumentError("--view-columns names columns of the table that --views gives; give both")
    if not dry_run:
        refuse_to_replace(out / LABELS, overwrite, in_new_folder=True)
    check_rules(lvef, window_days)
    root = find_root(source.absolute())
    # What is missing is said before hours of reading.
    with _reading(root):
        long_table, studies = _long_table(root), read_studies(root)
        if hosp is not None:
            check_hosp(hosp)
        videos = read_records(root, seed)
        present = [video for video in videos if Path(video.path).is_file()]
    if not present:
        raise ManifestError(
            f"{root}: none of the {len(videos):,} objects of {RECORD_LIST} is there, for example {videos[0].path}"
            if videos
            else f"{root / RECORD_LIST} lists no objects"
        )
    view_of = read_views(views, view_columns) if views is not None else {}
    selection = read_headers(present, settled(out), lambda: progress("headers", 1, len(present)))
    chosen = [replace(video, view=view_of.get(video.video_id, "")) for video in selection.chosen(present)]
    notes = _view_notes(views, view_of, chosen)
    if not chosen:
        raise ManifestError(f"{root}: none of the {len(present)} objects is a cine loop in B-mode: {selection.counts}")
    found = Prepared(root, len(videos), len(present), selection, chosen, notes=tuple(notes))
    found = replace(found, views=Counter(video.view for video in chosen if video.view))
    if dry_run:
        return found
    measurements = _measurements(long_table, out, progress)
    matched = match(studies, measurements, window_days)
    labels, more = _labels(matched, measurements, lvef, hosp, chosen)
    columns = described_columns(labels.drop(columns=["study_id", "patient_id", "split"]))
    _write(out, chosen, labels, columns, matched)
    every = (*notes, *measurements.notes, *matched.notes, *more)
    return replace(found, labels=labels, columns=columns, notes=every)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise ManifestError with the path for what the system refuses to read."""
    try:
        yield
    except OSError as error:
        raise ManifestError(f"{error.filename or path}: it can't be read: {error.strerror or error}") from error


def find_root(source: Path) -> Path:
    """The one folder, `source` or up to four levels below it, that has the record list. Raises ManifestError.

    Folders that can't be entered are passed over, and named if nothing is found.
    """
    folders, found, denied = [source], list[Path](), list[Path]()
    for _ in range(_DEEPEST + 1):
        below = []
        for folder in folders:
            try:
                if (folder / RECORD_LIST).is_file():
                    # Below it lie half a million objects.
                    found.append(folder)
                else:
                    below += [inner for inner in sorted(folder.iterdir()) if inner.is_dir()]
            except PermissionError:
                denied.append(folder)
        folders = below
    if len(found) != 1:
        which = "".join(f"\n  {folder}" for folder in found)
        closed = "".join(f"\n  {folder} can't be entered" for folder in denied[:_LISTED])
        raise ManifestError(
            f"{source}: {len(found)} folders have a {RECORD_LIST}; give one of them:{which}"
            if found
            else f"{source}: no {RECORD_LIST} there or up to {_DEEPEST} levels below; give the folder of MIMIC-IV-ECHO"
            + closed
        )
    return found[0]


def _long_table(root: Path) -> Path:
    path = next((root / name for name in _LONG_TABLES if (root / name).is_file()), None)
    if path is None:
        raise ManifestError(
            f"{root}: no {_LONG_TABLES[0]}, the table of measurements; download it into this folder. Without it, "
            "`panecho-embed extract` reads the videos alone"
        )
    return path


def _measurements(long_table: Path, out: Path, progress: Progress) -> Measurements:
    """The compact file of an earlier run, if it is of this table; else the table is read, and the file written."""
    compact = out / MEASUREMENTS
    if compact.is_file() and (known := Measurements.read(compact, long_table)) is not None:
        return known
    with _reading(long_table):
        size = long_table.stat().st_size
        found = pivot_measurements(long_table, lambda new: progress("measurements", new, size))
        _compare_digest(long_table, found.sha256)
    # The tables that an earlier run made of another one are no longer listed, and go.
    with written_run(out) as new:
        found.save(new / MEASUREMENTS, long_table)
    return found


def _compare_digest(path: Path, sha256: str) -> None:
    """Raise ManifestError if the set's own list has another SHA-256 of the table."""
    sums = path.with_name("SHA256SUMS.txt")
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.strip().partition(" ")
        if name.strip().lstrip("*./") == path.name and digest.lower() != sha256:
            raise ManifestError(
                f"{path}: its SHA-256 is {sha256}, {sums.name} says {digest}: it is cut, damaged or of another "
                "release. Download it again"
            )


def _labels(
    matched: Matched, found: Measurements, rule: LvefRule, hosp: Path | None, chosen: list[VideoRef]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Labels of the studies that have videos, and notes."""
    import pandas as pd

    labels, notes = measured_labels(matched, found, rule)
    if hosp is not None:
        outcomes, more = read_outcomes(hosp, matched.studies)
        notes = (*notes, *more)
        labels = pd.concat([labels, outcomes], axis=1)
    of_study = {video.study_id: video for video in chosen}
    with_videos = matched.studies["study_id"].isin(of_study).to_numpy()
    labels, studies = labels[with_videos], matched.studies[with_videos]
    if lacking := len(of_study) - len(studies):
        notes = (*notes, f"{counted(lacking, 'study')} with videos but not in the list of studies: no labels")
    wrong = [
        study
        for study, subject in zip(studies["study_id"], studies["subject_id"], strict=True)
        if of_study[study].patient_id != subject
    ]
    if wrong:
        raise ManifestError(
            f"{counted(len(wrong), 'study')} of one patient in {RECORD_LIST} and of another in the list of studies: "
            f"{', '.join(wrong[:5])}"
        )
    labels.insert(0, "study_id", studies["study_id"])
    labels.insert(1, "patient_id", studies["subject_id"])
    labels.insert(2, "split", [of_study[study].split for study in studies["study_id"]])
    return labels.reset_index(drop=True), notes


def _view_notes(path: Path | None, view_of: dict[str, str], chosen: list[VideoRef]) -> list[str]:
    if path is None:
        return []
    if not any(video.view for video in chosen):
        named = next(iter(view_of), "nothing")
        raise ManifestError(
            f"{path}: none of its {len(view_of)} objects (such as {named}) is one of the {len(chosen)} cine loops; "
            "--view-columns FILE,VIEW names the columns"
        )
    return [f"{sum(bool(video.view) for video in chosen)} of {len(chosen)} videos have a view from {path.name}"]


def _write(out: Path, chosen: list[VideoRef], labels: pd.DataFrame, columns: pd.DataFrame, matched: Matched) -> None:
    import pandas as pd

    rows = [(video.path, video.video_id, video.study_id, video.patient_id, video.view, video.split) for video in chosen]
    videos = pd.DataFrame(rows, columns=["path", "video_id", "study_id", "patient_id", "view", "split"])
    kept = [name for name in listed_sums(out) if name == MEASUREMENTS]
    kept += [f"{FOLDER}/{path.name}" for path in sorted((out / FOLDER).glob("*.csv"))]
    with written_run(out, also=kept) as new:
        for name, table in ((VIDEOS, videos), (LABELS, labels), (STUDIES, matched.studies), (COLUMNS, columns)):
            table.to_csv(new / name, index=False, lineterminator="\n")
