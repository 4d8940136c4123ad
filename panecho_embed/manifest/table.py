"""A table of videos -> Manifest; and the reading of tables for every other layout."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, ManifestError
from panecho_embed.records import Manifest, VideoRef

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})

# "None" is a class of several reporting tasks, so it is no missing value.
_MISSING = frozenset({"", "na", "n/a", "nan", "null"})
_ID_COLUMNS = ("path", "video_id", "study_id", "patient_id", "view", "split", "fps")
# Written by `panecho-embed manifest` for a person to look at; they are no labels when the table comes back.
DESCRIPTION_COLUMNS = ("content", "num_frames", "fps_source", "height", "width")
# TMED-2's tables name an image by its query_key: patient 12, study 1, image 3 is 12s1_3.png.
_TMED_KEY = re.compile(r"^(?P<study>(?P<patient>\d+)s\d+)_\d+\.\w+$")
_LISTED = 20


def read_table(path: Path) -> pd.DataFrame:
    """A table with every cell as text, empty cells as ""; comma, semicolon or (.tsv) tab between them."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
        # Every cell stays text: 007 is an id, not 7.
        frame = pd.read_csv(
            path, sep=separator, dtype=str, na_filter=False, encoding="utf-8-sig", quoting=csv.QUOTE_MINIMAL
        )
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ManifestError(f"{path}: not a table: {str(error).strip()}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if twice := sorted({name for name in frame.columns if list(frame.columns).count(name) > 1}):
        raise ManifestError(f"{path}: columns named twice: {', '.join(twice)}")
    stripped: pd.DataFrame = frame.apply(lambda column: column.str.strip())
    return stripped


def require_columns(frame: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Raise ManifestError naming the columns that a table lacks, the ones it has, and the nearest to each."""
    missing = [name for name in names if name not in frame.columns]
    if not missing:
        return
    near = {n: difflib.get_close_matches(n.lower(), [str(c).lower() for c in frame.columns], 1, 0.6) for n in missing}
    hints = "; ".join(f"did you mean {match[0]!r} for {name!r}?" for name, match in near.items() if match)
    raise ManifestError(
        f"{path}: no column {', '.join(missing)}; the columns are {', '.join(frame.columns) or '(none)'}"
        + (f"; {hints}" if hints else "")
    )


def label_columns(frame: pd.DataFrame, without: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Every other column as a label: float64 with NaN if all its values are numbers, else str objects."""
    return {str(name): parse_label(frame[name]) for name in frame.columns if name not in without}


def parse_label(column: pd.Series[str]) -> npt.NDArray[Any]:
    """A column of text as float64 (NaN where missing) if every value is a number, else as str objects."""
    import pandas as pd

    missing = column.str.lower().isin(_MISSING)
    numbers = pd.to_numeric(column.where(~missing, None), errors="coerce")
    if bool((numbers.notna() | missing).all()):
        return numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    text: npt.NDArray[Any] = column.where(~missing, "").to_numpy(dtype=object)
    return text


def read_table_manifest(path: Path) -> Manifest:
    """A table with one video a row.

    Column `path` is required, relative to the table's folder or absolute. video_id (default: the path as written),
    study_id (default: the video_id), patient_id (default: the study_id), view, split and fps are used when they are
    there; every other column is a label. A table with `query_key` in place of `path` is read as TMED-2's: the image of
    that name anywhere below the table's folder. Raises ManifestError listing every missing file, doubled id and
    unusable cell.
    """
    frame = read_table(path)
    notes = []
    if "path" not in frame.columns and "query_key" in frame.columns:
        frame = _from_tmed(frame, path.parent)
    require_columns(frame, ["path"], path)
    videos, problems = [], []
    rows: list[dict[str, str]] = frame.to_dict("records")  # type: ignore[assignment]
    for line, row in enumerate(rows, start=2):
        try:
            videos.append(_reference(row, path.parent))
        except (ArgumentError, FileNotFoundError) as error:
            problems.append(f"line {line}: {error}")
    problems += _doubled(videos)
    if problems:
        more = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ManifestError(f"{path}: {len(problems)} problems:\n  " + "\n  ".join(problems[:_LISTED]) + more)
    if "patient_id" not in frame.columns:
        whose = "study" if "study_id" in frame.columns else "video"
        notes.append(f"{path.name} has no patient_id column: every {whose} counts as a patient of its own")
    return Manifest(tuple(videos), label_columns(frame, (*_ID_COLUMNS, *DESCRIPTION_COLUMNS)), tuple(notes))


def parse_fps(text: str) -> float | None:
    """Frames per second from a cell: None if empty; ArgumentError if it is no number."""
    if text.lower() in _MISSING:
        return None
    try:
        return float(text)
    except ValueError:
        raise ArgumentError(f"fps is {text!r}; it must be a number, or empty") from None


def _reference(row: dict[str, str], base: Path) -> VideoRef:
    written = row["path"]
    if not written:
        raise ArgumentError("path is empty")
    target = base / Path(written).expanduser()
    if not target.exists():
        raise FileNotFoundError(f"no such file: {target}")
    video_id = row.get("video_id") or written
    study_id = row.get("study_id") or video_id
    return VideoRef(
        video_id,
        study_id,
        row.get("patient_id") or study_id,
        str(target),
        row.get("view", ""),
        row.get("split", ""),
        parse_fps(row.get("fps", "")),
    )


def _doubled(videos: Sequence[VideoRef]) -> list[str]:
    first: dict[str, int] = {}
    problems = []
    for line, video in enumerate(videos, start=2):
        if video.video_id in first:
            problems.append(f"line {line}: video_id {video.video_id!r} stands in line {first[video.video_id]} already")
        first.setdefault(video.video_id, line)
    return problems


def _from_tmed(frame: pd.DataFrame, base: Path) -> pd.DataFrame:
    where = {file.name: file for file in sorted(base.rglob("*")) if file.is_file()}
    frame = frame.assign(path=[str(where.get(key, base / key)) for key in frame["query_key"]])
    if "video_id" not in frame.columns:
        frame = frame.assign(video_id=frame["query_key"])
    matches = [_TMED_KEY.match(key) for key in frame["query_key"]]
    if all(matches) and "study_id" not in frame.columns:
        frame = frame.assign(
            study_id=[m["study"] for m in matches if m], patient_id=[m["patient"] for m in matches if m]
        )
    if "view" not in frame.columns and "view_label" in frame.columns:
        frame = frame.assign(view=frame["view_label"])
    return frame
