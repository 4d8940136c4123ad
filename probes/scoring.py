"""From predictions to metrics: of the probe, of the trivial baseline, and the threshold of a binary decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from panecho_embed.evaluation.metrics import Draws, Metrics, base_name, task_metrics
from probes.problem import Problem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OF_THE_ORDER = ("pearson", "calibration_slope", "auroc", "average_precision", "sensitivity_at_specificity")


def make_metrics(
    problem: Problem, units: Ints, prediction: Floats, threshold: Floats, cutoffs: Sequence[float] = ()
) -> Metrics:
    """The metrics that belong to the problem's task, on some units."""
    truth, given, patients = problem.truth[units], prediction[units], problem.patient[units].astype(str)
    return task_metrics(
        problem.task, truth, given, patients, problem.classes, cutoffs=cutoffs, threshold=threshold[units]
    )


def trivial_prediction(problem: Problem, units: Ints) -> Floats:
    """What is predicted by who knows the labels of `units` only: their mean, or how common each class is."""
    truth = problem.truth[units]
    if problem.task == "multiclass":
        return np.bincount(truth.astype(np.int64), minlength=len(problem.classes)) / len(truth)
    return np.asarray(truth.mean())


def baseline_metrics(problem: Problem, units: Ints, baseline: Floats, cutoffs: Sequence[float] = ()) -> Metrics:
    """The metrics of trivial predictions (U,) or (U, K), which are constant in each fold.

    They order nothing: AUROC is 0.5, correlation and slope are not defined. From one fold to the next the constant
    differs by chance, and against the fold's own truth (who is tested is not trained on), so what looks at the order of
    all predictions together would call that difference skill, or the opposite of it.
    """
    half = np.full(len(problem), 0.5)
    folded = make_metrics(problem, units, baseline, half, cutoffs)
    level = np.broadcast_to(baseline[units].mean(axis=0), baseline.shape)
    constant = make_metrics(problem, units, level, half, cutoffs)

    def without_order(weights: Floats) -> Draws:
        return {name: values for name, values in constant(weights).items() if base_name(name) in OF_THE_ORDER}

    return Metrics((*folded.parts, without_order), folded.patients, folded.n)


def youden_threshold(truth: Floats, probability: Floats) -> float:
    """The threshold with the largest sensitivity plus specificity on the units that have a prediction.

    Halfway between two neighbouring predictions; 0.5 when only one class, or no unit, has one.
    """
    there = np.isfinite(probability)
    p, y = probability[there], truth[there] == 1
    if not y.any() or y.all():
        return 0.5
    order = np.argsort(p, kind="stable")
    p, y = p[order], y[order]
    gain = np.cumsum(~y) / (~y).sum() - np.cumsum(y) / y.sum()
    gain[:-1][np.diff(p) == 0] = -np.inf  # equal predictions can't be told apart
    best = int(gain[:-1].argmax()) if len(p) > 1 else 0
    return float((p[best] + p[best + 1]) / 2) if gain[best] > 0 else 0.5
