"""Metrics of regressions, two classes and more, as functions of how much each patient counts.

A bootstrap that draws a patient twice is a weight of two on all of the patient's rows. So every metric is written as a
function of patient weights, and 10,000 bootstraps are a few matrix products instead of 10,000 loops (`intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools, Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.estimates import (
    Draws,
    EstimatedPart,
    Estimates,
    auroc,
    class_estimates,
    decision_estimates,
    macro_estimates,
    ranking_part,
    ranking_values,
)
from panecho_embed.evaluation.targets import Kind, Target, median_class

_Part = Callable[[Floats], Draws]

CALIBRATION_BINS = 10
_LEAST_SPREAD = 0.01  # of predictions, as a share of the SD of the truth, from which they have a calibration slope
_SPECIFICITY = 0.9  # at which `sensitivity_at_specificity` is read off the ROC curve


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric, and the lowest and highest value that it can have."""

    title: str  # as a reader knows it
    better: Literal["higher", "lower", ""] = "higher"  # "" where more is neither better nor worse
    in_unit: bool = False  # whether it has the unit of the target
    lowest: float = 0.0
    highest: float = 1.0


METRICS = {
    "mae": Metric("MAE", "lower", True, highest=np.inf),
    "rmse": Metric("RMSE", "lower", True, highest=np.inf),
    "r2": Metric("R²", lowest=-np.inf),
    "pearson": Metric("Pearson's r", lowest=-1.0),
    "bias": Metric("Bias (predicted - measured)", "", True, -np.inf, np.inf),
    "loa_low": Metric("Limit of agreement, lower", "", True, -np.inf, np.inf),
    "loa_high": Metric("Limit of agreement, upper", "", True, -np.inf, np.inf),
    "calibration_slope": Metric("Calibration slope", "", False, -np.inf, np.inf),
    "auroc": Metric("AUROC"),
    "average_precision": Metric("Average precision"),
    "sensitivity_at_specificity": Metric("Sensitivity at 90 % specificity"),
    "sensitivity": Metric("Sensitivity"),
    "specificity": Metric("Specificity"),
    "ppv": Metric("PPV"),
    "npv": Metric("NPV"),
    "balanced_accuracy": Metric("Balanced accuracy"),
    "f1": Metric("F1"),
    "brier": Metric("Brier score", "lower", highest=2.0),
    "ece": Metric("Expected calibration error", "lower"),
    "weighted_kappa": Metric("Weighted kappa", lowest=-1.0),
    "grade_error": Metric("Mean error in grades", "lower", highest=np.inf),
}
PRIMARY: dict[Kind, str] = {"regression": "mae", "binary": "auroc", "multiclass": "auroc", "ordinal": "weighted_kappa"}
# Metrics of each kind that short tables show, the primary one first.
SHORT: dict[Kind, tuple[str, ...]] = {
    "regression": ("mae", "r2", "bias"),
    "binary": ("auroc", "average_precision", "balanced_accuracy"),
    "multiclass": ("auroc", "balanced_accuracy", "f1"),
    "ordinal": ("weighted_kappa", "grade_error", "auroc"),
}
# Metrics of each kind of which the mean over several targets is a separate figure.
OVER_TARGETS: dict[Kind, str] = {"regression": "r2", "binary": "auroc", "multiclass": "auroc", "ordinal": "auroc"}
# Metrics that look at the order of all predictions together.
OF_THE_ORDER = ("pearson", "calibration_slope", "auroc", "average_precision", "sensitivity_at_specificity")


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of one model on one set of rows, as a function of how much each patient counts.

    parts: each takes patient weights (B, P) and gives values (B,) by name. patients: (P,) the ids in the order of the
    weights. n: number of rows.
    """

    parts: tuple[_Part, ...]
    patients: npt.NDArray[Any]
    n: int

    def __call__(self, weights: Floats) -> Draws:
        """Value of every metric for each row of `weights` (B, P); NaN where it is not defined."""
        values: Draws = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for part in self.parts:
                values |= part(weights)
        return values


def base_name(metric: str) -> str:
    """A metric's name without its class or cut-off: "auroc" of "auroc:mild" and of "auroc_below_40"."""
    return metric.partition(":")[0].partition("_below_")[0]


def higher_is_better(metric: str) -> bool:
    """Whether a larger value is a better model; the class or cut-off does not matter."""
    return METRICS[base_name(metric)].better == "higher"


def has_better_side(metric: str) -> bool:
    """Whether one of two values is better: not so of a bias or a slope."""
    return METRICS[base_name(metric)].better != ""


