"""Figures of an evaluation, drawn with matplotlib alone (no window, no global state)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probes.evaluate import Evaluation

INK = "#1b3a57"
ACCENT = "#c8553d"
MUTED = "#8a94a0"


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """The figures that belong to the task, by file name without suffix."""
    makers: dict[str, Callable[[Evaluation], Figure]] = {"scatter": scatter}
    if evaluation.problem.task != "regression":
        makers = {"roc": roc}
    return {name: make(evaluation) for name, make in makers.items()}


def scatter(evaluation: Evaluation) -> Figure:
    """Prediction against truth, with the line of identity."""
    truth, prediction = _tested(evaluation)
    figure, axes = _square()
    low, high = min(truth.min(), prediction.min()), max(truth.max(), prediction.max())
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--", label="identity")
    axes.scatter(truth, prediction, s=10, alpha=0.5, color=INK, linewidths=0)
    mae, r2 = evaluation.scores["mae"], evaluation.scores["r2"]
    axes.set_title(f"MAE {mae.value:.2f} ({mae.low:.2f}-{mae.high:.2f}), R² {r2.value:.2f}", fontsize=10)
    axes.set_xlabel(f"{evaluation.problem.target}, measured")
    axes.set_ylabel(f"{evaluation.problem.target}, predicted")
    return figure


def roc(evaluation: Evaluation) -> Figure:
    """ROC curves, one for each class that has its own."""
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    truth, probability = _tested(evaluation)
    classes = evaluation.problem.classes
    if evaluation.problem.task == "binary":
        _draw_roc(axes, truth == 1, probability, classes[1])
    else:
        for index, name in enumerate(classes):
            _draw_roc(axes, truth == index, probability[:, index], name)
    score = evaluation.scores["auroc"]
    axes.set_title(f"AUROC {score.value:.3f} ({score.low:.3f}-{score.high:.3f})", fontsize=10)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_roc(axes: Axes, positive: np.ndarray, score: np.ndarray, label: str) -> None:
    from sklearn.metrics import roc_curve

    if positive.any() and not positive.all():
        false_positive, sensitivity, _ = roc_curve(positive, score)
        axes.plot(false_positive, sensitivity, linewidth=1.5, label=label)


def _tested(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    return evaluation.problem.truth[evaluation.tested], evaluation.prediction[evaluation.tested]


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
