"""Metrics whose 95 % interval needs no bootstrap: AUROC and its like, sensitivity, predictive values, F1.

Percentile intervals of a bootstrap, and DeLong's, are too narrow for a high AUROC: few positives lie among the
negatives, and the variance is estimated from those few. Here the variance is that of a model at the value in question
(a score interval), never below the model's and, where the data vary more than the model, as large as theirs. The rows
of a patient are not independent: the interval of a proportion is a binomial one with the effective number of rows (Korn
and Graubard, Surv Methodol 1998; 24: 193-201), which is their number divided by the design effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from panecho_embed.core.arraytypes import Bools, FloatArray, Floats, Ints

Draws = dict[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A metric's value with its 95 % interval.

    influence: (P,) the change of the value per unit of each patient's weight, for the correlation of two estimates.
    """

    value: float
    low: float
    high: float
    influence: Floats


Estimates = dict[str, Estimate]


@dataclass(frozen=True, slots=True, eq=False)
class EstimatedPart:
    """Metrics as a function of patient weights (B, P), with intervals of some of them.

    estimate: gives the estimates by the metric's name, without the metrics that are not defined.
    """

    part: Callable[[Floats], Draws]
    estimate: Callable[[], Estimates]

    def __call__(self, weights: Floats) -> Draws:
        """Value of every metric for each row of `weights`."""
        return self.part(weights)


def estimates_of(parts: Iterable[Callable[[Floats], Draws]]) -> Estimates:
    """The estimates of all parts that have some, by the metric's name."""
    found: Estimates = {}
    for part in parts:
        if isinstance(part, EstimatedPart):
            found |= part.estimate()
    return found


def mean_estimates(runs: Sequence[Iterable[Callable[[Floats], Draws]]]) -> Estimates:
    """The means of several trainings' estimates and of their limits, of metrics that all of them have.

    Trainings tested on the same patients err together; where they do not, the mean is surer than its limits say.
    """
    each = [estimates_of(parts) for parts in runs]
    return {
        name: Estimate(
            value=float(np.mean([found[name].value for found in each])),
            low=float(np.mean([found[name].low for found in each])),
            high=float(np.mean([found[name].high for found in each])),
            influence=np.mean([found[name].influence for found in each], axis=0),
        )
        for name in each[0]
        if all(name in found for found in each)
    }


