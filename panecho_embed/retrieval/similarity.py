"""How alike two videos, or two studies, are: cosines of embeddings, and three ways to compare bags of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools, FloatArray, Floats32, Ints, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.store import RowsOnDisk

Measure = Literal["mean", "best", "view"]
"""How two studies are compared: the cosine of their mean embeddings; every video with its best match in the other
study, averaged over both directions; the mean over the views that both have of the cosine of the views' means."""


Vectors = Floats32 | RowsOnDisk
"""Vectors (N, D) in memory, or on the disk, from where rows are read when they are asked for."""

_BLOCK = 4096


class NothingToCompareError(ArgumentError):
    """A query that points nowhere, or whose views are not known where views are to be compared."""


def unit(values: FloatArray | RowsOnDisk, *, in_place: bool = False) -> Floats32:
    """Rows (N, D) divided by their length, float32; a row of zeros, which points nowhere, stays zero.

    in_place: the values are not needed any more; float32 ones are overwritten, which halves the memory.
    """
    reuse = in_place and values.dtype == np.float32
    units: Floats32 = np.asarray(values, np.float32) if reuse else np.empty(values.shape, dtype=np.float32)
    # In blocks: a million vectors are gigabytes, and every step would take as much again.
    for start in range(0, len(values), _BLOCK):
        rows = np.asarray(values[start : start + _BLOCK], dtype=np.float32)
        # The squares of float32 can overflow; the largest component makes them safe.
        scale = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        scaled = rows / np.where(scale > 0, scale, 1)
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        units[start : start + _BLOCK] = scaled / np.where(lengths > 0, lengths, 1)
    return units


def query_unit(values: FloatArray, dim: int, what: str) -> Floats32:
    """Query vectors (D,) or (Q, D) as unit rows (Q, D), rows of zeros as they are.

    Raises ArgumentError for another size or values that are not finite.
    """
    rows = np.atleast_2d(np.asarray(values))
    if rows.ndim != 2 or rows.shape[1] != dim or not len(rows) or rows.dtype.kind not in "fiu":
        raise ArgumentError(
            f"{what} is {rows.dtype} of shape {np.shape(values)}; the file's embeddings have {dim} numbers"
        )
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ArgumentError(f"{what} holds values that are not finite")
    return unit(rows)


def pointing(units: Vectors) -> Bools | None:
    """Which rows (N, D) are more than zeros, (N,); None where all are."""
    there = np.empty(len(units), dtype=np.bool_)
    for start in range(0, len(units), _BLOCK):
        there[start : start + _BLOCK] = units[start : start + _BLOCK].any(axis=1)
    return None if there.all() else there


def cosines(units: Floats32, queries: Floats32) -> Floats32:
    """Unit rows (N, D) and (Q, D) to cosines (N, Q), -1 to 1."""
    return np.asarray(np.clip(units @ queries.T, -1, 1), dtype=np.float32)


def across(units: Vectors, queries: Floats32) -> Floats32:
    """The same as (Q, N): a query's cosines lie side by side, which is what many rows and few queries want."""
    found = np.empty((len(queries), len(units)), dtype=np.float32)
    # Blocks that stay in the cache while every query passes over them.
    for start in range(0, len(units), _BLOCK):
        block = slice(start, start + _BLOCK)
        np.clip(queries @ units[block].T, -1, 1, out=found[:, block])
    return found