def display_name(metric: str, unit: str = "") -> str:
    """A metric's name as a reader knows it: "auroc:mild" is "AUROC, mild"; with a unit "MAE, %"."""
    known = METRICS[base_name(metric)]
    _, _, label = metric.partition(":")
    _, _, cutoff = metric.partition("_below_")
    title = f"{known.title}, {unit}" if unit and known.in_unit else known.title
    return f"{title}, {label}" if label else f"{title}, below {cutoff}" if cutoff else title


def _regression_metrics(
    truth: npt.ArrayLike, prediction: npt.ArrayLike, patients: npt.ArrayLike, cutoffs: Sequence[float]
) -> Metrics:
    """MAE, RMSE, R2, Pearson's r, bias, limits of agreement, calibration slope, and AUROC at cut-offs.

    truth, prediction: (N,) finite, in the target's unit. patients: (N,) ids. bias: mean of prediction minus truth;
    loa_low, loa_high: bias -+ 1.96 SD of the differences (Bland and Altman, Lancet 1986). calibration_slope: slope of
    truth on prediction, 1 when predictions are neither too wide nor too narrow, not defined for predictions that are
    constant or nearly so (SD below 1 % of that of the truth). auroc_below_<c>: how well the
    prediction tells truth < c.
    """
    y, p = _finite("truth", truth), _finite("prediction", prediction)
    ids, codes = _patient_codes(patients, len(y), len(p))
    centre = y.mean()  # sums of squares of centred values do not cancel
    yc, pc, error = y - centre, p - centre, p - y
    terms = np.column_stack([np.ones_like(y), yc, pc, yc * yc, pc * pc, yc * pc, error, error * error, np.abs(error)])
    parts: list[_Part] = [_from_sums(terms, codes, len(ids), _regression_values)]
    for cutoff in cutoffs:
        parts.append(ranking_part(y < cutoff, -p, codes, len(ids), {f"auroc_below_{cutoff:g}": auroc}))
    return Metrics(tuple(parts), ids, len(y))


def _binary_metrics(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, threshold: npt.ArrayLike
) -> Metrics:
    """AUROC, average precision, Brier score, ECE; decisions at a threshold; sensitivity at a fixed specificity.

    truth: (N,) 0 or 1. probability: (N,) of class 1, 0 to 1. threshold: at or above it the prediction is positive, for
    sensitivity, specificity, PPV, NPV, balanced accuracy and F1; one number, or one per row; NaN where none was chosen:
    these metrics are then not defined. ece: expected calibration error, 10 bins of equal width (Guo et al., ICML 2017).
    """
    y, p = _finite("truth", truth), _finite("probability", probability)
    ids, codes = _patient_codes(patients, len(y), len(p))
    at = np.broadcast_to(np.asarray(threshold, dtype=np.float64), p.shape)
    positive, called = y == 1, np.where(np.isnan(at), np.nan, p >= at)
    terms = np.column_stack([np.ones_like(y), positive, called, positive * called, (p - positive) ** 2])

    def decided() -> Estimates:
        return {} if np.isnan(at).any() else decision_estimates(positive, called == 1, codes, len(ids))

    return Metrics(
        (
            ranking_part(positive, p, codes, len(ids), ranking_values(_SPECIFICITY)),
            EstimatedPart(_from_sums(terms, codes, len(ids), _threshold_values), decided),
            _calibration(p, positive, codes, len(ids)),
        ),
        ids,
        len(y),
    )


def _multiclass_metrics(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, classes: Sequence[str]
) -> Metrics:
    """One-vs-rest AUROC, average precision, sensitivity and F1 per class and macro; balanced accuracy, Brier, ECE.

    truth: (N,) class index. probability: (N, C), rows sum to 1. The prediction is the most probable class. Classes
    that no row has are excluded from every mean. Names are "auroc" (macro) and "auroc:<class>". brier: squared errors
    summed over all classes; "brier:<class>" is its part of one class. ece: of the most probable class's probability;
    "ece:<class>": of one class's, whether it is the most probable or not (Kull et al., NeurIPS 2019).
    """
    y, p, ids, codes = _of_classes(truth, probability, patients, classes)
    present = [c for c in range(len(classes)) if (y == c).any()]
    one_hot, decided = np.eye(len(classes))[y], p.argmax(axis=1)
    values = ranking_values(_SPECIFICITY)
    rankings = {classes[c]: ranking_part(y == c, p[:, c], codes, len(ids), values) for c in present}
    hits = one_hot * (decided == y)[:, None]
    terms = np.column_stack([one_hot[:, present], np.eye(len(classes))[decided][:, present], hits[:, present]])
    squared = (p - one_hot) ** 2
    briers = np.column_stack([np.ones(len(y)), squared.sum(axis=1), squared[:, present]])
    names = [classes[c] for c in present]
    return Metrics(
        (
            _over_classes(rankings),
            EstimatedPart(
                _from_sums(terms, codes, len(ids), lambda sums: _confusion_values(sums, names)),
                lambda: class_estimates(y, decided, codes, len(ids), classes),
            ),
            _from_sums(briers, codes, len(ids), lambda sums: _brier_values(sums, names)),
            _calibration(p.max(axis=1), decided == y, codes, len(ids)),
            *(_calibration(p[:, c], y == c, codes, len(ids), f"ece:{classes[c]}") for c in present),
        ),
        ids,
        len(y),
    )


