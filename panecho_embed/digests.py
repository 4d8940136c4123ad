"""SHA-256 of files, recorded as `sha256sum` does, and the one way to open what is recorded so.

FILE.sha256 beside a file, or SHA256SUMS for all files in and below a folder; `sha256sum -c` reads both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from panecho_embed.errors import PanEchoEmbedError, StoreError

SUMS = "SHA256SUMS"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^\n]+)\n")


def file_sha256(path: Path, error: type[PanEchoEmbedError] = StoreError) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises `error` if it can't be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as problem:
        raise error(f"{path}: can't be read: {problem.strerror or problem}") from problem


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
    path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    return path


def listed_sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files that a folder's SHA256SUMS lists; {} without one. Raises StoreError for damage."""
    path = folder / SUMS
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise StoreError(f"{path}: can't be read: {problem.strerror or problem}") from problem
    found, end = {}, 0
    for match in _LINE.finditer(text):
        if match.start() != end or match["name"].startswith("/") or ".." in match["name"].split("/"):
            break
        found[match["name"]], end = match["digest"], match.end()
    if end != len(text):
        raise StoreError(f"{path} is damaged: line {text.count(chr(10), 0, end) + 1} is no digest with a name")
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
            raise StoreError(
                f"{folder / SUMS} is damaged, or files are missing: it lists {lost[0]}, and not {path.name}"
            )
    return None


def problems_of_folder(folder: Path) -> list[str]:
    """What is wrong with the files that a folder's SHA256SUMS lists, a line each."""
    found = []
    try:
        listed = listed_sums(folder)
    except StoreError as problem:
        return [str(problem)]
    for name, digest in listed.items():
        try:
            if file_sha256(folder / name) != digest:
                found.append(f"{folder / name} is damaged, or was changed after the run: its SHA-256 is another one")
        except StoreError as problem:
            found.append(str(problem))
    return found
