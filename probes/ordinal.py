"""Proportional-odds regression for classes with an order, along a grid of strengths, warm-started.

McCullagh, Regression models for ordinal data, J. R. Stat. Soc. B 42, 1980. The search runs in the eigenbasis of the
features, as for the logistic regression, which it equals for two classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit, log_expit, logit

from panecho_embed.core.arraytypes import Floats, Ints
from probes.logistic import ClassRows, minimise


@dataclass(frozen=True, slots=True)
class OrdinalPath(ClassRows):
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
