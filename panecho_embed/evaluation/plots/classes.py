"""Figures of predicted probabilities and classes: calibration (of numbers too), confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from panecho_embed.evaluation.plots.canvas import Floats, colours, identity, legend, new_axes
from panecho_embed.report import FIRST, INK

_GROUPS = 10


def calibration(curves: Sequence[tuple[str, Floats, Floats]], xlabel: str, ylabel: str) -> Figure:
    """What came true, in tenths of what was predicted; curves: (name, truth (N,), prediction (N,)) each."""
    figure, axes = new_axes()
    for colour, (name, happened, expected) in zip(colours(), curves, strict=False):
        order = np.argsort(expected, kind="stable")
        parts = [part for part in np.array_split(order, min(_GROUPS, len(order))) if len(part)]
        x = [expected[part].mean() for part in parts]
        y = [happened[part].mean() for part in parts]
        axes.plot(x, y, marker="o", markersize=4, linewidth=1.2, color=colour, label=name)
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    identity(axes, low, high)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if len(curves) > 1:
        legend(axes)
    return figure


def confusion(truth: npt.NDArray[Any], called: npt.NDArray[Any], classes: Sequence[str]) -> Figure:
    """How many of each class were called what; truth, called: (N,) class indices."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (truth.astype(int), called.astype(int)), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_axes()
    axes.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(counts):
        alpha = 0.06 + 0.6 * share[row, column]
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, linewidth=0, facecolor=FIRST, alpha=alpha))
        axes.text(column, row, str(count), ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 3 else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure
