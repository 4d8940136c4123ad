"""Room on the disks, and the right to write there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from panecho_embed.checkup.findings import CLIPS_PER_VIDEO, Check, Status
from panecho_embed.core.cache import CACHE_VARIABLE, cache_folder
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.outputs import explain_os_error
from panecho_embed.core.remote import client, is_url
from panecho_embed.models.weights import cache_folder as weights_folder

# Ids, path, digest and facts of a video.
_VIDEO_BYTES = 240
_ROW_BYTES = 20
# The HDF5 headers and the table of contents.
_LEAST_BYTES = 30_000
# The largest of the published weights.
_CACHE_BYTES = 500_000_000
_TEMPORARY_BYTES = 500_000_000


def file_bytes(videos: int, dim: int, rows_per_video: int = CLIPS_PER_VIDEO) -> int:
    """About the size of an embedding file with float32 rows."""
    return _LEAST_BYTES + videos * (_VIDEO_BYTES + rows_per_video * (4 * dim + _ROW_BYTES))


def check_space(out: str | Path, needed_bytes: int) -> list[Check]:
    """The folder of the output, which must take parts and then all of them once more; the caches; temporary files.

    out: a folder, or the file to write; for one at a URL, it is the cache that must take both, and what is at the URL,
    only extract itself finds out. needed_bytes: of the output.
    """
    checks = list(_at_url(str(out), needed_bytes)) if is_url(out) else [_output(out, needed_bytes)]
    move = "set $TORCH_HOME to another folder"
    room = f"free some space, or {move}"
    checks.append(_check("cache of weights", weights_folder(), _CACHE_BYTES, "warning", room, move))
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:
        checks.append(Check("space", "warning", f"no folder for temporary files: {error}", "set $TMPDIR"))
    else:
        move = "set $TMPDIR to another folder"
        checks.append(
            _check("temporary files", temporary, _TEMPORARY_BYTES, "warning", f"free some space, or {move}", move)
        )
    return checks


def _at_url(url: str, needed_bytes: int) -> Iterator[Check]:
    try:
        client(url)
    except ArgumentError as error:
        yield Check("space", "problem", f"output: {error}", "choose another place with -o, or install what is missing")
        return
    yield Check("space", "ok", f"output: {url} is not asked; extract does so before it begins")
    move = f"set ${CACHE_VARIABLE} to another folder"
    what = "cache, where the output is put together"
    yield _check(what, cache_folder("written"), 2 * needed_bytes, "problem", f"free some space, or {move}", move)


def _output(out: str | Path, needed_bytes: int) -> Check:
    path = Path(out).expanduser()
    folder = path.resolve() if path.is_dir() else path.absolute().parent
    elsewhere = "choose another place with -o"
    return _check("output", folder, 2 * needed_bytes, "problem", f"free some space, or {elsewhere}", elsewhere)


def _check(what: str, folder: Path, needed: int, worst: Status, mend_room: str, mend_right: str) -> Check:
    existing = next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))
    if what == "output" and existing != folder:
        return Check("space", worst, f"{what}: the folder {folder} does not exist", f"mkdir -p {folder}")
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".panecho-embed-") as file:
            file.write(b"room")
            file.flush()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("space", worst, f"{what}: nothing can be written to {existing}: {_reason(error)}", mend_right)
    if free < needed:
        text = f"{what}: {gigabytes(free)} free in {folder}, {gigabytes(needed)} needed"
        return Check("space", worst, text, mend_room)
    return Check("space", "ok", f"{what}: {gigabytes(free)} free in {folder}")


def _reason(error: OSError) -> str:
    return explain_os_error(error).partition(";")[0]


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
