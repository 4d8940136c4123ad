"""Metrics of an order, AUROC and its like, as functions of how much each patient counts, and their 95 % intervals.

A positive's place is known by the weight of the negatives below it. So all that is needed of a bootstrap are the
weights at the scores that positives have, and one running sum over the negatives.

The intervals need no bootstrap. Percentile intervals, and DeLong's, are too narrow for a high AUROC: few positives lie
among the negatives, and the variance is estimated from those few. Here the variance is that of a model at the value in
question (a score interval), never below the model's and, where the data vary more than the model, as large as theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.evaluation.estimates import (
    TAIL,
    Estimate,
    EstimatedPart,
    Estimates,
    Z,
    clopper_pearson,
    independent_rows,
    patient_variance,
    proportion,
    summed,
    wilson,
)

_TINY = 1e-12
_HALVINGS = 50


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """positive: (N,), both classes present. score: (N,). codes: (N,) the patient of each row, below n_patients."""

    positive: Bools
    score: Floats
    codes: Ints
    n_patients: int

    def of(self, positive: bool) -> tuple[Floats, Ints]:
        """Scores and patients of the rows of one class."""
        rows = self.positive == positive
        return self.score[rows], self.codes[rows]

    @property
    def constant(self) -> bool:
        """Whether all rows have the same score, so that they have no order."""
        return bool(self.score.min() == self.score.max())


def _auroc_estimate(rows: _Rows) -> Estimate:
    """AUROC with Newcombe's score interval for patients with several rows.

    The variance is that of Newcombe (Stat Med 2006; 25: 559-573, method 5), which follows Hanley and McNeil (Radiology
    1982; 143: 29-36), for the effective numbers of positives and negatives (`effective_rows`). Its share of a class is
    enlarged where the variance over patients (Obuchowski, Biometrics 1997; 53: 567-578) is larger. Perfect separation:
    `_perfect_limit`. A constant score has 0.5, without uncertainty.
    """
    (high, of_high), (low, of_low) = rows.of(True), rows.of(False)
    above = _share_below(low, high)  # of the negatives, per positive
    below = 1 - _share_below(high, low)  # of the positives, per negative
    value = float(above.mean())
    influences = [
        summed(shares - value, codes, rows.n_patients) / len(shares)
        for shares, codes in ((above, of_high), (below, of_low))
    ]
    if rows.constant:
        return Estimate(value, value, value, influences[0] + influences[1])
    if value in (0, 1):
        limit = _perfect_limit(rows)
        interval = (limit, 1.0) if value == 1 else (0.0, 1 - limit)
    else:
        sizes = effective_rows(high, of_high), effective_rows(low, of_low)
        spread = patient_variance(influences[0], of_high), patient_variance(influences[1], of_low)
        interval = _score_interval(value, _auroc_variance(value, sizes, spread))
    return Estimate(value, *interval, influences[0] + influences[1])


def _average_precision_estimate(rows: _Rows) -> Estimate:
    """Average precision with Wilson's interval for an effective number of positives.

    The variance is at least that of a proportion of the effective number of positives (Boyd, Eng and Page, ECML PKDD
    2013), or that of the influences of the patients where it is larger. Perfect separation: `_perfect_limit`. A
    constant score has the interval of the frequency of positives.
    """
    value, influence = _precision_influence(rows)
    if rows.constant:
        return proportion(rows.positive, rows.codes, rows.n_patients)
    if value >= 1 - _TINY:
        return Estimate(value, _perfect_limit(rows), 1.0, influence)
    size = effective_rows(*rows.of(True))
    binomial = value * (1 - value) / size
    variance = patient_variance(influence, rows.codes)
    return Estimate(value, *wilson(value, size / max(1.0, variance / binomial)), influence)


def _sensitivity_estimate(rows: _Rows, specificity: float) -> Estimate:
    """Sensitivity at a fixed specificity; the threshold is one of the tested negatives, hence uncertain as well.

    Two parts are squared and added on each side (Zou and Donner, Stat Med 2008; 27: 1693-1702): the interval of the
    sensitivity at the threshold found, and the sensitivities at the limits of the threshold, which are order statistics
    of the negatives (the exact interval of their quantile).
    """
    scores, codes = rows.of(True)
    negatives, of_negatives = rows.of(False)
    ordered = np.sort(negatives)

    def found(wanted: float) -> Bools:
        """The positives above so large a share of the negatives."""
        return np.searchsorted(ordered, scores, "left") >= wanted * len(ordered) * (1 - _TINY)

    at = proportion(found(specificity), codes, rows.n_patients)
    if rows.constant:
        return Estimate(at.value, at.value, at.value, at.influence)
    looser, stricter = clopper_pearson(specificity, effective_rows(negatives, of_negatives))
    below = np.hypot(at.value - at.low, at.value - found(stricter).mean())
    above = np.hypot(at.high - at.value, found(looser).mean() - at.value)
    return Estimate(at.value, max(0.0, at.value - float(below)), min(1.0, at.value + float(above)), at.influence)


def _perfect_limit(rows: _Rows) -> float:
    """Lower limit of AUROC when every positive is above every negative.

    The rows hold min(m, n) pairs of a positive and a negative without a common row, each in order with a probability
    of AUROC. So all are with AUROC ** min(m, n) at most, and a value for which this is below 2.5 % is excluded,
    whatever the distributions: the limit of Clopper and Pearson for min(m, n) successes. m, n: `independent_rows`.
    """
    pairs = min(independent_rows(rows.of(positive)[1]) for positive in (True, False))
    return float(TAIL ** (1 / pairs))


def effective_rows(score: Floats, codes: Ints) -> float:
    """Number of independent rows that say as much as these rows of one class.

    Their number divided by the design effect 1 + (size - 1) * rho, where rho is the correlation within a patient of the
    normal scores, and size the mean number of rows, weighted by itself. No function of jointly normal scores correlates
    more (Gebelein, Z Angew Math Mech 1941; 21: 364-379).
    """
    from scipy.special import ndtri

    effect = len(score) / independent_rows(codes)
    if effect <= 1 + _TINY:
        return float(len(score))
    ordered = np.sort(score)
    ranks = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / 2
    return len(score) / (1 + _intraclass(ndtri(ranks / len(score)), codes) * (effect - 1))


def _intraclass(values: Floats, codes: Ints) -> float:
    """Correlation within patients, 0 to 1; 1 where it can't be told (Donner, Int Stat Rev 1986; 54: 67-82)."""
    _, codes, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    count, patients = len(values), len(sizes)
    if patients < 2:
        return 1.0
    means = np.bincount(codes, weights=values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (patients - 1)
    within = float(((values - means[codes]) ** 2).sum()) / (count - patients)
    size = (count - float(sizes @ sizes) / count) / (patients - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 1.0


def _share_below(of: Floats, than: Floats) -> Floats:
    """Share of `of` that is below each of `than`; ties count half."""
    ordered = np.sort(of)
    left, right = np.searchsorted(ordered, than, "left"), np.searchsorted(ordered, than, "right")
    return np.asarray((left + right) / (2 * len(of)), dtype=np.float64)


def _auroc_variance(value: float, sizes: tuple[float, float], spread: tuple[float, float]) -> Callable[[float], float]:
    """Newcombe's variance of an AUROC as a function of its true value.

    sizes: effective rows of positives, negatives. spread: variance over the patients of each class at `value`.
    """

    def per_row(x: float) -> float:
        return (x / (2 - x) + 2 * x * x / (1 + x)) / 2 - x * x

    m, n = sizes
    excess = [max(1.0, s * k / per_row(value)) if np.isfinite(s) else 1.0 for s, k in zip(spread, sizes, strict=True)]

    def variance(x: float) -> float:
        return per_row(x) * (excess[0] / m + excess[1] / n) + (x * (1 - x) - 2 * per_row(x)) / (m * n)

    return variance


def _score_interval(value: float, variance: Callable[[float], float]) -> tuple[float, float]:
    """The values x that are at most 1.96 standard errors from `value`, the error being that at x."""

    def limit(outside: float) -> float:
        inside = value
        for _ in range(_HALVINGS):
            x = (inside + outside) / 2
            if (value - x) ** 2 > Z * Z * variance(x):
                outside = x
            else:
                inside = x
        return inside

    return limit(0.0), limit(1.0)


def _precision_influence(rows: _Rows) -> tuple[float, Floats]:
    """Average precision, and its derivative by the weight of each patient (P,)."""
    _, group = np.unique(rows.score, return_inverse=True)
    positives = np.bincount(group, weights=rows.positive)
    found = np.cumsum(positives[::-1])[::-1]
    called = np.cumsum(np.bincount(group)[::-1])[::-1]
    precision, count = found / called, found[0]
    value = float(precision @ positives / count)
    # One row more changes the precision at its own score and at every lower one.
    fewer = np.cumsum(positives * precision / called) / count
    more = np.cumsum(positives / called) / count
    change = np.where(rows.positive, (precision[group] - value) / count + more[group], 0) - fewer[group]
    return value, summed(change, rows.codes, rows.n_patients)


_FEW_SCORES = 64


@dataclass(frozen=True, slots=True)
class _Ranked:
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

    values: Callable[[_Ranked], Floats]
    estimate: Callable[[_Rows], Estimate]


_Weigh = Callable[[Floats], tuple[Floats, Floats]]


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
        ranked = _Ranked(positives[:, having], tied, below[:, having] - tied, below[:, -1:])
        return {name: value.values(ranked) for name, value in values.items()}

    def estimate() -> Estimates:
        if n_patients < 2 or positive.all() or not positive.any():
            return {}
        rows = _Rows(positive, score, codes, n_patients)
        return {name: value.estimate(rows) for name, value in values.items()}

    return EstimatedPart(part, estimate)


def ranking_values(specificity: float) -> dict[str, Ranking]:
    """AUROC, average precision, and sensitivity where the specificity is at least so much, by name."""
    return {
        "auroc": auroc,
        "average_precision": Ranking(_average_precision, _average_precision_estimate),
        "sensitivity_at_specificity": _sensitivity_at(specificity),
    }


def _auroc(ranked: _Ranked) -> Floats:
    """Share of the pairs of a positive and a negative in which the positive has the higher score; ties count half."""
    pairs = np.einsum("bk,bk->b", ranked.positives, ranked.below + 0.5 * ranked.tied)
    return np.asarray(pairs / (ranked.positives.sum(axis=1) * ranked.negatives[:, 0]))


def _average_precision(ranked: _Ranked) -> Floats:
    """Mean over the positives of the precision at their score, as scikit-learn defines it."""
    positives = ranked.positives[:, ::-1]
    found = np.cumsum(positives, axis=1)
    called = found + (ranked.negatives - ranked.below)[:, ::-1]
    # Where nothing was called yet, nothing was found either: 0, not 0 / 0.
    precision = found / np.maximum(called, 1e-300)
    return np.asarray(np.einsum("bk,bk->b", precision, positives) / positives.sum(axis=1))


def _sensitivity_at(specificity: float) -> Ranking:
    """The largest sensitivity at which the specificity is at least so much."""

    def value(ranked: _Ranked) -> Floats:
        allowed = ranked.below >= specificity * ranked.negatives * (1 - 1e-12)
        sensitivity = np.where(allowed, ranked.positives, 0).sum(axis=1) / ranked.positives.sum(axis=1)
        return np.where(ranked.negatives[:, 0] > 0, sensitivity, np.nan)

    return Ranking(value, lambda rows: _sensitivity_estimate(rows, specificity))


auroc = Ranking(_auroc, _auroc_estimate)


def _by_rows(patient_of: Ints, positive: Bools, starts: Ints, _n_patients: int) -> _Weigh:
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


def _by_sums(patient_of: Ints, positive: Bools, starts: Ints, n_patients: int) -> _Weigh:
    """The same by sums per patient, which are small where there are few scores."""
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(patient_of)]))
    sums = np.zeros((2, n_patients, len(starts)))
    np.add.at(sums, (np.where(positive, 0, 1), patient_of, group), 1)
    return lambda weights: (weights @ sums[0], weights @ sums[1])
