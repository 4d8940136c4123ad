"""The figures that belong to a target, of what was predicted for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from panecho_embed.evaluation.plots.classes import calibration, confusion
from panecho_embed.evaluation.plots.curves import Ranking, precision_recall, roc
from panecho_embed.evaluation.plots.regression import bland_altman, scatter

if TYPE_CHECKING:
    from panecho_embed.evaluation.predictions import Predictions
    from panecho_embed.evaluation.scores import Scored

Drawn = dict[str, tuple[Figure, str]]


def target_figures(scored: Scored) -> Drawn:
    """The figures that belong to the kind of target, with a caption each, by file name without suffix.

    Of several trainings they show the first.
    """
    replicates = list(scored.predictions.replicates().values())
    draw = _regression_figures if scored.target.kind == "regression" else _class_figures
    made = draw(scored, replicates[0])
    if len(replicates) == 1:
        return made
    return {name: (figure, f"{text} First of {len(replicates)} trainings.") for name, (figure, text) in made.items()}


def _regression_figures(scored: Scored, rows: Predictions) -> Drawn:
    truth, prediction, label = rows.truth, rows.prediction, scored.target.title
    figures = {
        "scatter": (scatter(truth, prediction, label), "Predicted against measured; the dashed line is identity."),
        "bland-altman": (
            bland_altman(truth, prediction, scored.scores, label),
            "Bland-Altman: difference against mean; bias and 95 % limits.",
        ),
        "calibration": (
            calibration([("", truth, prediction)], "mean prediction", "mean measured"),
            "Mean measured value by tenth of the predictions.",
        ),
    }
    if scored.cutoffs:
        rankings = [
            Ranking(f"{label} < {cutoff:g}", truth < cutoff, -prediction, _area(scored, f"auroc_below_{cutoff:g}"))
            for cutoff in scored.cutoffs
        ]
        caption = "ROC at the cut-offs, by the predicted value, with 95 % bands."
        figures["roc"] = (roc(rankings, rows.patient.astype(str), scored.seed), caption)
    return figures


def _class_figures(scored: Scored, rows: Predictions) -> Drawn:
    truth, prediction, classes = rows.truth, rows.prediction, scored.target.classes
    patients, seed = rows.patient.astype(str), scored.seed
    rankings = _rankings(scored, rows)
    curves = [(ranking.name, ranking.positive.astype(float), ranking.score) for ranking in rankings]
    figures = {
        "roc": (roc(rankings, patients, seed), "ROC with 95 % bands from bootstraps over patients."),
        "precision-recall": (precision_recall(rankings, patients, seed), "Precision and recall with 95 % bands."),
        "calibration": (
            calibration(curves, "predicted probability", "observed frequency"),
            "Observed frequency by tenth of the predicted probabilities.",
        ),
    }
    decided = np.isfinite(rows.threshold) if scored.target.kind == "binary" else np.ones(len(rows), dtype=np.bool_)
    if decided.all():
        called = scored.target.called(prediction, rows.threshold)
        caption = f"{rows.level.capitalize()} rows by true and predicted class; shade is the share of the true class."
        figures["confusion"] = (confusion(truth, called, classes), caption)
    return figures


def _rankings(scored: Scored, rows: Predictions) -> list[Ranking]:
    truth, prediction, classes = rows.truth, rows.prediction, scored.target.classes
    if scored.target.kind == "binary":
        return [Ranking(classes[1], truth == 1, prediction, _area(scored, "auroc"))]
    if scored.target.kind == "ordinal":
        above = np.cumsum(prediction[:, ::-1], axis=1)[:, ::-1]
        names = [f"{name} or above" for name in classes]
        return [
            Ranking(names[i], truth >= i, above[:, i], _area(scored, f"auroc:{names[i]}"))
            for i in range(1, len(classes))
        ]
    return [
        Ranking(name, truth == i, prediction[:, i], _area(scored, f"auroc:{name}")) for i, name in enumerate(classes)
    ]


def _area(scored: Scored, metric: str) -> float:
    return scored.scores[metric].value if metric in scored.scores else float("nan")
