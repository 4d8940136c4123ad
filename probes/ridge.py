"""Ridge regression for all strengths and all targets from one decomposition of the standardised features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from probes.standardise import Standardiser, prediction_range


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
        target_mean = y.mean(axis=0)
        standardiser = Standardiser.of_rows(x, bound)
        z = standardiser(x)
        centre = z.mean(axis=0)
        z -= centre
        _, singular, basis_t = np.linalg.svd(z, full_matrices=False)
        projected = basis_t @ (z.T @ (y - target_mean))
        return cls(basis_t.T, singular**2, projected, standardiser, centre, target_mean, prediction_range(y))

    def solve(self, alpha: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Coefficients (T, D) and intercepts (T,) on the standardised features; alpha: one number, or one a target.

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
