"""How everything is written: whole or not at all, into room that was made sure of, and never over something unasked.

A file is written under a temporary name beside its own, flushed to the disk and renamed. A run's files are written into
a temporary folder inside the run's; it counts from the moment that it bears the name `READY`, and its files take their
places. A temporary name says which process writes: what a killed one left is removed by the next that writes there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from panecho_embed.core.digests import SUMS, listed_sums, write_sums
from panecho_embed.core.errors import PanEchoEmbedError, StoreError

TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\d+\.tmp")
"""Names of what is being written: hidden, with the machine and the process that writes."""

READY = ".ready"
"""Folder of a finished run whose files are about to take their places."""

_counter = itertools.count()
_MOST_UNTOUCHED_SECONDS = 24 * 3600.0
_SLACK_BYTES = 64 * 1024


RunKind = Literal["prediction", "fine-tuning run", "grid of fine-tuning runs", "comparison", "probe run", "export"]
"""What the folder of a finished run is called; a run replaces only one of the same kind."""

# The file that only runs of a kind have, most telling first: a prediction and a fine-tuning run have metrics.json too.
_KIND_OF: tuple[tuple[str, RunKind], ...] = (
    ("predictions.json", "prediction"),
    ("run.json", "fine-tuning run"),
    ("runs.csv", "grid of fine-tuning runs"),
    ("comparison.json", "comparison"),
    ("export.json", "export"),
    ("metrics.json", "probe run"),
)


def refuse_to_replace(
    path: Path, overwrite: bool, *inputs: str | Path | None, flag: str = "-o", in_new_folder: bool = False
) -> None:
    """Raise StoreError if a file can't be written at `path`, before the work that it is to hold.

    That is if something exists there and is not to be overwritten, or if its folder does not exist.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether an existing file may be replaced.
    *inputs : str, Path or None
        Files that are read; none of them, nor a link to one, is ever replaced.
    flag : str
        Option that names `path`, for messages.
    in_new_folder : bool
        Whether the caller makes the folder of `path`.
    """
    if not path.exists():
        if not in_new_folder and not path.parent.is_dir():
            raise StoreError(f"can't write {path}: the folder does not exist ({flag})")
        return
    for source in inputs:
        if source is not None and Path(source).exists() and path.samefile(source):
            raise StoreError(f"{path} is what is read, {source}; it would be lost: take another output ({flag})")
    if not overwrite:
        raise StoreError(f"{path} is there already; take another output ({flag}), or replace it with --overwrite")


def make_output_folder(folder: Path) -> None:
    """Make a folder and its parents before the work whose results go there. Raises StoreError, also if read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(f"{folder}: {explain_os_error(error)}") from error


def kind_of_run(folder: Path) -> RunKind | Literal["", "run of another command"]:
    """What kind of finished run a folder holds; "" for none."""
    # One that was killed while its files took their places is finished, and shows them.
    place = settled(folder)
    for name, kind in _KIND_OF:
        if (place / name).exists() or (place / READY / name).exists():
            return kind
    return "run of another command" if (place / READY).exists() or (place / SUMS).exists() else ""


