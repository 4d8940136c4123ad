"""Figures that set several models, or several sizes of a training set, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from panecho_embed.evaluation.plots.canvas import MARKERS, Floats, colours, legend, new_axes
from panecho_embed.report import FIRST, MUTED

_DODGE = 1.035  # factor between neighbouring curves on the logarithmic axis, so that their intervals stay apart


@dataclass(frozen=True, slots=True, eq=False)
class Efficiency:
    """One curve of label efficiency: patients trained on (S,), ascending, and the metric there with its range.

    like: another curve's name, whose colour this one takes, dashed; "" for a colour of its own.
    """

    name: str
    n_patients: Floats
    value: Floats
    low: Floats
    high: Floats
    like: str = ""


def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    xlabel: str,
    *,
    reference: float | None = None,
    singles: Sequence[Sequence[float]] = (),
) -> Figure:
    """Values with intervals, one a line: (name, value, low, high). reference: a dashed line.

    singles: for each row the values that its value is the mean of, drawn as small strokes.
    """
    figure, axes = new_axes(5.4, 0.9 + 0.34 * len(rows))
    for place, (_, value, low, high) in enumerate(rows):
        axes.plot([low, high], [place, place], color=FIRST, linewidth=1.6)
        axes.plot([value], [place], color=FIRST, marker="o", markersize=5)
    for place, values in enumerate(singles):
        axes.plot(values, [place + 0.28] * len(values), color=MUTED, marker="|", markersize=6, linestyle="")
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    return figure


def label_efficiency(curves: Sequence[Efficiency], ylabel: str) -> Figure:
    """The metric against the number of patients trained on; one curve has its range as a band, several have bars."""
    figure, axes = new_axes()
    styles = zip(colours(), cycle(MARKERS), strict=False)
    style_of = dict(zip(dict.fromkeys(curve.like or curve.name for curve in curves), styles, strict=False))
    for place, curve in enumerate(curves):
        colour, marker = style_of[curve.like or curve.name]
        if len(curves) == 1:
            axes.fill_between(curve.n_patients, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(curve.n_patients, curve.value, color=colour, marker=marker, markersize=4)
            continue
        x = curve.n_patients * _DODGE ** (place - (len(curves) - 1) / 2)
        axes.vlines(x, curve.low, curve.high, color=colour, linewidth=1.1, alpha=0.6)
        dashed = "--" if curve.like not in ("", curve.name) else "-"
        axes.plot(
            x,
            curve.value,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.3,
            linestyle=dashed,
            fillstyle="full" if dashed == "-" else "none",
            label=curve.name,
        )
    sizes = np.unique(np.concatenate([curve.n_patients for curve in curves]))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:.0f}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("patients trained on")
    axes.set_ylabel(ylabel)
    if len(curves) > 1:
        legend(axes, "above")
    return figure
