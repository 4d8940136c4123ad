"""Metrics whose 95 % interval needs no bootstrap, and the intervals of proportions: sensitivity, predictive values.

The rows of a patient are not independent. An interval is that of a binomial proportion with the effective number of
rows (Korn and Graubard, Surv Methodol 1998; 24: 193-201): the number of rows divided by the design effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from panecho_embed.core.arraytypes import Bools, FloatArray, Floats, Ints

Values = dict[str, Floats]


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

    part: Callable[[Floats], Values]
    estimate: Callable[[], Estimates]

    def __call__(self, weights: Floats) -> Values:
        """Value of every metric for each row of `weights`."""
        return self.part(weights)


def estimates_of(parts: Iterable[Callable[[Floats], Values]]) -> Estimates:
    """The estimates of all parts that have some, by the metric's name."""
    found: Estimates = {}
    for part in parts:
        if isinstance(part, EstimatedPart):
            found |= part.estimate()
    return found


def mean_estimates(runs: Sequence[Iterable[Callable[[Floats], Values]]]) -> Estimates:
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


def renamed(part: EstimatedPart, old: str, new: str) -> EstimatedPart:
    """One metric of a part, under another name."""

    def estimate() -> Estimates:
        found = part.estimate()
        return {new: found[old]} if old in found else {}

    return EstimatedPart(lambda weights: {new: part(weights)[old]}, estimate)


def macro_estimates(per_class: Mapping[str, Estimates]) -> Estimates:
    """The estimates of each class as "<metric>:<class>", and "<metric>", their mean, where every class has one."""
    found: Estimates = {}
    for name in dict.fromkeys(name for estimates in per_class.values() for name in estimates):
        having = {label: estimates[name] for label, estimates in per_class.items() if name in estimates}
        if len(having) == len(per_class):
            found[name] = mean_estimate(list(having.values()))
        found |= {f"{name}:{label}": one for label, one in having.items()}
    return found


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of several estimates on the same patients; its interval is recovered from those of the estimates.

    MOVER, the method of variance estimates recovery, with correlated estimates (Zou and Donner, Stat Med 2008; 27:
    1693-1702; Zou, Psychol Methods 2007; 12: 399-413). The correlation is that of the influences of the patients.
    """
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


TAIL = 0.025
Z = NormalDist().inv_cdf(1 - TAIL)


def proportion(successes: Bools, codes: Ints, n_patients: int) -> Estimate:
    """A proportion of rows, with the exact interval of Clopper and Pearson for the effective number of rows.

    successes: (N,), one row or more. codes: (N,) the patient of each row, below n_patients. The design effect is the
    variance over patients divided by the binomial one (Rao and Scott, Biometrics 1992; 48: 577-585), at least 1 and at
    most that of rows which always agree within a patient; the latter where all rows or none are successes. An estimated
    effect is uncertain, so the effective number is multiplied by (z / t)**2, with t for the number of patients.
    """
    from scipy.special import stdtrit

    count, value = len(successes), float(successes.mean())
    influence = summed(successes - value, codes, n_patients) / count
    most = count / independent_rows(codes)
    size, binomial = count / most, value * (1 - value) / count
    if binomial > 0 and most > 1:
        effect = float(np.clip(patient_variance(influence, codes) / binomial, 1, most))
        uncertain = (Z / stdtrit(max(len(np.unique(codes)) - 1, 1), 1 - TAIL)) ** 2
        size = max(size, float(uncertain) * count / effect)
    low, high = clopper_pearson(value, size)
    return Estimate(value, low, high, influence)


def overlap(a: Bools, b: Bools, codes: Ints, n_patients: int) -> Estimate:
    """F1, or Dice's coefficient, of two selections (N,) of rows, one of which has a row or more.

    It is 2 J / (1 + J), J being the proportion of rows in both selections among those in either, so its limits are
    those of J.
    """
    either = a | b
    jaccard = proportion((a & b)[either], codes[either], n_patients)
    value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Estimate(value, low, high, jaccard.influence * 2 / (1 + jaccard.value) ** 2)


def clopper_pearson(value: float, size: float) -> tuple[float, float]:
    """Exact interval of a binomial proportion (Biometrika 1934; 26: 404-413); size need not be a whole number."""
    from scipy.special import betaincinv

    successes = value * size
    low = 0.0 if value <= 0 else float(betaincinv(successes, size - successes + 1, TAIL))
    high = 1.0 if value >= 1 else float(betaincinv(successes + 1, size - successes, 1 - TAIL))
    return low, high


def wilson(value: float, size: float) -> tuple[float, float]:
    """Score interval of a binomial proportion (Wilson, J Am Stat Assoc 1927; 22: 209-212)."""
    shrink = Z * Z / size
    centre = (value + shrink / 2) / (1 + shrink)
    half = Z / (1 + shrink) * np.sqrt(value * (1 - value) / size + shrink / (4 * size))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def independent_rows(codes: Ints) -> float:
    """The effective number of rows if the rows of a patient always agree (Kish, Survey Sampling, 1965).

    It is the number of patients where all have equally many rows, and less otherwise.
    """
    sizes = np.bincount(codes).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes @ sizes))


def patient_variance(influence: Floats, codes: Ints) -> float:
    """Variance of an estimate from the influences (P,) of its patients; codes: the patients it is made from."""
    patients = len(np.unique(codes))
    return float(influence @ influence) * patients / (patients - 1) if patients > 1 else float("inf")


def summed(values: FloatArray, codes: Ints, n_patients: int) -> Floats:
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
        name: proportion(success[rows], codes[rows], n_patients)
        for name, (rows, success) in parts.items()
        if rows.any()
    }
    if "sensitivity" in found and "specificity" in found:
        found["balanced_accuracy"] = mean_estimate([found["sensitivity"], found["specificity"]])
    if (positive | called).any():
        found["f1"] = overlap(positive, called, codes, n_patients)
    return found


def class_estimates(truth: Ints, decided: Ints, codes: Ints, n_patients: int, classes: Sequence[str]) -> Estimates:
    """Balanced accuracy, and F1 by class and as the mean over classes, of the classes that any row has.

    truth, decided: (N,) index in `classes`. codes: (N,) the patient of each row, below n_patients.
    """
    per_class: dict[str, Estimates] = {}
    for index in np.unique(truth):
        rows = truth == index
        sensitivity = proportion(decided[rows] == index, codes[rows], n_patients)
        f1 = overlap(rows, decided == index, codes, n_patients)
        per_class[classes[index]] = {"sensitivity": sensitivity, "f1": f1}
    found = macro_estimates(per_class)
    return {"balanced_accuracy": found["sensitivity"]} | {k: one for k, one in found.items() if k.startswith("f1")}
