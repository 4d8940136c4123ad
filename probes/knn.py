"""The nearest-neighbour probe: a label is the weighted mean of its neighbours' labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from panecho_embed.errors import ArgumentError
from probes.base import BaseProbe, Floats, Ints, TaskType, at_rows, is_classifier
from probes.neighbours import ExactNeighbours, FloatArray, Metric, Neighbours, check_metric

Weights = Literal["softmax", "distance", "uniform"]

K_GRID = (1, 2, 3, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200)
QUERY_BLOCK = 4096


class KNNProbe(BaseProbe):
    """Reads a target from the nearest embeddings, exactly.

    task: "regression", "binary" or "multiclass". metric: "cosine" or "euclidean". k: numbers of neighbours to choose
    from, 1 to 200 by default; those above the number of rows are left out. weights: "softmax", exp(similarity /
    temperature) as in Wu et al. (CVPR 2018), cosine only; "distance", 1 / distance; or "uniform". folds: grouped folds
    inside `fit` that choose k, by the mean squared error of the value or of the class probabilities (Brier score).
    random_state: of the folds.

    After `fit`: `k_`; `ks_` and `grid_`, its held-out loss; `holdout_prediction_`, predictions of rows while held out.
    """

    saved = ("k_", "rows_", "targets_")

    k_: int
    rows_: FloatArray
    targets_: Floats
    ks_: Ints
    grid_: Floats
    neighbours_: Neighbours

    def __init__(
        self,
        task: TaskType = "regression",
        *,
        metric: Metric = "cosine",
        k: Sequence[int] | None = None,
        weights: Weights = "softmax",
        temperature: float = 0.07,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.task = task
        self.metric = metric
        self.k = k
        self.weights = weights
        self.temperature = temperature
        self.folds = folds
        self.random_state = random_state

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        holdout: npt.ArrayLike | None = None,
    ) -> Self:
        """Choose k on held-out rows, then keep all rows.

        X: (N, D). y: (N,), NaN in a regression where a label is missing. groups, holdout: as `LinearProbe.fit`.
        """
        self._check_settings()
        x, given = self._check_fit(X, y)
        there = np.isfinite(given)
        x, given = x[there], given[there]
        targets: Floats = given[:, None] if self.task == "regression" else np.eye(len(self.classes_))[given]
        grid = self._ks()
        part = self._parts(given, at_rows(groups, there), at_rows(holdout, there), needed=self.chooses())
        rows_left = [int((part != k).sum()) for k in range(part.max() + 1)]
        self.ks_ = grid[grid <= min(rows_left, default=len(x))]
        if not len(self.ks_):
            raise ArgumentError(f"k is {grid.tolist()}, but there are {len(x)} rows (n_samples={len(x)}) (--k)")
        held_out = np.full((len(self.ks_), *targets.shape), np.nan)
        for k in range(part.max() + 1):
            rest = part != k
            held_out[:, ~rest] = self._averages(self._index(x[rest]), x[~rest], targets[rest], self.ks_)
        chosen = self._choose(held_out, targets)
        held = np.full((len(there), targets.shape[1]), np.nan)
        held[there] = held_out[chosen]
        self.holdout_prediction_ = held[:, 0] if self.task == "regression" else held
        self.rows_, self.targets_, self.neighbours_ = x, targets, self._index(x)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Value or class (N,) of each row of X (N, D)."""
        if self.task == "regression":
            return self._weighted(X)[:, 0]
        probability = self.predict_proba(X)
        return np.asarray(self.classes_[probability.argmax(axis=1)])

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probability of each class, (N, K), in the order of `classes_`."""
        return self._weighted(X)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """As in `BaseProbe`; the index is built again."""
        super().restore(arrays)
        self.neighbours_ = self._index(self.rows_)
        return self

    def chooses(self) -> bool:
        """Whether there is more than one k."""
        return len(self._ks()) > 1

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every k tried, its held-out loss, and whether it was chosen."""
        return [
            {"k": int(k), "loss": float(loss), "chosen": bool(k == self.k_)}
            for k, loss in zip(self.ks_, self.grid_, strict=True)
        ]

    def _ks(self) -> Ints:
        return np.array(sorted(set(K_GRID if self.k is None else self.k)), dtype=np.int64)

    def _index(self, x: FloatArray) -> Neighbours:
        return ExactNeighbours(x, self.metric)

    def _weighted(self, X: npt.ArrayLike) -> Floats:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.asarray(self._averages(self.neighbours_, x, self.targets_, np.array([self.k_]))[0])

    def _averages(self, neighbours: Neighbours, queries: FloatArray, targets: Floats, ks: Ints) -> Floats:
        """Weighted means (A, Q, T) of the targets of the nearest k neighbours, for each k of ascending `ks`."""
        blocks = []
        for start in range(0, len(queries), QUERY_BLOCK):
            distance, index = neighbours.search(queries[start : start + QUERY_BLOCK], int(ks[-1]))
            weight = np.where(index >= 0, self._weight(distance.astype(np.float64)), 0.0)
            total = np.cumsum(weight, axis=1)
            sums = np.cumsum(weight[:, :, None] * targets[index], axis=1)
            blocks.append(np.stack([sums[:, k - 1] / total[:, k - 1, None] for k in ks]))
        return np.concatenate(blocks, axis=1)

    def _weight(self, distance: Floats) -> Floats:
        if self.weights == "uniform":
            return np.ones_like(distance)
        if self.weights == "softmax":
            return np.asarray(np.exp((distance[:, :1] - distance) / self.temperature))
        # Where a neighbour is the very same point, only such neighbours count.
        same = distance == 0
        return np.where(same.any(axis=1, keepdims=True), same, 1 / np.where(same, 1, distance))

    def _choose(self, held_out: Floats, targets: Floats) -> int:
        """Position of the k with the smallest held-out loss; the largest k when nothing was held out."""
        out = np.isfinite(held_out[0]).all(axis=1)
        self.grid_ = np.full(len(self.ks_), np.nan)
        chosen = len(self.ks_) - 1
        if out.any():
            self.grid_ = np.square(held_out[:, out] - targets[out]).sum(axis=2).mean(axis=1)
            chosen -= int(self.grid_[::-1].argmin())  # of equals the smoothest
        self.k_ = int(self.ks_[chosen])
        return chosen

    def _check_settings(self) -> None:
        check_metric(self.metric)
        if self.weights not in get_args(Weights):
            raise ArgumentError(f"weights is {self.weights!r}; allowed are {', '.join(get_args(Weights))} (--weights)")
        if self.weights == "softmax" and self.metric != "cosine":
            raise ArgumentError("weights='softmax' needs metric='cosine'; with 'euclidean' use 'distance' (--weights)")
        if self.temperature <= 0:
            raise ArgumentError(f"temperature is {self.temperature}; it must be above 0 (--temperature)")
        if self.k is not None and (not len(self.k) or min(self.k) < 1):
            raise ArgumentError(f"k is {self.k}; one or more whole numbers from 1 are needed (--k)")
