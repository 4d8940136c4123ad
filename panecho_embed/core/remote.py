"""Files behind a URL (s3:// or gs://), through fsspec: as local copies to read, and uploads of finished files.

Nothing else in this package speaks to a network file system: what reads a video, a table or an embedding file gets a
path of this machine.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError, RemoteError
from panecho_embed.core.outputs import written_whole

CACHE_VARIABLE = "PANECHO_EMBED_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
# Of these, the URL of a file in a listing is known; memory:// is fsspec's own, for trying things out.
_SCHEMES = (*_EXTRAS, "memory")
_SIGNED = re.compile(r"\?[^/]*=")
_SCRATCH = "panecho-embed-fetched-"


def is_url(path: object) -> bool:
    """Whether `path` is a URL, not a path of this machine. "C://" is none: a scheme has two letters at least."""
    return _URL.match(str(path)) is not None


def check_url(url: str) -> str:
    """The URL itself. Raises ArgumentError for another scheme than s3:// and gs://, and for secrets in it.

    What is at fault is reported without the secret: a URL is kept in embedding files, failures and messages.
    """
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    if scheme not in _SCHEMES:
        raise ArgumentError(f"nothing can be read or written at {scheme}://...; a URL begins with s3:// or gs://")
    # No bucket's name has a colon, but that of an access point: arn:aws:s3:...
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ArgumentError(
            f"a URL {scheme}://... holds a user or a password, which would be kept with the results; write it "
            "without. Credentials come from the usual places"
        )
    if _SIGNED.search(rest):
        raise ArgumentError(
            f"{url.partition('?')[0]} is followed by '?...=...', a signature or another query, which would be kept "
            "with the results; write the URL without. Credentials come from the usual places"
        )
    return url


def forget_listings() -> None:
    """Ask again what is in the folders behind URLs, which is else remembered for as long as a process lasts."""
    import fsspec

    sizes_and_times.cache_clear()
    for scheme in set(_SCHEMES) & set(fsspec.registry):
        for system in list(fsspec.registry[scheme]._cache.values()):
            system.invalidate_cache()


def parent(url: str) -> str:
    """The URL of the folder that contains a URL."""
    return url.rstrip("/").rpartition("/")[0]


def file_name(url: str) -> str:
    """The last part of a URL."""
    return url.rstrip("/").rpartition("/")[2]


def size_and_time(url: str) -> tuple[int, int]:
    """Bytes and time of change, in nanoseconds since 1970, of the file at a URL; a folder's sum and latest.

    Raises RemoteError if there is nothing, or if it can't be asked.
    """
    with _told(url):
        system, path = _system(url)
        entries = system.find(path, detail=True) or {path: system.info(path)}
    return sum(_size(entry) for entry in entries.values()), max(_time(entry) for entry in entries.values())


@lru_cache(maxsize=4)
def sizes_and_times(folder: str) -> Mapping[str, tuple[int, int]]:
    """`size_and_time` of every file straight in a folder, by name, from one listing. Raises RemoteError."""
    with _told(folder):
        system, path = _system(folder)
        entries = system.ls(path, detail=True)
    return {file_name(e["name"]): (_size(e), _time(e)) for e in entries if e["type"] == "file"}


def files_below(folder: str) -> list[str]:
    """URLs of every file below a folder, sorted; of the file itself if it is one. Raises RemoteError for neither."""
    with _told(folder):
        system, path = _system(folder)
        found = sorted(system.find(path))
        if not found:
            raise FileNotFoundError(folder)
        scheme = folder.partition("://")[0]
        return [f"{scheme}://{name.lstrip('/')}" for name in map(system._strip_protocol, found)]


def exists(url: str) -> bool:
    """Whether there is something at a URL. Raises RemoteError if it can't be asked."""
    with _told(url):
        system, path = _system(url)
        try:
            return bool(system.info(path))
        except FileNotFoundError:
            return False


def has_bucket(url: str) -> bool:
    """Whether the bucket of a URL is there; True for what has no buckets. Raises RemoteError if it can't be asked."""
    scheme, _, path = url.partition("://")
    return scheme.lower() not in _EXTRAS or exists(f"{scheme}://{path.partition('/')[0]}")


@contextmanager
def opened(url: str) -> Iterator[BinaryIO]:
    """The file at a URL, of which only what is read travels. Raises RemoteError, also from within the block."""
    with _told(url):
        system, path = _system(url)
        with system.open(path, "rb", block_size=1 << 18) as stream:
            yield cast(BinaryIO, stream)


@contextmanager
def fetched(path: str) -> Iterator[str]:
    """A path of this machine that holds what `path` does, while the block lasts: `path` itself unless it is a URL.

    A folder is fetched with the files straight in it. What a killed process of this machine has left behind is removed
    by the next. Raises RemoteError.
    """
    if not is_url(path):
        yield path
        return
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{scratch_prefix()}{os.getpid()}-", ignore_cleanup_errors=True) as scratch:
        target = Path(scratch) / file_name(path)
        with _told(path):
            system, there = _system(path)
            if system.isfile(there):
                system.get_file(there, str(target))
            else:
                target.mkdir()
                for entry in system.ls(there, detail=True):
                    if entry["type"] == "file":
                        system.get_file(entry["name"], str(target / file_name(entry["name"])))
        yield str(target)


