"""Figures of a comparison: starts, differences, label efficiency, histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure

from panecho_embed.comparison.plan import Trial
from panecho_embed.comparison.result import ComparisonResult
from panecho_embed.comparison.statistics import Comparison
from panecho_embed.comparison.tables import ranked
from panecho_embed.evaluation.plots import Efficiency, histories, intervals, label_efficiency
from panecho_embed.evaluation.wording import display_name
from panecho_embed.finetune.outcome import Outcome


def comparison_figures(result: ComparisonResult) -> Iterator[tuple[str, Figure, str]]:
    """Every figure with its file's name, without suffix, and a caption."""
    for comparison in result.comparisons:
        stem = file_stem(comparison)
        caption = f"{figure_label(comparison)} with 95 % intervals; strokes: single runs; dashed: the baseline."
        yield f"{stem}-starts", _starts_figure(result, comparison), caption
        if comparison.contrasts:
            caption = f"{figure_label(comparison)}: differences to {result.reference}, paired by patient; dashed: none."
            yield f"{stem}-differences", _differences_figure(result, comparison), caption
        if len(result.fractions) > 1:
            caption = f"{figure_label(comparison)} by the patients trained on, with 95 % intervals over test patients."
            yield f"{stem}-label-efficiency", _efficiency_figure(result, comparison), caption
    yield "histories", _histories_figure(result), "Validation loss of every run at the largest fraction."


def _starts_figure(result: ComparisonResult, comparison: Comparison) -> Figure:
    standings = ranked(comparison, max(result.fractions))
    compared = [s for s in standings if s.candidate.contrasted]
    baseline = [s.scores[comparison.metric].value for s in standings if not s.candidate.contrasted]
    scores = [s.scores[comparison.metric] for s in compared]
    rows = [(s.candidate.name, score.value, score.low, score.high) for s, score in zip(compared, scores, strict=True)]
    singles = [s.by_run[comparison.metric].tolist() for s in compared]
    return intervals(rows, figure_label(comparison), reference=baseline[0] if baseline else None, singles=singles)


def _differences_figure(result: ComparisonResult, comparison: Comparison) -> Figure:
    largest = max(result.fractions)
    found = {c.first: c.difference for c in comparison.contrasts if c.fraction == largest}
    order = [s.candidate.name for s in ranked(comparison, largest) if s.candidate.name in found]
    rows = [(name, found[name].value, found[name].low, found[name].high) for name in order]
    return intervals(rows, f"{figure_label(comparison)}\ndifference to {result.reference}", reference=0)


def _efficiency_figure(result: ComparisonResult, comparison: Comparison) -> Figure:
    patients = {
        trial.fraction: float(outcome.info["counts"]["train_patients"]) for trial, outcome in result.outcomes.items()
    }
    curves = []
    for name in dict.fromkeys(s.candidate.name for s in comparison.standings if s.candidate.contrasted):
        named = [s for s in comparison.standings if s.candidate.name == name]
        named.sort(key=lambda s: s.candidate.fraction)
        scores = [s.scores[comparison.metric] for s in named]
        x = np.array([patients[s.candidate.fraction] for s in named])
        value, low, high = (np.array([getattr(score, key) for score in scores]) for key in ("value", "low", "high"))
        curves.append(Efficiency(name, x, value, low, high, like=named[0].candidate.start))
    return label_efficiency(curves, figure_label(comparison))


def _histories_figure(result: ComparisonResult) -> Figure:
    largest = max(result.fractions)
    runs = [
        (trial.init, table["epoch"].to_numpy(), table["val_loss"].to_numpy())
        for trial, outcome in _by_init(result.outcomes)
        for table in outcome.histories.values()
        if trial.fraction == largest
    ]
    return histories(runs, "validation loss")


def _by_init(outcomes: Mapping[Trial, Outcome]) -> list[tuple[Trial, Outcome]]:
    order = {init: i for i, init in enumerate(dict.fromkeys(trial.init for trial in outcomes))}
    return sorted(outcomes.items(), key=lambda item: order[item[0].init])


def figure_label(comparison: Comparison) -> str:
    """The primary metric with target and unit: "EF: MAE [%]"."""
    unit = f" [{comparison.unit}]" if comparison.unit and comparison.metric == "mae" else ""
    return f"{comparison.name}: {display_name(comparison.metric)}{unit}"


def file_stem(comparison: Comparison) -> str:
    """The comparison's name with nothing in it that a file's name can't hold."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in comparison.name)
