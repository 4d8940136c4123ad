"""Standardised features that a feature nearly silent in training can't blow up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.sparse import csr_array

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError

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
