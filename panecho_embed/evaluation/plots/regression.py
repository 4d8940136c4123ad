"""Figures of predicted numbers: scatter, Bland-Altman."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from panecho_embed.evaluation.plots.canvas import Floats, identity, new_axes, points
from panecho_embed.records import Score
from panecho_embed.report import SECOND


def scatter(truth: Floats, prediction: Floats, label: str) -> Figure:
    """Prediction against truth, both (N,), with the line of identity. label: the target, with its unit."""
    figure, axes = new_axes()
    identity(axes, min(truth.min(), prediction.min()), max(truth.max(), prediction.max()))
    points(axes, truth, prediction)
    axes.set_xlabel(f"{label}, measured")
    axes.set_ylabel(f"{label}, predicted")
    return figure


def bland_altman(truth: Floats, prediction: Floats, scores: Mapping[str, Score], label: str) -> Figure:
    """Prediction minus truth against their mean, with bias and limits of agreement (Bland and Altman, Lancet 1986).

    truth, prediction: (N,). scores: "bias", "loa_low" and "loa_high" with their intervals, drawn as bands.
    """
    figure, axes = new_axes()
    points(axes, (truth + prediction) / 2, prediction - truth)
    for metric, style in (("bias", "-"), ("loa_low", "--"), ("loa_high", "--")):
        score = scores[metric]
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
    axes.set_xlabel(f"{label}, mean of predicted and measured")
    axes.set_ylabel("predicted minus measured")
    return figure
