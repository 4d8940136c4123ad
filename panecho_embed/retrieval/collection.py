"""What can be searched: the clips, videos and studies of an embedding file, with unit vectors and their columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools, Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.wording import ManyNames
from panecho_embed.extraction.pooling import pool_table
from panecho_embed.retrieval.filters import Columns
from panecho_embed.retrieval.similarity import Groups, Vectors, ViewMeans, pointing, unit, view_means
from panecho_embed.store import EmbeddingFile, RowsOnDisk

SearchLevel = Literal["clip", "video", "study"]

_ID_COLUMNS = ("video_id", "study_id", "patient_id", "view", "split")
_OURS = frozenset({*_ID_COLUMNS, "num_frames", "fps", "first_frame", "videos", "x", "y", "neighbors", "thumbnail"})
"""Columns that items have, or an export gives them."""


class UnknownIdError(ArgumentError):
    """An id that is not in the file; the message offers the nearest."""


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """Things of one level that can be found.

    ids: (N,), unique. units: (N, D) float32, rows of length 1 (0 where the embedding is all zeros); those of an index
    stay on the disk. columns: what filters and tables can name, (N,) float64 (NaN where missing) or str objects (""
    where missing).
    """

    level: SearchLevel
    ids: Texts
    units: Vectors
    columns: Columns

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def patients(self) -> Texts:
        """(N,) patient ids."""
        return self.columns["patient_id"]

    @property
    def studies(self) -> Texts:
        """(N,) study ids."""
        return self.columns["study_id"]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What an index keeps of a collection, so that it is not made again; None for what it does not keep.

    video_units: (V, D). study_units: (S, D), the means in the order of `Collection.studies`.
    """

    video_units: Vectors | None = None
    study_units: Vectors | None = None


