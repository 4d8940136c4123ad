"""Figures of a result: those of `panecho_embed.evaluation.plots`, on its tested units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from panecho_embed import report
from panecho_embed.evaluation.plots import Efficiency, Predictions, label_efficiency, task_figures
from panecho_embed.evaluation.wording import display_name

if TYPE_CHECKING:
    from probes.efficiency import LabelEfficiency
    from probes.evaluation import Evaluation
    from probes.run import TargetResult


def drawings(result: TargetResult) -> dict[str, report.Figure]:
    """Every figure of a target, drawn once for its file and for the report, by file name without suffix."""
    drawn = {name: report.figure(made, caption) for name, (made, caption) in figures(result.evaluation).items()}
    if result.efficiency is not None:
        caption = f"{result.efficiency.target}. {efficiency_caption(result.efficiency)}"
        drawn["label-efficiency"] = report.figure(label_efficiency_curve(result.efficiency), caption)
    return drawn


def figures(evaluation: Evaluation) -> dict[str, tuple[Figure, str]]:
    """The figures that belong to the task, with a caption each, by file name without suffix."""
    problem, tested = evaluation.problem, evaluation.tested
    return task_figures(
        Predictions(
            label=problem.target,
            task=problem.task,
            classes=problem.classes,
            truth=problem.truth[tested],
            prediction=evaluation.prediction[tested],
            patients=problem.patient[tested].astype(str),
            scores=evaluation.scores,
            threshold=evaluation.threshold[tested],
            cutoffs=evaluation.cutoffs,
            seed=evaluation.seed,
        )
    )


def efficiency_caption(curve: LabelEfficiency) -> str:
    """What is seen in the curve and its table."""
    return f"Label efficiency: mean of {curve.values.shape[1]} draws, and the range of 95 % of them."


def label_efficiency_curve(curve: LabelEfficiency) -> Figure:
    """The metric against the number of patients trained on, with the range of 95 % of the draws."""
    band = curve.band()
    n_patients, mean, low, high = (band[name].to_numpy() for name in ("n_patients", "mean", "low", "high"))
    return label_efficiency([Efficiency(curve.target, n_patients, mean, low, high)], display_name(curve.metric))
