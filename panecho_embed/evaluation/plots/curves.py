"""ROC and precision-recall curves with 95 % bands from bootstraps over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from panecho_embed.evaluation.intervals import patient_weights
from panecho_embed.evaluation.plots.canvas import Floats, colours, legend, new_axes
from panecho_embed.report import MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND_DRAWS = 500
_MOST_WITH_BANDS = 4
_AT = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What one curve is drawn of: positive (N,) bool, score (N,), the higher the more likely positive.

    area: its AUROC, for the legend.
    """

    name: str
    positive: npt.NDArray[np.bool_]
    score: Floats
    area: float


def roc(rankings: Sequence[Ranking], patients: npt.ArrayLike, seed: int = 0) -> Figure:
    """ROC curves, one a ranking; those with one class alone are left out. patients: (N,) ids."""
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    named = [(f"{ranking.name}: {ranking.area:.3f}", ranking) for ranking in rankings]
    _draw(axes, named, patients, seed, _sensitivity)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    legend(axes, "lower right")
    return figure


def precision_recall(rankings: Sequence[Ranking], patients: npt.ArrayLike, seed: int = 0) -> Figure:
    """Precision against recall, one curve a ranking; those with one class alone are left out. patients: (N,) ids."""
    figure, axes = new_axes()
    _draw(axes, [(ranking.name, ranking) for ranking in rankings], patients, seed, _precision)
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision")
    axes.set_ylim(0, 1.03)
    legend(axes, "lower left")
    return figure


def _draw(
    axes: Axes,
    named: Sequence[tuple[str, Ranking]],
    patients: npt.ArrayLike,
    seed: int,
    curve: Callable[[Floats, Floats], Floats],
) -> None:
    """curve: turns cumulated weights (B, G) of positives and negatives, from the highest score down, into (B, 101)."""
    ids, patient = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    drawn = [(name, ranking) for name, ranking in named if ranking.positive.any() and not ranking.positive.all()]
    for colour, (name, ranking) in zip(colours(), drawn, strict=False):
        sampled = _sampler(ranking, patient, curve)
        axes.plot(_AT, sampled(np.ones((1, len(ids))))[0], color=colour, linewidth=1.6, label=name)
        if len(drawn) <= _MOST_WITH_BANDS:
            blocks = patient_weights(len(ids), _BAND_DRAWS, seed, len(ranking.score))
            low, high = np.percentile(np.concatenate([sampled(block) for block in blocks]), [2.5, 97.5], axis=0)
            axes.fill_between(_AT, low, high, color=colour, alpha=0.15, linewidth=0)


def _sampler(
    ranking: Ranking, patient: npt.NDArray[Any], curve: Callable[[Floats, Floats], Floats]
) -> Callable[[Floats], Floats]:
    """Patient weights (B, P) to curves (B', 101), of the draws that hold both classes."""
    order = np.argsort(-ranking.score, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(ranking.score[order]) < 0, True])
    positive = ranking.positive[order]

    def sampled(weights: Floats) -> Floats:
        rows = weights[:, patient[order]]
        found = np.cumsum(rows * positive, axis=1)[:, ends]
        false = np.cumsum(rows * ~positive, axis=1)[:, ends]
        both = (found[:, -1] > 0) & (false[:, -1] > 0)
        return curve(found[both], false[both])

    return sampled


def _sensitivity(found: Floats, false: Floats) -> Floats:
    zero = np.zeros((len(found), 1))
    sensitivity, false_positive = (np.hstack([zero, part / part[:, -1:]]) for part in (found, false))
    return _interpolated(false_positive, sensitivity)


def _precision(found: Floats, false: Floats) -> Floats:
    precision = found / np.maximum(found + false, 1e-12)
    return _interpolated(found / found[:, -1:], precision)


def _interpolated(x: Floats, y: Floats) -> Floats:
    return np.array([np.interp(_AT, *pair) for pair in zip(x, y, strict=True)])
