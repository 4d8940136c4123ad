"""What is to be embedded, and whose it is: a folder, a table or a public data set -> Manifest."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from panecho_embed.errors import ArgumentError, ManifestError
from panecho_embed.manifest import echonet, folder, table
from panecho_embed.manifest.describe import describe_manifest
from panecho_embed.manifest.ids import new_salt
from panecho_embed.manifest.remote_folder import read_remote_folder
from panecho_embed.manifest.text import shown
from panecho_embed.records import Layout, Manifest
from panecho_embed.remote import check_url, fetched, is_url, parent

__all__ = ["describe_manifest", "detect_layout", "new_salt", "read_manifest"]


def read_manifest(source: str | Path, layout: Layout = "auto", *, salt: str | None = None) -> Manifest:
    """The videos of a data set, in a fixed order.

    source: a folder, one video, or a table (.csv, .tsv); a path, or a URL (s3://bucket/folder).
    layout: "auto" knows EchoNet-Dynamic, -Pediatric and -LVH by their tables, a table by its suffix, and walks any
        other folder; "images" takes every image file of a folder as a still of its own instead of every folder as one
        video.
    salt: with it, ids taken from DICOM headers are the same in every run; without, they differ from run to run.
    Raises ManifestError, listing every problem found, and ArgumentError for an unknown layout or an empty salt.
    """
    if layout not in get_args(Layout):
        raise ArgumentError(f"layout is {layout!r}; allowed are {', '.join(get_args(Layout))} (--layout)")
    # Hashed without a secret, the few identifiers of a hospital are found by trying them all.
    if salt is not None and not salt.strip():
        raise ArgumentError(f"the salt of the ids is {salt!r}; it must not be empty (--id-salt)")
    if is_url(source):
        manifest = _read_url(check_url(str(source)), layout, new_salt() if salt is None else salt)
        return _with_videos(manifest, str(source), layout)
    path = Path(source).absolute()
    found = layout
    try:
        if not path.exists():
            raise ManifestError(f"{shown(path)}: no such file or folder")
        if not path.is_file() and not path.is_dir():
            raise ManifestError(f"{shown(path)} is neither a file nor a folder")
        if layout == "auto":
            found = detect_layout(path)
        manifest = _read(path, found, new_salt() if salt is None else salt)
    except OSError as error:
        where = shown(error.filename or path)
        raise ManifestError(f"{where} can't be read as {found}: {error.strerror or error}") from error
    return _with_videos(manifest, shown(path), found)


def _with_videos(manifest: Manifest, source: str, found: Layout) -> Manifest:
    if not manifest.videos:
        notes = "".join(f"\n  {note}" for note in manifest.notes)
        raise ManifestError(
            f"{source}: no video found (layout {found}); looked for DICOM (by content), "
            f"AVI, MP4 and other video files, image folders, .npy and .npz{notes}"
        )
    return manifest


def _read_url(url: str, layout: Layout, salt: str) -> Manifest:
    if layout not in ("auto", "folder", "csv"):
        raise ManifestError(f"{url}: the layout {layout} is read from a folder of this machine alone (--layout)")
    if layout == "csv" or (layout == "auto" and url.lower().endswith(tuple(table.TABLE_SUFFIXES))):
        with fetched(url) as path:
            return table.read_table_manifest(Path(path), parent(url))
    return read_remote_folder(url, salt, told=layout == "folder")


def _read(path: Path, layout: Layout, salt: str) -> Manifest:
    match layout:
        case "csv":
            return table.read_table_manifest(path)
        case "echonet-dynamic":
            return echonet.read_dynamic(path)
        case "echonet-pediatric":
            return echonet.read_pediatric(path)
        case "echonet-lvh":
            return echonet.read_lvh(path)
        case "images":
            return folder.read_images(path)
        case _:
            return folder.read_folder(path, salt)


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
