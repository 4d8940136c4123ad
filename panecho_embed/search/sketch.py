"""The best matches of a query, exactly, from a sketch of the vectors that is read in their place.

A unit vector is its part along a few principal directions and a rest at right angles to them. By the inequality of
Cauchy and Schwarz the cosine of two is at most the product of their parts plus the product of the lengths of their
rests. `best_match` grows with every cosine, so bounds on the cosines give a bound on it, and only studies whose bound
reaches the k-th best need to be compared in full.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from panecho_embed.records import BoolArray
from panecho_embed.search.similarity import Floats32, Groups, Ints, best_match, both_ways, top

WORTH_IT_ABOVE = 2000
"""Videos up to which comparing everything takes a millisecond or two."""

_REST = 0.02
_MOST_DIRECTIONS = 128
_SAMPLE = 20_000
_BLOCK = 4096
_FIRST = 64

# Twice what float32 loses in sums of a thousand products, and in a difference of squares.
_ROUNDING, _SQUARES = 1e-5, 1e-5


class Sketch:
    """What is kept of videos' unit vectors: (N, d + 1) numbers, study by study, d at most 128.

    units: (N, D) float32, rows of length 1 or 0. groups: which of them make which study.
    """

    def __init__(self, units: Floats32, groups: Groups) -> None:
        self._units = units
        self._groups = groups
        self._directions = _principal(units)
        self._rows = np.empty((len(units), self._directions.shape[1] + 1), dtype=np.float32)
        for start in range(0, len(units), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._rows[block] = self._sketched(np.asarray(units[groups.order[block]]))

    def best_match(self, query: Floats32, k: int, allowed: BoolArray) -> tuple[Ints, Floats32]:
        """The k studies of those allowed (S,) that match a query (Q, D) best, and how well: as comparing with all."""
        bounds = self.bounds(query)
        return best_by_bound(bounds, allowed, k, lambda studies: self._compared(query, studies))

    def bounds(self, query: Floats32) -> Floats32:
        """For every study at least its `best_match` with a query (Q, D); (S,)."""
        between = self._sketched(query) @ self._rows.T
        np.minimum(between, 1, out=between)
        return np.asarray(both_ways(between, self._groups.starts) + _ROUNDING, dtype=np.float32)

    def _compared(self, query: Floats32, studies: Ints) -> Floats32:
        rows = self._groups.rows(studies)
        if 2 * len(rows) > len(self._units):
            # Gathering that many costs more than it saves.
            return best_match(self._units, self._groups, query)[studies]
        return best_match(np.asarray(self._units[rows]), self._groups.subset(rows)[1], query)

    def _sketched(self, units: Floats32) -> Floats32:
        parts = units @ self._directions
        squares = np.einsum("nd,nd->n", units, units) - np.einsum("nd,nd->n", parts, parts)
        rest = np.sqrt(np.maximum(squares, 0) + _SQUARES)
        return np.column_stack([parts, rest]).astype(np.float32)


def best_by_bound(
    bounds: Floats32, allowed: BoolArray, k: int, exact: Callable[[Ints], Floats32]
) -> tuple[Ints, Floats32]:
    """The k best of those allowed, best first, and their scores, from upper bounds (S,) on every score.

    exact: scores of some positions, ascending. Equal scores stand in order of position, as in `top`.
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


def _principal(units: Floats32) -> Floats32:
    """Directions (D, d) that leave at most 2 % of the vectors' squared length, or as many as pay."""
    rows = np.random.default_rng(0).permutation(len(units))[:_SAMPLE]
    sample = np.asarray(units[np.sort(rows)])
    lengths, axes = np.linalg.eigh(sample.T @ sample / max(len(sample), 1))
    kept = np.cumsum(lengths[::-1]) / max(lengths.sum(), 1e-12)
    count = min(1 + int(np.searchsorted(kept, 1 - _REST)), _MOST_DIRECTIONS, max(1, units.shape[1] // 4))
    return np.ascontiguousarray(axes[:, ::-1][:, :count], dtype=np.float32)
