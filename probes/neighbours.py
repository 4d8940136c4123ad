"""Nearest neighbours, exact, in blocks that stay in memory."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray, Ints
from panecho_embed.core.errors import ArgumentError

Metric = Literal["cosine", "euclidean"]

BLOCK_ELEMENTS = 8_000_000


class Neighbours(Protocol):
    """Rows that can be searched."""

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Distances (Q, k), ascending, and row numbers (Q, k), -1 where fewer were found."""
        ...


class ExactNeighbours:
    """Exact search among `rows` (N, D), in their own precision.

    Cosine distance is 1 - cosine similarity; a row of zeros is at distance 1 from everything.
    """

    def __init__(self, rows: FloatArray, metric: Metric) -> None:
        self._metric = check_metric(metric)
        self._rows = unit_length(rows) if metric == "cosine" else rows
        self._squares = np.einsum("nd,nd->n", self._rows, self._rows)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Distances (Q, k), ascending, and row numbers (Q, k)."""
        if self._metric == "cosine":
            queries = unit_length(queries)
        block = max(1, BLOCK_ELEMENTS // len(self._rows))
        found = [self._search_block(queries[i : i + block], k) for i in range(0, len(queries), block)]
        return np.concatenate([d for d, _ in found]), np.concatenate([i for _, i in found])

    def _search_block(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        products = queries @ self._rows.T
        distance = 1 - products if self._metric == "cosine" else self._squares - 2 * products
        nearest = _smallest(distance, k)
        distance = np.take_along_axis(distance, nearest, axis=1)
        if self._metric == "euclidean":
            distance = self._from_differences(queries, nearest)
        # Of equally near rows the first one comes first, whatever the block.
        order = np.lexsort([nearest, np.maximum(distance, 0)], axis=1)
        sorted_distance = np.take_along_axis(np.maximum(distance, 0), order, axis=1)
        return sorted_distance, np.take_along_axis(nearest, order, axis=1).astype(np.int64)

    def _from_differences(self, queries: FloatArray, nearest: npt.NDArray[np.intp]) -> FloatArray:
        """Exact distances of the few that were found: a difference of squares loses digits where they are near."""
        distance = np.empty(nearest.shape, dtype=queries.dtype)
        for i, (query, rows) in enumerate(zip(queries, nearest, strict=True)):
            distance[i] = np.linalg.norm(self._rows[rows] - query, axis=1)
        return distance


def _smallest(distance: FloatArray, k: int) -> npt.NDArray[np.intp]:
    """Columns (Q, k) of the smallest values of each row, in no order; of equals at the edge those that come first."""
    if k >= distance.shape[1]:
        return np.arange(distance.shape[1])[None].repeat(len(distance), axis=0)
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    edge = np.take_along_axis(distance, nearest, axis=1).max(axis=1)
    for i in np.flatnonzero(np.count_nonzero(distance <= edge[:, None], axis=1) > k):
        near = np.flatnonzero(distance[i] <= edge[i])
        nearest[i] = near[np.argsort(distance[i, near], kind="stable")[:k]]
    return nearest


def unit_length(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; rows of zeros stay zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1).astype(rows.dtype))


def check_metric(metric: str) -> Metric:
    """The metric, or ArgumentError that lists what is allowed."""
    if metric not in get_args(Metric):
        raise ArgumentError(f"metric is {metric!r}; allowed are {', '.join(get_args(Metric))} (--metric)")
    return "cosine" if metric == "cosine" else "euclidean"
