"""Figures of an evaluation: those of `panecho_embed.plots`, on its tested units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from panecho_embed.plots import Efficiency, Predictions, label_efficiency, task_figures
from panecho_embed.wording import display_name

if TYPE_CHECKING:
    from probes.efficiency import LabelEfficiency
    from probes.evaluation import Evaluation


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


def label_efficiency_curve(curve: LabelEfficiency) -> Figure:
    """The metric against the number of patients trained on, with the range of 95 % of the draws."""
    band = curve.band()
    n_patients, mean, low, high = (band[name].to_numpy() for name in ("n_patients", "mean", "low", "high"))
    return label_efficiency([Efficiency(curve.target, n_patients, mean, low, high)], display_name(curve.metric))
