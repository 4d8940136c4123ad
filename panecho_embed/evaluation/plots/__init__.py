"""Figures of predictions, comparisons and training, on plain arrays, drawn with matplotlib (no window, no globals)."""

from __future__ import annotations

from panecho_embed.evaluation.plots.classes import calibration, confusion
from panecho_embed.evaluation.plots.compared import Efficiency, intervals, label_efficiency
from panecho_embed.evaluation.plots.curves import Ranking, precision_recall, roc
from panecho_embed.evaluation.plots.regression import bland_altman, scatter
from panecho_embed.evaluation.plots.tasks import target_figures
from panecho_embed.evaluation.plots.training import histories, history

__all__ = [
    "Efficiency",
    "Ranking",
    "bland_altman",
    "calibration",
    "confusion",
    "histories",
    "history",
    "intervals",
    "label_efficiency",
    "precision_recall",
    "roc",
    "scatter",
    "target_figures",
]
