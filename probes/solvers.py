"""Standardised features, and ridge, logistic and proportional-odds regression on them for every strength.

The searches run in the eigenbasis of the features, scaled by an estimate of the curvature there and each started where
the last one ended: L-BFGS then needs about ten steps a strength where it needs hundreds on raw embeddings. Proportional
odds: McCullagh, J R Stat Soc B 1980; 42: 109-142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, solve_triangular
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit, log_expit, logit, logsumexp, softmax
from threadpoolctl import ThreadpoolController

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError

BOUND = 5.0  # standard deviations; of Gaussian values one in two million lies beyond
FLOOR = 0.1  # of the median standard deviation
FAR_SHARE = 0.05  # of the features of a row: from here on the row counts as far outside the training data


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Features minus their mean, divided by their standard deviation, and cut at a bound.

    Sparse features (after a ReLU) are often nearly silent in training. Dividing by their tiny deviation turns the first
    patient in whom they respond into a value of hundreds of deviations, and a linear prediction with it. Two limits
    prevent this: no deviation counts as smaller than `FLOOR` times the median deviation of the features that vary, and
    no standardised value is larger than `bound` in size. Both apply to the training rows too.

    Attributes
    ----------
    mean, scale : (D,)
        Mean and (floored) standard deviation on the training rows.
    bound : float
        Largest absolute value; infinite for none.
    """

    mean: Floats
    scale: Floats
    bound: float

    @classmethod
    def of_rows(cls, x: npt.NDArray[np.floating], bound: float) -> Standardiser:
        """Of training rows (N, D)."""
        return cls.of_variance(x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64), bound)

    @classmethod
    def of_variance(cls, mean: Floats, variance: Floats, bound: float) -> Standardiser:
        """Of the features' means and variances (D,)."""
        varies = variance > 1e-14 * (variance + np.square(mean))  # not just rounding
        deviation = np.sqrt(np.where(varies, variance, 0))
        floor = FLOOR * float(np.median(deviation[varies])) if varies.any() else 1.0
        return cls(mean, np.maximum(deviation, floor), bound)

    def __call__(self, x: npt.NDArray[np.floating]) -> Floats:
        """Standardised, cut values (N, D) of features (N, D)."""
        z: Floats = np.subtract(x, self.mean, dtype=np.float64)
        z /= self.scale
        if np.isfinite(self.bound):
            np.clip(z, -self.bound, self.bound, out=z)
        return z

    def share_cut(self, x: npt.NDArray[np.floating]) -> Floats:
        """Share of the features of each row (N,) that lie beyond `BOUND`, or the bound if there is one."""
        bound = self.bound if np.isfinite(self.bound) else BOUND
        return np.asarray((np.abs(x - self.mean) > bound * self.scale).mean(axis=1))

    def may_cut(self, lowest: Floats, highest: Floats) -> Bools:
        """Whether a value is cut of each feature (D,) with these smallest and largest values."""
        reach = self.bound * self.scale
        return np.asarray((highest > self.mean + reach) | (lowest < self.mean - reach))

    def excess(self, x: Floats, columns: Ints, inside: Bools) -> csr_array:
        """What cutting removes from the standardised values of `x` (N, D), as a sparse array (N, D).

        columns: features in which any value may be cut. inside: (N,) rows to look at. By Chebyshev's inequality at most
        1 / bound^2 of the training values are cut: 4% for a bound of 5.
        """
        among = np.flatnonzero(inside)
        z = (x[np.ix_(among, columns)] - self.mean[columns]) / self.scale[columns]
        rows, places = np.nonzero(np.abs(z) > self.bound)
        values = z[rows, places]
        values -= np.copysign(self.bound, values)
        return csr_array((values, (among[rows], columns[places])), shape=x.shape)


