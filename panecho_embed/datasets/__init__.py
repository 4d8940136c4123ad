"""What is to be embedded, and whose it is: a folder, a table or a public data set -> Manifest.

A custom layout is one file; put its `LAYOUT` under the entry-point group `panecho_embed.datasets` of your package
(`ours = my_package.ours:LAYOUT`), and every command knows it by name and recognises it anywhere below its input:

    from panecho_embed.core.records import VideoRef
    from panecho_embed.datasets.labels import label_columns
    from panecho_embed.datasets.layouts import Card, Layout, manifest_of
    from panecho_embed.datasets.reading import collect, raise_problems, require_columns

    def roots(tree):                                        # tree: a `Tree`, all files below the input, walked once
        return {table.parent for table in tree.named("our-list.csv")}

    def read(root, tree):                                   # root: one of roots(tree)
        table = tree.table(root / "our-list.csv")           # cells as text; remembers that the table was used
        require_columns(table, ["File", "Patient", "EF"])
        videos, problems = collect(                         # one VideoRef a row, whether its file is there or not
            table, lambda row: VideoRef(row["File"], row["Patient"], row["Patient"], str(root / row["File"]), "A4C")
        )
        raise_problems(table.path, problems)
        labels, notes = label_columns(table.frame, ("File", "Patient"), table.path)
        return manifest_of(root, videos, labels, tree.files(root, (".avi",)), notes)

    LAYOUT = Layout(
        name="ours",
        title="Our registry",
        looks_like="our-list.csv",
        tables=("our-list.csv",),
        roots=roots,
        read=read,
        identity="the patient is the column Patient, a video its File",
        card=Card("unpublished", "hospital only", "nothing"),
        units={"EF": "%"},
    )

A table that is not read by `tree.table` is marked as used by `tree.used.add(path)`; tables that nobody used are named
to the user. `manifest_of` sorts the videos and matches rows with files. Ids are the data set's own, never a header's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.patients import is_opaque
from panecho_embed.core.records import Ids, Manifest
from panecho_embed.core.remote import check_url, fetched, is_url, parent
from panecho_embed.datasets import doubts, folder, table
from panecho_embed.datasets.describe import describe_manifest
from panecho_embed.datasets.identity import PlainManifest, warning_of_ids_in_paths
from panecho_embed.datasets.ids import SALT_VARIABLE, checked_salt
from panecho_embed.datasets.layouts import GENERAL, Layout, check_layout, known_layouts, recognised
from panecho_embed.datasets.local_ids import LocalIds, carry_over, local_path, located, made_opaque
from panecho_embed.datasets.remote_folder import read_remote_folder
from panecho_embed.datasets.text import shown
from panecho_embed.datasets.walk import Tree

__all__ = [
    "LocalIds",
    "carry_over",
    "check_source",
    "describe_manifest",
    "detect_layout",
    "is_opaque",
    "known_layouts",
    "local_path",
    "located",
    "read_manifest",
]


def read_manifest(
    source: str | Path,
    layout: str = "auto",
    *,
    ids: Ids = "auto",
    salt: str | None = None,
    local: Path | None = None,
) -> Manifest:
    """The videos of a data set, in a fixed order.

    Parameters
    ----------
    source : str or Path
        A folder, one video, or a table (.csv, .tsv); a path, or a URL (s3://bucket/folder).
    layout : str
        "auto" recognises the public data sets of `known_layouts` anywhere below the folder, a table by its suffix, and
        walks any other folder; the name of a data set looks only for that one; "folder" takes every video as it lies;
        "images" takes every image file of a folder as a separate still instead of every folder as one video.
    ids : {"auto", "opaque", "plain"}
        What ids and paths become: keyed hashes, or what folders, tables and headers say. "auto" hashes all of them
        where a file is DICOM.
    salt : str, optional
        Key of the hashes, 16 characters or more. Default: that of `local`, else of the local table beside a `source`
        that is a table, else a random one.
    local : Path, optional
        The local table of ids, which maps opaque ids back: read for its salt, then written. None keeps none.

    Returns
    -------
    Manifest
        Where ids are opaque, each video's `origin` says what they stand for.

    Raises
    ------
    ManifestError
        Listing every problem found, or the data sets if several are below the folder.
    ArgumentError
        For an unknown layout or a salt that can be guessed.
    """
    check_layout(layout)
    if ids not in get_args(Ids):
        raise ArgumentError(f"ids is {ids!r}; allowed are {', '.join(get_args(Ids))} (--ids)")
    salt = None if salt is None else checked_salt(salt, "use")
    is_table = Path(source).suffix.lower() in table.TABLE_SUFFIXES
    known = LocalIds.read(local_path(source)) if is_table and local_path(source).is_file() else None
    found = _read_url(check_url(str(source)), layout, known) if is_url(source) else _read_here(source, layout, known)
    found = replace(found, manifest=replace(found.manifest, notes=(*doubts.one_patient(found), *found.manifest.notes)))
    if ids == "opaque" or (ids == "auto" and found.dicom):
        if known and salt not in (None, known.salt):
            raise ArgumentError(
                f"{known.path} has ids of another salt than the one given; leave that out (--salt-file, "
                f"${SALT_VARIABLE}), or make the table anew with it (panecho-embed manifest)"
            )
        return made_opaque(found.manifest, known.salt if known else salt, local)
    return _plain(found)


def check_source(source: str | Path) -> None:
    """Raise ManifestError for a path that does not exist, or a folder without any file; no file is opened."""
    if is_url(source):
        return
    path = Path(source).absolute()
    if not path.exists():
        raise ManifestError(f"{shown(path)}: no such file or folder")
    if path.is_dir() and not any(files for _, _, files in os.walk(path)):
        raise _no_video(shown(path), "folder")


def _no_video(source: str, layout: str, notes: str = "") -> ManifestError:
    return ManifestError(
        f"{source}: no video found (layout {layout}); looked for DICOM (by content), "
        f"AVI, MP4 and other video files, NIfTI, image folders, .npy and .npz{notes}"
    )


def _plain(found: PlainManifest) -> Manifest:
    manifest = found.manifest
    videos = tuple(
        replace(video, path=video.location, origin=None) if video.origin else video for video in manifest.videos
    )
    warnings = [warning_of_ids_in_paths(found.telling)] if found.telling else []
    return replace(manifest, videos=videos, notes=(*warnings, *manifest.notes))


def _read_here(source: str | Path, layout: str, known: LocalIds | None) -> PlainManifest:
    path = Path(source).absolute()
    try:
        if not path.exists():
            raise ManifestError(f"{shown(path)}: no such file or folder")
        if not path.is_file() and not path.is_dir():
            raise ManifestError(f"{shown(path)} is neither a file nor a folder")
        found = _read(path, layout, known)
    except OSError as error:
        where = shown(error.filename or path)
        raise ManifestError(f"{where} can't be read as {layout}: {error.strerror or error}") from error
    return _with_videos(found, shown(path), found.manifest.layout)


def _with_videos(found: PlainManifest, source: str, layout: str) -> PlainManifest:
    if not found.manifest.videos:
        notes = "".join(f"\n  {note}" for note in found.manifest.notes)
        raise _no_video(source, layout, notes)
    return found


def _read_url(url: str, layout: str, known: LocalIds | None) -> PlainManifest:
    if layout not in ("auto", "folder", "csv"):
        raise ManifestError(f"{url}: the layout {layout} is read from a folder of this machine alone (--layout)")
    if layout == "csv" or (layout == "auto" and url.lower().endswith(tuple(table.TABLE_SUFFIXES))):
        with fetched(url) as path:
            return _with_videos(table.read_table_manifest(Path(path), parent(url), known), url, layout)
    return _with_videos(read_remote_folder(url, told=layout == "folder"), url, layout)


def _read(path: Path, layout: str, known: LocalIds | None) -> PlainManifest:
    if path.is_file():
        if layout == "csv" or (layout == "auto" and path.suffix.lower() in table.TABLE_SUFFIXES):
            doubts.refuse_table(path)
            return _called(table.read_table_manifest(path, local=known), "csv")
        if layout not in GENERAL:
            raise ManifestError(f"{shown(path)} is a file; {layout} is read from its folder (--layout)")
        return _called(folder.read_images(path) if layout == "images" else folder.read_folder(path), "folder")
    if layout == "csv":
        raise ManifestError(f"{shown(path)} is a folder; give a table (.csv, .tsv), or leave out --layout csv")
    tree = Tree.of(path)
    if layout not in ("folder", "images") and (found := recognised(tree, layout)):
        return PlainManifest(_read_set(*found, tree))
    if layout == "auto":
        doubts.refuse_part(path)
        doubts.refuse_remains(tree)
    found_here = folder.read_images(path, tree) if layout == "images" else folder.read_folder(path, tree)
    return _called(found_here, layout, doubts.unused_tables(tree, named=not found_here.dicom))


def _called(found: PlainManifest, layout: str, notes: Sequence[str] = ()) -> PlainManifest:
    name = "folder" if layout == "auto" else layout
    return replace(found, manifest=replace(found.manifest, layout=name, notes=(*notes, *found.manifest.notes)))


def _read_set(layout: Layout, root: Path, tree: Tree) -> Manifest:
    try:
        manifest = layout.read(root, tree)
    except ManifestError as error:
        how = f"taken for {layout.title} for its {layout.looks_like}; --layout folder reads the videos without it"
        raise ManifestError(f"{error}\n({how})") from error
    units = {name: layout.units[name] for name in manifest.labels if name in layout.units}
    notes = (*doubts.outside(root, tree), *doubts.unused_tables(tree), *manifest.notes)
    return replace(manifest, layout=layout.name, units=units, notes=notes)


def detect_layout(path: Path) -> str:
    """What `read_manifest` takes an input for, when it is not told. Raises ManifestError if it is several data sets."""
    if path.is_file():
        return "csv" if path.suffix.lower() in table.TABLE_SUFFIXES else "folder"
    found = recognised(Tree.of(path))
    return found[0].name if found else "folder"
