"""Is a file still the one that was embedded? Its size and time say so at once, its bytes beyond doubt."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from panecho_embed.core.errors import RemoteError
from panecho_embed.core.remote import fetched, file_name, is_url, parent, size_and_time, sizes_and_times


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size and time of a file; of a folder, the sum and the latest of its files. size_bytes -1: nothing is there."""

    size_bytes: int = -1
    mtime_ns: int = 0


def stamp(path: str | Path) -> Stamp:
    """The stamp of a file or folder, of this machine or at a URL, without reading it."""
    try:
        if is_url(path):
            return Stamp(*size_and_time(str(path)))
        # One question for what nearly everything is.
        found = os.stat(path)  # noqa: PTH116 - a Path for each of a million videos takes longer than the question
        if not stat.S_ISDIR(found.st_mode):
            return Stamp(found.st_size, found.st_mtime_ns)
        stats = [file.stat() for file in _files(Path(path))]
    except OSError:
        return Stamp()
    return Stamp(sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0))


def content_sha256(path: str | Path) -> str:
    """SHA-256, 64 hexadecimal digits, of a file's bytes; of a folder, of its files' names and bytes in order."""
    with fetched(str(path)) as here:
        folder = Path(here).is_dir()
        digest = hashlib.sha256()
        for file in _files(Path(here)):
            if folder:
                digest.update(os.fsencode(file.name) + b"\0")
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def unchanged(path: str | Path, then: Stamp, sha256: str) -> bool:
    """Does `path` hold what it held? By its stamp; if that differs (copied, touched), by its bytes.

    What is gone can't have changed. sha256: "" if the bytes were never read; then only the stamp counts.
    """
    now = _listed(str(path)) if is_url(path) else stamp(path)
    if now.size_bytes < 0 or now == then:
        return True
    return bool(sha256) and now.size_bytes == then.size_bytes and content_sha256(path) == sha256


def _listed(url: str) -> Stamp:
    """The stamp from the listing of the folder, which answers for all files in it at once."""
    try:
        found = sizes_and_times(parent(url)).get(file_name(url))
    except RemoteError:
        return Stamp()
    return Stamp(*found) if found else stamp(url)


def _files(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