def macro_estimates(per_class: Mapping[str, Estimates]) -> Estimates:
    """The estimates of each class as "<metric>:<class>", and "<metric>", their mean, where every class has one."""
    found: Estimates = {}
    for name in dict.fromkeys(name for estimates in per_class.values() for name in estimates):
        having = {label: estimates[name] for label, estimates in per_class.items() if name in estimates}
        if len(having) == len(per_class):
            found[name] = _mean_estimate(list(having.values()))
        found |= {f"{name}:{label}": one for label, one in having.items()}
    return found


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several estimates on the same patients, with an interval recovered from theirs (MOVER)."""
    # Zou and Donner, Stat Med 2008; 27: 1693-1702; for correlated estimates Zou, Psychol Methods 2007; 12: 399-413.
    values = np.array([one.value for one in estimates])
    influences = np.array([one.influence for one in estimates])
    norms = np.sqrt((influences**2).sum(axis=1))
    norms[norms == 0] = np.inf  # nothing varies, so nothing correlates
    correlation = (influences / norms[:, None]) @ (influences / norms[:, None]).T
    np.fill_diagonal(correlation, 1)
    below = values - np.array([one.low for one in estimates])
    above = np.array([one.high for one in estimates]) - values
    half = [float(np.sqrt(max(side @ correlation @ side, 0))) / len(estimates) for side in (below, above)]
    value = float(values.mean())
    return Estimate(value, max(0.0, value - half[0]), min(1.0, value + half[1]), influences.mean(axis=0))


_TAIL = 0.025
_Z = NormalDist().inv_cdf(1 - _TAIL)


def _proportion(successes: Bools, codes: Ints, n_patients: int) -> Estimate:
    """A proportion of rows (N,), with the exact interval of Clopper and Pearson for the effective number of rows."""
    # The design effect is the variance over patients divided by the binomial one (Rao and Scott, Biometrics 1992; 48:
    # 577-585), at least 1 and at most that of rows which always agree within a patient; the latter where all rows or
    # none are successes. It is uncertain, so the effective number is multiplied by (z / t)**2, with t for the patients.
    from scipy.special import stdtrit

    count, value = len(successes), float(successes.mean())
    influence = _summed(successes - value, codes, n_patients) / count
    most = count / _independent_rows(codes)
    size, binomial = count / most, value * (1 - value) / count
    if binomial > 0 and most > 1:
        effect = float(np.clip(_patient_variance(influence, codes) / binomial, 1, most))
        uncertain = (_Z / stdtrit(max(len(np.unique(codes)) - 1, 1), 1 - _TAIL)) ** 2
        size = max(size, float(uncertain) * count / effect)
    low, high = _clopper_pearson(value, size)
    return Estimate(value, low, high, influence)


def _overlap(a: Bools, b: Bools, codes: Ints, n_patients: int) -> Estimate:
    """F1 of two selections (N,) of rows: 2 J / (1 + J), J being the proportion of rows in both among any of them."""
    either = a | b
    jaccard = _proportion((a & b)[either], codes[either], n_patients)
    value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Estimate(value, low, high, jaccard.influence * 2 / (1 + jaccard.value) ** 2)


def _clopper_pearson(value: float, size: float) -> tuple[float, float]:
    """Exact interval of a binomial proportion (Biometrika 1934; 26: 404-413); size need not be a whole number."""
    from scipy.special import betaincinv

    successes = value * size
    low = 0.0 if value <= 0 else float(betaincinv(successes, size - successes + 1, _TAIL))
    high = 1.0 if value >= 1 else float(betaincinv(successes + 1, size - successes, 1 - _TAIL))
    return low, high


def wilson(value: float, size: float) -> tuple[float, float]:
    """Score interval of a binomial proportion (Wilson, J Am Stat Assoc 1927; 22: 209-212)."""
    shrink = _Z * _Z / size
    centre = (value + shrink / 2) / (1 + shrink)
    half = _Z / (1 + shrink) * np.sqrt(value * (1 - value) / size + shrink / (4 * size))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _independent_rows(codes: Ints) -> float:
    """The effective number of rows if the rows of a patient always agree (Kish, Survey Sampling, 1965)."""
    sizes = np.bincount(codes).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes @ sizes))


def _patient_variance(influence: Floats, codes: Ints) -> float:
    """Variance of an estimate from the influences (P,) of its patients; codes: the patients it is made from."""
    patients = len(np.unique(codes))
    return float(influence @ influence) * patients / (patients - 1) if patients > 1 else float("inf")


def _summed(values: FloatArray, codes: Ints, n_patients: int) -> Floats:
    """Sum over the rows of each patient (P,)."""
    return np.bincount(codes, weights=values, minlength=n_patients).astype(np.float64)


def decision_estimates(positive: Bools, called: Bools, codes: Ints, n_patients: int) -> Estimates:
    """Sensitivity, specificity, predictive values, balanced accuracy and F1 of a decision, those that are defined.

    positive: (N,) the truth. called: (N,) the decision. codes: (N,) the patient of each row, below n_patients.
    """
    parts = {
        "sensitivity": (positive, called),
        "specificity": (~positive, ~called),
        "ppv": (called, positive),
        "npv": (~called, ~positive),
    }
    found = {
        name: _proportion(success[rows], codes[rows], n_patients)
        for name, (rows, success) in parts.items()
        if rows.any()
    }
    if "sensitivity" in found and "specificity" in found:
        found["balanced_accuracy"] = _mean_estimate([found["sensitivity"], found["specificity"]])
    if (positive | called).any():
        found["f1"] = _overlap(positive, called, codes, n_patients)
    return found


def class_estimates(truth: Ints, decided: Ints, codes: Ints, n_patients: int, classes: Sequence[str]) -> Estimates:
    """Balanced accuracy, and F1 by class and as the mean over classes, of the classes that any row has.

    truth, decided: (N,) index in `classes`. codes: (N,) the patient of each row, below n_patients.
    """
    per_class: dict[str, Estimates] = {}
    for index in np.unique(truth):
        rows = truth == index
        sensitivity = _proportion(decided[rows] == index, codes[rows], n_patients)
        f1 = _overlap(rows, decided == index, codes, n_patients)
        per_class[classes[index]] = {"sensitivity": sensitivity, "f1": f1}
    found = macro_estimates(per_class)
    return {"balanced_accuracy": found["sensitivity"]} | {k: one for k, one in found.items() if k.startswith("f1")}


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
    """AUROC with Newcombe's score interval (Stat Med 2006; 25: 559-573, method 5) for patients with several rows."""
    # Its share of a class is enlarged where the variance over patients (Obuchowski, Biometrics 1997; 53: 567-578) is
    # larger. A constant score has 0.5, without uncertainty.
    (high, of_high), (low, of_low) = rows.of(True), rows.of(False)
    above = _share_below(low, high)  # of the negatives, per positive
    below = 1 - _share_below(high, low)  # of the positives, per negative
    value = float(above.mean())
    influences = [
        _summed(shares - value, codes, rows.n_patients) / len(shares)
        for shares, codes in ((above, of_high), (below, of_low))
    ]
    if rows.constant:
        return Estimate(value, value, value, influences[0] + influences[1])
    if value in (0, 1):
        limit = _perfect_limit(rows)
        interval = (limit, 1.0) if value == 1 else (0.0, 1 - limit)
    else:
        sizes = effective_rows(high, of_high), effective_rows(low, of_low)
        spread = _patient_variance(influences[0], of_high), _patient_variance(influences[1], of_low)
        interval = _score_interval(value, _auroc_variance(value, sizes, spread))
    return Estimate(value, *interval, influences[0] + influences[1])


