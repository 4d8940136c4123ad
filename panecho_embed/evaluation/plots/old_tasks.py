"""The figures that belong to a task, of what a model predicted for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from panecho_embed.evaluation.plots.canvas import Floats
from panecho_embed.evaluation.plots.classes import calibration, confusion
from panecho_embed.evaluation.plots.curves import Ranking, precision_recall, roc
from panecho_embed.evaluation.plots.regression import bland_altman, scatter
from panecho_embed.records import Score
from panecho_embed.tasks import TaskType


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions of one target, beside the truth.

    label: the target, with its unit if it has one. classes: () for regression; of a binary task the second is positive.
    truth: (N,) value or class index. prediction: (N,) value, or probability of the positive class; multiclass (N, K).
    patients: (N,) ids. scores: of `evaluation.intervals`, by name. threshold: (N,) or one number, of a binary
    decision. cutoffs: of a regression that has `auroc_below_<cutoff>` among its scores. seed: of the bands.
    """

    label: str
    task: TaskType
    classes: tuple[str, ...]
    truth: Floats
    prediction: Floats
    patients: npt.ArrayLike
    scores: Mapping[str, Score]
    threshold: npt.ArrayLike = 0.5
    cutoffs: tuple[float, ...] = ()
    seed: int = 0


def task_figures(given: Predictions) -> dict[str, tuple[Figure, str]]:
    """The figures that belong to the task, with a caption each, by file name without suffix."""
    return _regression_figures(given) if given.task == "regression" else _class_figures(given)


def _regression_figures(given: Predictions) -> dict[str, tuple[Figure, str]]:
    truth, prediction, label = given.truth, given.prediction, given.label
    figures = {
        "scatter": (scatter(truth, prediction, label), "Predicted against measured; the dashed line is identity."),
        "bland-altman": (
            bland_altman(truth, prediction, given.scores, label),
            "Bland-Altman: difference against mean; bias and 95 % limits.",
        ),
        "calibration": (
            calibration([("", truth, prediction)], "mean prediction", "mean measured"),
            "Mean measured value in tenths of the prediction.",
        ),
    }
    if given.cutoffs:
        rankings = [
            Ranking(f"{label} < {cutoff:g}", truth < cutoff, -prediction, _area(given, f"auroc_below_{cutoff:g}"))
            for cutoff in given.cutoffs
        ]
        caption = "ROC at the cut-offs, by the predicted value, with 95 % bands."
        figures["roc"] = (roc(rankings, given.patients, given.seed), caption)
    return figures


def _class_figures(given: Predictions) -> dict[str, tuple[Figure, str]]:
    truth, prediction, classes = given.truth, given.prediction, given.classes
    if given.task == "binary":
        called = prediction >= np.asarray(given.threshold)
        rankings = [Ranking(classes[1], truth == 1, prediction, _area(given, "auroc"))]
    else:
        called = prediction.argmax(axis=1)
        rankings = [
            Ranking(name, truth == i, prediction[:, i], _area(given, f"auroc:{name}")) for i, name in enumerate(classes)
        ]
    curves = [(ranking.name, ranking.positive.astype(float), ranking.score) for ranking in rankings]
    return {
        "roc": (roc(rankings, given.patients, given.seed), "ROC with 95 % bands from bootstraps over patients."),
        "precision-recall": (
            precision_recall(rankings, given.patients, given.seed),
            "Precision and recall with 95 % bands.",
        ),
        "calibration": (
            calibration(curves, "predicted probability", "observed frequency"),
            "Observed frequency in tenths of the predicted probability.",
        ),
        "confusion": (
            confusion(truth, called, classes),
            "Units by true and predicted class; shade is the share of the true class.",
        ),
    }


def _area(given: Predictions, metric: str) -> float:
    return given.scores[metric].value if metric in given.scores else float("nan")
