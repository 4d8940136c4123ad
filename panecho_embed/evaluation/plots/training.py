"""Figures of training: loss and score per epoch, of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from panecho_embed.evaluation.plots.canvas import Floats, colours, legend, new_axes
from panecho_embed.report import MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 4.8, 3.4


def history(epochs: Floats, curves: Mapping[str, Floats], ylabel: str, *, best: float | None = None) -> Figure:
    """Values over the epochs of one run; curves: (E,) by name, NaN where there is none. best: the epoch kept."""
    figure, axes = new_axes(_WIDTH, _HEIGHT)
    for colour, (name, values) in zip(colours(), curves.items(), strict=False):
        axes.plot(epochs, values, color=colour, marker="o", markersize=3, linewidth=1.4, label=name)
    if best is not None:
        axes.axvline(best, color=MUTED, linewidth=1, linestyle="--", zorder=0, label=f"kept: epoch {best:g}")
    _finish(axes, ylabel)
    return figure


def histories(runs: Sequence[tuple[str, Floats, Floats]], ylabel: str) -> Figure:
    """Values over the epochs of several runs: (group, epochs, values) each; the runs of a group share its colour."""
    figure, axes = new_axes(_WIDTH, _HEIGHT)
    colour_of = dict(zip(dict.fromkeys(group for group, *_ in runs), colours(), strict=False))
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
    legend(axes)
