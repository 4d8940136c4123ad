"""What probes are called, and the paragraph that says how a result was come by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.evaluation.metrics import CALIBRATION_BINS
from panecho_embed.evaluation.wording import caution_of, few_tested
from panecho_embed.wording import plural
from probes.folds import leaking_patients

if TYPE_CHECKING:
    from probes.base import BaseProbe, Ints
    from probes.evaluation import Evaluation
    from probes.problem import Problem
    from probes.run import TargetResult

PROBE_NAMES = {
    "LinearProbe": "Linear probe",
    "KNNProbe": "Nearest-neighbour probe",
    "FaissKNNProbe": "Nearest-neighbour probe (faiss)",
    "AttentiveProbe": "Attentive probe",
}

ALPHA = 0.05


def methods_paragraph(results: Sequence[TargetResult]) -> str:
    """How results of one kind of task were come by, in the words of a methods section."""
    result = results[0]
    evaluation, problem = result.evaluation, result.evaluation.problem
    provenance = problem.provenance
    weights = provenance.weights
    origin = weights.source if weights.pretrained else f"random, untrained weights ({weights.source})"
    pieces = [
        f"Embeddings ({provenance.dim} dimensions per {provenance.level}) were computed with the {provenance.backbone} "
        f"encoder ({origin}; weights SHA-256 {weights.sha256[:12]}).",
        _level_sentence(results),
        probe_sentence(evaluation),
        split_sentence(evaluation, result.k_shot),
        f"{_tested(results)} 95% confidence intervals are percentile intervals from {evaluation.draws:,} bootstrap "
        "samples of patients, all rows of a drawn patient included.",
    ]
    if problem.task == "regression":
        pieces.append("The baseline predicts the mean of the training labels.")
    else:
        pieces.append("The baseline predicts the class frequencies of the training labels.")
    if problem.task == "binary":
        pieces.append(_threshold_sentence(evaluation))
    if problem.task != "regression":
        pieces.append(
            "Sensitivity at 90% specificity is that of the ROC curve of the tested patients. "
            f"The expected calibration error used {CALIBRATION_BINS} bins of equal width."
        )
    if result.control is not None:
        shuffles = len(next(iter(result.control.values())))
        pieces.append(f"As a control, the training labels were shuffled between patients {shuffles} times.")
    pieces.append(f"The random seed was {evaluation.seed}.")
    return " ".join(pieces)


def caution(evaluation: Evaluation) -> str:
    """What keeps the figures from being trusted as they stand; "" where nothing does."""
    leaking = leaking_patients(evaluation.folds, evaluation.problem.patient)
    notes = []
    if leaking:
        notes.append(
            f"{len(leaking)} {'patient was' if len(leaking) == 1 else 'patients were'} on two sides of a fold "
            "(--allow-leakage): what is measured is partly memory."
        )
    notes.append(caution_of(few_tested_in(evaluation.problem, evaluation.tested)))
    return " ".join(filter(None, notes))


def few_tested_in(problem: Problem, units: Ints) -> str:
    """How many patients there are in `units`, or how many of the rarest class in it, where too few; else ""."""
    return few_tested(problem.patient[units], problem.truth[units], problem.classes)


def resolution_note(differences: int, draws: int) -> str:
    """That so few bootstraps can't show so many differences; "" where they can."""
    smallest = 2 * differences / (draws + 1)
    if smallest <= ALPHA:
        return ""
    return (
        f"With {draws:,} bootstraps and {differences} differences no corrected p-value can be below "
        f"{min(smallest, 1):.2g}: take more (--draws), or fewer differences (--reference)."
    )


def _tested(results: Sequence[TargetResult]) -> str:
    if len(results) > 1:
        return "How many patients were assessed for each is given in the tables."
    score, problem = next(iter(results[0].evaluation.scores.values())), results[0].evaluation.problem
    return f"Performance was assessed on {score.n} {plural(problem.level, score.n)} of {score.n_patients} patients."


