"""An output at a URL, written on this machine: what is finished is uploaded, what is there already is fetched first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from panecho_embed.core.errors import RemoteError, StoreError
from panecho_embed.core.remote import (
    CACHE_VARIABLE,
    copies_folder,
    download,
    exists,
    file_name,
    files_below,
    has_bucket,
    remove,
    size_and_time,
    upload,
)


class Mirror:
    """The stand-in for the output at a URL.

    HDF5 needs a file that it can seek in: `local` is where the output is assembled, and its parts beside it. Each
    part is uploaded when it is whole, to the URL with ".parts" added, so that another machine can go on; the output
    itself last, in one step. Then nothing stays here. What could not be uploaded is, by the next run on this machine.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._home = copies_folder("written", url)
        self.local = self._home / file_name(url)
        self._parts = f"{url}.parts"
        # Says that `local` was assembled here; without it, it is a copy, and may be an old one.
        self._made_here = self._home / ".made-here"
        # The output's size and time at the URL when the work that is here began; it has another, once another machine
        # has delivered since.
        self._begun_from = self._home / ".begun-from"
        self._there: set[str] = set()
        self._fetched = False
        self._cleaned = False
        try:
            self._home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"can't write {self._home}, for the parts of {url}: {error} (${CACHE_VARIABLE})"
            ) from error

    def pull(self, folder: Path) -> None:
        """Fetch what is at the URL and not here: the parts, into `folder`, and the finished file. Raises StoreError.

        What is left here of an earlier run gives way if another machine has delivered meanwhile.
        """
        try:
            if not has_bucket(self.url):
                raise StoreError(f"can't write {self.url}: there is no such bucket (-o)")
            now = " ".join(map(str, size_and_time(self.url))) if exists(self.url) else ""
            parts = files_below(self._parts) if exists(self._parts) else []
            if now and self._begun_from.exists() and self._begun_from.read_text() != now:
                self._made_here.unlink(missing_ok=True)
                if not parts:
                    _empty(folder)
            self._begun_from.write_text(now)
            if not self._made_here.exists() and now:
                download(self.url, self.local)
                self._fetched = True
            elif not self._made_here.exists():
                self.local.unlink(missing_ok=True)
            for url in parts:
                name = file_name(url)
                self._there.add(name)
                if not (folder / name).exists():
                    download(url, folder / name)
        except RemoteError as error:
            raise StoreError(f"can't go on with {self.url}: {error}") from error

    def push(self, paths: Iterable[Path]) -> None:
        """Upload those that are not at the URL yet, as parts are. Raises StoreError."""
        for path in paths:
            if path.name not in self._there and path.exists():
                self._upload(path, f"{self._parts}/{path.name}")
                self._there.add(path.name)

    def discard(self) -> None:
        """Remove the parts at the URL. Raises StoreError."""
        try:
            remove([f"{self._parts}/{name}" for name in sorted(self._there)])
        except RemoteError as error:
            raise StoreError(f"can't remove the parts of {self.url}: {error}") from error
        self._there.clear()

    def deliver(self, changed: bool) -> None:
        """Upload the finished file, if it is `changed` or not there. Raises StoreError."""
        if changed or not self._fetched:
            self._made_here.touch()
            self._upload(self.local, self.url)
        self.discard()

    def clean(self) -> None:
        """Leave nothing but the parts on this machine, once everything is at the URL.

        The lock on the parts must still be held: later, this would be another run's work.
        """
        for file in (self.local, self._made_here, self._begun_from):
            file.unlink(missing_ok=True)
        self._cleaned = True

    def leave(self, parts: bool) -> None:
        """Leave nothing on this machine that need not stay. parts: whether some are here. Under the lock."""
        if self._cleaned or self._made_here.exists():
            return
        self.local.unlink(missing_ok=True)
        if not parts:
            self._begun_from.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder of the mirror if nothing is in it."""
        with contextlib.suppress(OSError):
            self._home.rmdir()

    def _upload(self, path: Path, url: str) -> None:
        try:
            upload(path, url)
        except RemoteError as error:
            raise StoreError(
                f"can't write {self.url}: {error}. What was done is kept in {self._home}; the same command on this "
                "machine uploads it and goes on"
            ) from error


def _empty(folder: Path) -> None:
    """Remove parts and what is beside them, but the locks."""
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock":
            path.unlink(missing_ok=True)
