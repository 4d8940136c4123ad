"""A folder behind a URL -> Manifest: what `read_folder` makes of the same files on a disk."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from panecho_embed.core.errors import ManifestError
from panecho_embed.core.remote import files_below, opened, parent
from panecho_embed.datasets.folder import may_be_video, plain, reference
from panecho_embed.datasets.identity import DICOM_SUFFIXES, HeaderIds, PlainManifest, header_ids, is_telling
from panecho_embed.datasets.layouts import titles_of
from panecho_embed.datasets.walk import hidden, natural_key
from panecho_embed.media import IMAGE_SUFFIXES, begins_as_dicom

_READERS = 16


def read_remote_folder(url: str, told: bool) -> PlainManifest:
    """Every video below `url` (or `url` itself, if it is a file), with ids as `read_folder` gives them.

    Of every file whose name tells nothing the first bytes are read, and of DICOM the header. told: whether the layout
    was asked for; else a public data set, whose labels would be lost, is refused. Raises ManifestError and RemoteError.
    """
    root = url.rstrip("/")
    files = files_below(root)
    base = parent(root) if files == [root] else root
    relative = [PurePosixPath(file.removeprefix(base + "/")) for file in files]
    if not told:
        _refuse_layouts(root, relative)
    visible = [path for path in relative if not any(map(hidden, path.parts))]
    images = {path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES and files != [root]}
    others = [path for path in visible if path not in images]
    # Each waits for the network.
    with ThreadPoolExecutor(_READERS) as pool:
        headers = list(pool.map(lambda path: _header(f"{base}/{path}", path), others))
    ignored = Counter(path.suffix.lower() for path, header in zip(others, headers, strict=True) if header is None)
    found = {path: header for path, header in zip(others, headers, strict=True) if header is not None}
    found |= {path.parent: HeaderIds(in_path=is_telling(path.parent.as_posix())) for path in images}
    paths = sorted(found, key=natural_key)
    videos = (reference(path, f"{base}/{path}" if path.parts else base, found[path]) for path in paths)
    return plain(tuple(videos), list(found.values()), ignored)


def _header(url: str, path: PurePosixPath) -> HeaderIds | None:
    """The ids of a file's header; None if it is not a video."""
    by_name = may_be_video(path)
    if by_name is False:
        return None
    told = is_telling(path.as_posix())
    if by_name and path.suffix.lower() not in DICOM_SUFFIXES:
        return HeaderIds(in_path=told)
    with opened(url) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        if not begins_as_dicom(stream.read(1024), size):
            return HeaderIds(dicom=True, in_path=told) if by_name else None
        stream.seek(0)
        return header_ids(stream, path.as_posix())


def _refuse_layouts(root: str, relative: list[PurePosixPath]) -> None:
    for path in relative:
        if titles := titles_of(path.name):
            raise ManifestError(
                f"{root} has {path}, a table of {' and '.join(titles)}, whose labels are read from a folder of "
                "this machine alone. Give a table with the URLs in its column `path`, or pass --layout folder to do "
                "without them"
            )