def closest(units: Vectors, queries: Floats32) -> Floats32:
    """The cosine (N,) of every unit row (N, D) with the nearest of the queries (Q, D)."""
    return np.asarray(across(units, queries).max(axis=0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Which rows belong together: `order` lists them group by group, group g from `starts[g]` on."""

    codes: Ints
    order: Ints
    starts: Ints

    @classmethod
    def of(cls, codes: npt.NDArray[np.integer[Any]]) -> Groups:
        """Groups numbered 0 ... G-1, none of them empty."""
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        return cls(codes.astype(np.int64), order.astype(np.int64), starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts)

    def members(self, group: int) -> Ints:
        """Rows of one group."""
        stop = self.starts[group + 1] if group + 1 < len(self.starts) else len(self.order)
        return self.order[self.starts[group] : stop]

    def subset(self, rows: Ints) -> tuple[Ints, Groups]:
        """The groups that `rows` belong to, and these rows' grouping among themselves."""
        kept, codes = np.unique(self.codes[rows], return_inverse=True)
        return kept, Groups.of(codes)

    @property
    def in_order(self) -> bool:
        """Whether the rows stand group by group already."""
        return bool((np.diff(self.order) == 1).all())

    def mean(self, units: Vectors) -> Floats32:
        """Unit vectors of each group's mean, (G, D)."""
        in_order = np.asarray(units) if self.in_order else units[self.order]
        return unit(np.add.reduceat(in_order, self.starts, axis=0)) if len(self) else units[:0]


def mean_similarity(means: Floats32, query: Floats32) -> Floats32:
    """Cosines (S,) of studies' means (S, D) with the mean of a query's videos (Q, D)."""
    return cosines(means, _middle(query))[:, 0]


def _middle(query: Floats32) -> Floats32:
    middle = unit(query.mean(axis=0, keepdims=True))
    if not middle.any():
        raise NothingToCompareError("the query's embeddings cancel out in their mean; take --similarity best")
    return middle


def best_match(units: Vectors, groups: Groups, query: Floats32, counted: Bools | None = None) -> Floats32:
    """Every video with its best match in the other study, averaged over both directions; (S,), 1 for equal bags.

    counted: (N,) the videos that are more than zeros, see `pointing`; the others belong to no study here.
    """
    between = across(units, query)
    if not groups.in_order:
        between = between[:, groups.order]
    return both_ways(between, groups.starts, None if counted is None else counted[groups.order])


def both_ways(between: Floats32, starts: Ints, counted: Bools | None = None) -> Floats32:
    """`best_match` from the cosines (Q, N) of the query's videos with those of every study, which begin at `starts`."""
    nearest = between.max(axis=0)
    if counted is None:
        counts = np.diff(starts, append=between.shape[1])
        there = np.maximum.reduceat(between, starts, axis=1).mean(axis=0)
    else:
        # -1 is the least that a cosine can be.
        counts = np.add.reduceat(counted, starts, dtype=np.int64)
        there = np.maximum.reduceat(np.where(counted, between, -1), starts, axis=1).mean(axis=0)
        there, nearest = np.where(counts > 0, there, 0), np.where(counted, nearest, 0)
    back = np.add.reduceat(nearest, starts) / np.maximum(counts, 1)
    return np.asarray((there + back) / 2, dtype=np.float32)


ViewMeans = Mapping[str, tuple[Ints, Floats32]]
"""View -> (studies that have it, (n,); unit vectors of their means in it, (n, D))."""


def view_means(units: Vectors, groups: Groups, views: Texts) -> ViewMeans:
    """The mean of every study in every known view ("" is not known). A video of zeros shows no view."""
    means = {}
    for view in sorted(set(views) - {""}):
        rows = np.flatnonzero(views == view)
        some = units[rows]
        there = pointing(some)
        if there is not None:
            rows, some = rows[there], some[there]
        studies, inner = groups.subset(rows)
        means[str(view)] = (studies, inner.mean(some))
    return means


def query_view_means(query: Floats32, views: Texts) -> dict[str, Floats32]:
    """View -> the mean of a query's videos (Q, D) in it, a unit vector (1, D). Raises NothingToCompareError."""
    known = sorted(set(views) - {""})
    if not known:
        raise NothingToCompareError("the query's views are not known, so studies can't be compared view by view; "
                            "take --similarity mean or best")  # fmt: skip
    return {str(view): _middle(query[views == view]) for view in known}


def view_similarity(means: ViewMeans, num_studies: int, query: Floats32, query_views: Texts) -> Floats32:
    """Mean over the views that both have of the cosine of the views' means, (S,); NaN where none is common.

    Raises NothingToCompareError when the query's views are not known.
    """
    total, shared = np.zeros(num_studies), np.zeros(num_studies)
    for view, middle in query_view_means(query, query_views).items():
        studies, units = means.get(view, (np.zeros(0, dtype=np.int64), query[:0]))
        total[studies] += cosines(units, middle)[:, 0]
        shared[studies] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / shared, dtype=np.float32)


def top(scores: FloatArray, k: int, allowed: Bools | None = None) -> Ints:
    """Positions of the k highest scores among those allowed, best first; ties in order of position, NaN never."""
    candidates = np.flatnonzero(~np.isnan(scores) if allowed is None else allowed & ~np.isnan(scores))
    picked = scores[candidates]
    if k < len(picked):
        # Everything that ties with the k-th stays in, so that ties break by position.
        threshold = np.partition(picked, len(picked) - k)[len(picked) - k]
        keep = picked >= threshold
        candidates, picked = candidates[keep], picked[keep]
    return candidates[np.argsort(-picked, kind="stable")][:k].astype(np.int64)