@dataclass(frozen=True, slots=True)
class Rotated:
    """Training rows in the eigenbasis of their standardised features, for solvers that need well-scaled variables.

    rows: (N, R); basis: (D, R); spectrum: (R,) eigenvalues; centre: (D,) mean of the standardised features, which is
    not zero where values were cut.
    """

    rows: Floats
    basis: Floats
    spectrum: Floats
    centre: Floats
    standardiser: Standardiser

    @classmethod
    def of_rows(cls, x: Floats, bound: float) -> Rotated:
        """From features (N, D), standardised here."""
        standardiser = Standardiser.of_rows(x, bound)
        z = standardiser(x)
        centre = z.mean(axis=0)
        z -= centre
        if len(x) <= x.shape[1]:
            left, singular, basis_t = np.linalg.svd(z, full_matrices=False)
            return cls(left * singular, basis_t.T, singular**2, centre, standardiser)
        spectrum, basis = eigh(z.T @ z, overwrite_a=True, check_finite=False, driver="evd")
        return cls(z @ basis, basis, np.maximum(spectrum, 0), centre, standardiser)


def check_bound(bound: float | None) -> float:
    """The bound as a number, infinite for None; ArgumentError unless it is above 0."""
    if bound is None:
        return float("inf")
    if not bound > 0:
        raise ArgumentError(f"bound is {bound}; it must be above 0, or None for no bound")
    return float(bound)


def prediction_range(y: npt.NDArray[np.floating]) -> Floats:
    """Lowest and highest prediction, (..., 2), of training labels (N, ...).

    Twice the range of the training labels, around its centre: half a range below the smallest label to half a range
    above the largest. A linear probe may extrapolate a little, but not to an ejection fraction of -300%.
    """
    low, high = y.min(axis=0), y.max(axis=0)
    half = (high - low) / 2
    return np.stack([low - half, high + half], axis=-1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Sums over rows that a ridge needs: n, x (D,), xx (D, D), xy (D, T), y (T,); they add and subtract exactly."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats

    @classmethod
    def of(cls, x: Floats, y: Floats) -> _Moments:
        """Of features (N, D) and targets (N, T)."""
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx, self.xy - other.xy)


@dataclass(frozen=True, slots=True)
class _Table:
    """Features (N, D) and targets (N, T), and the mean, smallest and largest value of each feature (D,)."""

    x: Floats
    y: Floats
    centre: Floats
    lowest: Floats
    highest: Floats