def _ordinal_metrics(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, classes: Sequence[str]
) -> Metrics:
    """Weighted kappa, mean error in grades, AUROC at every cut between grades and their mean, balanced accuracy, Brier.

    truth: (N,) grade index. probability: (N, C), rows sum to 1. The grade called is the median one: the first whose
    cumulative probability is 0.5. weighted_kappa: with quadratic weights (Cohen, Psychol Bull 1968; 70: 213-220).
    "auroc:<grade> or above": how well the probability of that grade or a higher one tells who has it.
    """
    y, p, ids, codes = _of_classes(truth, probability, patients, classes)
    above = np.cumsum(p[:, ::-1], axis=1)[:, ::-1]
    cuts = [c for c in range(1, len(classes)) if (y >= c).any() and (y < c).any()]
    called = median_class(p)
    rankings = {
        f"{classes[c]} or above": ranking_part(y >= c, above[:, c], codes, len(ids), {"auroc": auroc}) for c in cuts
    }
    one_hot, called_hot = np.eye(len(classes))[y], np.eye(len(classes))[called]
    errors = np.column_stack([np.ones(len(y)), np.abs(called - y), (called - y) ** 2])
    present = [c for c in range(len(classes)) if (y == c).any()]
    hits = one_hot * (called == y)[:, None]
    squared = np.column_stack([np.ones(len(y)), ((p - one_hot) ** 2).sum(axis=1)])

    def recall(sums: Floats) -> Draws:
        return {"balanced_accuracy": (sums[:, len(present) :] / sums[:, : len(present)]).mean(axis=1)}

    return Metrics(
        (
            _from_sums(np.column_stack([errors, one_hot, called_hot]), codes, len(ids), _grade_values),
            _over_classes(rankings),
            EstimatedPart(
                _from_sums(np.column_stack([one_hot[:, present], hits[:, present]]), codes, len(ids), recall),
                lambda: class_estimates(y, called, codes, len(ids), classes),
            ),
            _from_sums(squared, codes, len(ids), lambda sums: _brier_values(sums, ())),
        ),
        ids,
        len(y),
    )


def target_metrics(
    target: Target,
    truth: npt.ArrayLike,
    prediction: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    threshold: npt.ArrayLike = np.nan,
    cutoffs: Sequence[float] = (),
) -> Metrics:
    """The metrics that belong to a target.

    Parameters
    ----------
    target : Target
    truth : (N,) value or class index
    prediction : (N,) value or probability of the positive class, or (N, K) probabilities
    patients : (N,) ids
    threshold : float or (N,)
        Of a yes-or-no decision; NaN where none was chosen.
    cutoffs : sequence of float
        Of a regression, for AUROC.
    """
    if target.kind == "regression":
        return _regression_metrics(truth, prediction, patients, cutoffs)
    if target.kind == "binary":
        return _binary_metrics(truth, prediction, patients, threshold)
    if target.kind == "ordinal":
        return _ordinal_metrics(truth, prediction, patients, target.classes)
    return _multiclass_metrics(truth, prediction, patients, target.classes)


def point_values(metrics: Metrics) -> dict[str, float]:
    """The metrics themselves, without intervals: every patient counts once."""
    values = metrics(np.ones((1, len(metrics.patients))))
    return {name: float(value[0]) for name, value in values.items()}


