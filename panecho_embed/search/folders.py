"""Folders that are replaced whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `target` in the end; after an error nothing has changed.

    A folder can't be replaced in one step. So the former one steps aside, and `whole` finds it there should this be
    stopped before the new one is in place. Raises OSError.
    """
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield new
        new.chmod(0o755)
        former = _former(target)
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
            target.replace(former)
        new.replace(target)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def whole(target: Path) -> Path:
    """Where to read `target`: there, or where the former one stepped aside for one that did not come."""
    return _former(target) if not target.exists() and _former(target).exists() else target


def _former(target: Path) -> Path:
    return target.with_name(f".{target.name}.former")
