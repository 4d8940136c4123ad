"""Metrics of an order, AUROC and its like, as functions of how much each patient counts.

A positive's place is known by the weight of the negatives below it. So all that is needed of a bootstrap are the
weights at the scores that positives have, and one running sum over the negatives. Their intervals are those of
`ranking_intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panecho_embed.evaluation.estimates import EstimatedPart, Estimates
from panecho_embed.evaluation.ranking_intervals import (
    Estimator,
    ScoredRows,
    auroc_estimate,
    average_precision_estimate,
    sensitivity_estimate,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_FEW_SCORES = 64


@dataclass(frozen=True, slots=True)
class Ranked:
    """Weights in B bootstraps at the K distinct scores that positives have, ascending.

    positives, tied: (B, K) of the positives and of the negatives of that score. below: (B, K) of the negatives of all
    lower scores. negatives: (B, 1) of all of them.
    """

    positives: Floats
    tied: Floats
    below: Floats
    negatives: Floats


@dataclass(frozen=True, slots=True)
class Ranking:
    """A metric of an order: its values in B bootstraps, and its value with an interval."""

    values: Callable[[Ranked], Floats]
    estimate: Estimator

    def __call__(self, ranked: Ranked) -> Floats:
        """Value (B,) in each bootstrap."""
        return self.values(ranked)


Weigh = Callable[[Floats], tuple[Floats, Floats]]


def ranking_part(
    positive: Bools, score: Floats, codes: Ints, n_patients: int, values: Mapping[str, Ranking]
) -> EstimatedPart:
    """A function of patient weights (B, P) that gives each of `values` (B,), NaN where a class was not drawn.

    Its estimates are those of `values`; there are none without two patients and rows of both classes.

    positive: (N,). score: (N,), the higher the more likely positive. codes: (N,) the patient of each row, below P.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    having = np.flatnonzero(np.logical_or.reduceat(positive[order], starts))
    weigh = _by_sums if len(starts) <= _FEW_SCORES else _by_rows
    weights_at_scores = weigh(codes[order], positive[order], starts, n_patients)

    def part(weights: Floats) -> dict[str, Floats]:
        positives, negatives = weights_at_scores(weights)
        below, tied = np.cumsum(negatives, axis=1), negatives[:, having]
        ranked = Ranked(positives[:, having], tied, below[:, having] - tied, below[:, -1:])
        return {name: value(ranked) for name, value in values.items()}

    def estimate() -> Estimates:
        if n_patients < 2 or positive.all() or not positive.any():
            return {}
        rows = ScoredRows(positive, score, codes, n_patients)
        return {name: value.estimate(rows) for name, value in values.items()}

    return EstimatedPart(part, estimate)


def ranking_values(specificity: float) -> dict[str, Ranking]:
    """AUROC, average precision, and sensitivity where the specificity is at least so much, by name."""
    return {
        "auroc": auroc,
        "average_precision": average_precision,
        "sensitivity_at_specificity": sensitivity_at(specificity),
    }


def _auroc(ranked: Ranked) -> Floats:
    """Share of the pairs of a positive and a negative in which the positive has the higher score; ties count half."""
    pairs = np.einsum("bk,bk->b", ranked.positives, ranked.below + 0.5 * ranked.tied)
    return np.asarray(pairs / (ranked.positives.sum(axis=1) * ranked.negatives[:, 0]))


def _average_precision(ranked: Ranked) -> Floats:
    """Mean over the positives of the precision at their score, as scikit-learn defines it."""
    positives = ranked.positives[:, ::-1]
    found = np.cumsum(positives, axis=1)
    called = found + (ranked.negatives - ranked.below)[:, ::-1]
    # Where nothing was called yet, nothing was found either: 0, not 0 / 0.
    precision = found / np.maximum(called, 1e-300)
    return np.asarray(np.einsum("bk,bk->b", precision, positives) / positives.sum(axis=1))


def sensitivity_at(specificity: float) -> Ranking:
    """The largest sensitivity at which the specificity is at least so much."""

    def value(ranked: Ranked) -> Floats:
        allowed = ranked.below >= specificity * ranked.negatives * (1 - 1e-12)
        sensitivity = np.where(allowed, ranked.positives, 0).sum(axis=1) / ranked.positives.sum(axis=1)
        return np.where(ranked.negatives[:, 0] > 0, sensitivity, np.nan)

    return Ranking(value, lambda rows: sensitivity_estimate(rows, specificity))


auroc = Ranking(_auroc, auroc_estimate)
average_precision = Ranking(_average_precision, average_precision_estimate)


def _by_rows(patient_of: Ints, positive: Bools, starts: Ints, _n_patients: int) -> Weigh:
    """Patient weights (B, P) to those of positives and negatives (B, G) at each distinct score; rows in its order."""
    as_number = positive.astype(np.float64)

    def weigh(weights: Floats) -> tuple[Floats, Floats]:
        rows = np.take(weights, patient_of, axis=1)
        positives = rows * as_number
        negatives = rows - positives
        if len(starts) < len(patient_of):
            positives = np.add.reduceat(positives, starts, axis=1)
            negatives = np.add.reduceat(negatives, starts, axis=1)
        return positives, negatives

    return weigh


def _by_sums(patient_of: Ints, positive: Bools, starts: Ints, n_patients: int) -> Weigh:
    """The same by sums per patient, which are small where there are few scores."""
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(patient_of)]))
    sums = np.zeros((2, n_patients, len(starts)))
    np.add.at(sums, (np.where(positive, 0, 1), patient_of, group), 1)
    return lambda weights: (weights @ sums[0], weights @ sums[1])
