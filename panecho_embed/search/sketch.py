"""The studies nearest to a query by best match or view by view, exactly, from a sketch of the vectors.

A unit vector is its part along a few principal directions and a rest at right angles to them. By the inequality of
Cauchy and Schwarz the cosine of two is at most the product of their parts plus the product of the lengths of their
rests. Both measures grow with every cosine, so bounds on the cosines give a bound on them, and only studies whose bound
reaches the k-th best need to be compared in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.records import BoolArray
from panecho_embed.search.similarity import (
    Floats32,
    Groups,
    Ints,
    best_match,
    both_ways,
    pointing,
    query_view_means,
    top,
    view_means,
    view_similarity,
)

WORTH_IT_ABOVE = 2000
"""Videos up to which comparing everything takes a millisecond or two."""

_REST = 0.02
_MOST_DIRECTIONS = 128
_SAMPLE = 20_000
_BLOCK = 4096
_FIRST = 64

# Twice what float32 loses in sums of a thousand products, and in a difference of squares.
_ROUNDING, _SQUARES = 1e-5, 1e-5

# A mean that is shorter says too little of its direction for a bound.
_SHORT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SketchRows:
    """What a sketch keeps, and an index stores.

    directions: (D, d), d at most 128. rows: (N, d + 2), study by study: a video's parts along the directions, the
    length of its rest, and the length of the mean of its study's unit vectors of its view; -1 for a video of zeros.
    """

    directions: Floats32
    rows: Floats32


def sketch_rows(units: Floats32, groups: Groups, views: npt.NDArray[np.object_]) -> SketchRows:
    """The sketch of videos' unit vectors (N, D), length 1 or 0, which make studies, with their views (N,)."""
    directions = _principal(units)
    rows = np.empty((len(units), directions.shape[1] + 2), dtype=np.float32)
    for start in range(0, len(units), _BLOCK):
        block = slice(start, start + _BLOCK)
        rows[block, :-1] = _sketched(np.asarray(units[groups.order[block]]), directions)
    rows[:, -1] = _view_lengths(units, groups, views)[groups.order]
    return SketchRows(directions, rows)


class Sketch:
    """Searches by bounds from a sketch.

    units: (N, D) float32, rows of length 1 or 0. groups: which of them make which study. views: (N,), "" where not
    known. kept: the sketch, where it is at hand.
    """

    def __init__(
        self, units: Floats32, groups: Groups, views: npt.NDArray[np.object_], kept: SketchRows | None = None
    ) -> None:
        self._units = units
        self._groups = groups
        self._views = views
        self._kept = kept or sketch_rows(units, groups, views)
        self._study_by_study = groups.codes[groups.order]
        there = self._kept.rows[:, -1] >= 0
        self._counted = None if there.all() else there
        self._places: dict[str, Ints] = {}

    def search(
        self,
        query: Floats32,
        views: npt.NDArray[np.object_],
        measure: Literal["best", "view"],
        k: int,
        allowed: BoolArray,
    ) -> tuple[Ints, Floats32]:
        """The k studies of those allowed (S,) that are most like a query (Q, D), and how like: as comparing with all.

        views: (Q,) of the query. Raises ArgumentError where `view` is asked for and none is known.
        """
        if measure == "best":
            bounds = self.best_bounds(query)
            return best_by_bound(bounds, allowed, k, lambda studies: self._best_matches(query, studies))
        bounds = self.view_bounds(query, views)
        return best_by_bound(bounds, allowed, k, lambda studies: self._view_similarities(query, views, studies))

    def best_bounds(self, query: Floats32) -> Floats32:
        """For every study at least its `best_match` with a query (Q, D); (S,)."""
        bounds = both_ways(self._bounds(query), self._groups.starts, self._counted)
        return np.asarray(bounds + _ROUNDING, dtype=np.float32)

    def view_bounds(self, query: Floats32, views: npt.NDArray[np.object_]) -> Floats32:
        """For every study at least its `view_similarity` with a query (Q, D); (S,), NaN where no view is common."""
        total, shared = np.zeros(len(self._groups)), np.zeros(len(self._groups))
        middles = query_view_means(query, views)
        codes = self._study_by_study
        for view, between in zip(middles, self._bounds(np.concatenate(list(middles.values()))), strict=True):
            places = self._of_view(view)
            starts = np.flatnonzero(np.diff(codes[places], prepend=-1))
            if not len(starts):
                continue
            sums = np.add.reduceat(between[places], starts) + _ROUNDING
            lengths = self._kept.rows[places[starts], -1]
            means = sums / np.diff(starts, append=len(places)) / np.maximum(lengths, _SHORT)
            total[codes[places[starts]]] += np.where(lengths > _SHORT, np.minimum(means, 1), 1)
            shared[codes[places[starts]]] += 1
        with np.errstate(invalid="ignore"):
            return np.asarray(total / shared + _ROUNDING, dtype=np.float32)

    def _bounds(self, units: Floats32) -> Floats32:
        """At least the cosines (Q, N) of unit vectors (Q, D) with every video, study by study."""
        between: Floats32 = _sketched(units, self._kept.directions) @ self._kept.rows[:, :-1].T
        np.minimum(between, 1, out=between)
        return between

    def _of_view(self, view: str) -> Ints:
        """Places, study by study, of the videos of a view that are more than zeros."""
        if view not in self._places:
            views = self._views if self._groups.in_order else self._views[self._groups.order]
            there = np.asarray(views == view, dtype=np.bool_)
            if self._counted is not None:
                there &= self._counted
            self._places[view] = np.flatnonzero(there).astype(np.int64)
        return self._places[view]

    def _best_matches(self, query: Floats32, studies: Ints) -> Floats32:
        rows = self._groups.rows(studies)
        if 2 * len(rows) > len(self._units):
            # Gathering that many costs more than it saves.
            return best_match(self._units, self._groups, query, pointing(self._units))[studies]
        some = np.asarray(self._units[rows])
        return best_match(some, self._groups.subset(rows)[1], query, pointing(some))

    def _view_similarities(self, query: Floats32, views: npt.NDArray[np.object_], studies: Ints) -> Floats32:
        rows = self._groups.rows(studies)
        means = view_means(np.asarray(self._units[rows]), self._groups.subset(rows)[1], self._views[rows])
        return view_similarity(means, len(studies), query, views)


