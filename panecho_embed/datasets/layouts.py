"""What a layout is, the layouts that are known, and how one of them is recognised below a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.wording import counted, nearest
from panecho_embed.datasets.text import shown
from panecho_embed.datasets.walk import Tree, natural_key

ENTRY_POINTS = "panecho_embed.datasets"
GENERAL = ("auto", "folder", "images", "csv")
"""The layouts that are no data set."""

_SHIPPED = (
    "echonet_dynamic",
    "echonet_pediatric",
    "echonet_lvh",
    "tmed2",
    "camus",
    "hmc_qu",
    "segrwma",
    "cardiacnet",
    "cardiacuda",
    "rvenet",
    "mimic_echo",
)
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Card:
    """What a user of a data set has to know; docs/datasets.md shows it.

    citation: the paper or record to cite. licence: its terms, in a few words. passing_on: what may leave one's own
    machine. flaws: known errors and traps of the data.
    """

    citation: str
    licence: str
    passing_on: str
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a public data set lies on disk; see the head of `panecho_embed.datasets` for one written out.

    Parameters
    ----------
    name : str
        What `--layout` takes, such as "echonet-dynamic".
    title : str
        The data set's own name.
    looks_like : str
        The files and folders that it is recognised by, for messages.
    tables : tuple of str
        Names of the files that show that a folder belongs to this data set.
    roots : callable
        Tree -> the folders in which this data set begins, wherever they are below the tree's root.
    read : callable
        (root, tree) -> Manifest of the data set at `root`, one of `roots(tree)`; see `manifest_of`.
    identity : str
        What a video, a study and a patient are called, in one sentence.
    card : Card
        Citation, licence and known flaws.
    units : mapping of str to str
        Units of labels, such as {"EF": "%"}.
    reads : str
        Which files become what: videos, labels, splits, views; for docs/datasets.md.
    """

    name: str
    title: str
    looks_like: str
    tables: tuple[str, ...]
    roots: Callable[[Tree], Iterable[Path]]
    read: Callable[[Path, Tree], Manifest]
    identity: str
    card: Card
    units: Mapping[str, str] = field(default_factory=dict)
    reads: str = ""


@cache
def known_layouts() -> dict[str, Layout]:
    """Every layout by name: those of the package, then those of the entry points `panecho_embed.datasets`.

    Raises ArgumentError for an entry point that is no `Layout`, or has a name that is taken.
    """
    found: dict[str, Layout] = {}
    for module in _SHIPPED:
        layout = import_module(f"panecho_embed.datasets.{module}").LAYOUT
        found[layout.name] = layout
    for point in metadata.entry_points(group=ENTRY_POINTS):
        layout = point.load()
        if not isinstance(layout, Layout) or layout.name in (*found, *GENERAL):
            what = f"a layout called {layout.name!r}, as another is" if isinstance(layout, Layout) else "no Layout"
            raise ArgumentError(f"the entry point {point.name} = {point.value} of {ENTRY_POINTS} is {what}")
        found[layout.name] = layout
    return found


def layout_names() -> list[str]:
    """Everything that `--layout` takes."""
    return [*GENERAL, *known_layouts()]


def check_layout(name: str) -> str:
    """The name, if it is that of a layout. Raises ArgumentError with those that are, and the nearest."""
    names = layout_names()
    if name not in names:
        raise ArgumentError(f"layout is {name!r}{nearest(name, names)}; allowed are {', '.join(names)} (--layout)")
    return name


def recognised(tree: Tree, wanted: str = "auto") -> tuple[Layout, Path] | None:
    """The one data set below a folder and where it begins; None if there is none.

    wanted: the only layout to look for; "auto" looks for all. Raises ManifestError if there are several, or none of
    the one that is wanted.
    """
    chosen = known_layouts().values() if wanted == "auto" else [known_layouts()[wanted]]
    found = sorted(((layout, root) for layout in chosen for root in set(layout.roots(tree))), key=lambda one: one[1])
    if len(found) > 1:
        places = "".join(f"\n  {layout.name}: {shown(root)}" for layout, root in found)
        raise ManifestError(
            f"{shown(tree.root)}: {len(found)} data sets lie below it; give one of their folders (or --layout folder "
            f"to read all videos, without labels):{places}"
        )
    if not found and wanted != "auto":
        layout = known_layouts()[wanted]
        raise ManifestError(
            f"{shown(tree.root)}: no {layout.title} below it, which is recognised by {layout.looks_like} (--layout)"
        )
    return found[0] if found else None


