"""What probes are called, and the paragraph that says how a result was come by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from panecho_embed.metrics import CALIBRATION_BINS
from panecho_embed.wording import plural

if TYPE_CHECKING:
    from probes.base import BaseProbe
    from probes.run import TargetResult

PROBE_NAMES = {
    "LinearProbe": "Linear probe",
    "KNNProbe": "Nearest-neighbour probe",
    "FaissKNNProbe": "Nearest-neighbour probe (faiss)",
    "AttentiveProbe": "Attentive probe",
}


def methods_paragraph(result: TargetResult) -> str:
    """How the result was come by, in the words of a methods section."""
    evaluation, problem = result.evaluation, result.evaluation.problem
    score = next(iter(evaluation.scores.values()))
    provenance = problem.provenance
    weights = provenance.weights
    origin = weights.source if weights.pretrained else f"random, untrained weights ({weights.source})"
    pieces = [
        f"Embeddings ({provenance.dim} dimensions per {provenance.level}) were computed with the {provenance.backbone} "
        f"encoder ({origin}; weights SHA-256 {weights.sha256[:12]}).",
        _level_sentence(result),
        _probe_sentence(evaluation.probes[0]),
        _split_sentence(result),
        f"Performance was assessed on {score.n} {plural(problem.level, score.n)} of {score.n_patients} patients. "
        f"95% confidence intervals are percentile intervals from {evaluation.draws:,} bootstrap samples of patients, "
        "all rows of a drawn patient included.",
    ]
    if problem.task == "regression":
        pieces.append("The baseline predicts the mean of the training labels.")
    else:
        pieces.append("The baseline predicts the class frequencies of the training labels.")
    if problem.task == "binary":
        pieces.append("The decision threshold maximised sensitivity plus specificity on held-out training data.")
    if problem.task != "regression":
        pieces.append(f"The expected calibration error used {CALIBRATION_BINS} bins of equal width.")
    if result.control is not None:
        shuffles = len(next(iter(result.control.values())))
        pieces.append(f"As a control, the training labels were shuffled between patients {shuffles} times.")
    pieces.append(f"The random seed was {evaluation.seed}.")
    return " ".join(pieces)


def _level_sentence(result: TargetResult) -> str:
    problem = result.evaluation.problem
    what = f"{problem.target} was predicted per {problem.level}"
    if result.probe.pools:
        return f"{what}; the rows of a {problem.level} were pooled by learned attention."
    if problem.fusion == "late" and len(problem.values) > len(problem):
        return f"{what}, as the mean of the predictions of its rows (late fusion)."
    pooling = problem.provenance.pooling
    return f"{what}, from embeddings pooled by {pooling} (early fusion)." if pooling else f"{what}."


def _probe_sentence(probe: BaseProbe) -> str:
    name = type(probe).__name__
    settings = probe.get_params()
    if name == "LinearProbe":
        kind = "Ridge regression" if probe.task == "regression" else "Logistic regression with an L2 penalty"
        weight = ", classes weighted by their inverse frequency" if settings["class_weight"] == "balanced" else ""
        loss = "squared error" if probe.task == "regression" else "log loss"
        fitted = f"{kind} was fitted to features standardised on the training data{weight}"
        return f"{fitted}; its strength minimised the {loss}"
    if name == "AttentiveProbe":
        return (
            f"A single attention-pooling layer ({settings['heads']} heads) with a linear read-out was trained with "
            "AdamW; the number of epochs minimised the loss"
        )
    weights = "a softmax of the similarity" if settings["weights"] == "softmax" else f"{settings['weights']} weights"
    search = f" (faiss, {settings['index']} index)" if name == "FaissKNNProbe" else ""
    return (
        f"A nearest-neighbour probe{search} averaged the labels of the k nearest embeddings by {settings['metric']} "
        f"distance with {weights}; k minimised the squared error"
    )


def _split_sentence(result: TargetResult) -> str:
    folds = result.evaluation.folds
    inner = result.evaluation.probes[0].folds
    if len(folds) == 1 and len(folds[0].validation):
        return "on the validation patients, after which it was fitted to training and validation patients together."
    chosen = f"in {inner} inner folds over the training patients"
    if len(folds) == 1:
        return f"{chosen}. The given split was used."
    if len(folds[0].validation):
        return f"on each fold's validation patients. The {len(folds)} given folds were each tested once."
    return f"{chosen}, inside {len(folds)} outer folds over patients, each of which was tested once."
