"""The folders below a folder, each once, in an order that no file system decides."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Self

from panecho_embed.datasets.reading import Table, read_table


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
            # Last, so that what they lead to has had its turn if it is below `root` itself.
            pending = sorted(pending + links, key=natural_key)

    def _deny(self, error: OSError) -> None:
        if self._first_time(error.filename):
            self.denied.append(Path(error.filename))

    def _first_time(self, name: str) -> bool:
        real = os.path.realpath(name)
        first = real not in self._seen
        self._seen.add(real)
        return first


TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".xlsx", ".xls")
"""Suffixes, in small letters, of files that hold labels rather than videos."""


@dataclass(eq=False)
class Tree:
    """All files below a folder, walked once, and which of its tables were read.

    root: the folder. folders: each folder with its files, sorted by name. denied: folders that could not be entered.
    used: files that were read for what they say of the videos; tables that are not among them are named to the user.
    """

    root: Path
    folders: dict[Path, list[Path]]
    denied: list[Path] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, root: Path) -> Self:
        """Walk a folder, without hidden files and folders."""
        walk = Walk(root)
        folders = dict(walk.files())
        return cls(root, folders, walk.denied)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        named = defaultdict(list)
        for files in self.folders.values():
            for file in files:
                named[file.name.lower()].append(file)
        return dict(named)

    @cached_property
    def _by_extension(self) -> dict[str, list[str]]:
        """The names, in small letters, by what follows their last dot: a million files are looked at once."""
        names = defaultdict(list)
        for name in self._by_name:
            names[name.rpartition(".")[2]].append(name)
        return dict(names)

    def files(self, below: Path | None = None, suffixes: Sequence[str] = ()) -> list[Path]:
        """The files whose names end in one of `suffixes` (in small letters), in natural order of their paths.

        below: only those in this folder and its folders; None takes all. suffixes: () takes any.
        """
        likely = [self._by_extension.get(suffix.rpartition(".")[2], []) for suffix in set(suffixes)]
        names = dict.fromkeys(name for some in likely for name in some) if suffixes else self._by_name
        found = (file for name in names if name.endswith(tuple(suffixes) or "") for file in self._by_name[name])
        return sorted((file for file in found if below is None or file.is_relative_to(below)), key=natural_key)

    def named(self, *names: str) -> list[Path]:
        """The files called by one of these names, in any case of letters."""
        return [file for name in names for file in self._by_name.get(name.lower(), [])]

    def table(self, path: Path, first_column: str = "") -> Table:
        """Read a table, see `read_table`, and remember that it was used."""
        self.used.add(path)
        return read_table(path, first_column=first_column)

    def unused_tables(self) -> list[Path]:
        """The tables that nobody has read, in natural order."""
        return [path for path in self.files(suffixes=TABLE_SUFFIXES) if path not in self.used]


def natural_key(path: PurePath) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", path.as_posix())
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name."""
    return name.startswith(".") or name == "__MACOSX"