class Collection:
    """The clips, videos and studies of an embedding file, ready to be searched.

    A video is the mean of its rows, a study a bag of videos. Everything is made when it is first asked for.
    kept: what an index keeps; with the videos' unit vectors among it the embeddings are not read.
    Raises StoreError for a file that can't be read, has no rows, or has rows that are not finite.
    """

    def __init__(self, path: str | Path, *, kept: Kept | None = None) -> None:
        self.file = EmbeddingFile(path)
        self._kept = kept or Kept()
        if not len(self.file):
            raise StoreError(f"{self.file.path}: there is no embedding in it to search")

    @property
    def path(self) -> Path:
        """The embedding file."""
        return self.file.path

    @property
    def provenance(self) -> Provenance:
        """How the embeddings were made."""
        return self.file.provenance

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Labels that are called as columns of ours, and what they are called here: a name that no other column has."""
        taken = {*self.file.labels, *_OURS}
        renamed: dict[str, str] = {}
        for name in filter(_OURS.__contains__, self.file.labels):
            new = f"label_{name}"
            while new in taken:
                new = f"label_{new}"
            taken.add(new)
            renamed[name] = new
        return renamed

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the columns."""
        return tuple(f"the label {name!r} is called {new!r} here" for name, new in self.renamed.items())

    @property
    def dim(self) -> int:
        """Length of one embedding."""
        return self.file.dim

    def _rows(self) -> RowsOnDisk:
        """Every row. Not kept: all that is needed later are unit vectors."""
        rows = self.file.rows_on_disk
        if len(bad := rows.not_finite()):
            raise StoreError(
                f"{self.path}: rows that are not finite, the first is row {bad[0]} "
                f"({self._without_values.video_id[bad[0]]}); panecho-embed verify tells more"
            )
        return rows

    @cached_property
    def _without_values(self) -> EmbeddingTable:
        table = self.file.table_without_values()
        return dataclasses.replace(
            table, labels={self.renamed.get(name, name): column for name, column in table.labels.items()}
        )

    @cached_property
    def clips(self) -> Items:
        """One item a row of a clip- or frame-level file; its id is VIDEO#first_frame."""
        if self.file.level not in ("clip", "frame"):
            raise ArgumentError(f"{self.path} stands at {self.file.level} level; there are no clips in it (--level)")
        table = self._without_values
        ids = np.array([f"{v}#{f}" for v, f in zip(table.video_id, table.first_frame, strict=True)], dtype=object)
        columns = _columns(table) | {"first_frame": _number(table.first_frame)}
        return Items("clip", ids, unit(self._rows()), columns)

    @cached_property
    def _video_table(self) -> EmbeddingTable:
        """The videos' columns, their vectors aside."""
        if not self.has_videos:
            raise ArgumentError(f"{self.path} stands at study level; its videos are not in it (--level study)")
        rows = self._without_values
        return rows if self.file.level == "video" else pool_table(rows, "video")

    @cached_property
    def videos(self) -> Items:
        """One item per video."""
        table = self._video_table
        facts = {name: self.file.video_columns[name] for name in ("num_frames", "fps")}
        position = {name: i for i, name in enumerate(self.file.video_columns["video_id"])}
        where = np.array([position[name] for name in table.video_id], dtype=np.int64)
        extra = {name: _number(column[where]) for name, column in facts.items()}
        units = self._kept.video_units
        if units is None:
            units = (
                unit(self._rows())
                if self.file.level == "video"
                else unit(pool_table(self._without_values, "video", rows=self._rows()).values, in_place=True)
            )
        return Items("video", table.video_id, units, _columns(table) | extra)

    @cached_property
    def studies(self) -> Items:
        """One item a study: the mean of its videos' unit vectors; in order of first appearance."""
        if not self.has_videos:
            table = self._without_values
            return Items("study", table.study_id, unit(self._rows()), _columns(table, without=("video_id",)))
        table = dataclasses.replace(self._video_table, values=np.zeros((len(self.videos), 1), dtype=np.float32))
        pooled = pool_table(dataclasses.replace(table, level="video"), "study")
        columns = _columns(pooled, without=("video_id",))
        columns["videos"] = np.bincount(self.groups.codes).astype(np.float64)
        views = self.videos.columns["view"]
        columns["view"] = np.array(
            [", ".join(sorted(set(views[self.groups.members(g)]) - {""})) for g in range(len(self.groups))],
            dtype=object,
        )
        kept = self._kept.study_units
        # All of them are compared with every query.
        units = self.groups.mean(self.videos.units) if kept is None else np.asarray(kept)
        return Items("study", pooled.study_id, units, columns)

    @cached_property
    def groups(self) -> Groups:
        """Which videos make which study; studies are numbered as in `studies`."""
        _, first, inverse = np.unique(self.videos.studies.astype(str), return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        return Groups.of(rank[inverse])

    @cached_property
    def view_means(self) -> ViewMeans:
        """The mean of every study in every known view."""
        return view_means(self.videos.units, self.groups, self.videos.columns["view"])

    @cached_property
    def pointing(self) -> Bools | None:
        """Which videos are more than zeros, (V,); None where all are."""
        return pointing(self.videos.units)

    @property
    def has_videos(self) -> bool:
        """False for a study-level file."""
        return self.file.level != "study"

    def items(self, level: SearchLevel) -> Items:
        """The items of a level. Raises ArgumentError for a level that the file can't give."""
        if level not in get_args(SearchLevel):
            raise ArgumentError(f"level is {level!r}; allowed are {', '.join(get_args(SearchLevel))} (--level)")
        found: Items = {"clip": lambda: self.clips, "video": lambda: self.videos, "study": lambda: self.studies}[
            level
        ]()
        return found

    @cached_property
    def _positions(self) -> dict[str, dict[str, int]]:
        return {}

    @cached_property
    def _members(self) -> dict[tuple[SearchLevel, str], dict[str, list[int]]]:
        return {}

    @cached_property
    def _names(self) -> dict[str, ManyNames]:
        return {}

    def position(self, level: SearchLevel, item_id: str) -> int:
        """Where an item stands among its level's. Raises UnknownIdError, with the nearest ids, if there is none."""
        if level not in self._positions:
            self._positions[level] = {str(name): i for i, name in enumerate(self.items(level).ids)}
        known = self._positions[level]
        if item_id not in known:
            raise UnknownIdError(self._unknown(level, item_id, known))
        return known[item_id]

    def members(self, level: SearchLevel, column: str, names: Sequence[str]) -> Ints:
        """Positions of the items of a level that have one of some names in an id column."""
        if (level, column) not in self._members:
            known: dict[str, list[int]] = {}
            for position, name in enumerate(self.items(level).columns[column]):
                known.setdefault(str(name), []).append(position)
            self._members[level, column] = known
        found = self._members[level, column]
        return np.array([position for name in names for position in found.get(name, ())], dtype=np.int64)

    def _unknown(self, level: SearchLevel, item_id: str, known: dict[str, int]) -> str:
        if level == "video" and (self.file.video_columns["video_id"] == item_id).any():
            return f"video {item_id!r} has no embedding; panecho-embed info {self.path.name} --failures says why"
        if level not in self._names:
            self._names[level] = ManyNames(known)
        near = self._names[level].nearest(item_id)
        return f"no {level} is called {item_id!r} in {self.path.name}{near} (--{level}; {len(known)} {_plural(level)})"


def _plural(level: SearchLevel) -> str:
    return "studies" if level == "study" else f"{level}s"


def _columns(table: EmbeddingTable, without: tuple[str, ...] = ()) -> dict[str, npt.NDArray[Any]]:
    ids = {name: getattr(table, name) for name in _ID_COLUMNS if name not in without}
    labels = {name: _number(column) if column.dtype.kind in "iufb" else column for name, column in table.labels.items()}
    return ids | {name: column for name, column in labels.items() if name not in ids}


def _number(column: npt.NDArray[Any]) -> Floats:
    return column.astype(np.float64)
