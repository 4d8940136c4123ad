"""The linear probe: ridge or logistic regression on standardised embeddings, its strength chosen inside `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from panecho_embed.errors import ArgumentError
from probes.base import (
    BaseProbe,
    ClassHeldOutError,
    ClassWeight,
    Floats,
    Ints,
    TaskType,
    at_rows,
    class_weights,
    is_classifier,
)
from probes.logistic import LogisticPath, probabilities
from probes.ridge import ridge_paths

RIDGE_ALPHAS = tuple(float(f"{10**e:.4g}") for e in np.arange(-1, 4.25, 0.5))
LOGISTIC_CS = tuple(float(f"{10**e:.4g}") for e in np.arange(-4, 1.25, 0.5))
PATH_TOLERANCE = 1e-3  # selection does not need more
FINAL_TOLERANCE = 1e-7


class LinearProbe(BaseProbe):
    """Reads a target linearly from embeddings: ridge (regression) or logistic regression (binary, multiclass).

    task: "regression", "binary" or "multiclass". strengths: the grid to choose from; ridge's alpha (0.1 to 1e4 by
    default) or the logistic C (1e-4 to 10), per target when there are several. class_weight: None, "balanced", or
    {class: weight}. folds: grouped folds inside `fit` that choose the strength, by mean squared error or log loss.
    random_state: of the folds. Features are standardised on the rows trained on.

    After `fit`: `coef_`, `intercept_` on the raw features; `strength_`; `strengths_` and `grid_`, its held-out loss at
    each strength; `holdout_prediction_`, predictions of rows while held out, NaN for those that never were.
    """

    saved = ("coef_", "intercept_")

    coef_: Floats
    intercept_: Floats
    strength_: Any
    strengths_: Floats
    grid_: Floats
    holdout_prediction_: Floats

    def __init__(
        self,
        task: TaskType = "regression",
        *,
        strengths: Sequence[float] | None = None,
        class_weight: ClassWeight = None,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.task = task
        self.strengths = strengths
        self.class_weight = class_weight
        self.folds = folds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self.task == "regression"
        return tags

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        holdout: npt.ArrayLike | None = None,
    ) -> Self:
        """Choose the strength on held-out rows, then train on all of them.

        X: (N, D). y: (N,); regression takes (N, T) too, and NaN where a label is missing. groups: (N,) patients, whose
        rows stay together in the inner folds. holdout: (N,) whole numbers instead of inner folds: -1 rows that are only
        trained on, 0, 1, ... the part that a row is held out in.
        """
        x, targets = self._check_fit(X, y)
        x = x.astype(np.float64, copy=False)
        self.strengths_ = self._grid()
        if self.task == "regression":
            self._fit_ridge(x, targets.reshape(len(x), -1), groups, holdout)
            if targets.ndim == 1:
                self._drop_target_axis()
        else:
            self._fit_logistic(x, targets, groups, holdout)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Value (N,) or (N, T), or class (N,), of each row of X (N, D)."""
        if self.task == "regression":
            return self._linear(X)
        probability = self.predict_proba(X)
        return np.asarray(self.classes_[probability.argmax(axis=1)])

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def decision_function(self, X: npt.ArrayLike) -> Floats:
        """Log-odds of the second class (N,), or logits (N, K)."""
        logits = self._linear(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probability of each class, (N, K), in the order of `classes_`."""
        return probabilities(self._linear(X))

    def chooses(self) -> bool:
        """Whether there is more than one strength."""
        return len(self._grid()) > 1

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every strength tried, its held-out loss, and whether it was chosen; of one target."""
        setting = "alpha" if self.task == "regression" else "C"
        return [
            {setting: float(strength), "loss": float(loss), "chosen": bool(strength == self.strength_)}
            for strength, loss in zip(self.strengths_, self.grid_, strict=True)
        ]

    def _drop_target_axis(self) -> None:
        self.coef_, self.intercept_, self.strength_ = self.coef_[0], self.intercept_[0], self.strength_[0]
        self.grid_, self.holdout_prediction_ = self.grid_[0], self.holdout_prediction_[:, 0]

    def _linear(self, X: npt.ArrayLike) -> Floats:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.asarray(x @ self.coef_.T + self.intercept_, dtype=np.float64)

    def _grid(self) -> Floats:
        default = RIDGE_ALPHAS if self.task == "regression" else LOGISTIC_CS
        grid = np.asarray(default if self.strengths is None else self.strengths, dtype=np.float64)
        if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
            raise ArgumentError(f"strengths is {self.strengths}; one or more numbers above 0 are needed (--strengths)")
        return np.sort(grid)

    def _fit_ridge(self, x: Floats, y: Floats, groups: npt.ArrayLike | None, holdout: npt.ArrayLike | None) -> None:
        n_targets, grid = y.shape[1], self.strengths_
        self.coef_, self.intercept_ = np.empty((n_targets, x.shape[1])), np.empty(n_targets)
        self.strength_, self.grid_ = np.empty(n_targets), np.full((n_targets, len(grid)), np.nan)
        self.holdout_prediction_ = np.full(y.shape, np.nan)
        patterns, pattern_of = np.unique(np.isfinite(y), axis=1, return_inverse=True)
        for i, labelled in enumerate(patterns.T):
            targets = np.flatnonzero(pattern_of.ravel() == i)
            rows = np.flatnonzero(labelled)
            if not len(rows):
                raise ArgumentError(f"target {targets[0]} has no labels at all")
            self._fit_ridge_targets(
                x if labelled.all() else x[rows],
                y[np.ix_(rows, targets)],
                rows,
                targets,
                at_rows(groups, rows),
                at_rows(holdout, rows),
            )

    def _fit_ridge_targets(
        self,
        x: Floats,
        y: Floats,
        rows: Ints,
        targets: Ints,
        groups: npt.ArrayLike | None,
        holdout: npt.ArrayLike | None,
    ) -> None:
        """Fit targets that have labels on the same rows: they share one decomposition."""
        grid = self.strengths_
        part = self._parts(y.mean(axis=1), groups, holdout, needed=self.chooses())
        whole, paths = ridge_paths(x, y, part)
        chosen = np.zeros(len(targets), dtype=np.int64)
        if paths:
            held_out = np.full((len(grid), *y.shape), np.nan)
            for k, path in enumerate(paths):
                held_out[:, part == k] = path.predict(x[part == k], grid)
            loss = np.nanmean((held_out - y) ** 2, axis=1)
            chosen = len(grid) - 1 - loss[::-1].argmin(axis=0)  # of equals the strongest
            self.grid_[targets] = loss.T
            best = np.take_along_axis(held_out, chosen[None, None], axis=0)[0]
            self.holdout_prediction_[np.ix_(rows, targets)] = best
        self.strength_[targets] = grid[chosen]
        self.coef_[targets], self.intercept_[targets] = whole.solve(grid[chosen])

    def _fit_logistic(
        self, x: Floats, labels: Ints, groups: npt.ArrayLike | None, holdout: npt.ArrayLike | None
    ) -> None:
        grid, n_classes = self.strengths_, len(self.classes_)
        part = self._parts(labels, groups, holdout, needed=self.chooses())
        weight = class_weights(labels, self.classes_, self.class_weight)
        held_out = np.full((len(grid), len(x), n_classes), np.nan)
        for k in range(part.max() + 1):
            train, out = part != k, part == k
            self._check_classes(labels[train], n_classes)
            path = LogisticPath.of_rows(x[train], labels[train], weight[train], n_classes)
            for i, (coef, intercept) in enumerate(path.solve(grid, tolerance=PATH_TOLERANCE)):
                held_out[i, out] = probabilities(x[out] @ coef.T + intercept)
        out = part >= 0
        likelihood = held_out[:, np.arange(len(x)), labels][:, out]
        loss = -np.average(np.log(np.maximum(likelihood, 1e-15)), axis=1, weights=weight[out]) if out.any() else None
        self.grid_ = np.full(len(grid), np.nan) if loss is None else loss
        chosen = 0 if loss is None else int(loss.argmin())
        self.strength_ = float(grid[chosen])
        self.holdout_prediction_ = held_out[chosen]
        whole = LogisticPath.of_rows(x, labels, weight, n_classes)
        self.coef_, self.intercept_ = whole.solve([self.strength_], tolerance=FINAL_TOLERANCE)[0]

    def _check_classes(self, labels: Ints, n_classes: int) -> None:
        missing = np.flatnonzero(np.bincount(labels, minlength=n_classes) == 0)
        if len(missing):
            raise ClassHeldOutError(int(missing[0]), str(self.classes_[missing[0]]))