def titles_of(name: str) -> list[str]:
    """The data sets that have a table of this name."""
    return [layout.title for layout in known_layouts().values() if name.lower() in map(str.lower, layout.tables)]


def manifest_of(
    root: Path,
    videos: Sequence[VideoRef],
    labels: Mapping[str, npt.NDArray[Any] | Sequence[float | str | None]],
    files: Iterable[Path],
    notes: Iterable[str] = (),
) -> Manifest:
    """The manifest of a data set, in natural order of video_id, whatever the order of its tables and folders.

    Parameters
    ----------
    root : Path
        Where the data set begins.
    videos : sequence of VideoRef
        One for each video that the tables name, whether its file is there or not.
    labels : mapping of str to sequence
        One value a video: all numbers (None or NaN where missing), or all text ("" or None where missing).
    files : iterable of Path
        The data set's video files that are there; what no table names is skipped, with a note.
    notes : iterable of str
        What else the user should know.

    Raises
    ------
    ManifestError
        If none of the files of the tables is there.
    """
    order = sorted(range(len(videos)), key=lambda i: natural_key(Path(videos[i].video_id)))
    sorted_labels = {name: _column(values)[order] for name, values in labels.items()}
    unmatched = _unmatched([Path(video.path) for video in videos], files, root)
    return Manifest(tuple(videos[i] for i in order), sorted_labels, (*unmatched, *notes), unmatched=bool(unmatched))


def _column(values: npt.NDArray[Any] | Sequence[float | str | None]) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _unmatched(rows: Sequence[Path], files: Iterable[Path], root: Path) -> tuple[str, ...]:
    """Notes on rows without a file and files without a row; ManifestError if no row has its file."""
    there, of_rows = set(files), set(rows)
    # A copy of a video that has its row, in another folder, is not a video without one.
    names = {path.name for path in of_rows}
    without_file = sorted(of_rows - there)
    without_row = sorted(path for path in there - of_rows if path.name not in names)
    if of_rows and not of_rows & there:
        raise ManifestError(
            f"{shown(root)}: all files that its table names are missing ({len(of_rows)}), for example "
            f"{shown(without_file[0])}; it holds {counted(len(there), 'other video')}"
        )

    def some(paths: list[Path]) -> str:
        return ", ".join(shown(path.name) for path in paths[:_LISTED]) + (", ..." if len(paths) > _LISTED else "")

    notes = []
    if without_file:
        notes.append(
            f"{counted(len(without_file), 'table row')} without a file, to be listed as failed: {some(without_file)}"
        )
    if without_row:
        notes.append(f"{counted(len(without_row), 'file')} skipped, without a row in the table: {some(without_row)}")
    return tuple(notes)


def locate(name: str, usual: Path, files: Mapping[str, Sequence[Path]]) -> Path:
    """Where a video that a table names lies: at its usual place, or wherever the one file of its name is.

    usual: its path in the data set as published, returned as well if there is no such file. files: those of each name.
    Raises ArgumentError if several other places have one.
    """
    found = files.get(name, [])
    if usual in found or not found:
        return usual
    if len(found) > 1:
        places = ", ".join(shown(path) for path in found[:_LISTED])
        raise ArgumentError(f"{len(found)} files are called {name}: {places}; keep one")
    return found[0]


def by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each name."""
    named: dict[str, list[Path]] = {}
    for file in files:
        named.setdefault(file.name, []).append(file)
    return named


def filled(row: Mapping[str, str], name: str) -> str:
    """The cell of a row. Raises ArgumentError if it is empty."""
    if not row[name]:
        raise ArgumentError(f"{name} is empty")
    return row[name]
