"""Figures of predictions, comparisons and training, on plain arrays, drawn with matplotlib (no window, no globals)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from panecho_embed.core.arraytypes import Bools, FloatArray
from panecho_embed.core.records import Score
from panecho_embed.evaluation.inference import patient_weights
from panecho_embed.evaluation.page import INK, MUTED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from panecho_embed.evaluation.predictions import Predictions
    from panecho_embed.evaluation.scores import Scored

_FIRST, _SECOND, *_ = SERIES
# Colour and marker of a difference, so that it is known without colours too.
_VERDICTS = {
    "better": (SERIES[2], "^"),
    "worse": (SERIES[1], "v"),
    "equivalent": (SERIES[0], "s"),
    "undecided": (MUTED, "o"),
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_MANY_POINTS = 3000  # above, points of a scatter are drawn as a picture: an SVG of them would be megabytes
_GROUPS = 10
_BAND_DRAWS = 500
_MOST_WITH_BANDS = 4
_AT = np.linspace(0, 1, 101)
_DODGE = 1.035  # factor between neighbouring curves on the logarithmic axis, so that their intervals stay apart
_WIDTH, _HEIGHT = 4.8, 3.4
_Drawn = dict[str, tuple[Figure, str]]


class _PlainFigure(Figure):
    """A figure whose texts are shown as they are: two dollar signs make no formula, control characters are escaped."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw with the texts as they are."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_text(_plain(text.get_text()))
        for axis in (axis for axes in self.axes for axis in (axes.xaxis, axes.yaxis)):
            # Ticks get new texts whenever they are drawn.
            formatter = axis.get_major_formatter()
            if not isinstance(formatter.format_ticks, partial):
                formatter.format_ticks = partial(_plain_ticks, formatter.format_ticks)  # type: ignore[method-assign]
        super().draw(renderer)


def _plain(text: str) -> str:
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def _plain_ticks(format_ticks: Callable[[Any], list[str]], values: Any) -> list[str]:
    return [_plain(text) for text in format_ticks(values)]


def _new_axes(width: float = 4.4, height: float = 4.1) -> tuple[Figure, Axes]:
    """An empty figure in the style of the reports; width and height in inches."""
    figure = _PlainFigure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.patch.set_alpha(0)
    return figure, axes


def _legend(axes: Axes, place: Literal["best", "lower left", "lower right", "above"] = "best") -> None:
    """A legend without a frame; "above" the axes if nothing within them may be covered."""
    if place == "above":
        axes.figure.legend(frameon=False, fontsize=8, labelcolor=INK, loc="outside upper left", ncols=2)
    else:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc=place)


def _points(axes: Axes, x: FloatArray, y: FloatArray) -> None:
    """A cloud of points, light enough for a page however many they are."""
    many = len(x) > _MANY_POINTS
    axes.scatter(x, y, s=6 if many else 12, alpha=0.3 if many else 0.5, color=_FIRST, linewidths=0, rasterized=many)


def _identity(axes: Axes, low: float, high: float) -> None:
    """The dashed line on which prediction and truth agree; both axes get the same scale."""
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle="--", zorder=0)
    axes.set_aspect("equal", adjustable="box")


def _scatter(truth: FloatArray, prediction: FloatArray, label: str) -> Figure:
    """Prediction against truth, both (N,), with the line of identity. label: the target, with its unit."""
    figure, axes = _new_axes()
    _identity(axes, min(truth.min(), prediction.min()), max(truth.max(), prediction.max()))
    _points(axes, truth, prediction)
    axes.set_xlabel(f"measured {label}")
    axes.set_ylabel(f"predicted {label}")
    return figure


def _bland_altman(truth: FloatArray, prediction: FloatArray, scores: Mapping[str, Score], label: str) -> Figure:
    """Prediction minus truth against their mean, with bias and limits of agreement and their intervals as bands."""
    figure, axes = _new_axes()
    _points(axes, (truth + prediction) / 2, prediction - truth)
    for metric, style in (("bias", "-"), ("loa_low", "--"), ("loa_high", "--")):
        score = scores[metric]
        axes.axhline(score.value, color=_SECOND, linewidth=1.2, linestyle=style)
        axes.axhspan(score.low, score.high, color=_SECOND, alpha=0.12, linewidth=0)
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (3, 0), "textcoords": "offset points"}
        axes.annotate(f"{score.value:.1f}", (1, score.value), **where, va="center", color=_SECOND, fontsize=8)
    axes.set_xlabel(f"mean of predicted and measured {label}")
    axes.set_ylabel("predicted minus measured")
    return figure