def _average_precision_estimate(rows: _Rows) -> Estimate:
    """Average precision with Wilson's interval for an effective number of positives (Boyd et al., ECML PKDD 2013)."""
    # Widened where the variance over patients is larger. A constant score has the interval of the frequency.
    value, influence = _precision_influence(rows)
    if rows.constant:
        return _proportion(rows.positive, rows.codes, rows.n_patients)
    if value >= 1 - _TINY:
        return Estimate(value, _perfect_limit(rows), 1.0, influence)
    size = effective_rows(*rows.of(True))
    binomial = value * (1 - value) / size
    variance = _patient_variance(influence, rows.codes)
    return Estimate(value, *wilson(value, size / max(1.0, variance / binomial)), influence)


def _sensitivity_estimate(rows: _Rows, specificity: float) -> Estimate:
    """Sensitivity at a fixed specificity; the threshold is one of the tested negatives, hence uncertain as well."""
    # Two parts are squared and added on each side (Zou and Donner, Stat Med 2008; 27: 1693-1702): the interval of the
    # sensitivity at the threshold found, and the sensitivities at the limits of the threshold (exact for a quantile).
    scores, codes = rows.of(True)
    negatives, of_negatives = rows.of(False)
    ordered = np.sort(negatives)

    def found(wanted: float) -> Bools:
        """The positives above so large a share of the negatives."""
        return np.searchsorted(ordered, scores, "left") >= wanted * len(ordered) * (1 - _TINY)

    at = _proportion(found(specificity), codes, rows.n_patients)
    if rows.constant:
        return Estimate(at.value, at.value, at.value, at.influence)
    looser, stricter = _clopper_pearson(specificity, effective_rows(negatives, of_negatives))
    below = np.hypot(at.value - at.low, at.value - found(stricter).mean())
    above = np.hypot(at.high - at.value, found(looser).mean() - at.value)
    return Estimate(at.value, max(0.0, at.value - float(below)), min(1.0, at.value + float(above)), at.influence)


def _perfect_limit(rows: _Rows) -> float:
    """Lower limit of AUROC when every positive is above every negative."""
    # The rows hold min(m, n) pairs of a positive and a negative without a common row, each in order with a probability
    # of AUROC: the limit is that of Clopper and Pearson for min(m, n) successes, whatever the distributions.
    pairs = min(_independent_rows(rows.of(positive)[1]) for positive in (True, False))
    return float(_TAIL ** (1 / pairs))


def effective_rows(score: Floats, codes: Ints) -> float:
    """Number of independent rows that say as much as these rows of one class.

    Their number divided by the design effect 1 + (size - 1) * rho, where rho is the correlation within a patient of the
    normal scores, and size the mean number of rows, weighted by itself. No function of jointly normal scores correlates
    more (Gebelein, Z Angew Math Mech 1941; 21: 364-379).
    """
    from scipy.special import ndtri

    effect = len(score) / _independent_rows(codes)
    if effect <= 1 + _TINY:
        return float(len(score))
    ordered = np.sort(score)
    ranks = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / 2
    return len(score) / (1 + _intraclass(ndtri(ranks / len(score)), codes) * (effect - 1))


def _intraclass(values: Floats, codes: Ints) -> float:
    """Correlation within patients, 0 to 1; 1 where it is unknown (Donner, Int Stat Rev 1986; 54: 67-82)."""
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
    """Newcombe's variance of an AUROC by its true value; sizes, spread: effective rows and variance of each class."""

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
            if (value - x) ** 2 > _Z * _Z * variance(x):
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
    return value, _summed(change, rows.codes, rows.n_patients)


