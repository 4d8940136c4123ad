"""What may be wrong with how an input was understood, as warnings and errors for the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panecho_embed.core.errors import ManifestError
from panecho_embed.core.wording import counted
from panecho_embed.datasets.identity import DICOM_SUFFIXES, PlainManifest
from panecho_embed.datasets.layouts import known_layouts, titles_of
from panecho_embed.datasets.local_ids import SUFFIX as IDS_SUFFIX
from panecho_embed.datasets.mimic_echo import FILE_COLUMN
from panecho_embed.datasets.reading import column_names
from panecho_embed.datasets.text import shown
from panecho_embed.datasets.walk import TABLE_SUFFIXES, Tree
from panecho_embed.media import VIDEO_SUFFIXES

_LISTED = 5
_TABLES = (*TABLE_SUFFIXES, ".cfg", ".txt", ".json")
_LEVELS = 4
"""Folders above the input in which the tables of a data set are looked for."""

_MOST_OF_ONE_FOLDER, _MOST_OF_ONE_PATIENT = 20, 200
"""From this many videos on, one patient for all of them is doubted; a study has up to 120 loops."""


def refuse_part(path: Path) -> None:
    """Raise ManifestError for a folder inside a data set, without the tables that are above it."""
    for above in list(path.parents)[:_LEVELS]:
        names = (name for layout in known_layouts().values() for name in layout.tables)
        if table := next((name for name in names if (above / name).is_file()), None):
            raise ManifestError(
                f"{shown(path)} lies in {' or '.join(titles_of(table))}, whose {table} is in {shown(above)}: give that "
                "folder, or --layout folder to read these videos without labels, each folder as a patient"
            )


def refuse_table(path: Path) -> None:
    """Raise ManifestError for a data set's own table in place of its folder.

    TMED-2's tables and MIMIC-IV-ECHO's record list can be read by themselves.
    """
    if (titles := titles_of(path.name)) and not {"path", "query_key", FILE_COLUMN}.intersection(column_names(path)):
        raise ManifestError(
            f"{shown(path)} is a table of {' or '.join(titles)}, without a column path; give its folder, "
            f"{shown(path.parent)}"
        )


def refuse_remains(tree: Tree) -> None:
    """Raise ManifestError for a table of a data set that is not recognised, because another of its tables is gone."""
    for file in tree.files(suffixes=_TABLES):
        if titles := titles_of(file.name):
            layouts = (layout for layout in known_layouts().values() if layout.title in titles)
            how = "; ".join(f"{layout.title} is recognised by {layout.looks_like}" for layout in layouts)
            raise ManifestError(
                f"{shown(file)} is a table of {' or '.join(titles)}, whose other files are not there: {how}. Put them "
                "back, or pass --layout folder to read the videos without labels, each folder as a patient"
            )


def one_patient(found: PlainManifest) -> list[str]:
    """A warning of many videos of one patient."""
    videos = found.manifest.videos
    most = _MOST_OF_ONE_FOLDER if found.guessed else _MOST_OF_ONE_PATIENT
    if len(videos) < most or len({video.patient_id for video in videos}) > 1:
        return []
    how = ", told by the folder they lie in" if found.guessed else ""
    return [
        f"WARNING: {len(videos)} videos, all of one patient{how}. If that is wrong, splits and intervals are wrong "
        "too: give a folder whose first folders are patients, or a table with the columns path and patient_id"
    ]


def unused_tables(tree: Tree, *, named: bool = True) -> list[str]:
    """A warning of the tables which nobody has read, with their columns.

    named: with their paths and columns, which must not be printed where ids are hashed: a table without a header row
    has a patient in its place.
    """
    found = [file for file in tree.unused_tables() if not file.name.endswith(IDS_SUFFIX)]
    if not found:
        return []
    listed = [_listed(file, tree, named) for file in found[:_LISTED]]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"WARNING: {counted(len(found), 'table')} found and not used: {'; '.join(listed)}{more}"]


def _listed(file: Path, tree: Tree, named: bool) -> str:
    names = column_names(file)
    if not named:
        return f"a {file.suffix} ({counted(len(names), 'column') if names else 'not read'})"
    return f"{shown(file.relative_to(tree.root))} ({_columns(names)})"


def _columns(names: Sequence[str]) -> str:
    listed = shown(", ".join(names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
    return f"columns {listed}" if names else "not read"


def outside(root: Path, tree: Tree) -> list[str]:
    """A warning of videos that are beside the data set at `root`, and are not read."""
    if tree.root.is_relative_to(root):
        return []
    files = [file for file in tree.files(suffixes=(*VIDEO_SUFFIXES, *DICOM_SUFFIXES)) if not file.is_relative_to(root)]
    if not files:
        return []
    # Not their names, which are nobody's public ids.
    return [f"WARNING: {counted(len(files), 'video')} beside the data set, outside {shown(root)}, and not read"]
