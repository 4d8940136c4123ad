"""Digests of files, and the one way to open a file that has one: damage is an error, never another number.

FILE.sha256 beside a weights file that was fetched, SHA256SUMS for the files in and below a run's folder: `sha256sum -c`
reads both. Files of an index, of which rows are read, have a CRC-32 for each block (`block_sums`), which cores
share.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import PanEchoEmbedError, StoreError, WeightsError

SUMS = "SHA256SUMS"

_HEAD = "# panecho-embed wrote {count} files; sha256sum -c checks them\n"
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\n]+)\n")
_BLOCK_BYTES = 8 << 20


def file_sha256(path: Path, error: type[PanEchoEmbedError] = StoreError) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises `error` if it can't be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as problem:
        raise error(f"{path}: can't be read: {problem.strerror or problem}") from problem


def digest_of_arrays(*arrays: npt.NDArray[Any]) -> str:
    """SHA-256 of arrays in their order: of the types and shapes, the bytes of numbers, and the texts of all else."""
    digest = hashlib.sha256()
    for array in arrays:
        numeric = array.dtype.kind in "fiub"
        digest.update(f"{array.dtype.str if numeric else 'text'}{array.shape}".encode())
        if numeric:
            digest.update(np.ascontiguousarray(array).data)
        else:
            digest.update(b"\0".join(str(value).encode("utf-8", "surrogateescape") for value in array.ravel()))
    return digest.hexdigest()


def write_sums(folder: Path, *, also: Path | None = None, names: Sequence[str] = ()) -> Path:
    """List the SHA-256 of all files in and below a folder. Raises OSError, StoreError.

    also, names: a folder with further files to list; those that it lists itself keep the SHA-256 that they had then.
    """
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    known = listed_sums(also) if also is not None and names else {}
    sums = {name: known.get(name) or file_sha256(also / name) for name in names} if also is not None else {}
    sums |= {name: file_sha256(path) for name, path in found.items()}
    sums.pop(SUMS, None)
    path = folder / SUMS
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    text = _HEAD.format(count=len(lines)) + "".join(lines)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def listed_sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files that a folder's SHA256SUMS lists; {} without one of ours. Raises StoreError."""
    path = folder / SUMS
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as problem:
        raise StoreError(f"{path}: can't be read: {problem.strerror or problem}") from problem
    if not text.startswith(_HEAD[:10]):
        return {}
    head, _, lines = text.partition("\n")
    found, end = {}, 0
    for match in _LINE.finditer(lines):
        if match.start() != end or match["name"].startswith("/") or ".." in match["name"].split("/"):
            break
        found[match["name"]], end = match["digest"], match.end()
    if end != len(lines) or f"{head}\n" != _HEAD.format(count=len(found)):
        raise StoreError(f"{path} is damaged: it is no list of as many digests and names as its first line says")
    return found


def read_checked(path: Path, *, needed: bool = False) -> bytes:
    """The content of a file, which must be what SHA256SUMS says in its folder, or in one of the two above.

    A file that none of them lists is taken as it is, unless it is `needed`. Raises StoreError for a file that can't be
    read, or is not what the run wrote.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise StoreError(f"{path}: can't be read: {problem.strerror or problem}") from problem
    known = recorded_in_sums(path)
    if known is None and needed:
        raise StoreError(f"{path} is not of the run in its folder: no {SUMS} lists it; run the command again")
    if known is not None and known != hashlib.sha256(content).hexdigest():
        raise StoreError(f"{path} is damaged, or was changed after the run: {SUMS} has another SHA-256 of it")
    return content


def recorded_in_sums(path: Path) -> str | None:
    """The SHA-256 of a file in the SHA256SUMS of its folder, or of one of the two above; None without one.

    Raises StoreError if the list is damaged: it names a file that is not there, and not the one asked for.
    """
    place = path.absolute()
    for folder in list(place.parents)[:3]:
        listed = listed_sums(folder)
        known = listed.get(place.relative_to(folder).as_posix())
        if known is not None:
            return known
        lost = [name for name in listed if not (folder / name).exists()]
        if lost:
            raise StoreError(f"{folder / SUMS} is damaged, or a file is missing: it lists {lost[0]}, not {path.name}")
    return None


def problems_of_folder(folder: Path) -> list[str]:
    """What is wrong with the files that a folder's SHA256SUMS lists, a line each."""
    found = []
    try:
        listed = listed_sums(folder)
    except StoreError as problem:
        return [str(problem)]
    if not listed:
        return [f"{folder / SUMS} is missing, or is damaged in its first line"]
    for name, digest in listed.items():
        try:
            if file_sha256(folder / name) != digest:
                found.append(f"{folder / name} is damaged, or was changed after the run: its SHA-256 is another one")
        except StoreError as problem:
            found.append(str(problem))
    return found


def block_sums(path: Path) -> list[int]:
    """CRC-32 of each 8 MiB of a file, and of what is left at its end. Raises OSError."""

    def of_block(start: int) -> int:
        with path.open("rb") as stream:
            stream.seek(start)
            return zlib.crc32(stream.read(_BLOCK_BYTES))

    starts = range(0, path.stat().st_size, _BLOCK_BYTES)
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(of_block, starts))


def record_sha256(path: Path, digest: str) -> None:
    """Write FILE.sha256 as the `sha256sum` command does, so that `sha256sum -c` checks it too."""
    _record(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")


def recorded_sha256(path: Path) -> str | None:
    """The SHA-256 of a weights file as it was fetched, or as training wrote it; None if none was recorded."""
    try:
        text = _record(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    digits = re.match(r"[0-9a-fA-F]{64}\b", text)
    if digits is not None:
        return digits[0].lower()
    try:
        return recorded_in_sums(path)
    except StoreError as problem:
        raise WeightsError(str(problem)) from problem


def checked_sha256(path: Path, known: str = "") -> str:
    """SHA-256 of a weights file, which must be the recorded one, where one is, and begin with the `known` digits.

    Raises WeightsError if it is neither.
    """
    digest = file_sha256(path, WeightsError)
    recorded = recorded_sha256(path)
    if recorded is not None and recorded != digest:
        where = _record(path).name if _record(path).exists() else SUMS
        advice = (
            "Delete both and fetch it again, or the latter alone if you changed the file on purpose"
            if _record(path).exists()
            else "It is damaged, or was changed after training"
        )
        raise WeightsError(
            f"{path}: the file has changed since it was written: its sha256 is {digest}, {where} says {recorded}. "
            f"{advice}"
        )
    if not digest.startswith(known):
        raise WeightsError(
            f"{path}: {path.stat().st_size:,} bytes with the sha256 {digest}; the published file's begins with "
            f"{known}. The file is damaged or another one; delete it and fetch it again"
        )
    return digest


def _record(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
