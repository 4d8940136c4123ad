"""Figures of an evaluation, drawn with matplotlib alone (no window, no global state)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from panecho_embed.metrics import patient_weights
from panecho_embed.report import FIRST, INK, MUTED, SECOND, SERIES
from probes.wording import display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probes.efficiency import LabelEfficiency
    from probes.evaluation import Evaluation

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BAND_DRAWS = 500
CURVE_POINTS = np.linspace(0, 1, 101)
MAX_CLASSES_WITH_BAND = 4
CALIBRATION_GROUPS = 10
MANY_POINTS = 3000  # above, points of a scatter are drawn as a picture: an SVG of them would be megabytes


def figures(evaluation: Evaluation) -> dict[str, tuple[Figure, str]]:
    """The figures that belong to the task, with a caption each, by file name without suffix."""
    if evaluation.problem.task == "regression":
        made = {
            "scatter": (scatter(evaluation), "Predicted against measured; the dashed line is identity."),
            "bland-altman": (bland_altman(evaluation), "Bland-Altman: difference against mean; bias and 95 % limits."),
            "calibration": (calibration(evaluation), "Mean measured value in tenths of the prediction."),
        }
        if evaluation.cutoffs:
            made["roc"] = (roc(evaluation), "ROC at the cut-offs, by the predicted value, with 95 % bands.")
        return made
    return {
        "roc": (roc(evaluation), "ROC with 95 % bands from bootstraps over patients."),
        "precision-recall": (precision_recall(evaluation), "Precision and recall with 95 % bands."),
        "calibration": (calibration(evaluation), "Observed frequency in tenths of the predicted probability."),
        "confusion": (
            confusion(evaluation),
            "Units by true and predicted class; shade is the share of the true class.",
        ),
    }


def scatter(evaluation: Evaluation) -> Figure:
    """Prediction against truth, with the line of identity."""
    truth, prediction = _tested(evaluation)
    figure, axes = new_axes()
    ends = [min(truth.min(), prediction.min()), max(truth.max(), prediction.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle="--")
    _points(axes, truth, prediction)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel(f"{evaluation.problem.target}, measured")
    axes.set_ylabel(f"{evaluation.problem.target}, predicted")
    return figure


def bland_altman(evaluation: Evaluation) -> Figure:
    """Prediction minus truth against their mean, with bias and limits of agreement (Bland and Altman, Lancet 1986)."""
    truth, prediction = _tested(evaluation)
    figure, axes = new_axes()
    _points(axes, (truth + prediction) / 2, prediction - truth)
    for metric, style in (("bias", "-"), ("loa_low", "--"), ("loa_high", "--")):
        score = evaluation.scores[metric]
        axes.axhline(score.value, color=SECOND, linewidth=1.2, linestyle=style)
        axes.axhspan(score.low, score.high, color=SECOND, alpha=0.12, linewidth=0)
        axes.annotate(
            f"{score.value:.1f}",
            (1, score.value),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            color=SECOND,
            fontsize=8,
        )
    axes.set_xlabel(f"{evaluation.problem.target}, mean of predicted and measured")
    axes.set_ylabel("predicted minus measured")
    return figure


def calibration(evaluation: Evaluation) -> Figure:
    """What came true, in tenths of what was predicted."""
    figure, axes = new_axes()
    problem = evaluation.problem
    truth, predicted = _tested(evaluation)
    if problem.task == "multiclass":
        curves = [(truth == i, predicted[:, i], name) for i, name in enumerate(problem.classes)]
    else:
        curves = [(truth, predicted, "")]
    for colour, (happened, expected, label) in zip(_colours(), curves, strict=False):
        order = np.argsort(expected, kind="stable")
        parts = [part for part in np.array_split(order, min(CALIBRATION_GROUPS, len(order))) if len(part)]
        x = [expected[part].mean() for part in parts]
        y = [happened[part].mean() for part in parts]
        axes.plot(x, y, marker="o", markersize=4, linewidth=1.2, color=colour, label=label)
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--", zorder=0)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel("mean prediction" if problem.task == "regression" else "predicted probability")
    axes.set_ylabel("mean measured" if problem.task == "regression" else "observed frequency")
    if len(curves) > 1:
        _legend(axes)
    return figure


def roc(evaluation: Evaluation) -> Figure:
    """ROC curves with bands: one a class, or one a cut-off of a regression."""
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    _draw_curves(axes, evaluation, _roc_at)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    _legend(axes, "lower right")
    return figure


def precision_recall(evaluation: Evaluation) -> Figure:
    """Precision against recall, one curve a class."""
    figure, axes = new_axes()
    _draw_curves(axes, evaluation, _precision_at)
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    axes.set_ylim(0, 1.03)
    _legend(axes, "lower left")
    return figure


def confusion(evaluation: Evaluation) -> Figure:
    """How many of each class were called what."""
    truth, predicted = _tested(evaluation)
    classes = evaluation.problem.classes
    if evaluation.problem.task == "binary":
        called = (predicted >= evaluation.threshold[evaluation.tested]).astype(int)
    else:
        called = predicted.argmax(axis=1)
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (truth.astype(int), called), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_axes()
    axes.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(counts):
        box = {"facecolor": FIRST, "alpha": 0.06 + 0.6 * share[row, column]}
        axes.add_patch(_rectangle(column - 0.48, row - 0.48, **box))
        axes.text(column, row, str(count), ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def label_efficiency_curve(curve: LabelEfficiency) -> Figure:
    """The metric against the number of patients trained on, with the range of 95 % of the draws."""
    figure, axes = new_axes()
    band = curve.band()
    axes.fill_between(band["n_patients"], band["low"], band["high"], color=FIRST, alpha=0.18, linewidth=0)
    axes.plot(band["n_patients"], band["mean"], color=FIRST, marker="o", markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(band["n_patients"], [f"{n:.0f}" for n in band["n_patients"]])
    axes.minorticks_off()
    axes.set_xlabel("patients trained on")
    axes.set_ylabel(display_name(curve.metric))
    return figure


def intervals(rows: list[tuple[str, float, float, float]], xlabel: str, *, reference: float | None = None) -> Figure:
    """Values with intervals, one a line: (name, value, low, high)."""
    figure = Figure(figsize=(5.4, 0.9 + 0.34 * len(rows)), layout="constrained")
    axes = _styled(figure.add_subplot())
    for place, (_, value, low, high) in enumerate(rows):
        axes.plot([low, high], [place, place], color=FIRST, linewidth=1.6)
        axes.plot([value], [place], color=FIRST, marker="o", markersize=5)
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    return figure


def new_axes() -> tuple[Figure, Axes]:
    """An empty square figure in the style of the reports."""
    figure = Figure(figsize=(4.4, 4.1), layout="constrained")
    return figure, _styled(figure.add_subplot())


def _styled(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.patch.set_alpha(0)
    return axes


def _colours() -> Iterator[str]:
    while True:
        yield from SERIES


def _legend(axes: Axes, place: Literal["best", "lower left", "lower right"] = "best") -> None:
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc=place)


def _points(axes: Axes, x: Floats, y: Floats) -> None:
    many = len(x) > MANY_POINTS
    axes.scatter(x, y, s=6 if many else 12, alpha=0.3 if many else 0.5, color=FIRST, linewidths=0, rasterized=many)


def _rectangle(x: float, y: float, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 0.96, 0.96, linewidth=0, **style)


def _tested(evaluation: Evaluation) -> tuple[Floats, Floats]:
    return evaluation.problem.truth[evaluation.tested], evaluation.prediction[evaluation.tested]


def _binary_views(evaluation: Evaluation) -> Iterator[tuple[str, str, Bools, Floats]]:
    """Everything that has a ROC curve: name, metric, positive (N,), score (N,)."""
    truth, predicted = _tested(evaluation)
    problem = evaluation.problem
    if problem.task == "regression":
        for cutoff in evaluation.cutoffs:
            yield f"{problem.target} < {cutoff:g}", f"auroc_below_{cutoff:g}", truth < cutoff, -predicted
    elif problem.task == "binary":
        yield problem.classes[1], "auroc", truth == 1, predicted
    else:
        for index, name in enumerate(problem.classes):
            yield name, f"auroc:{name}", truth == index, predicted[:, index]


def _draw_curves(axes: Axes, evaluation: Evaluation, curve: Callable[[Floats, Floats], Floats]) -> None:
    """curve: turns cumulated weights (B, G) of positives and negatives, from the highest score down, into (B, 101)."""
    views = [view for view in _binary_views(evaluation) if view[2].any() and not view[2].all()]
    ids, patient = np.unique(evaluation.problem.patient[evaluation.tested].astype(str), return_inverse=True)
    for colour, (name, metric, positive, score) in zip(_colours(), views, strict=False):
        label = f"{name}: {evaluation.scores[metric].value:.3f}" if curve is _roc_at else name
        order = np.argsort(-score, kind="stable")
        ends = np.flatnonzero(np.r_[np.diff(score[order]) < 0, True])

        def sampled(weights: Floats, order: Any = order, ends: Any = ends, positive: Bools = positive) -> Floats:
            drawn = weights[:, patient[order]]
            found = np.cumsum(drawn * positive[order], axis=1)[:, ends]
            false = np.cumsum(drawn * ~positive[order], axis=1)[:, ends]
            both = (found[:, -1] > 0) & (false[:, -1] > 0)
            return curve(found[both], false[both])

        axes.plot(CURVE_POINTS, sampled(np.ones((1, len(ids))))[0], color=colour, linewidth=1.6, label=label)
        if len(views) <= MAX_CLASSES_WITH_BAND:
            blocks = patient_weights(len(ids), BAND_DRAWS, evaluation.seed, len(score))
            low, high = np.percentile(np.concatenate([sampled(block) for block in blocks]), [2.5, 97.5], axis=0)
            axes.fill_between(CURVE_POINTS, low, high, color=colour, alpha=0.15, linewidth=0)


def _roc_at(found: Floats, false: Floats) -> Floats:
    zero = np.zeros((len(found), 1))
    sensitivity, false_positive = (np.hstack([zero, part / part[:, -1:]]) for part in (found, false))
    return _interpolated(false_positive, sensitivity)


def _precision_at(found: Floats, false: Floats) -> Floats:
    precision = found / np.maximum(found + false, 1e-12)
    return _interpolated(found / found[:, -1:], precision)


def _interpolated(x: Floats, y: Floats) -> Floats:
    return np.array([np.interp(CURVE_POINTS, *pair) for pair in zip(x, y, strict=True)])
