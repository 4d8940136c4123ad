"""The folders below a folder, each once, in an order that no file system decides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath


@dataclass(slots=True)
class Walk:
    """A walk through `root` and the folders that are linked into it; hidden files and folders are passed over.

    denied: the folders that could not be entered, known when `files` has come to its end.
    """

    root: Path
    denied: list[Path] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def files(self) -> Iterator[tuple[Path, list[Path]]]:
        """Every folder with its files. A folder that is reached twice counts where it really lies, not as a link."""
        pending = [self.root]
        while pending:
            links = []
            for name, folders, files in os.walk(pending.pop(0), onerror=self._deny):
                here = Path(name)
                # Links may lead in a circle.
                if not self._first_time(name):
                    folders.clear()
                    continue
                visible = sorted(folder for folder in folders if not hidden(folder))
                linked = {folder for folder in visible if (here / folder).is_symlink()}
                links += [here / folder for folder in linked]
                folders[:] = [folder for folder in visible if folder not in linked]
                yield here, [here / file for file in sorted(files) if not hidden(file)]
            # Last, so that what they lead to has had its turn if it lies below `root` itself.
            pending = sorted(pending + links, key=natural_key)

    def _deny(self, error: OSError) -> None:
        if self._first_time(error.filename):
            self.denied.append(Path(error.filename))

    def _first_time(self, name: str) -> bool:
        real = os.path.realpath(name)
        first = real not in self._seen
        self._seen.add(real)
        return first


def natural_key(path: PurePath) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", path.as_posix())
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name."""
    return name.startswith(".") or name == "__MACOSX"
