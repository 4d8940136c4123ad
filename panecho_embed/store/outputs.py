"""Where a command writes: nothing that is there is replaced unasked, no input ever, and a file appears whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panecho_embed.errors import StoreError


def refuse_to_replace(path: Path, overwrite: bool, *inputs: str | Path | None, flag: str = "-o") -> None:
    """Raise StoreError if there is something at `path` already and it was not asked to be overwritten.

    inputs: what is read; none of them, nor a link to one, is replaced even if that is asked for. flag: names `path`.
    """
    if not path.exists():
        return
    for source in inputs:
        if source is not None and Path(source).exists() and path.samefile(source):
            raise StoreError(f"{path} is what is read, {source}; it would be lost: take another output ({flag})")
    if not overwrite:
        raise StoreError(f"{path} is there already; take another output ({flag}), or replace it with --overwrite")


@contextmanager
def written_whole(path: Path, flag: str = "-o") -> Iterator[Path]:
    """A file to write beside `path`, which takes its place in the end; after an error nothing has changed.

    A link stays one. Raises StoreError, which names `flag`, where `path` is no regular file or can't be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise StoreError(f"can't write {path}: it is no regular file ({flag})")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror or error} ({flag})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
