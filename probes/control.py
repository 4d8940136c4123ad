"""The control: what is still read from labels that were shuffled is an artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.metrics import point_values
from probes.base import BaseProbe, Floats
from probes.evaluation import predict_folds, too_few
from probes.folds import Fold, check_no_leakage
from probes.problem import Problem
from probes.scoring import make_metrics

REPEATS = 20
ATTEMPTS = 100


class ControlError(ArgumentError):
    """Labels that can't be shuffled so that a probe could still learn all classes."""


def shuffled_label_control(
    problem: Problem,
    probe: BaseProbe,
    folds: Sequence[Fold],
    *,
    cutoffs: Sequence[float] = (),
    repeats: int = REPEATS,
    seed: int = 0,
    allow_leakage: bool = False,
) -> dict[str, Floats]:
    """Every metric, (repeats,), of probes that learned from shuffled labels and were tested on the true ones.

    One shuffle says little: a direction chosen at random among few that vary much often goes with the target. Their
    mean should be that of the baseline. Raises ArgumentError naming the patients that are on both sides of a fold,
    unless `allow_leakage`, and ControlError where a class is too rare to be shuffled.
    """
    if not allow_leakage:
        check_no_leakage(folds, problem.patient)
    tested = np.concatenate([fold.test for fold in folds])
    values = []
    for repeat in range(repeats):
        truths = [
            _learnable(problem, probe, fold, np.random.default_rng([seed, repeat, i])) for i, fold in enumerate(folds)
        ]
        predicted = predict_folds(problem, probe, folds, truths)
        values.append(point_values(make_metrics(problem, tested, predicted.prediction, predicted.threshold, cutoffs)))
    return {name: np.array([value[name] for value in values]) for name in values[0]}


def _learnable(problem: Problem, probe: BaseProbe, fold: Fold, rng: np.random.Generator) -> Floats:
    """Shuffled labels in which every class still has as many patients as it takes: patients differ in their units."""
    for _ in range(ATTEMPTS):
        truth = shuffled(problem, fold, rng)
        if not too_few(replace(problem, truth=truth), probe, fold):
            return truth
    raise ControlError(
        f"{problem.target} has no control: in {ATTEMPTS} shuffles of {fold.name} a class had too few patients left"
    )


def shuffled(problem: Problem, fold: Fold, rng: np.random.Generator) -> Floats:
    """Labels (U,) in which each training patient has those of another one, so that they still come in clusters."""
    units = np.concatenate([fold.train, fold.validation])
    ids, patient = np.unique(problem.patient[units].astype(str), return_inverse=True)
    own = [units[patient == i] for i in range(len(ids))]
    truth = problem.truth.copy()
    for mine, donor in zip(own, rng.permutation(len(ids)), strict=True):
        truth[mine] = np.resize(problem.truth[own[donor]], len(mine))
    return truth
