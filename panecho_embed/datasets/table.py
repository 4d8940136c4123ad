"""A table of videos -> Manifest."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.patients import is_opaque
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.remote import check_url, is_url
from panecho_embed.datasets.describe import DESCRIPTION_COLUMNS
from panecho_embed.datasets.folder import may_be_video, never_dicom
from panecho_embed.datasets.identity import PlainManifest, is_telling
from panecho_embed.datasets.labels import label_columns, parse_number
from panecho_embed.datasets.local_ids import LocalIds, local_path
from panecho_embed.datasets.mimic_echo import FILE_COLUMN, OWN_COLUMNS, is_own, with_ids
from panecho_embed.datasets.reading import collect, raise_problems, read_table, require_columns
from panecho_embed.datasets.text import is_undecodable
from panecho_embed.datasets.tmed2 import with_paths
from panecho_embed.media import is_dicom

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})

_IDS = ("video_id", "study_id", "patient_id")
_UNTIDY = re.compile(r"^~|//|\\|(^|/)\.(/|$)|/$|\0")
"""What a Path would write in another way, or can't be asked for."""

_KNOWN_COLUMNS = ("path", *_IDS, "view", "split", "fps")


def read_table_manifest(path: Path, base: str | None = None, local: LocalIds | None = None) -> PlainManifest:
    """A table with one video per row.

    Column `path` is required: absolute, a URL, or relative to `base`, the URL of a folder, by default the table's own
    folder. What is behind a URL is not asked for before its turn comes. video_id (default: the path as written),
    study_id (default: the video_id), patient_id (default: the study_id; filled in every row if the column is there),
    view, split and fps are used when they are there; every other column is a label, except those by which
    `describe_manifest` describes a video, if the first five of them are there. local: knows the paths of a table in
    which they are opaque. A table with `query_key` in place of `path` is read as TMED-2's, one with `dicom_filepath` as
    MIMIC-IV-ECHO's record list. Raises ManifestError listing every missing file, doubled id and unusable cell.
    """
    table = read_table(path, undecodable=("path", *_IDS))
    notes = []
    if "path" not in table.frame.columns and "query_key" in table.frame.columns:
        table = with_paths(table)
    if "path" not in table.frame.columns and FILE_COLUMN in table.frame.columns:
        table = with_ids(table)
    require_columns(table, ["path"])
    if local is None and any(map(is_opaque, table.frame["path"])):
        raise ManifestError(
            f"{path} has opaque paths, and its local table of ids, {local_path(path)}, is not there; put it back, or "
            "make the table anew (panecho-embed manifest)"
        )
    videos, problems = collect(table, lambda row: _reference(row, base or path.parent, local))
    raise_problems(path, problems)
    columns = set(table.frame.columns)
    if "patient_id" not in columns:
        whose = "study" if "study_id" in columns else "video"
        notes.append(f"{path.name} has no patient_id column: every {whose} counts as a patient of its own")
    # A single column of such a name is somebody's own.
    described = DESCRIPTION_COLUMNS if columns.issuperset(DESCRIPTION_COLUMNS[:5]) else ()
    labels, of_labels = label_columns(table.frame, (*_KNOWN_COLUMNS, *OWN_COLUMNS, *described), path)
    manifest = Manifest(tuple(videos), labels, (*notes, *of_labels))
    telling = sum(is_telling(video.video_id) for video in videos)
    # Ids of a de-identified set are its own; they are not hashed.
    dicom = not all(map(is_own, videos)) and any(_is_dicom(video.location) for video in videos)
    return PlainManifest(manifest, dicom, telling)


def _is_dicom(location: str) -> bool:
    """By the name where that tells; of what is at a URL, which is not asked for yet, only by the name."""
    path = PurePath(location)
    if never_dicom(path):
        return False
    if is_url(location) or may_be_video(path):
        return True
    with contextlib.suppress(OSError):
        return is_dicom(Path(location))
    return False


def _reference(row: Mapping[str, str], base: Path | str, local: LocalIds | None) -> VideoRef:
    written = row["path"]
    if not written:
        raise ArgumentError("path is empty")
    # A name that is not UTF-8 is passed on to the ids that come from it; any other is text in another encoding.
    for name in _IDS:
        if is_undecodable(row.get(name, "")) and not is_undecodable(written):
            raise ArgumentError(f"{name} is not UTF-8 text: {row[name]!r}; save the table as UTF-8")
    video_id = row.get("video_id") or written
    study_id = row.get("study_id") or video_id
    patient_id = row.get("patient_id", study_id)
    if not patient_id:
        raise ArgumentError(
            "patient_id is empty; fill it in, or remove the column (then every study counts as a patient of its own)"
        )
    origin = local.origin(written, video_id, study_id, patient_id) if local and is_opaque(written) else None
    if origin is None and is_opaque(written):
        raise ArgumentError("path is opaque, and the local table of ids does not know it")
    target = written if origin else _located(written, base)
    fps = parse_number("fps", row.get("fps", ""))
    return VideoRef(video_id, study_id, patient_id, target, row.get("view", ""), row.get("split", ""), fps, origin)


def _located(written: str, base: Path | str) -> str:
    """Where the file is, as a path or a URL. Raises OSError if no path of this machine leads to it."""
    if is_url(written):
        return check_url(written)
    if isinstance(base, str):
        return check_url(f"{base}/{written}")
    # A Path for each of a million rows takes longer than asking for the files.
    near = os.path.join("" if str(base) == "." else base, written)  # noqa: PTH118
    if not _UNTIDY.search(written) and os.path.exists(near):  # noqa: PTH110
        return near
    target = base / _expanded(written)
    try:
        there = target.exists()
    except OSError as error:
        raise OSError(f"{target} can't be reached: {error.strerror}") from error
    if not there:
        hint = " (not UTF-8 text; save the table as UTF-8)" if is_undecodable(written) else ""
        raise FileNotFoundError(f"no such file: {target}{hint}")
    return str(target)


def _expanded(written: str) -> Path:
    try:
        return Path(written).expanduser()
    except RuntimeError:
        # Nobody is called so: the ~ belongs to the name.
        return Path(written)