def best_by_bound(
    bounds: Floats32, allowed: BoolArray, k: int, exact: Callable[[Ints], Floats32]
) -> tuple[Ints, Floats32]:
    """The k best of those allowed, best first, and their scores, from upper bounds (S,) on every score.

    exact: scores of some positions, ascending. Equal scores stand in order of position, and NaN never, as in `top`.
    """
    tried = np.sort(top(bounds, max(4 * k, _FIRST), allowed))
    scores = exact(tried)
    best = top(scores, k)
    # What can't reach the k-th best is not looked at; what may tie with it is.
    open_ = allowed & (bounds >= (scores[best[-1]] if len(best) == k else -np.inf))
    open_[tried] = False
    rest = np.flatnonzero(open_).astype(np.int64)
    if len(rest):
        tried, scores = np.concatenate([tried, rest]), np.concatenate([scores, exact(rest)])
        order = np.argsort(tried)
        tried, scores = tried[order], scores[order]
        best = top(scores, k)
    return tried[best], scores[best]


def _sketched(units: Floats32, directions: Floats32) -> Floats32:
    """Parts along the directions, and the length of the rest; (N, d + 1)."""
    parts = units @ directions
    squares = np.einsum("nd,nd->n", units, units) - np.einsum("nd,nd->n", parts, parts)
    rest = np.sqrt(np.maximum(squares, 0) + _SQUARES)
    return np.column_stack([parts, rest]).astype(np.float32)


def _view_lengths(units: Floats32, groups: Groups, views: npt.NDArray[np.object_]) -> Floats32:
    """For every video the length (N,) of the mean of its study's unit vectors of its view; -1 for one of zeros."""
    names, codes = np.unique(views.astype(str), return_inverse=True)
    pairs = Groups.of(np.unique(groups.codes * len(names) + codes, return_inverse=True)[1])
    counts = np.diff(pairs.starts, append=len(units))
    lengths = np.full(len(units), -1, dtype=np.float32)
    for start in range(0, len(pairs), _BLOCK):
        some = slice(start, start + _BLOCK)
        first, number = pairs.starts[some], counts[some]
        rows = pairs.order[first[0] : first[0] + number.sum()]
        vectors = units[rows]
        there = vectors.any(axis=1)
        counted = np.add.reduceat(there, first - first[0], dtype=np.int64)
        sums = np.add.reduceat(vectors, first - first[0], axis=0)
        means = np.linalg.norm(sums, axis=1) / np.maximum(counted, 1)
        lengths[rows[there]] = np.repeat(means, number)[there]
    return lengths


def _principal(units: Floats32) -> Floats32:
    """Directions (D, d) that leave at most 2 % of the vectors' squared length, or as many as pay."""
    rows = np.random.default_rng(0).permutation(len(units))[:_SAMPLE]
    sample = np.asarray(units[np.sort(rows)])
    lengths, axes = np.linalg.eigh(sample.T @ sample / max(len(sample), 1))
    kept = np.cumsum(lengths[::-1]) / max(lengths.sum(), 1e-12)
    count = min(1 + int(np.searchsorted(kept, 1 - _REST)), _MOST_DIRECTIONS, max(1, units.shape[1] // 4))
    return np.ascontiguousarray(axes[:, ::-1][:, :count], dtype=np.float32)