def _level_sentence(results: Sequence[TargetResult]) -> str:
    problem = results[0].evaluation.problem
    *most, last = (result.evaluation.problem.target for result in results)
    what = f"{', '.join(most)} and {last} were" if most else f"{last} was"
    what = f"{what} predicted per {problem.level}"
    if results[0].probe.pools:
        return f"{what}; the rows of a {problem.level} were pooled by learned attention."
    if problem.fusion == "late" and len(problem.unit) > len(problem):
        return f"{what}, as the mean of the predictions of its rows (late fusion)."
    pooling = problem.provenance.pooling
    return f"{what}, from embeddings pooled by {pooling} (early fusion)." if pooling else f"{what}."


def probe_sentence(evaluation: Evaluation) -> str:
    """What was trained, and how its setting was chosen."""
    return _trained(evaluation.probes[0]) + _chosen(evaluation)


def _trained(probe: BaseProbe) -> str:
    name = type(probe).__name__
    settings = probe.get_params()
    if name == "LinearProbe":
        kind = "Ridge regression" if probe.task == "regression" else "Logistic regression with an L2 penalty"
        weight = ", classes weighted by their inverse frequency" if settings["class_weight"] == "balanced" else ""
        return f"{kind} was fitted to features standardised on the training data{weight}"
    if name == "AttentiveProbe":
        layer = f"A single attention-pooling layer ({settings['heads']} heads)"
        return f"{layer} with a linear read-out was trained with AdamW"
    weights = "a softmax of the similarity" if settings["weights"] == "softmax" else f"{settings['weights']} weights"
    search = f" (faiss, {settings['index']} index)" if name == "FaissKNNProbe" else ""
    return (
        f"A nearest-neighbour probe{search} averaged the labels of the k nearest embeddings by {settings['metric']} "
        f"distance with {weights}"
    )


def _chosen(evaluation: Evaluation) -> str:
    """Which setting was chosen, by what, on whom."""
    probe, fold = evaluation.probes[0], evaluation.folds[0]
    (setting, value), *_ = probe.grid_rows()[0].items()
    what = {"alpha": "its strength", "C": "its strength", "k": "k", "epochs": "the number of epochs"}[setting]
    if not probe.chooses():
        return f"; {what} was fixed ({setting} = {value:g})."
    loss = "log loss" if setting == "C" or (setting == "epochs" and probe.task != "regression") else "squared error"
    minimised = f"; {what} minimised the {loss}"
    if not len(fold.validation):
        return f"{minimised} in {probe.folds} inner folds over the training patients."
    whose = "the validation patients" if len(evaluation.folds) == 1 else "each fold's validation patients"
    return f"{minimised} on {whose}, after which it was fitted to training and validation patients together."


def split_sentence(evaluation: Evaluation, k_shot: int | None) -> str:
    """Who was trained on and who was tested."""
    folds = evaluation.folds
    if len(folds) == 1:
        split = "The given split was used."
    elif len(folds[0].validation):
        split = f"The {len(folds)} given folds were each tested once."
    else:
        split = f"Each of {len(folds)} folds over patients was tested once by what was trained on the others."
    leaking = leaking_patients(folds, evaluation.problem.patient)
    if leaking:
        split += f" {len(leaking)} of the patients were on two sides of a fold."
    if k_shot is not None:
        of_each = "" if evaluation.problem.task == "regression" else " of each class"
        split += (
            f" Of those that might be trained on, {k_shot} {plural('patient', k_shot)}{of_each} were drawn at random."
        )
    return split


def _threshold_sentence(evaluation: Evaluation) -> str:
    if np.isfinite(evaluation.probes[0].holdout_prediction_).any():
        return "The decision threshold maximised sensitivity plus specificity on held-out training data."
    return "The decision threshold was 0.5, as nothing was held out to choose it on."