def _calibration(curves: Sequence[tuple[str, FloatArray, FloatArray]], xlabel: str, ylabel: str) -> Figure:
    """What came true, in tenths of what was predicted; curves: (name, truth (N,), prediction (N,)) each."""
    figure, axes = _new_axes()
    for colour, (name, happened, expected) in zip(cycle(SERIES), curves, strict=False):
        order = np.argsort(expected, kind="stable")
        parts = [part for part in np.array_split(order, min(_GROUPS, len(order))) if len(part)]
        x = [expected[part].mean() for part in parts]
        y = [happened[part].mean() for part in parts]
        axes.plot(x, y, marker="o", markersize=4, linewidth=1.2, color=colour, label=name)
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    _identity(axes, low, high)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if len(curves) > 1:
        _legend(axes)
    return figure


def _confusion(truth: npt.NDArray[Any], called: npt.NDArray[Any], classes: Sequence[str]) -> Figure:
    """How many of each class were called what; truth, called: (N,) class indices."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (truth.astype(int), called.astype(int)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _new_axes()
    axes.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(counts):
        alpha = 0.06 + 0.6 * share[row, column]
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, linewidth=0, facecolor=_FIRST, alpha=alpha))
        axes.text(column, row, str(count), ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """What one curve is drawn of; score: the higher the more likely positive. area: its AUROC, for the legend."""

    name: str
    positive: Bools
    score: FloatArray
    area: float


def _roc(rankings: Sequence[_Ranking], patients: npt.ArrayLike, seed: int = 0) -> Figure:
    """ROC curves, one per ranking; those with only one class are omitted. patients: (N,) ids."""
    figure, axes = _new_axes()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    named = [(f"{ranking.name}: {ranking.area:.3f}", ranking) for ranking in rankings]
    _draw(axes, named, patients, seed, _sensitivity)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    _legend(axes, "lower right")
    return figure


def _precision_recall(rankings: Sequence[_Ranking], patients: npt.ArrayLike, seed: int = 0) -> Figure:
    """Precision against recall, one curve a ranking; those with only one class are omitted. patients: (N,) ids."""
    figure, axes = _new_axes()
    _draw(axes, [(ranking.name, ranking) for ranking in rankings], patients, seed, _precision)
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    axes.set_ylim(0, 1.03)
    _legend(axes, "lower left")
    return figure


def _draw(
    axes: Axes,
    named: Sequence[tuple[str, _Ranking]],
    patients: npt.ArrayLike,
    seed: int,
    curve: Callable[[FloatArray, FloatArray], FloatArray],
) -> None:
    """curve: turns cumulated weights (B, G) of positives and negatives, from the highest score down, into (B, 101)."""
    ids, patient = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    drawn = [(name, ranking) for name, ranking in named if ranking.positive.any() and not ranking.positive.all()]
    for colour, (name, ranking) in zip(cycle(SERIES), drawn, strict=False):
        sampled = _sampler(ranking, patient, curve)
        axes.plot(_AT, sampled(np.ones((1, len(ids))))[0], color=colour, linewidth=1.6, label=name)
        if len(drawn) <= _MOST_WITH_BANDS:
            blocks = patient_weights(len(ids), _BAND_DRAWS, seed, len(ranking.score))
            low, high = np.percentile(np.concatenate([sampled(block) for block in blocks]), [2.5, 97.5], axis=0)
            axes.fill_between(_AT, low, high, color=colour, alpha=0.15, linewidth=0)


def _sampler(
    ranking: _Ranking, patient: npt.NDArray[Any], curve: Callable[[FloatArray, FloatArray], FloatArray]
) -> Callable[[FloatArray], FloatArray]:
    """Patient weights (B, P) to curves (B', 101), of the draws that hold both classes."""
    order = np.argsort(-ranking.score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(ranking.score[order]) < 0, True])
    positive = ranking.positive[order]

    def sampled(weights: FloatArray) -> FloatArray:
        rows = weights[:, patient[order]]
        found = np.cumsum(rows * positive, axis=1)[:, ends]
        false = np.cumsum(rows * ~positive, axis=1)[:, ends]
        both = (found[:, -1] > 0) & (false[:, -1] > 0)
        return curve(found[both], false[both])

    return sampled


