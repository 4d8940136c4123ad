"""Logistic regression, binary and multinomial, along a grid of strengths, warm-started.

The search runs in the eigenbasis of the features, scaled by an estimate of the curvature there, so that L-BFGS needs
about ten steps a strength where it needs hundreds on raw embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp, softmax
from threadpoolctl import ThreadpoolController

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import PanEchoEmbedError
from probes.standardise import Rotated, Standardiser

MAX_STEPS = 2000


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Rows of classes that a regression is fitted to for every strength.

    rotated: the rows in the eigenbasis of their standardised features; labels: (N,) class index below n_classes;
    weight: (N,) of each row, mean about 1.
    """

    rotated: Rotated
    labels: Ints
    weight: Floats
    n_classes: int

    @property
    def standardiser(self) -> Standardiser:
        """What the coefficients apply to."""
        return self.rotated.standardiser


@dataclass(frozen=True, slots=True)
class LogisticPath(ClassRows):
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
        weights, bias = np.zeros((len(self.rotated.spectrum), k)), self._first_bias(prior)
        found = []
        for strength in strengths:
            step = 1 / np.sqrt(curvature * self.rotated.spectrum + 1 / strength)[:, None]
            bias_step = 1 / np.sqrt(curvature * len(self.labels))
            weights, bias = self._minimise(weights, bias, step, bias_step, strength, tolerance)
            coef = (self.rotated.basis @ weights).T
            found.append((coef, bias - coef @ self.rotated.centre))
        return found

    def _first_bias(self, prior: Floats) -> Floats:
        safe = np.maximum(prior, 1e-6)
        return np.log(safe[1:] / safe[:1]) if self.n_classes == 2 else np.log(safe) - np.log(safe).mean()

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
    options = {"maxcor": 20, "gtol": tolerance, "ftol": 0.0, "maxiter": MAX_STEPS, "maxfun": 20 * MAX_STEPS}
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
