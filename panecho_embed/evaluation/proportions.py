"""95 % intervals of proportions whose rows belong to patients: sensitivity, specificity, predictive values.

The rows of a patient are not independent. An interval is that of a binomial proportion with the effective number of
rows (Korn and Graubard, Surv Methodol 1998; 24: 193-201): the number of rows divided by the design effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri, stdtrit

from panecho_embed.evaluation.estimates import Estimate, Estimates, Floats, macro_estimates, mean_estimate

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TAIL = 0.025
Z = float(ndtri(1 - TAIL))


def proportion(successes: Bools, codes: Ints, n_patients: int) -> Estimate:
    """A proportion of rows, with the exact interval of Clopper and Pearson for the effective number of rows.

    successes: (N,), one row or more. codes: (N,) the patient of each row, below n_patients. The design effect is the
    variance over patients divided by the binomial one (Rao and Scott, Biometrics 1992; 48: 577-585), at least 1 and at
    most that of rows which always agree within a patient; the latter where all rows or none are successes. An estimated
    effect is uncertain, so the effective number is multiplied by (z / t)**2, with t for the number of patients.
    """
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


def summed(values: npt.NDArray[np.floating[Any]], codes: Ints, n_patients: int) -> Floats:
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
