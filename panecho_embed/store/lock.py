"""Who may work on the parts of an output: a single run, or the shards of one job array, each of them once.

The locks are the operating system's: they end with their process, however it ends. On a file system without them, a
file that names its process stands for one, and stays when the process is killed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from panecho_embed.core.errors import StoreError
from panecho_embed.core.shards import Shard

# Hidden, so that an output inside the input folder adds nothing to the input.
_RUN, _SHARD = ".lock", re.compile(r"\.shard-(\d+)-of-(\d+)\.lock")
# A thousand jobs that start at the same moment pass through one lock, and the first writes the list of videos.
_PATIENCE_SECONDS = 300.0
# Whether a lock is held, is found out by holding it for a moment.
_MOMENT_SECONDS = 2.0
_TRIES = 10


class RunLock:
    """The right to write parts into `folder`, which is made if it is not there.

    A run holds `.lock` while no shard holds its own; a shard holds its own, once `.lock` was free.
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self.folder = folder
        self._shard = shard
        self._run = FileLock(folder / _RUN)
        self._own = None if shard is None else _shard_lock(folder, shard)

    def acquire(self) -> None:
        """Take it. Raises StoreError, saying who has it, and OSError where no folder can be made."""
        for _ in range(_TRIES):
            self.folder.mkdir(exist_ok=True)
            # Whoever ends at this moment may take the folder away.
            with contextlib.suppress(FileNotFoundError):
                if self._own is None or self._shard is None:
                    self._acquire_alone()
                else:
                    self._acquire_own(self._own, self._shard)
                if self.folder.exists():
                    return
            self.release()
        raise StoreError(f"{self.folder} can't be locked: it is taken away again and again")

    def release(self) -> None:
        """Give it back."""
        for lock in (self._run, self._own):
            if lock is not None:
                lock.release()

    def remove_folder(self) -> None:
        """Remove the folder with everything in it, and give the lock back."""
        # A file that is held open can't be removed from NFS; under another name, it is in nobody's way.
        self._sweep()
        try:
            self.folder.rename(self._aside)
        except OSError:
            self.release()
            shutil.rmtree(self.folder, ignore_errors=True)
        self.release()
        self._sweep()

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Let nobody begin, and no other shard into such a block, while this one lasts."""
        if self._shard is None:
            yield
            return
        try:
            self._run.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            self.release()
            raise StoreError(self._busy("a run that is no shard is writing", self._run)) from None
        try:
            yield
        finally:
            self._run.release()

    def shards(self) -> list[Shard]:
        """The other shards that have been at work here."""
        found = map(_SHARD.fullmatch, sorted(entry.name for entry in self.folder.iterdir()))
        return [s for match in found if match and (s := Shard(int(match[1]), int(match[2]))) != self._shard]

    def working(self, shards: list[Shard]) -> list[Shard]:
        """Those of some other shards that are at work now."""
        found = []
        for shard in shards:
            lock = _shard_lock(self.folder, shard)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                found.append(shard)
            else:
                lock.release()
        return found

    def _acquire_alone(self) -> None:
        try:
            self._run.acquire(timeout=_MOMENT_SECONDS)
        except Timeout:
            raise StoreError(self._busy("another run is writing", self._run)) from None
        if working := self.working(self.shards()):
            self.release()
            raise StoreError(self._busy(f"shard {working[0]} is writing", _shard_lock(self.folder, working[0])))
        self._sweep()

    def _acquire_own(self, own: FileLock, mine: Shard) -> None:
        try:
            own.acquire(timeout=_MOMENT_SECONDS)
        except Timeout:
            raise StoreError(self._busy(f"another run of shard {mine} is writing", own)) from None
        with self.briefly():
            working = self.working([shard for shard in self.shards() if shard.count != mine.count])
        if working:
            self.release()
            held = _shard_lock(self.folder, working[0])
            raise StoreError(self._busy(f"shard {working[0]}, of another number of shards, is writing", held))

    @property
    def _aside(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.old")

    def _sweep(self) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)

    def _busy(self, who: str, lock: FileLock) -> str:
        out = self.folder.with_name(self.folder.name.removesuffix(".parts"))
        return f"{who} {out}; wait for it, or take another output (-o){_if_left(Path(lock.lock_file))}"


def _if_left(file: Path) -> str:
    """What to do about a lock file that its process has left behind; "" where the lock ends with the process."""
    try:
        process, host, *_ = file.read_text().split()
    except (OSError, ValueError):
        # Locks of the operating system are empty files.
        return ""
    return f". This file system has no locks: if process {process} on {host} is not at work any more, remove {file}"


def _shard_lock(folder: Path, shard: Shard) -> FileLock:
    return FileLock(folder / f".shard-{shard.index}-of-{shard.count}.lock")