def _sensitivity(found: FloatArray, false: FloatArray) -> FloatArray:
    zero = np.zeros((len(found), 1))
    sensitivity, false_positive = (np.hstack([zero, part / part[:, -1:]]) for part in (found, false))
    return _interpolated(false_positive, sensitivity)


def _precision(found: FloatArray, false: FloatArray) -> FloatArray:
    precision = found / np.maximum(found + false, 1e-12)
    return _interpolated(found / found[:, -1:], precision)


def _interpolated(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.array([np.interp(_AT, *pair) for pair in zip(x, y, strict=True)])


@dataclass(frozen=True, slots=True, eq=False)
class Efficiency:
    """One curve of label efficiency: patients trained on (S,), ascending, and the metric there with its range.

    like: another curve's name, whose colour this one takes, dashed; "" for a separate colour.
    """

    name: str
    n_patients: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    like: str = ""


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    xlabel: str,
    *,
    reference: float | None = None,
    singles: Sequence[Sequence[float]] = (),
    verdicts: Sequence[str] = (),
) -> Figure:
    """Values with intervals, one per line (a forest plot).

    Parameters
    ----------
    rows : sequence of (name, value, low, high)
    xlabel : str
    reference : float, optional
        Position of a dashed line.
    singles : sequence of sequence of float
        For each row the values of which its value is the mean, drawn as small strokes.
    verdicts : sequence of str
        For each row "better", "worse", "equivalent" or "undecided", as colour, marker and text.
    """
    figure, axes = _new_axes(5.4, 0.9 + 0.34 * len(rows))
    for place, (_, value, low, high) in enumerate(rows):
        colour, marker = _VERDICTS[verdicts[place]] if verdicts else (_FIRST, "o")
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot([value], [place], color=colour, marker=marker, markersize=6 if verdicts else 5)
        if verdicts:
            where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0)}
            where |= {"textcoords": "offset points", "va": "center", "fontsize": 8}
            axes.annotate(verdicts[place], (1, place), color=colour, **where)
    for place, values in enumerate(singles):
        axes.plot(values, [place + 0.28] * len(values), color=MUTED, marker="|", markersize=6, linestyle="")
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    return figure