def refuse_to_replace_run(folder: Path, overwrite: bool, kind: RunKind) -> None:
    """Raise StoreError if a run can't be written into a folder, before the run.

    A folder that holds a run of another kind is never taken, one of the same kind only if `overwrite`. Any other files
    in the folder stay.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name a folder (-o)")
    there = kind_of_run(folder)
    if there and there != kind:
        raise StoreError(f"{folder} holds a {there}, and a {kind} does not replace it; take another folder (-o)")
    if there and not overwrite:
        raise StoreError(
            f"{folder} holds a finished {there} already; take another folder (-o), or replace it with --overwrite"
        )


@contextmanager
def written_whole(
    path: str | Path, flag: str = "-o", *, size: int = 0, error: type[PanEchoEmbedError] = StoreError
) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place in the end; after an error nothing has changed.

    A link stays one. size: bytes that it will have, as far as is known; they are made sure of first. Raises `error`,
    which names the flag, where `path` is no regular file or can't be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise error(f"can't write {path}: it is no regular file{_named(flag)}")
    if _is_being_filled(target):
        # Its folder appears whole, or not at all.
        yield target
        return
    temporary = temporary_path(target)
    try:
        sweep(target.parent)
        make_room(temporary, size)
        yield temporary
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)
    except PanEchoEmbedError:
        raise
    except OSError as problem:
        raise error(f"can't write {path}: {explain_os_error(problem, flag)}") from problem
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, flag: str = "-o") -> Path:
    """Write a text file in UTF-8, whole or not at all; line ends stay as they are. Raises StoreError."""
    content = text.encode("utf-8", "surrogateescape")
    with written_whole(path, flag, size=len(content)) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write JSON in which numbers that are not finite are null; it appears only when it is whole. Raises StoreError."""
    return write_text(path, json.dumps(without_nan(document), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """The same with null for numbers that are not finite, and plain lists and numbers for numpy's."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return without_nan(value.tolist())
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def written_run(folder: str | Path, flag: str = "-o", *, also: Sequence[str] = ()) -> Iterator[Path]:
    """A new folder to fill with the files of a run, which take their places in `folder` in the end, all of them.

    Files that an earlier run wrote there give way to them; anything else in the folder stays. Their SHA-256 are listed
    in `SUMS`. After an error, or a kill, nothing has changed. also: files of the run that are in the folder already,
    and stay. Raises StoreError, which names the flag.
    """
    target = Path(os.path.realpath(folder))
    new = temporary_path(target / "new")
    there = target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        settle(target)
        sweep(target)
        new.mkdir()
        yield new
        write_sums(new, also=target, names=also)
        for path in sorted(new.rglob("*"), reverse=True):
            flush(path)
            if path.is_dir():
                (target / path.relative_to(new)).mkdir(parents=True, exist_ok=True)
        flush(new)
        new.rename(target / READY)
        flush(target)
        settle(target)
    except PanEchoEmbedError:
        raise
    except OSError as problem:
        raise StoreError(f"can't write {folder}: {explain_os_error(problem, flag)}") from problem
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if not there:
            # Not left behind by what failed.
            with contextlib.suppress(OSError):
                target.rmdir()


def settle(folder: Path) -> None:
    """Let the files of a finished run take their places, if a kill came between; raises OSError where that can't be.

    Called again after a kill at any moment, it goes on.
    """
    ready = folder / READY
    # Without a list, whoever settles at the same moment has moved everything already.
    if new := listed_sums(ready):
        old = {}
        with contextlib.suppress(StoreError):
            old = listed_sums(folder)
        for name in old.keys() - new.keys():
            (folder / name).unlink(missing_ok=True)
            for parent in Path(name).parents:
                with contextlib.suppress(OSError):
                    (folder / parent).rmdir()
        for name in (*new, SUMS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            # Whoever opens the folder at the same moment does the same.
            with contextlib.suppress(FileNotFoundError):
                (ready / name).replace(folder / name)
        flush(folder)
    # Nothing but empty folders: what is in one would be the next run's.
    for emptied in sorted((path for path in (ready, *ready.rglob("*")) if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            emptied.rmdir()


def settled(folder: Path) -> Path:
    """A run's folder to read, once its files are in their places; what is on a read-only disk is left as it is."""
    with contextlib.suppress(OSError):
        settle(folder)
    return folder


def temporary_path(path: Path) -> Path:
    """A name beside `path` to write under, which no other process or thread has."""
    return path.with_name(f".{path.name}.{machine()}-{os.getpid()}-{next(_counter)}.tmp")


def sweep(folder: Path) -> None:
    """Remove what killed processes were writing in a folder.

    Of this machine, a process that is gone. Of others it can't be known; what has not been touched for a day is
    nobody's.
    """
    if _is_being_filled(folder / "any") or not folder.is_dir():
        return
    for path in folder.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found is None:
            continue
        ended = found["machine"] == machine() and _is_gone(int(found["process"]))
        with contextlib.suppress(OSError):
            if ended or time.time() - _touched(path) > _MOST_UNTOUCHED_SECONDS:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def make_room(path: Path, size: int) -> None:
    """Raise OSError if the disk, the quota or a limit of this process leaves no room for a file of `size` bytes.

    path: where it will be; nothing is left there. For libraries that crash, or leave half a file, on a full disk.
    """
    if not size:
        return
    if not hasattr(os, "posix_fallocate"):
        if shutil.disk_usage(path.parent).free < size + _SLACK_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    try:
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size + _SLACK_BYTES)
    finally:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make sure that a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        # Windows opens no folders; its file system orders the rename by itself.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain_os_error(error: OSError, flag: str = "-o") -> str:
    """Say in plain words what an operating-system error, also one wrapped by HDF5, means for writing."""
    text = str(error)
    elsewhere = f"choose another place with {flag}" if flag else "choose another place"
    for number, meaning in (
        (errno.ENOSPC, f"no space left on the device; free some or {elsewhere}"),
        (errno.EDQUOT, f"the disk quota is used up; free some or {elsewhere}"),
        (errno.EACCES, f"no permission to write there; {elsewhere}"),
        (errno.EROFS, f"the file system is read-only; {elsewhere}"),
        (errno.EFBIG, "the file system, or a limit of this process (ulimit -f), allows no file that large"),
        (errno.ENOENT, "the folder does not exist"),
        (errno.ENOTDIR, "a part of its path is a file, not a folder"),
        (errno.EPERM, f"no file may be made there; {elsewhere}"),
        (errno.ENAMETOOLONG, "its name is too long; what is written beside it needs a longer one still"),
    ):
        # HDF5 puts the number into its text ("errno = 28"); Python sets the attribute.
        if error.errno == number or f"errno = {number}," in text:
            return meaning
    return (error.strerror or text).splitlines()[0]


@cache
def machine() -> str:
    """Eight digits for this machine, or this container, since it was started; its process ids are seen from here."""
    known = platform.node()
    with contextlib.suppress(OSError):
        known += Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _is_gone(process: int) -> bool:
    """Whether a process of this machine has ended; False where that can't be known."""
    if os.name == "posix":
        # Not by /proc, where other users' processes can be hidden.
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
    return False


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, was last written."""
    within = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    times: list[float] = [one.lstat().st_mtime for one in (path, *within)]
    return max(times)


def _is_being_filled(path: Path) -> bool:
    """Whether a file is in a folder that is still under its temporary name."""
    return any(TEMPORARY.fullmatch(parent.name) for parent in path.parents)


def _named(flag: str) -> str:
    return f" ({flag})" if flag else ""
