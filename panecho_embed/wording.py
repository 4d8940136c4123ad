"""How metrics, values, intervals and counts are written for people, the same in every table, figure and report."""

from __future__ import annotations

import math

from panecho_embed.intervals import Difference
from panecho_embed.records import Score

DISPLAY_NAMES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson's r",
    "bias": "Bias (predicted - measured)",
    "loa_low": "Limit of agreement, lower",
    "loa_high": "Limit of agreement, upper",
    "calibration_slope": "Calibration slope",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "sensitivity_at_specificity": "Sensitivity at 90 % specificity",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}


def display_name(metric: str) -> str:
    """A metric's name as a reader knows it: "auroc:mild" is "AUROC, mild"."""
    base, _, label = metric.partition(":")
    if label:
        return f"{DISPLAY_NAMES[base]}, {label}"
    base, _, cutoff = metric.partition("_below_")
    return f"{DISPLAY_NAMES[base]}, below {cutoff}" if cutoff else DISPLAY_NAMES[base]


def number(value: float) -> str:
    """A value with as many decimals as its size deserves; "-" where there is none."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def interval(score: Score | Difference) -> str:
    """The 95 % interval, "-" where there is none."""
    return f"{number(score.low)} to {number(score.high)}" if math.isfinite(score.low) else "-"


def p_value(value: float) -> str:
    """A p-value as journals print it."""
    if not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(noun: str, count: int) -> str:
    """ "video", "videos", "studies"."""
    if count == 1:
        return noun
    return "studies" if noun == "study" else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """ "1 video", "3 videos", "2 studies"."""
    return f"{count} {plural(noun, count)}"