def spread(values: FloatArray, xlabel: str) -> Figure:
    """How many of the values (N,) are where: a histogram."""
    figure, axes = _new_axes(_WIDTH, _HEIGHT)
    axes.hist(values[np.isfinite(values)], bins=min(20, max(5, len(values) // 3)), color=_FIRST, alpha=0.75)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(xlabel)
    axes.set_ylabel("number of studies")
    return figure


def label_efficiency(curves: Sequence[Efficiency], ylabel: str) -> Figure:
    """The metric against the number of patients trained on; one curve has its range as a band, several have bars."""
    figure, axes = _new_axes()
    styles = zip(cycle(SERIES), cycle(_MARKERS), strict=False)
    style_of = dict(zip(dict.fromkeys(curve.like or curve.name for curve in curves), styles, strict=False))
    for place, curve in enumerate(curves):
        colour, marker = style_of[curve.like or curve.name]
        if len(curves) == 1:
            axes.fill_between(curve.n_patients, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(curve.n_patients, curve.value, color=colour, marker=marker, markersize=4)
            continue
        x = curve.n_patients * _DODGE ** (place - (len(curves) - 1) / 2)
        axes.vlines(x, curve.low, curve.high, color=colour, linewidth=1.1, alpha=0.6)
        like = curve.like not in ("", curve.name)
        style: dict[str, Any] = {"linestyle": "--", "fillstyle": "none"} if like else {}
        style |= {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.3}
        axes.plot(x, curve.value, **style, label=curve.name)
    sizes = np.unique(np.concatenate([curve.n_patients for curve in curves]))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:.0f}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("patients trained on")
    axes.set_ylabel(ylabel)
    if len(curves) > 1:
        _legend(axes, "above")
    return figure


def history(epochs: FloatArray, curves: Mapping[str, FloatArray], ylabel: str, *, best: float | None = None) -> Figure:
    """Values over the epochs of one run; curves: (E,) by name, NaN where there is none. best: the epoch kept."""
    figure, axes = _new_axes(_WIDTH, _HEIGHT)
    for colour, (name, values) in zip(cycle(SERIES), curves.items(), strict=False):
        axes.plot(epochs, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=name)
    if best is not None:
        axes.axvline(best, color=MUTED, linewidth=1, linestyle="--", zorder=0, label=f"kept: epoch {best:g}")
    _finish(axes, ylabel)
    return figure


def histories(runs: Sequence[tuple[str, FloatArray, FloatArray]], ylabel: str) -> Figure:
    """Values over the epochs of several runs: (group, epochs, values) each; the runs of a group share its colour."""
    figure, axes = _new_axes(_WIDTH, _HEIGHT)
    colour_of = dict(zip(dict.fromkeys(group for group, *_ in runs), cycle(SERIES), strict=False))
    labelled: set[str] = set()
    for group, epochs, values in runs:
        label = "" if group in labelled else group
        labelled.add(group)
        single = "o" if len(epochs) == 1 else ""
        axes.plot(epochs, values, color=colour_of[group], linewidth=1.2, alpha=0.8, marker=single, label=label)
    _finish(axes, ylabel)
    return figure


def _finish(axes: Axes, ylabel: str) -> None:
    low, high = axes.get_xlim()
    if high - low < 1:  # one epoch
        axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    _legend(axes)


def target_figures(scored: Scored) -> _Drawn:
    """The figures that belong to the kind of target, with a caption each, by file name without suffix.

    Of several trainings they show the first.
    """
    replicates = list(scored.predictions.replicates().values())
    draw = _regression_figures if scored.target.kind == "regression" else _class_figures
    made = draw(scored, replicates[0])
    if len(replicates) == 1:
        return made
    return {name: (figure, f"{text} First of {len(replicates)} trainings.") for name, (figure, text) in made.items()}


def _regression_figures(scored: Scored, rows: Predictions) -> _Drawn:
    truth, prediction, label = rows.truth, rows.prediction, scored.target.title
    figures = {
        "scatter": (_scatter(truth, prediction, label), "Predicted against measured; the dashed line is identity."),
        "bland-altman": (
            _bland_altman(truth, prediction, scored.scores, label),
            "Bland-Altman: difference against mean; bias and 95 % limits.",
        ),
        "calibration": (
            _calibration([("", truth, prediction)], "mean prediction", "mean measured"),
            "Mean measured value by tenth of the predictions.",
        ),
    }
    if scored.cutoffs:
        rankings = [
            _Ranking(f"{label} < {cutoff:g}", truth < cutoff, -prediction, _area(scored, f"auroc_below_{cutoff:g}"))
            for cutoff in scored.cutoffs
        ]
        caption = "ROC at the cut-offs, by the predicted value, with 95 % bands."
        figures["roc"] = (_roc(rankings, rows.patient.astype(str), scored.seed), caption)
    return figures


def _class_figures(scored: Scored, rows: Predictions) -> _Drawn:
    truth, prediction, classes = rows.truth, rows.prediction, scored.target.classes
    patients, seed = rows.patient.astype(str), scored.seed
    rankings = _rankings(scored, rows)
    curves = [(ranking.name, ranking.positive.astype(float), ranking.score) for ranking in rankings]
    figures = {
        "roc": (_roc(rankings, patients, seed), "ROC with 95 % bands from bootstraps over patients."),
        "precision-recall": (_precision_recall(rankings, patients, seed), "Precision and recall with 95 % bands."),
        "calibration": (
            _calibration(curves, "predicted probability", "observed frequency"),
            "Observed frequency by tenth of the predicted probabilities.",
        ),
    }
    decided = np.isfinite(rows.threshold) if scored.target.kind == "binary" else np.ones(len(rows), dtype=np.bool_)
    if decided.all():
        called = scored.target.called(prediction, rows.threshold)
        caption = f"{rows.level.capitalize()} rows by true and predicted class; shade is the share of the true class."
        figures["confusion"] = (_confusion(truth, called, classes), caption)
    return figures


def _rankings(scored: Scored, rows: Predictions) -> list[_Ranking]:
    truth, prediction, classes = rows.truth, rows.prediction, scored.target.classes
    if scored.target.kind == "binary":
        return [_Ranking(classes[1], truth == 1, prediction, _area(scored, "auroc"))]
    if scored.target.kind == "ordinal":
        above = np.cumsum(prediction[:, ::-1], axis=1)[:, ::-1]
        names = [f"{name} or above" for name in classes]
        return [
            _Ranking(names[i], truth >= i, above[:, i], _area(scored, f"auroc:{names[i]}"))
            for i in range(1, len(classes))
        ]
    return [
        _Ranking(name, truth == i, prediction[:, i], _area(scored, f"auroc:{name}")) for i, name in enumerate(classes)
    ]


def _area(scored: Scored, metric: str) -> float:
    return scored.scores[metric].value if metric in scored.scores else float("nan")