def _finite(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ArgumentError(f"{name} has shape {array.shape}; one value a row is needed, and at least one row")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} has {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite")
    return array


def _of_classes(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, classes: Sequence[str]
) -> tuple[Ints, Floats, npt.NDArray[Any], Ints]:
    """Class indices (N,), probabilities (N, C), patient ids (P,) and the patient of each row (N,)."""
    y = _finite("truth", truth).astype(np.int64)
    p = np.asarray(probability, dtype=np.float64)
    if p.shape != (len(y), len(classes)):
        raise ArgumentError(f"probability has shape {p.shape}; {len(y)} rows of {len(classes)} classes were expected")
    ids, codes = _patient_codes(patients, len(y), len(p))
    return y, p, ids, codes


def _patient_codes(patients: npt.ArrayLike, *lengths: int) -> tuple[npt.NDArray[Any], Ints]:
    given = np.asarray(patients)
    if any(length != len(given) for length in lengths):
        raise ArgumentError(f"truth, prediction and patients have {lengths[0]}, {lengths[1]} and {len(given)} rows")
    ids, codes = np.unique(given, return_inverse=True)
    return ids, codes.astype(np.int64)


def _from_sums(terms: npt.NDArray[Any], codes: Ints, n_patients: int, values: Callable[..., Draws]) -> _Part:
    """Metrics of weighted sums: `terms` (N, K) are added up per patient once."""
    sums = np.zeros((n_patients, terms.shape[1]))
    np.add.at(sums, codes, terms)
    return lambda weights: values(weights @ sums)


def _regression_values(sums: Floats) -> Draws:
    n, y, p, yy, pp, yp, error, squared, absolute = sums.T
    var_y, var_p, cov = yy - y * y / n, pp - p * p / n, yp - y * p / n
    # A constant prediction has no correlation and no slope, whatever rounding leaves of its variance.
    var_p = np.where(var_p > 1e-12 * np.maximum(pp, yy), var_p, np.nan)
    var_y = np.where(var_y > 1e-12 * yy, var_y, np.nan)
    bias = error / n
    spread = 1.96 * np.sqrt(np.maximum(squared - error * bias, 0) / (n - 1))
    return {
        "mae": absolute / n,
        "rmse": np.sqrt(squared / n),
        "r2": 1 - squared / var_y,
        "pearson": cov / np.sqrt(var_y * var_p),
        "bias": bias,
        "loa_low": bias - spread,
        "loa_high": bias + spread,
        "calibration_slope": cov / np.where(var_p > _LEAST_SPREAD**2 * var_y, var_p, np.nan),
    }


def _threshold_values(sums: Floats) -> Draws:
    n, positives, called, hits, squared = sums.T
    recall, specificity = hits / positives, 1 - (called - hits) / (n - positives)
    return {
        "sensitivity": recall,
        "specificity": specificity,
        "ppv": hits / called,
        "npv": 1 - (positives - hits) / (n - called),
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * hits / (positives + called),
        "brier": squared / n,
    }


def _grade_values(sums: Floats) -> Draws:
    n, absolute, squared = sums[:, :3].T
    truth, called = np.split(sums[:, 3:], 2, axis=1)
    grades = np.arange(truth.shape[1])
    apart = (grades[:, None] - grades) ** 2
    by_chance = np.einsum("bi,ij,bj->b", truth, apart, called) / n
    return {"weighted_kappa": 1 - squared / by_chance, "grade_error": absolute / n}


def _confusion_values(sums: Floats, classes: Sequence[str]) -> Draws:
    truth, called, hits = np.split(sums, 3, axis=1)
    f1 = 2 * hits / (truth + called)
    macro = {"balanced_accuracy": (hits / truth).mean(axis=1), "f1": f1.mean(axis=1)}
    return macro | {f"f1:{name}": values for name, values in zip(classes, f1.T, strict=True)}


def _brier_values(sums: Floats, classes: Sequence[str]) -> Draws:
    means = sums[:, 1:] / sums[:, :1]
    return dict(zip(["brier", *(f"brier:{name}" for name in classes)], means.T, strict=True))


def _calibration(confidence: Floats, correct: Bools, codes: Ints, n_patients: int, name: str = "ece") -> _Part:
    """Expected calibration error: gap between confidence and frequency, averaged over bins by their weight."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.zeros((len(confidence), CALIBRATION_BINS))
    gaps[np.arange(len(gaps)), bins] = confidence - correct
    terms = np.column_stack([gaps, np.ones(len(gaps))])
    return _from_sums(terms, codes, n_patients, lambda s: {name: np.abs(s[:, :-1]).sum(axis=1) / s[:, -1]})


def _over_classes(parts: Mapping[str, EstimatedPart]) -> EstimatedPart:
    """The metrics of each class or cut, and their means; without any, an AUROC that is not defined."""

    def values(weights: Floats) -> Draws:
        if not parts:
            return {"auroc": np.full(len(weights), np.nan)}
        each = {label: part(weights) for label, part in parts.items()}
        names = next(iter(each.values()))
        means = {name: np.mean([draws[name] for draws in each.values()], axis=0) for name in names}
        return means | {f"{name}:{label}": draws[name] for name in names for label, draws in each.items()}

    return EstimatedPart(values, lambda: macro_estimates({label: part.estimate() for label, part in parts.items()}))