@dataclass(frozen=True, slots=True)
class RidgePath:
    """Every ridge on one set of rows: `solve(alpha)` costs one product.

    basis: (D, R) eigenvectors of the standardised features' Gram matrix; spectrum: (R,) its eigenvalues; projected:
    (R, T) the targets in that basis; standardiser: of the features; centre: (D,) mean of the standardised features,
    which is not zero where values were cut; target_mean: (T,); target_range: (T, 2) lowest and highest prediction.
    """

    basis: Floats
    spectrum: Floats
    projected: Floats
    standardiser: Standardiser
    centre: Floats
    target_mean: Floats
    target_range: Floats

    @classmethod
    def of_moments(cls, moments: _Moments, table: _Table, inside: Bools, bound: float) -> RidgePath:
        """From sums over the rows `inside` a table, which is cheapest when there are more rows than features.

        The sums are of uncut values; the few values that are cut are corrected for, one by one.
        """
        n, mean, target_mean = moments.n, moments.x / moments.n, moments.y / moments.n
        gram = moments.xx - n * np.outer(mean, mean)
        standardiser = Standardiser.of_variance(mean + table.centre, np.diag(gram) / n, bound)
        scale = standardiser.scale
        gram /= np.outer(scale, scale)
        projected = (moments.xy - n * np.outer(mean, target_mean)) / scale[:, None]
        shift = np.zeros(len(mean))
        columns = np.flatnonzero(standardiser.may_cut(table.lowest, table.highest))
        if len(columns):
            excess = standardiser.excess(table.x, columns, inside)
            rows = np.flatnonzero(np.diff(excess.indptr))
            excess = excess[rows]
            cross = excess.T @ ((table.x[rows] - standardiser.mean) / scale)
            gram += (excess.T @ excess).toarray() - cross - cross.T
            projected -= excess.T @ (table.y[rows] - target_mean)
            shift = -np.asarray(excess.sum(axis=0)).ravel() / n
            gram -= n * np.outer(shift, shift)
        spectrum, basis = eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
        target_range = prediction_range(table.y[inside])
        return cls(basis, np.maximum(spectrum, 0), basis.T @ projected, standardiser, shift, target_mean, target_range)

    @classmethod
    def of_rows(cls, x: Floats, y: Floats, bound: float) -> RidgePath:
        """From the rows themselves (N, D) and (N, T), which is cheapest when there are fewer rows than features."""
        of, target_mean = Rotated.of_rows(x, bound), y.mean(axis=0)
        projected = of.rows.T @ (y - target_mean)
        return cls(of.basis, of.spectrum, projected, of.standardiser, of.centre, target_mean, prediction_range(y))

    def solve(self, alpha: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Coefficients (T, D) and intercepts (T,) on the standardised features; alpha: one number, or one per target.

        Minimises ||y - Zw - b||^2 + alpha ||w||^2 on standardised Z, as scikit-learn's Ridge does.
        """
        shrunk = self.projected / (self.spectrum[:, None] + np.asarray(alpha, dtype=np.float64))
        coef = (self.basis @ shrunk).T
        return coef, self.target_mean - coef @ self.centre

    def predict(self, x: Floats, alphas: Floats) -> Floats:
        """Predictions (A, N, T) for every alpha at once, within the prediction range."""
        rotated = (self.standardiser(x) - self.centre) @ self.basis
        shrunk = self.projected[None] / (self.spectrum[None, :, None] + alphas[:, None, None])
        return np.clip(rotated @ shrunk + self.target_mean, self.target_range[:, 0], self.target_range[:, 1])


def ridge_paths(x: Floats, y: Floats, part: Ints, bound: float) -> tuple[RidgePath, list[RidgePath]]:
    """The path on all rows, and one for each part 0..K-1 held out (part is -1 in rows that are never held out)."""
    held_out = [part == k for k in range(part.max(initial=-1) + 1)]
    if len(x) <= x.shape[1]:
        return RidgePath.of_rows(x, y, bound), [RidgePath.of_rows(x[~rows], y[~rows], bound) for rows in held_out]
    table = _Table(x, y, x.mean(axis=0), x.min(axis=0), x.max(axis=0))
    centred = x - table.centre  # sums of centred features do not cancel when parts are subtracted
    whole = _Moments.of(centred, y)
    paths = []
    for rows in held_out:
        if rows.sum() * 2 > len(x):
            moments = _Moments.of(centred[~rows], y[~rows])
        else:
            moments = whole - _Moments.of(centred[rows], y[rows])
        paths.append(RidgePath.of_moments(moments, table, ~rows, bound))
    return RidgePath.of_moments(whole, table, np.ones(len(x), dtype=np.bool_), bound), paths


_MAX_STEPS = 2000


@dataclass(frozen=True, slots=True)
class _ClassRows:
    """Rows of classes that a regression is fitted to; labels: (N,) class index; weight: (N,), mean about 1."""

    rotated: Rotated
    labels: Ints
    weight: Floats
    n_classes: int

    @property
    def standardiser(self) -> Standardiser:
        """What the coefficients apply to."""
        return self.rotated.standardiser


@dataclass(frozen=True, slots=True)
class LogisticPath(_ClassRows):
    """Every logistic regression on one set of rows."""

    def solve(self, strengths: Iterable[float], *, tolerance: float) -> list[tuple[Floats, Floats]]:
        """Coefficients and intercepts on standardised features for each C, each started where the last one ended.

        Minimises C * sum of weighted log losses + ||w||^2 / 2, intercept free, as
        scikit-learn's LogisticRegression does. Binary: (1, D) and (1,); else (K, D) and (K,).
        """
        k = 1 if self.n_classes == 2 else self.n_classes
        counts = np.bincount(self.labels, weights=self.weight, minlength=self.n_classes)
        prior = counts / counts.sum()
        curvature = max(float((prior * (1 - prior)).mean()), 1e-3) * self.weight.mean()
        logs = np.log(np.maximum(prior, 1e-6))
        weights, bias = np.zeros((len(self.rotated.spectrum), k)), np.diff(logs) if k == 1 else logs - logs.mean()
        found = []
        for strength in strengths:
            step = 1 / np.sqrt(curvature * self.rotated.spectrum + 1 / strength)[:, None]
            bias_step = 1 / np.sqrt(curvature * len(self.labels))
            weights, bias = self._minimise(weights, bias, step, bias_step, strength, tolerance)
            coef = (self.rotated.basis @ weights).T
            found.append((coef, bias - coef @ self.rotated.centre))
        return found

    def _minimise(
        self, weights: Floats, bias: Floats, step: Floats, bias_step: float, strength: float, tolerance: float
    ) -> tuple[Floats, Floats]:
        shape, cut, rows = weights.shape, weights.size, self.rotated.rows

        def objective(flat: Floats) -> tuple[float, Floats]:
            w, b = flat[:cut].reshape(shape) * step, flat[cut:] * bias_step
            loss, residual = self._loss(rows @ w + b)
            gradient = (rows.T @ residual + w / strength) * step
            value = loss + 0.5 * np.square(w).sum() / strength
            return value, np.concatenate([gradient.ravel(), residual.sum(axis=0) * bias_step])

        start = np.concatenate([(weights / step).ravel(), bias / bias_step])
        found = minimise(objective, start, tolerance)
        return found[:cut].reshape(shape) * step, found[cut:] * bias_step

    def _loss(self, logits: Floats) -> tuple[float, Floats]:
        """Weighted log loss and its derivative by the logits (N, K)."""
        if self.n_classes == 2:
            sign = np.where(self.labels == 1, 1.0, -1.0)
            margin = sign * logits[:, 0]
            residual = -sign * expit(-margin) * self.weight
            return float(-(self.weight * log_expit(margin)).sum()), residual[:, None]
        rows = np.arange(len(self.labels))
        loss = float((self.weight * (logsumexp(logits, axis=1) - logits[rows, self.labels])).sum())
        residual = softmax(logits, axis=1)
        residual[rows, self.labels] -= 1
        return loss, residual * self.weight[:, None]


@cache
def _threads() -> ThreadpoolController:
    """The thread pools of NumPy and SciPy; finding them takes longer than a small fit."""
    return ThreadpoolController()


def minimise(objective: Callable[[Floats], tuple[float, Floats]], start: Floats, tolerance: float) -> Floats:
    """Minimise a smooth convex function with L-BFGS (`scipy.optimize`).

    Parameters
    ----------
    objective : callable
        Returns the value and the gradient (V,) at a point (V,).
    start : (V,) float64
        Starting point.
    tolerance : float
        Largest absolute element of the gradient at which to stop. The search also stops where rounding hides any
        further descent.

    Returns
    -------
    (V,) float64
        The minimum.

    Raises
    ------
    PanEchoEmbedError
        After 2,000 steps, or if the search stops far from a minimum.
    """
    options = {"maxcor": 20, "gtol": tolerance, "ftol": 0.0, "maxiter": _MAX_STEPS, "maxfun": 20 * _MAX_STEPS}
    # Its vectors are short: threads of BLAS would wait for each other, 20 times as long as they work on a busy machine.
    with _threads().limit(limits=1, user_api="blas"):
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    # A failed line search is no failure where the descent that is left, about the squared gradient, is rounding.
    at_rounding = float(found.jac @ found.jac) <= 1e-9 * max(1.0, abs(found.fun))
    if not (found.success or (found.status == 2 and at_rounding)):
        raise PanEchoEmbedError(
            f"no minimum after {found.nit} steps ({found.message}); the largest gradient is {np.abs(found.jac).max():g}"
        )
    return np.asarray(found.x, dtype=np.float64)


def probabilities(logits: Floats) -> Floats:
    """Class probabilities (N, K) of logits (N, 1) for two classes, or (N, K)."""
    if logits.shape[1] == 1:
        positive = expit(logits[:, 0])
        return np.column_stack([1 - positive, positive])
    return np.asarray(softmax(logits, axis=1))


@dataclass(frozen=True, slots=True)
class OrdinalPath(_ClassRows):
    """Every proportional-odds regression on one set of rows; classes are numbered in order, and none is empty."""

    def solve(self, strengths: Iterable[float], *, tolerance: float) -> list[tuple[Floats, Floats]]:
        """Coefficients (1, D) and intercepts (K - 1,) for each C, each started where the last one ended.

        The logit of "above class k" is `z @ coef + intercept[k]` of standardised features z, with descending
        intercepts. Minimises C * sum of weighted log losses + ||w||^2 / 2, intercepts free.
        """
        counts = np.bincount(self.labels, weights=self.weight, minlength=self.n_classes)
        prior = counts / counts.sum()
        cutpoints, weights = logit(np.cumsum(prior)[:-1]), np.zeros(len(self.rotated.spectrum))
        information, curvature = _information(prior)
        # In these coordinates the loss of a probe without features has the identity as its Hessian.
        whiten = solve_triangular(np.linalg.cholesky(counts.sum() * information), np.eye(len(cutpoints)), lower=True).T
        curvature = max(curvature, 1e-3) * float(self.weight.mean())
        found = []
        for strength in strengths:
            step = 1 / np.sqrt(curvature * self.rotated.spectrum + 1 / strength)
            weights, cutpoints = self._minimise(weights, cutpoints, step, whiten, strength, tolerance)
            coef = self.rotated.basis @ weights
            found.append((coef[None], -cutpoints - coef @ self.rotated.centre))
        return found

    def _minimise(
        self, weights: Floats, cutpoints: Floats, step: Floats, whiten: Floats, strength: float, tolerance: float
    ) -> tuple[Floats, Floats]:
        cut, rows = len(weights), self.rotated.rows

        def objective(flat: Floats) -> tuple[float, Floats]:
            w, c = flat[:cut] * step, cutpoints + whiten @ flat[cut:]
            loss, by_score, by_cutpoint = ordinal_loss(rows @ w, c, self.labels, self.weight)
            gradient = (rows.T @ by_score + w / strength) * step
            value = loss + 0.5 * float(np.square(w).sum()) / strength
            # The line search steps back from a finite value only; this one is far above that of any useful probe.
            value = value if np.isfinite(value) else 100 * float(self.weight.sum())
            return value, np.concatenate([gradient, whiten.T @ by_cutpoint])

        found = minimise(objective, np.concatenate([weights / step, np.zeros(len(cutpoints))]), tolerance)
        return found[:cut] * step, cutpoints + whiten @ found[cut:]


def ordinal_loss(score: Floats, cutpoints: Floats, labels: Ints, weight: Floats) -> tuple[float, Floats, Floats]:
    """Weighted log loss, and its derivatives by the scores (N,) and by the cutpoints (K - 1,).

    The probability of class k is F(cutpoint[k] - score) - F(cutpoint[k - 1] - score), F the logistic function. The loss
    is infinite where cutpoints do not ascend.
    """
    if (np.diff(cutpoints) <= 0).any():
        return np.inf, np.zeros_like(score), np.zeros_like(cutpoints)
    edges = np.concatenate([[-np.inf], cutpoints, [np.inf]])
    gap = np.diff(edges)[labels]
    upper, lower = edges[labels + 1] - score, edges[labels] - score
    # F(u) - F(l) = F(u) F(-l) (1 - exp(l - u)), without the cancellation
    loss = -float((weight * (log_expit(upper) + log_expit(-lower) + np.log(-np.expm1(-gap)))).sum())
    with np.errstate(over="ignore"):
        steep = 1 / np.expm1(gap)
    by_upper, by_lower = -weight * (expit(-upper) + steep), weight * (expit(lower) + steep)
    n_classes = len(cutpoints) + 1
    above = np.bincount(labels, by_upper, minlength=n_classes).astype(np.float64)
    below = np.bincount(labels, by_lower, minlength=n_classes).astype(np.float64)
    return loss, -(by_upper + by_lower), above[:-1] + below[1:]


def ordinal_probabilities(logits: Floats) -> Floats:
    """Class probabilities (N, K) of the logits (N, K - 1) of being above each class but the last."""
    above = expit(logits)
    ends = np.ones((len(above), 1)), np.zeros((len(above), 1))
    return np.asarray(-np.diff(np.concatenate([ends[0], above, ends[1]], axis=1), axis=1))


def _information(prior: Floats) -> tuple[Floats, float]:
    """Fisher information of a row on the cutpoints (K - 1, K - 1) and on the score, where no feature tells anything."""
    below = np.cumsum(prior)[:-1]
    density = below * (1 - below)
    matrix = np.diag(density**2 * (1 / prior[:-1] + 1 / prior[1:]))
    beside = -density[:-1] * density[1:] / prior[1:-1]
    matrix += np.diag(beside, 1) + np.diag(beside, -1)
    edges = np.concatenate([[0.0], density, [0.0]])
    return matrix, float((np.diff(edges) ** 2 / prior).sum())
