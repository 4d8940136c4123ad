"""Ridge regression for all strengths and all targets from one decomposition of the standardised features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over rows that a ridge needs: n, x (D,), xx (D, D), xy (D, T), y (T,); they add and subtract exactly."""

    n: int
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats

    @classmethod
    def of(cls, x: Floats, y: Floats) -> Moments:
        """Of features (N, D) and targets (N, T)."""
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.n - other.n, self.x - other.x, self.y - other.y, self.xx - other.xx, self.xy - other.xy)


@dataclass(frozen=True, slots=True)
class RidgePath:
    """Every ridge on one set of rows: `solve(alpha)` costs one product.

    basis: (D, R) eigenvectors of the standardised features' Gram matrix; spectrum: (R,) its eigenvalues; projected:
    (R, T) the targets in that basis; mean, scale: (D,) of the features; target_mean: (T,).
    """

    basis: Floats
    spectrum: Floats
    projected: Floats
    mean: Floats
    scale: Floats
    target_mean: Floats

    @classmethod
    def of_moments(cls, moments: Moments) -> RidgePath:
        """From sums over the rows, which is cheapest when there are more rows than features."""
        n, mean, target_mean = moments.n, moments.x / moments.n, moments.y / moments.n
        gram = moments.xx - n * np.outer(mean, mean)
        scale = feature_scale(np.diag(gram) / n, np.diag(moments.xx) / n)
        gram /= np.outer(scale, scale)
        projected = (moments.xy - n * np.outer(mean, target_mean)) / scale[:, None]
        spectrum, basis = eigh(gram, overwrite_a=True, check_finite=False, driver="evd")
        return cls(basis, np.maximum(spectrum, 0), basis.T @ projected, mean, scale, target_mean)

    @classmethod
    def of_rows(cls, x: Floats, y: Floats) -> RidgePath:
        """From the rows themselves (N, D) and (N, T), which is cheapest when there are fewer rows than features."""
        mean, target_mean = x.mean(axis=0), y.mean(axis=0)
        scale = feature_scale(x.var(axis=0), np.square(x).mean(axis=0))
        _, singular, basis_t = np.linalg.svd((x - mean) / scale, full_matrices=False)
        projected = basis_t @ (((x - mean) / scale).T @ (y - target_mean))
        return cls(basis_t.T, singular**2, projected, mean, scale, target_mean)

    def solve(self, alpha: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Coefficients (T, D) and intercepts (T,) on the raw features; alpha is one number, or one a target (T,).

        Minimises ||y - Xw - b||^2 + alpha ||w||^2 on standardised X, as scikit-learn's Ridge does.
        """
        shrunk = self.projected / (self.spectrum[:, None] + np.asarray(alpha, dtype=np.float64))
        coef = (self.basis @ shrunk / self.scale[:, None]).T
        return coef, self.target_mean - coef @ self.mean

    def predict(self, x: Floats, alphas: Floats) -> Floats:
        """Predictions (A, N, T) for every alpha at once."""
        rotated = ((x - self.mean) / self.scale) @ self.basis
        shrunk = self.projected[None] / (self.spectrum[None, :, None] + alphas[:, None, None])
        return np.asarray(rotated @ shrunk + self.target_mean)


def feature_scale(variance: Floats, magnitude: Floats) -> Floats:
    """Standard deviations to divide by; 1 for features that are constant up to rounding, which then count for nothing.

    variance: (D,) around the mean. magnitude: (D,) mean square, which says what rounding can leave.
    """
    return np.where(variance > 1e-14 * magnitude, np.sqrt(np.maximum(variance, 0)), 1.0)


def ridge_paths(x: Floats, y: Floats, part: Ints) -> tuple[RidgePath, list[RidgePath]]:
    """The path on all rows, and one for each part 0..K-1 held out (part is -1 in rows that are never held out)."""
    held_out = [part == k for k in range(part.max(initial=-1) + 1)]
    if len(x) <= x.shape[1]:
        return RidgePath.of_rows(x, y), [RidgePath.of_rows(x[~rows], y[~rows]) for rows in held_out]
    centre = x.mean(axis=0)  # sums of centred features do not cancel when parts are subtracted
    centred = x - centre
    whole = Moments.of(centred, y)
    paths = []
    for rows in held_out:
        if rows.sum() * 2 > len(x):
            moments = Moments.of(centred[~rows], y[~rows])
        else:
            moments = whole - Moments.of(centred[rows], y[rows])
        paths.append(_shifted(RidgePath.of_moments(moments), centre))
    return _shifted(RidgePath.of_moments(whole), centre), paths


def _shifted(path: RidgePath, by: Floats) -> RidgePath:
    return RidgePath(path.basis, path.spectrum, path.projected, path.mean + by, path.scale, path.target_mean)