_FEW_SCORES = 64


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Weights (B, K) in B bootstraps at the K scores that positives have: of these, of negatives there and below."""

    positives: Floats
    tied: Floats  # (1, 1) where none is
    below: Floats
    negatives: Floats  # (B, 1)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """A metric of an order: its values in B bootstraps, and its value with an interval."""

    values: Callable[[_Ranked], Floats]
    estimate: Callable[[_Rows], Estimate]


_Weigh = Callable[[Floats], _Ranked]


def ranking_part(
    positive: Bools, score: Floats, codes: Ints, n_patients: int, values: Mapping[str, _Ranking]
) -> EstimatedPart:
    """Metrics of an order with their estimates, of which there are none without two patients and both classes.

    A positive's place is known by the weight of the negatives below it: all that is needed of a bootstrap are the
    weights at the scores that positives have, and one running sum over the negatives.

    positive: (N,). score: (N,), the higher the more likely positive. codes: (N,) the patient of each row, below P.
    """
    order = np.argsort(score, kind="stable")
    few = np.count_nonzero(np.diff(score[order])) < _FEW_SCORES
    weigh = (_by_sums if few else _by_rows)(codes[order], positive[order], score[order], n_patients)

    def part(weights: Floats) -> dict[str, Floats]:
        ranked = weigh(weights)
        return {name: value.values(ranked) for name, value in values.items()}

    def estimate() -> Estimates:
        if n_patients < 2 or positive.all() or not positive.any():
            return {}
        rows = _Rows(positive, score, codes, n_patients)
        return {name: value.estimate(rows) for name, value in values.items()}

    return EstimatedPart(part, estimate)


def ranking_values(specificity: float) -> dict[str, _Ranking]:
    """AUROC, average precision, and sensitivity where the specificity is at least this much, by name."""
    return {
        "auroc": auroc,
        "average_precision": _Ranking(_average_precision, _average_precision_estimate),
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


def _sensitivity_at(specificity: float) -> _Ranking:
    """The largest sensitivity at which the specificity is at least this much."""

    def value(ranked: _Ranked) -> Floats:
        allowed = ranked.below >= specificity * ranked.negatives * (1 - 1e-12)
        sensitivity = np.where(allowed, ranked.positives, 0).sum(axis=1) / ranked.positives.sum(axis=1)
        return np.where(ranked.negatives[:, 0] > 0, sensitivity, np.nan)

    return _Ranking(value, lambda rows: _sensitivity_estimate(rows, specificity))


auroc = _Ranking(_auroc, _auroc_estimate)


def _by_rows(patient_of: Ints, positive: Bools, score: Floats, _n_patients: int) -> _Weigh:
    """Patient weights (B, P) to those at the scores that positives have; rows (N,) in ascending order of the score."""
    patient, other = patient_of[positive], patient_of[~positive]
    having, starts = np.unique(score[positive], return_index=True)
    left, right = (np.searchsorted(score[~positive], having, side) for side in ("left", "right"))
    is_tied = bool((left < right).any())

    def weigh(weights: Floats) -> _Ranked:
        positives = np.take(weights, patient, axis=1)
        if len(having) < len(patient):
            positives = np.add.reduceat(positives, starts, axis=1)
        running = np.zeros((len(weights), len(other) + 1))
        np.cumsum(np.take(weights, other, axis=1), axis=1, out=running[:, 1:])
        below = np.take(running, left, axis=1)
        tied = np.take(running, right, axis=1) - below if is_tied else np.zeros((1, 1))
        return _Ranked(positives, tied, below, running[:, -1:])

    return weigh


def _by_sums(patient_of: Ints, positive: Bools, score: Floats, n_patients: int) -> _Weigh:
    """The same by sums per patient, which are small where there are few scores."""
    scores, group = np.unique(score, return_inverse=True)
    having = np.unique(group[positive])
    sums = np.zeros((2, n_patients, len(scores)))
    np.add.at(sums, (np.where(positive, 0, 1), patient_of, group), 1)

    def weigh(weights: Floats) -> _Ranked:
        negatives = weights @ sums[1]
        below, tied = np.cumsum(negatives, axis=1), negatives[:, having]
        return _Ranked(weights @ sums[0][:, having], tied, below[:, having] - tied, below[:, -1:])

    return weigh
