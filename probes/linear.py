"""The linear probe: ridge, logistic or ordinal regression on standardised embeddings, its strength chosen in `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.targets import Kind
from probes.base import BaseProbe, ClassHeldOutError, at_rows, is_classifier
from probes.solvers import (
    BOUND,
    FAR_SHARE,
    LogisticPath,
    OrdinalPath,
    Rotated,
    Standardiser,
    check_bound,
    ordinal_probabilities,
    probabilities,
    ridge_paths,
)

RIDGE_ALPHAS = tuple(float(f"{10**e:.4g}") for e in np.arange(-1, 4.25, 0.5))
LOGISTIC_CS = tuple(float(f"{10**e:.4g}") for e in np.arange(-4, 1.25, 0.5))
_ClassWeight = str | Mapping[Any, float] | None

_PATH_TOLERANCE = 1e-3  # selection does not need more
_FINAL_TOLERANCE = 1e-7


def _has_logits(probe: LinearProbe) -> bool:
    return probe.task in ("binary", "multiclass")


@dataclass(eq=False, repr=False)
class LinearProbe(BaseProbe):
    """Reads a target linearly from embeddings.

    Ridge (regression), logistic regression (binary, multiclass), or proportional-odds regression (ordinal), with an L2
    penalty on features that are standardised on the training rows and cut at a bound (see
    `probes.solvers.Standardiser`). Predicted values are cut to twice the range of the training labels, around its
    centre.

    Parameters
    ----------
    task : "regression", "binary", "multiclass" or "ordinal"
        "ordinal": classes whose sorted order is their order.
    strengths : sequence of float, optional
        Grid to choose from, per target when there are several: ridge's alpha (0.1 to 1e4 by default), else the
        logistic C (1e-4 to 10).
    bound : float or None, default 5
        Standardised values are cut at this many standard deviations; None for no bound.
    class_weight : None, "balanced" or dict
        Weight of each class.
    folds : int, default 5
        Grouped folds inside `fit` that choose the strength, by mean squared error or log loss.
    random_state : int
        Seed of the folds.

    Attributes
    ----------
    mean_, scale_, bound_ : (D,), (D,), float
        What standardises the features; mean_ and scale_ are (T, D) when y is (N, T).
    coef_, intercept_ : arrays
        On standardised, cut features. (D,) and a number in a regression, or (T, D) and (T,); (1, D) and (1,) for two
        classes; (K, D) and (K,); ordinal: (1, D) and (K - 1,), the logits of being above each class but the last.
    range_ : (2,) or (T, 2)
        Lowest and highest prediction, of a regression.
    strength_, strengths_, grid_ : float, (A,), (A,)
        The chosen strength; all strengths, and the held-out loss of each.
    holdout_prediction_ : (N,) or (N, K)
        Predictions of rows while held out, NaN for those that never were.
    """

    name = "Linear probe"
    saved = ("coef_", "intercept_", "mean_", "scale_", "bound_", "range_")

    task: Kind = "regression"
    _: KW_ONLY
    strengths: Sequence[float] | None = None
    bound: float | None = BOUND
    class_weight: _ClassWeight = None
    folds: int = 5
    random_state: int = 0

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
        self.strengths_, self.bound_ = self._grid(), check_bound(self.bound)
        self.range_: Floats = np.empty(0)
        if self.task == "regression":
            self._fit_ridge(x, targets.reshape(len(x), -1), groups, holdout)
            if targets.ndim == 1:
                self._drop_target_axis()
        else:
            self._fit_classes(x, targets, groups, holdout)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Value (N,) or (N, T), or class (N,), of each row of X (N, D); of an ordinal task the median class."""
        if self.task == "regression":
            return np.clip(self._linear(X), self.range_[..., 0], self.range_[..., 1])
        return self._classes_of(self.predict_proba(X))

    @available_if(_has_logits)  # type: ignore[untyped-decorator]
    def decision_function(self, X: npt.ArrayLike) -> Floats:
        """Log-odds of the second class (N,), or logits (N, K)."""
        logits = self._linear(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probability of each class, (N, K), in the order of `classes_`."""
        return self._probabilities(self._linear(X))

    def far_outside(self, X: npt.ArrayLike) -> Bools:
        """Whether each row (N,), of X (N, D), is far outside the training rows: 5% or more of its features are cut."""
        return np.asarray(self.share_cut(X) >= FAR_SHARE)

    def share_cut(self, X: npt.ArrayLike) -> Floats:
        """Share of the features of each row (N,) that are cut at the bound (for several targets the largest)."""
        x = self._checked(X)
        shares = [standardiser.share_cut(x) for standardiser, _ in self._standardisers()]
        return np.asarray(np.max(shares, axis=0))

    def methods_sentence(self) -> str:
        """As in `BaseProbe`."""
        kind = {
            "regression": "Ridge regression",
            "ordinal": "Proportional-odds (cumulative logit) regression with an L2 penalty",
        }.get(self.task, "Logistic regression with an L2 penalty")
        cut = "" if self.bound is None else f" and cut at {self.bound:g} standard deviations"
        weight = ", classes weighted by their inverse frequency" if self.class_weight == "balanced" else ""
        fixed = "" if self.chooses() else f"; its strength was fixed ({self._setting()} = {self._grid()[0]:g})"
        return f"{kind} was fitted to features standardised on the training data{cut}{weight}{fixed}"

    def selection(self) -> str:
        """As in `BaseProbe`."""
        loss = "squared error" if self.task == "regression" else "log loss"
        return f"its strength minimised the {loss}" if self.chooses() else ""

    def chooses(self) -> bool:
        """Whether there is more than one strength."""
        return len(self._grid()) > 1

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every strength tried, its held-out loss, and whether it was chosen; of one target."""
        return [
            {self._setting(): float(strength), "loss": float(loss), "chosen": bool(strength == self.strength_)}
            for strength, loss in zip(self.strengths_, self.grid_, strict=True)
        ]

    def _setting(self) -> str:
        return "alpha" if self.task == "regression" else "C"

    def _drop_target_axis(self) -> None:
        for name in ("mean_", "scale_", "range_", "coef_", "intercept_", "strength_", "grid_"):
            setattr(self, name, getattr(self, name)[0])
        self.holdout_prediction_ = self.holdout_prediction_[:, 0]

    def _checked(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        check_is_fitted(self)
        return np.asarray(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))

    def _standardisers(self) -> list[tuple[Standardiser, Ints]]:
        """Each different standardiser, and the targets that it serves: those with labels on the same rows."""
        if self.mean_.ndim == 1:
            return [(Standardiser(self.mean_, self.scale_, self.bound_), np.arange(1))]
        both = np.concatenate([self.mean_, self.scale_], axis=1)
        _, first, which = np.unique(both, axis=0, return_index=True, return_inverse=True)
        return [
            (Standardiser(self.mean_[t], self.scale_[t], self.bound_), np.flatnonzero(which.ravel() == i))
            for i, t in enumerate(first)
        ]

    def _linear(self, X: npt.ArrayLike) -> Floats:
        x = self._checked(X)
        standardisers = self._standardisers()
        if self.mean_.ndim == 1:
            return np.asarray(standardisers[0][0](x) @ self.coef_.T + self.intercept_)
        values = np.empty((len(x), len(self.coef_)))
        for standardiser, targets in standardisers:
            values[:, targets] = standardiser(x) @ self.coef_[targets].T + self.intercept_[targets]
        return values

    def _probabilities(self, logits: Floats) -> Floats:
        return ordinal_probabilities(logits) if self.task == "ordinal" else probabilities(logits)

    def _grid(self) -> Floats:
        default = RIDGE_ALPHAS if self.task == "regression" else LOGISTIC_CS
        grid = np.asarray(default if self.strengths is None else self.strengths, dtype=np.float64)
        if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
            raise ArgumentError(f"strengths is {self.strengths}; one or more numbers above 0 are needed (--strengths)")
        return np.sort(grid)

    def _fit_ridge(self, x: Floats, y: Floats, groups: npt.ArrayLike | None, holdout: npt.ArrayLike | None) -> None:
        n_targets, grid = y.shape[1], self.strengths_
        self.mean_, self.scale_ = np.empty((2, n_targets, x.shape[1]))
        self.range_ = np.empty((n_targets, 2))
        self.coef_: Floats = np.empty((n_targets, x.shape[1]))
        self.intercept_ = np.empty(n_targets)
        self.strength_: Any = np.empty(n_targets)
        self.grid_: npt.NDArray[Any] = np.full((n_targets, len(grid)), np.nan)
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
        whole, paths = ridge_paths(x, y, part, self.bound_)
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
        self.mean_[targets], self.scale_[targets] = whole.standardiser.mean, whole.standardiser.scale
        self.range_[targets] = whole.target_range

    def _fit_classes(
        self, x: Floats, labels: Ints, groups: npt.ArrayLike | None, holdout: npt.ArrayLike | None
    ) -> None:
        grid, n_classes = self.strengths_, len(self.classes_)
        part = self._parts(labels, groups, holdout, needed=self.chooses())
        weight = _class_weights(labels, self.classes_, self.class_weight)
        held_out = np.full((len(grid), len(x), n_classes), np.nan)
        for k in range(part.max() + 1):
            train, out = part != k, part == k
            self._check_classes(labels[train], n_classes)
            path = self._path(x[train], labels[train], weight[train])
            z = path.standardiser(x[out])
            for i, (coef, intercept) in enumerate(path.solve(grid, tolerance=_PATH_TOLERANCE)):
                held_out[i, out] = self._probabilities(z @ coef.T + intercept)
        out = part >= 0
        likelihood = held_out[:, np.arange(len(x)), labels][:, out]
        loss = -np.average(np.log(np.maximum(likelihood, 1e-15)), axis=1, weights=weight[out]) if out.any() else None
        self.grid_ = np.full(len(grid), np.nan) if loss is None else np.asarray(loss)
        chosen = 0 if loss is None else int(loss.argmin())
        self.strength_ = float(grid[chosen])
        self.holdout_prediction_ = held_out[chosen]
        whole = self._path(x, labels, weight)
        self.mean_, self.scale_ = whole.standardiser.mean, whole.standardiser.scale
        self.coef_, self.intercept_ = whole.solve([self.strength_], tolerance=_FINAL_TOLERANCE)[0]

    def _path(self, x: Floats, labels: Ints, weight: Floats) -> LogisticPath | OrdinalPath:
        kind = OrdinalPath if self.task == "ordinal" else LogisticPath
        return kind(Rotated.of_rows(x, self.bound_), labels, weight, len(self.classes_))

    def _check_classes(self, labels: Ints, n_classes: int) -> None:
        missing = np.flatnonzero(np.bincount(labels, minlength=n_classes) == 0)
        if len(missing):
            raise ClassHeldOutError(int(missing[0]), str(self.classes_[missing[0]]))


def _class_weights(labels: Ints, classes: npt.NDArray[Any], setting: _ClassWeight) -> Floats:
    """Weight of each row, (N,): 1, or "balanced": n / (K * rows of its class), or the dict's value for its class."""
    if isinstance(setting, str) and setting != "balanced":
        raise ArgumentError(f"class_weight is {setting!r}; allowed are None and 'balanced' (--class-weight)")
    weight = compute_class_weight(setting, classes=classes, y=classes[labels])
    return np.asarray(weight[labels], dtype=np.float64)
