"""What is to be embedded, and whose it is: a folder, a table or a public data set -> Manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.patients import is_opaque
from panecho_embed.core.records import Ids, Layout, Manifest
from panecho_embed.core.remote import check_url, fetched, is_url, parent
from panecho_embed.datasets import echonet, folder, table
from panecho_embed.datasets.describe import describe_manifest
from panecho_embed.datasets.identity import PlainManifest, warning_of_ids_in_paths
from panecho_embed.datasets.ids import SALT_VARIABLE, checked_salt
from panecho_embed.datasets.local_ids import LocalIds, carry_over, local_path, located, made_opaque
from panecho_embed.datasets.remote_folder import read_remote_folder
from panecho_embed.datasets.text import shown

__all__ = [
    "LocalIds",
    "carry_over",
    "describe_manifest",
    "detect_layout",
    "is_opaque",
    "local_path",
    "located",
    "read_manifest",
]


def read_manifest(
    source: str | Path,
    layout: Layout = "auto",
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
        "auto" knows EchoNet-Dynamic, -Pediatric and -LVH by their tables, a table by its suffix, and walks any other
        folder; "images" takes every image file of a folder as a still of its own instead of every folder as one video.
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
        Listing every problem found.
    ArgumentError
        For an unknown layout or a salt that can be guessed.
    """
    if layout not in get_args(Layout):
        raise ArgumentError(f"layout is {layout!r}; allowed are {', '.join(get_args(Layout))} (--layout)")
    if ids not in get_args(Ids):
        raise ArgumentError(f"ids is {ids!r}; allowed are {', '.join(get_args(Ids))} (--ids)")
    salt = None if salt is None else checked_salt(salt, "use")
    is_table = Path(source).suffix.lower() in table.TABLE_SUFFIXES
    known = LocalIds.read(local_path(source)) if is_table and local_path(source).is_file() else None
    found = _read_url(check_url(str(source)), layout, known) if is_url(source) else _read_here(source, layout, known)
    if ids == "opaque" or (ids == "auto" and found.dicom):
        if known and salt not in (None, known.salt):
            raise ArgumentError(
                f"{known.path} has ids of another salt than the one given; leave that out (--salt-file, "
                f"${SALT_VARIABLE}), or make the table anew with it (panecho-embed manifest)"
            )
        return made_opaque(found.manifest, known.salt if known else salt, local)
    return _plain(found)


def _plain(found: PlainManifest) -> Manifest:
    manifest = found.manifest
    videos = tuple(
        replace(video, path=video.location, origin=None) if video.origin else video for video in manifest.videos
    )
    warnings = [warning_of_ids_in_paths(found.telling)] if found.telling else []
    return replace(manifest, videos=videos, notes=(*warnings, *manifest.notes))


def _read_here(source: str | Path, layout: Layout, known: LocalIds | None) -> PlainManifest:
    path = Path(source).absolute()
    taken_for = layout
    try:
        if not path.exists():
            raise ManifestError(f"{shown(path)}: no such file or folder")
        if not path.is_file() and not path.is_dir():
            raise ManifestError(f"{shown(path)} is neither a file nor a folder")
        if layout == "auto":
            taken_for = detect_layout(path)
        found = _read(path, taken_for, known)
    except OSError as error:
        where = shown(error.filename or path)
        raise ManifestError(f"{where} can't be read as {taken_for}: {error.strerror or error}") from error
    return _with_videos(found, shown(path), taken_for)


def _with_videos(found: PlainManifest, source: str, layout: Layout) -> PlainManifest:
    if not found.manifest.videos:
        notes = "".join(f"\n  {note}" for note in found.manifest.notes)
        raise ManifestError(
            f"{source}: no video found (layout {layout}); looked for DICOM (by content), "
            f"AVI, MP4 and other video files, image folders, .npy and .npz{notes}"
        )
    return found


def _read_url(url: str, layout: Layout, known: LocalIds | None) -> PlainManifest:
    if layout not in ("auto", "folder", "csv"):
        raise ManifestError(f"{url}: the layout {layout} is read from a folder of this machine alone (--layout)")
    if layout == "csv" or (layout == "auto" and url.lower().endswith(tuple(table.TABLE_SUFFIXES))):
        with fetched(url) as path:
            return _with_videos(table.read_table_manifest(Path(path), parent(url), known), url, layout)
    return _with_videos(read_remote_folder(url, told=layout == "folder"), url, layout)


def _read(path: Path, layout: Layout, known: LocalIds | None) -> PlainManifest:
    match layout:
        case "csv":
            return table.read_table_manifest(path, local=known)
        case "echonet-dynamic":
            return PlainManifest(echonet.read_dynamic(path))
        case "echonet-pediatric":
            return PlainManifest(echonet.read_pediatric(path))
        case "echonet-lvh":
            return PlainManifest(echonet.read_lvh(path))
        case "images":
            return folder.read_images(path)
        case _:
            return folder.read_folder(path)


def detect_layout(path: Path) -> Layout:
    """What `read_manifest` takes an input for, when it is not told."""
    if path.is_file():
        return "csv" if path.suffix.lower() in table.TABLE_SUFFIXES else "folder"
    if (path / "FileList.csv").is_file() and (path / "Videos").is_dir():
        return "echonet-dynamic"
    if any((path / view / "FileList.csv").is_file() for view in echonet.PEDIATRIC_VIEWS):
        return "echonet-pediatric"
    if (path / "MeasurementsList.csv").is_file():
        return "echonet-lvh"
    return "folder"