def cached(url: str) -> Path:
    """A copy of the file at a URL in this user's cache, of the same name; fetched unless it is there, and the same.

    Same: by size and time, as the file system tells them. Raises RemoteError.
    """
    # Imported here: it takes a while, and most commands have no URL.
    from filelock import FileLock

    size, time = size_and_time(url)
    home = copies_folder("read", url)
    folder = home / hashlib.sha256(f"{size} {time}".encode()).hexdigest()[:16]
    copy = folder / file_name(url)
    try:
        home.mkdir(parents=True, exist_ok=True)
        # Two processes may want the same file at the same moment: the second waits, and finds it.
        with FileLock(home / ".lock"):
            if not copy.is_file() or copy.stat().st_size != size:
                for other in home.iterdir():
                    if other.is_dir() and other != folder:
                        shutil.rmtree(other, ignore_errors=True)
                folder.mkdir(exist_ok=True)
                download(url, copy)
    except RemoteError:
        raise
    except OSError as error:
        raise RemoteError(f"{url} can't be copied into {home}: {error} (${CACHE_VARIABLE})") from error
    return copy


def copies_folder(purpose: str, url: str) -> Path:
    """Where this user's copies of what is at a URL are, "read" from there or to be "written" there."""
    return cache_folder(purpose) / hashlib.sha256(url.encode()).hexdigest()[:16]


def download(url: str, target: Path) -> None:
    """Fetch a file; it appears at `target`, for this user only, when it is whole. Raises RemoteError."""
    with written_whole(target, "", error=RemoteError) as temporary:
        # A copy of what only some may read in the bucket is not for everybody here.
        temporary.touch(mode=0o600)
        with _told(url):
            system, path = _system(url)
            system.get_file(path, str(temporary))


def upload(source: Path, url: str) -> None:
    """Store a file at a URL, where it appears when it is whole, as object stores do. Raises RemoteError."""
    with _told(url):
        system, path = _system(url)
        system.put_file(str(source), path)
        system.invalidate_cache()


def remove(urls: list[str]) -> None:
    """Remove files; those that are gone already don't matter. Raises RemoteError."""
    for url in urls:
        with _told(url):
            system, path = _system(url)
            with contextlib.suppress(FileNotFoundError):
                system.rm_file(path)
            system.invalidate_cache()


def client(url: str) -> Any:
    """fsspec's class for a URL of this kind, which connects to nothing. Raises ArgumentError if it is not installed."""
    import fsspec

    scheme = check_url(url).partition("://")[0]
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = f"pip install 'panecho-embed[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else str(error)
        raise ArgumentError(f"{url} can't be reached without another package: {extra}") from error


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path on it."""
    kind = client(url)
    system = kind(**kind._get_kwargs_from_urls(url))
    return system, system._strip_protocol(url)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into RemoteError."""
    try:
        yield
    except PanEchoEmbedError:
        raise
    except FileNotFoundError as error:
        raise RemoteError(f"{url}: there is nothing of that name (or no such bucket)") from error
    except PermissionError as error:
        raise RemoteError(f"{url}: access denied ({error}); credentials come from the usual places") from error
    except Exception as error:
        # Object stores' clients have their own errors, with no common root.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RemoteError(f"{url} can't be reached: {reason}") from error


def _size(entry: Mapping[str, Any]) -> int:
    return int(entry.get("size") or 0)


def _time(entry: Mapping[str, Any]) -> int:
    """Nanoseconds since 1970; 0 where the file system has no times."""
    found = next((entry[name] for name in ("LastModified", "mtime", "updated", "created") if entry.get(name)), None)
    if isinstance(found, str):
        found = datetime.datetime.fromisoformat(found)
    if isinstance(found, datetime.datetime):
        found = found.timestamp()
    return int(float(found or 0) * 1e9)


def scratch_prefix() -> str:
    """How the names of this machine's folders for `fetched` begin, before the process.

    Other machines and containers may share the temporary folder, and their processes are not seen from here: beside the
    host's name stands what tells apart those of one name, boots and process namespaces.
    """
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
        return f"{_SCRATCH}{platform.node()}-{hashlib.sha256(boot.encode()).hexdigest()[:8]}-"
    return f"{_SCRATCH}{platform.node()}-"


def _sweep() -> None:
    prefix = scratch_prefix()
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        if not folder.name.startswith(prefix):
            continue
        process = folder.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not Path(f"/proc/{process}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)


def cache_folder(purpose: str) -> Path:
    """The folder of one purpose ("read" or "written"), which need not be there yet.

    It is in $PANECHO_EMBED_CACHE, else in $XDG_CACHE_HOME/panecho-embed, else in ~/.cache/panecho-embed.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser() / purpose
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "panecho-embed" / purpose
